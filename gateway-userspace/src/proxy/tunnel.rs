//! An upgraded connection: bytes both ways until one side is done.

use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, copy_bidirectional},
    net::TcpStream,
};

use super::exchange::Exchange;
use crate::upstream::link::Link;

/// What carries the bytes of one side.
pub enum Pipe {
    Plain(TcpStream),
    Other(Box<dyn Duplex>),
}

pub trait Duplex: AsyncRead + AsyncWrite + Unpin {}

impl<S: AsyncRead + AsyncWrite + Unpin> Duplex for S {}

/// A 101 was received from an upstream and is being passed on.
pub struct Tunnel {
    upstream: Pipe,
    /// What the upstream sent behind its 101.
    read: Bytes,
    exchange: Exchange,
}

impl Tunnel {
    /// `None`: its connection is not one that is upgraded.
    pub fn new(connection: Link, exchange: Exchange) -> Option<Self> {
        let (upstream, read) = connection.into_upgraded()?;
        Some(Tunnel { upstream, read, exchange })
    }
}

/// Carries bytes until both sides have closed, or one failed. `read`: what the client sent behind its request.
/// The request ends, and stops counting as active on its target, when this returns.
pub async fn run(tunnel: Tunnel, client: impl Duplex, read: Bytes) {
    match tunnel.upstream {
        Pipe::Plain(upstream) => carry(upstream, tunnel.read, client, read, tunnel.exchange).await,
        Pipe::Other(upstream) => carry(upstream, tunnel.read, client, read, tunnel.exchange).await,
    }
}

async fn carry(
    mut upstream: impl Duplex,
    from_upstream: Bytes,
    mut client: impl Duplex,
    from_client: Bytes,
    exchange: Exchange,
) {
    let state = exchange.state.clone();
    state.timer.stop();
    let result = async {
        upstream.write_all(&from_client).await?;
        client.write_all(&from_upstream).await?;
        upstream.flush().await?;
        client.flush().await?;
        copy_bidirectional(&mut client, &mut upstream).await
    }
    .await;
    if let Ok((sent, received)) = result {
        state.bytes_in.set(sent + from_client.len() as u64);
        exchange.add_bytes_out(received + from_upstream.len() as u64);
    }
    exchange.complete();
}
