//! WebSocket connections through the gateway.

use std::net::{SocketAddr, TcpStream};

use anyhow::{Result, anyhow};
use tungstenite::{Message, WebSocket};

use crate::net::Node;

/// An open WebSocket to a backend's echo.
#[derive(Debug)]
pub struct Socket(pub WebSocket<TcpStream>);

impl Socket {
    /// Connects and upgrades, within ten seconds.
    pub fn open(node: &Node, to: impl Into<SocketAddr>, path: &str) -> Result<Socket> {
        Socket::over(node.connect(to.into(), None)?, &format!("ws://gateway.test{path}"))
    }

    /// As [`Socket::open`], on a connection that is there.
    pub fn over(stream: TcpStream, url: &str) -> Result<Socket> {
        stream.set_read_timeout(Some(std::time::Duration::from_secs(10)))?;
        let (socket, _) =
            tungstenite::client(url, stream).map_err(|error| anyhow!("no WebSocket: {error}"))?;
        Ok(Socket(socket))
    }

    /// Sends a text and returns what comes back.
    pub fn echo(&mut self, text: &str) -> Result<String> {
        self.0.send(Message::text(text))?;
        loop {
            match self.0.read()? {
                Message::Text(text) => return Ok(text.to_string()),
                Message::Close(frame) => return Err(anyhow!("closed: {frame:?}")),
                _ => {}
            }
        }
    }
}
