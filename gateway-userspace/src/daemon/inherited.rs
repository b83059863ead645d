//! Listening sockets that are open before a listener asks for them: of the process whose place this one takes, or of the
//! service manager (socket activation, sd_listen_fds(3)).

use std::{
    io,
    net::{SocketAddr, TcpListener},
};

use crate::{config::model::Bind, net::pass};

#[derive(Debug, Default)]
pub struct Inherited(Vec<One>);

#[derive(Debug)]
struct One {
    socket: TcpListener,
    origin: Origin,
}

#[derive(Debug)]
enum Origin {
    /// A listener that binds so, in the config's words.
    Process(String),
    /// A socket unit: its name, and where it listens.
    Manager(String, SocketAddr),
}

impl Inherited {
    /// What the service manager passes.
    pub fn from_manager() -> io::Result<Self> {
        let mut inherited = Inherited::default();
        for (name, fd) in pass::from_manager()? {
            let refused = |error: io::Error| {
                io::Error::new(error.kind(), format!("the socket {name} of the service manager: {error}"))
            };
            let socket = pass::listener(fd).map_err(refused)?;
            let addr = socket.local_addr()?;
            inherited.0.push(One { socket, origin: Origin::Manager(name, addr) });
        }
        Ok(inherited)
    }

    pub fn add_bound(&mut self, bind: &str, socket: TcpListener) {
        self.0.push(One { socket, origin: Origin::Process(bind.to_owned()) });
    }

    /// Those of a listener.
    pub fn take(&mut self, name: &str, bind: Bind) -> Vec<TcpListener> {
        let bound = bind.to_string();
        let fits = |one: &mut One| match &one.origin {
            Origin::Process(old) => *old == bound,
            Origin::Manager(unit, addr) => (unit == name && addr.port() == bind.port()) || is_at(bind, *addr),
        };
        self.0.extract_if(.., fits).map(|one| one.socket).collect()
    }

    /// Those of the service manager that no listener has taken, as people know them.
    pub fn left(&self) -> Vec<String> {
        let manager = self.0.iter().filter_map(|one| match &one.origin {
            Origin::Manager(name, addr) => Some(format!("{name} ({addr})")),
            Origin::Process(_) => None,
        });
        manager.collect()
    }
}

fn is_at(bind: Bind, addr: SocketAddr) -> bool {
    match bind {
        Bind::Any(port) => addr.ip().is_unspecified() && addr.port() == port,
        Bind::Addr(wanted) => addr == wanted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open() -> (TcpListener, SocketAddr) {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = socket.local_addr().unwrap();
        (socket, addr)
    }

    #[test]
    fn a_listener_takes_all_sockets_of_its_address_and_no_other() {
        let mut inherited = Inherited::default();
        let ((one, _), (two, _), (other, _)) = (open(), open(), open());
        inherited.add_bound(":80", one);
        inherited.add_bound("[::]:80", other);
        inherited.add_bound(":80", two);
        assert_eq!(inherited.take("web", Bind::Any(80)).len(), 2);
        assert_eq!(inherited.take("web", Bind::Any(80)).len(), 0);
        assert!(inherited.left().is_empty(), "a listener that is gone is no mistake");
    }

    #[test]
    fn a_managers_socket_is_known_by_its_name_or_its_address() {
        let ((one, at), (two, other)) = (open(), open());
        let unit = |name: &str, socket, addr| One { socket, origin: Origin::Manager(name.into(), addr) };
        let mut inherited = Inherited(vec![unit("web", one, at), unit("unknown", two, other)]);
        assert!(inherited.take("api", Bind::Any(at.port())).is_empty());
        assert!(inherited.take("web", Bind::Any(at.port().wrapping_add(1))).is_empty());
        assert_eq!(inherited.take("web", Bind::Any(at.port())).len(), 1);
        assert_eq!(inherited.left(), [format!("unknown ({other})")]);
        assert_eq!(inherited.take("api", Bind::Addr(other)).len(), 1);
        assert!(is_at(Bind::Any(80), "[::]:80".parse().unwrap()));
        assert!(!is_at(Bind::Any(80), "127.0.0.1:80".parse().unwrap()));
    }
}
