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
        let stream = node.connect(to.into(), None)?;
        stream.set_read_timeout(Some(std::time::Duration::from_secs(10)))?;
        let (socket, _) = tungstenite::client(format!("ws://gateway.test{path}"), stream)
            .map_err(|error| anyhow!("no WebSocket: {error}"))?;
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
