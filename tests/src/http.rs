//! A client that sends exactly the bytes that a test wants, and reads answers strictly.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::net::Node;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// An answer. Header names are in lower case.
#[derive(Debug, Clone, Default)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub trailers: Vec<(String, String)>,
    /// 1xx answers that came before, without their own `interim`.
    pub interim: Vec<Response>,
}

impl Response {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Result<Value> {
        serde_json::from_slice(&self.body).with_context(|| format!("not JSON: {}", self.text()))
    }

    /// The backend that answered.
    pub fn backend(&self) -> &str {
        self.header("x-backend").unwrap_or("")
    }

    /// Checks that the gateway itself answered, and why.
    pub fn refused(&self, status: u16, why: &str) -> Result<()> {
        ensure!(self.status == status, "status {} instead of {status}: {}", self.status, self.text());
        ensure!(self.header("content-type") == Some("application/problem+json"), "{:?}", self.headers);
        let body = self.json()?;
        ensure!(body["why"] == why && body["status"] == status, "instead of {why}: {body}");
        Ok(())
    }
}

/// All values of a field that a backend's `/echo` saw.
pub fn echoed(echo: &Value, name: &str) -> Vec<String> {
    let all = echo["headers"].as_array().into_iter().flatten();
    let named = all.filter(|pair| pair[0].as_str().is_some_and(|key| key.eq_ignore_ascii_case(name)));
    named.filter_map(|pair| pair[1].as_str().map(str::to_owned)).collect()
}

/// One connection.
#[derive(Debug)]
pub struct Client {
    pub stream: TcpStream,
    unread: Vec<u8>,
}

impl Client {
    pub fn connect(node: &Node, to: impl Into<SocketAddr>) -> Result<Client> {
        Self::connect_from(node, to, None)
    }

    pub fn connect_from(node: &Node, to: impl Into<SocketAddr>, from: Option<IpAddr>) -> Result<Client> {
        let to = to.into();
        let stream =
            node.connect(to, from).with_context(|| format!("{} cannot connect to {to}", node.role))?;
        Client::over(stream)
    }

