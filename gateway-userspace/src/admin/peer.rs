//! Who asks.

use std::net::IpAddr;

use axum::{extract::connect_info::Connected, serve::IncomingStream};
use tokio::net::UnixListener;

#[derive(Debug, Clone, Copy)]
pub enum Peer {
    /// The user that connected to the admin socket, as the kernel knows it.
    User { uid: Option<u32>, pid: Option<i32> },
    /// Whoever has the token.
    Remote(IpAddr),
}

impl Connected<IncomingStream<'_, UnixListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        let cred = stream.io().peer_cred().ok();
        Peer::User { uid: cred.map(|cred| cred.uid()), pid: cred.and_then(|cred| cred.pid()) }
    }
}

impl Peer {
    /// Its process, where that is of this host.
    pub fn pid(self) -> Option<i32> {
        match self {
            Peer::User { pid, .. } => pid,
            Peer::Remote(_) => None,
        }
    }

    /// The user's name, or "uid 1000" where /etc/passwd has none; "token from 192.0.2.1".
    pub fn name(self) -> String {
        let uid = match self {
            Peer::User { uid: Some(uid), .. } => uid,
            Peer::User { uid: None, .. } => return "unknown".into(),
            Peer::Remote(addr) => return format!("token from {addr}"),
        };
        let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
        user(&users, uid).unwrap_or_else(|| format!("uid {uid}"))
    }
}

/// The name of a user in what passwd(5) describes.
fn user(passwd: &str, uid: u32) -> Option<String> {
    let uid = uid.to_string();
    let named = |line: &str| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == uid).then(|| name.to_owned())
    };
    passwd.lines().find_map(named)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_their_number() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nodd\nann:x:1000:100::/home/ann:/bin/sh\n";
        assert_eq!(user(passwd, 0), Some("root".into()));
        assert_eq!(user(passwd, 1000), Some("ann".into()));
        assert_eq!(user(passwd, 100), None);
    }
}
