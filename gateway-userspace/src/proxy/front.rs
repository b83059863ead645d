//! What comes before HTTP on listeners that are more than plain HTTP/1.1: the TLS handshake.

use std::{net::SocketAddr, rc::Rc, sync::Arc};

use rustls::ProtocolVersion;
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::{
    client::{Client, Manner},
    connection::{self, Open},
    worker::Worker,
};
use crate::{
    observe::stats::{Handshake, TlsVersion},
    runtime::Listener,
};

/// Serves an admitted connection to its end.
pub async fn serve(stream: TcpStream, peer: SocketAddr, listener: Arc<Listener>, worker: Rc<Worker>) {
    let open = Open::new(listener, worker, peer);
    match &open.listener().tls {
        Some(acceptor) => {
            let handshake = handshake(stream, TlsAcceptor::from(acceptor.config.clone()), &open).await;
            let Some((stream, version)) = handshake else { return };
            open.set_client(Client::new(
                &open.listener().name,
                peer,
                Manner { protocol: "h1", tls: Some(version.name()) },
            ));
            connection::serve_http1(stream, open).await;
        }
        None => connection::serve_http1(stream, open).await,
    }
}

/// `None`: it failed, which the client was told if it could be.
async fn handshake(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    open: &Open,
) -> Option<(TlsStream<TcpStream>, TlsVersion)> {
    let limit = open.listener().config.timeout.header;
    let stats = open.listener().stats.shards.of(open.worker());
    let result = tokio::time::timeout(limit, acceptor.accept(stream)).await;
    match result {
        Ok(Ok(stream)) => {
            let connection = stream.get_ref().1;
            let version = match connection.protocol_version() {
                Some(ProtocolVersion::TLSv1_2) => TlsVersion::V12,
                _ => TlsVersion::V13,
            };
            let resumed = connection.handshake_kind() == Some(rustls::HandshakeKind::Resumed);
            stats.handshake(version, if resumed { Handshake::Resumed } else { Handshake::Ok });
            Some((stream, version))
        }
        Ok(Err(error)) => {
            // What was agreed on is not told of a handshake that failed.
            stats.handshake(TlsVersion::Unknown, Handshake::Failed);
            tracing::debug!(listener = %open.listener().name, %error, "TLS handshake failed");
            None
        }
        Err(_) => {
            stats.handshake(TlsVersion::Unknown, Handshake::Timeout);
            None
        }
    }
}
