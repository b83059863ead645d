//! A gateway between clients and backends, as most tests need it.

use anyhow::Result;

use crate::{
    backend::{Backend, start_all},
    gateway::Gateway,
    http::{Client, Response},
    lock::{Turn, shared},
    net::Net,
};

/// Ended in this order.
#[derive(Debug)]
pub struct Rig {
    pub gateway: Gateway,
    pub backends: Vec<Backend>,
    pub net: Net,
    _turn: Turn,
}

impl Rig {
    /// One client, and so many backends; the config is made of them.
    pub fn start(backends: usize, config: impl FnOnce(&[Backend]) -> String) -> Result<Rig> {
        let turn = shared()?;
        let net = Net::simple(backends)?;
        let backends = start_all(&net)?;
        let gateway = Gateway::start(&net, &config(&backends))?;
        Ok(Rig { gateway, backends, net, _turn: turn })
    }

    /// Of what was started otherwise.
    pub fn of(gateway: Gateway, backends: Vec<Backend>, net: Net, turn: Turn) -> Rig {
        Rig { gateway, backends, net, _turn: turn }
    }

    pub fn client(&self) -> Result<Client> {
        Client::connect(self.net.client(1), self.gateway.at4())
    }

    /// The answer to a method and a target, on a connection of its own.
    pub fn ask(&self, request: &str, host: &str, fields: &str) -> Result<Response> {
        let mut client = self.client()?;
        client.send(format!("{request} HTTP/1.1\r\nhost: {host}\r\n{fields}\r\n"))?;
        client.response_to(request.split(' ').next().unwrap_or_default())
    }
}