    pub fn over(stream: TcpStream) -> Result<Client> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Client { stream, unread: Vec::new() })
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> Result<()> {
        self.stream.write_all(bytes.as_ref()).context("cannot send")
    }

    /// Sends a GET and reads the answer.
    pub fn get(&mut self, path: &str) -> Result<Response> {
        self.send(format!("GET {path} HTTP/1.1\r\nhost: gateway.test\r\n\r\n"))?;
        self.response()
    }

    /// The next answer, with its interim ones.
    pub fn response(&mut self) -> Result<Response> {
        self.response_to("GET")
    }

    /// An answer to HEAD has no body, whatever its header says.
    pub fn response_to(&mut self, method: &str) -> Result<Response> {
        let mut interim = Vec::new();
        loop {
            let mut response = self.head()?;
            if (100..200).contains(&response.status) && response.status != 101 {
                interim.push(response);
                continue;
            }
            if method != "HEAD" {
                self.body(&mut response)?;
            }
            response.interim = interim;
            return Ok(response);
        }
    }

    /// One head, and nothing after it.
    pub fn head(&mut self) -> Result<Response> {
        let head = self.until(b"\r\n\r\n").context("no answer")?;
        let head = String::from_utf8(head).context("a head that is not text")?;
        let mut lines = head.trim_end().split("\r\n");
        let status = lines.next().unwrap_or("");
        ensure!(status.starts_with("HTTP/1."), "not a status line: {status}");
        let code = status.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = code.with_context(|| format!("no status code: {status}"))?;
        Ok(Response { status, headers: fields(lines)?, ..Response::default() })
    }

    fn body(&mut self, response: &mut Response) -> Result<()> {
        if matches!(response.status, 101 | 204 | 304) {
            return Ok(());
        }
        if response.header("transfer-encoding").is_some_and(|coding| coding.ends_with("chunked")) {
            while let Some(chunk) = self.chunk()? {
                response.body.extend(chunk);
            }
            let end = self.until_empty_line()?;
            response.trailers = fields(end.split("\r\n").filter(|line| !line.is_empty()))?;
        } else if let Some(length) = response.header("content-length") {
            let length = length.parse().context("content-length")?;
            response.body = self.exactly(length).context("the body ended early")?;
        } else {
            self.until_end(&mut response.body)?;
        }
        Ok(())
    }

    /// The next chunk of a chunked body; `None` for the last, which leaves the trailers to be read.
    pub fn chunk(&mut self) -> Result<Option<Vec<u8>>> {
        let line = self.until(b"\r\n").context("no chunk")?;
        let line = String::from_utf8_lossy(&line).into_owned();
        let size = line.trim().split(';').next().unwrap_or("");
        let size = usize::from_str_radix(size, 16).with_context(|| format!("a chunk of size {size:?}"))?;
        if size == 0 {
            return Ok(None);
        }
        let mut chunk = self.exactly(size + 2)?;
        chunk.truncate(size);
        Ok(Some(chunk))
    }

    /// One line, without its end.
    pub fn stream_line(&mut self) -> Result<String> {
        Ok(String::from_utf8_lossy(&self.until(b"\r\n")?).trim_end().to_owned())
    }

    fn until_empty_line(&mut self) -> Result<String> {
        let mut all = String::new();
        loop {
            let line = self.until(b"\r\n")?;
            if line == b"\r\n" {
                return Ok(all);
            }
            all.push_str(&String::from_utf8_lossy(&line));
        }
    }

    fn until(&mut self, end: &[u8]) -> Result<Vec<u8>> {
        loop {
            if let Some(at) = self.unread.windows(end.len()).position(|window| window == end) {
                let rest = self.unread.split_off(at + end.len());
                return Ok(std::mem::replace(&mut self.unread, rest));
            }
            if self.fill()? == 0 {
                bail!("closed after {:?}", String::from_utf8_lossy(&self.unread));
            }
        }
    }

    pub fn exactly(&mut self, length: usize) -> Result<Vec<u8>> {
        while self.unread.len() < length {
            ensure!(self.fill()? > 0, "closed after {} of {length} bytes", self.unread.len());
        }
        let rest = self.unread.split_off(length);
        Ok(std::mem::replace(&mut self.unread, rest))
    }

    fn until_end(&mut self, into: &mut Vec<u8>) -> Result<()> {
        while self.fill()? > 0 {}
        into.append(&mut self.unread);
        Ok(())
    }

    fn fill(&mut self) -> Result<usize> {
        let mut buffer = [0; 16 * 1024];
        let n = self.stream.read(&mut buffer).context("cannot read")?;
        self.unread.extend(buffer.iter().take(n));
        Ok(n)
    }

    /// Reads until the other side closes or resets; how many bytes came.
    pub fn until_closed(&mut self) -> Result<usize> {
        let mut bytes = std::mem::take(&mut self.unread).len();
        loop {
            match self.stream.read(&mut [0; 4096]) {
                Ok(0) => return Ok(bytes),
                Ok(n) => bytes += n,
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(bytes),
                Err(error) => return Err(error).context("still open"),
            }
        }
    }

    /// Waits until the other side closes; an error if it sends anything more or does not close in time.
    pub fn closed(&mut self, limit: Duration) -> Result<()> {
        self.stream.set_read_timeout(Some(limit))?;
        ensure!(self.unread.is_empty(), "more came: {:?}", String::from_utf8_lossy(&self.unread));
        let mut byte = [0];
        match self.stream.read(&mut byte) {
            Ok(0) => Ok(()),
            Ok(_) => bail!("more came"),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(()),
            Err(error) => Err(error).with_context(|| format!("still open after {limit:?}")),
        }
    }
}

fn fields<'a>(lines: impl Iterator<Item = &'a str>) -> Result<Vec<(String, String)>> {
    lines
        .map(|line| {
            let (name, value) = line.split_once(':').with_context(|| format!("not a field: {line:?}"))?;
            Ok((name.to_ascii_lowercase(), value.trim().to_owned()))
        })
        .collect()
}

/// GET on a connection of its own.
pub fn get(node: &Node, to: impl Into<SocketAddr>, path: &str) -> Result<Response> {
    Client::connect(node, to)?.get(path)
}

/// GET on a connection of its own, from one of the node's many addresses.
pub fn get_from(node: &Node, to: impl Into<SocketAddr>, from: IpAddr, path: &str) -> Result<Response> {
    Client::connect_from(node, to, Some(from))?.get(path)
}

/// Any request on a connection of its own.
pub fn exchange(node: &Node, to: impl Into<SocketAddr>, request: impl AsRef<[u8]>) -> Result<Response> {
    let mut client = Client::connect(node, to)?;
    client.send(request)?;
    client.response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn answered(bytes: &'static [u8]) -> Result<Response> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let to = listener.local_addr()?;
        let server =
            std::thread::spawn(move || listener.accept().and_then(|(mut peer, _)| peer.write_all(bytes)));
        let response = Client::over(TcpStream::connect(to)?)?.response();
        server.join().expect("server")?;
        response
    }

    #[test]
    fn interim_answers_chunks_and_trailers_are_told_apart() -> Result<()> {
        let response = answered(
            b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
              3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nx-end: yes\r\n\r\n",
        )?;
        assert_eq!((response.status, response.text().as_str()), (200, "abcde"));
        assert_eq!(response.interim.iter().map(|hint| hint.status).collect::<Vec<_>>(), [103]);
        assert_eq!(response.trailers, [("x-end".to_owned(), "yes".to_owned())]);
        Ok(())
    }

    #[test]
    fn a_body_that_ends_early_is_an_error() {
        assert!(answered(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nabc").is_err());
    }
}
