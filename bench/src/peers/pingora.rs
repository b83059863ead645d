//! Pingora, as a proxy of its own made for this bench (`bench/pingora`), which `cargo xtask bench` builds.

use anyhow::{Result, bail};
use lab::{
    net::Namespace,
    peers::{Peer, folder, run},
    tools,
};

use super::Places;

/// One worker thread.
pub fn pingora(namespace: &Namespace, places: Places<'_>, cpu: usize) -> Result<Peer> {
    if tools::missing("pingora-peer") {
        bail!("pingora-peer is not built");
    }
    let mut arguments = [places.listen, places.backend, places.grpc].map(|addr| addr.to_string()).to_vec();
    if let Some((listen, certificate)) = places.tls {
        let files = [certificate.chain(), certificate.key()].map(|file| file.display().to_string());
        arguments.push(listen.to_string());
        arguments.extend(files);
    }
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    run(namespace, "pingora-peer", &arguments, folder()?, places.listen, Some(cpu))
}
