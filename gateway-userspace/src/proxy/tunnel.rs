//! An upgraded connection: bytes both ways until one side is done.

use bytes::Bytes;
use tokio::{
    io::{AsyncWriteExt, copy_bidirectional},
    net::TcpStream,
};

use super::{exchange::Exchange, transport::Transport};
use crate::upstream::http1::Connection;

/// A 101 was received from an upstream and is being passed on.
pub struct Tunnel {
    upstream: TcpStream,
    /// What the upstream sent behind its 101.
    read: Bytes,
    exchange: Exchange,
}

impl Tunnel {
    pub fn new(connection: Connection, exchange: Exchange) -> Self {
        let (upstream, read) = connection.into_upgraded();
        Tunnel { upstream, read, exchange }
    }
}

/// Carries bytes until both sides have closed, or one failed. `read`: what the client sent behind its request.
/// The request ends, and stops counting as active on its target, when this returns.
pub async fn run(mut tunnel: Tunnel, mut client: impl Transport, read: Bytes) {
    let state = tunnel.exchange.state.clone();
    state.timer.stop();
    let result = async {
        tunnel.upstream.write_all(&read).await?;
        client.write_all(&tunnel.read).await?;
        copy_bidirectional(&mut client, &mut tunnel.upstream).await
    }
    .await;
    if let Ok((from_client, from_upstream)) = result {
        state.bytes_in.set(from_client + read.len() as u64);
        tunnel.exchange.add_bytes_out(from_upstream + tunnel.read.len() as u64);
    }
    tunnel.exchange.complete();
}
