//! The real curl, as a client.

use std::process::Stdio;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::net::Node;

/// What became of one transfer.
#[derive(Debug, Clone)]
pub struct Curl {
    /// curl's exit code.
    pub code: i32,
    pub status: u16,
    /// "1.1", "2"
    pub version: String,
    /// Head and body.
    pub head: String,
    pub body: Vec<u8>,
    pub errors: String,
}

const MARK: &str = "\n--curl--";

impl Curl {
    /// One transfer. Arguments are curl's own; it is given 20 seconds.
    pub fn run(node: &Node, arguments: &[&str]) -> Result<Curl> {
        let mut command = node.namespace.command("curl")?;
        command.args(["-sS", "-i", "--max-time", "20", "-w", "\n--curl--%{http_code} %{http_version}"]);
        command.args(arguments).stdin(Stdio::null());
        let output = command.output().context("cannot run curl")?;
        let at = output.stdout.windows(MARK.len()).rposition(|window| window == MARK.as_bytes());
        let at = at.unwrap_or(output.stdout.len());
        let (answer, told) = output.stdout.split_at(at);
        let told = String::from_utf8_lossy(told).replace(MARK, "");
        let mut told = told.split(' ');
        let end = last_head(answer);
        Ok(Curl {
            code: output.status.code().unwrap_or(-1),
            status: told.next().and_then(|code| code.parse().ok()).unwrap_or(0),
            version: told.next().unwrap_or("").to_owned(),
            head: String::from_utf8_lossy(answer.get(..end).unwrap_or(&[])).to_ascii_lowercase(),
            body: answer.get(end..).unwrap_or(&[]).to_vec(),
            errors: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Result<Value> {
        serde_json::from_slice(&self.body).with_context(|| format!("not JSON: {self:?}"))
    }

    /// Of the last answer.
    pub fn header(&self, name: &str) -> Option<&str> {
        let head = self.head.trim_end().rsplit("\r\n\r\n").next().unwrap_or("");
        head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

/// Where the heads end: interim answers come before the one that counts.
fn last_head(answer: &[u8]) -> usize {
    let mut at = 0;
    while answer.get(at..).is_some_and(|rest| rest.starts_with(b"HTTP/")) {
        let rest = answer.get(at..).unwrap_or(&[]);
        match rest.windows(4).position(|window| window == b"\r\n\r\n") {
            Some(end) => at += end + 4,
            None => break,
        }
    }
    at
}
