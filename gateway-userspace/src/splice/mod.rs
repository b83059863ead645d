//! L4 services through userspace (`path = "splice"`): for hosts without XDP, and for what a kernel cannot see: the name
//! that a client asks for by TLS, the PROXY protocol, TLS that ends here.
//!
//! A connection is one task of its worker. [`serve`] tells its story; [`passage`] is what is known of it and writes the
//! log line when it ends, however it ends.

mod hello;
mod passage;
mod relay;
pub mod udp;

use std::{io, net::SocketAddr, rc::Rc, sync::Arc, time::Instant};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use self::{passage::Passage, relay::Side};
use crate::{
    balance::Tried,
    observe::{
        Why,
        stats::{Handshake, ProxyHeader, TlsVersion},
    },
    proxy::worker::Worker,
    proxy_protocol::{self, Says},
    service::{Service, Spliced},
    tls::Acceptor,
    upstream::link::connect,
};

pub use passage::admit;

/// Targets that are tried, one after another.
const TRIES: usize = 3;

/// Serves an admitted connection to its end. `acceptor`: TLS ends here.
pub async fn serve(
    stream: TcpStream,
    peer: SocketAddr,
    service: Arc<Service>,
    acceptor: Option<Arc<Acceptor>>,
    worker: Rc<Worker>,
) {
    let Some(splice) = service.splice.clone() else { return };
    let mut passage = Passage::new(service, splice.clone(), worker, peer);
    let carried = carry(stream, &splice, acceptor, &mut passage).await;
    passage.end(carried.err());
}

async fn carry(
    mut stream: TcpStream,
    splice: &Spliced,
    acceptor: Option<Arc<Acceptor>>,
    passage: &mut Passage,
) -> Result<(), Why> {
    let limit = passage.config().timeout.header;
    let begin = async {
        proxy_header(&mut stream, splice, passage).await?;
        match acceptor {
            Some(acceptor) => Ok(Begun::Terminated(Box::new(handshake(stream, &acceptor, passage).await?))),
            None if splice.by_name() => {
                let read = asked_name(&mut stream, passage).await?;
                Ok(Begun::Passed(stream, read))
            }
            None => Ok(Begun::Passed(stream, Vec::new())),
        }
    };
    let begun = timeout(limit, begin).await;
    match begun.unwrap_or_else(|_| Err(passage.late()))? {
        Begun::Terminated(client) => relayed(*client, &[], splice, passage).await,
        Begun::Passed(client, read) => relayed(client, &read, splice, passage).await,
    }
}

/// A client whose bytes may go on.
enum Begun {
    /// With what was read of them already.
    Passed(TcpStream, Vec<u8>),
    Terminated(Box<TlsStream<TcpStream>>),
}

async fn proxy_header(stream: &mut TcpStream, splice: &Spliced, passage: &mut Passage) -> Result<(), Why> {
    if let Ok(local) = stream.local_addr() {
        passage.set_destination(local);
    }
    let expected = passage.config().proxy_protocol.as_ref();
    if !expected.is_some_and(|proxy| proxy.from.contain(passage.peer().ip())) {
        return Ok(());
    }
    passage.awaits_header(true);
    let read = proxy_protocol::read(stream).await;
    passage.awaits_header(false);
    splice.stats.shards.of(passage.worker()).proxy_header(ProxyHeader::of(&read));
    match read {
        Ok(header) => {
            if let Says::Proxied { source, destination } = header.says {
                passage.set_source(source);
                passage.set_destination(destination);
            }
            Ok(())
        }
        Err(error) => {
            tracing::debug!(service = %passage.name(), peer = %passage.peer(), %error, "connection refused");
            Err(Why::ProxyHeader)
        }
    }
}

/// Reads a client's first bytes until they tell which name it asks for. They go on as they are.
async fn asked_name(stream: &mut TcpStream, passage: &mut Passage) -> Result<Vec<u8>, Why> {
    let mut read = Vec::with_capacity(2048);
    loop {
        match hello::asked_name(&read) {
            Ok(Some(name)) => {
                passage.set_asked(name);
                return Ok(read);
            }
            Ok(None) => {}
            Err(error) => {
                tracing::debug!(service = %passage.name(), peer = %passage.peer(), %error, "connection refused");
                return Err(Why::TlsFailed);
            }
        }
        match stream.read_buf(&mut read).await {
            Ok(0) | Err(_) => return Err(Why::ClientGone),
            Ok(_) => {}
        }
    }
}

async fn handshake(
    stream: TcpStream,
    acceptor: &Acceptor,
    passage: &mut Passage,
) -> Result<TlsStream<TcpStream>, Why> {
    let began = Instant::now();
    let stream = match TlsAcceptor::from(acceptor.config()).accept(stream).await {
        Ok(stream) => stream,
        Err(error) => {
            passage.handshake(TlsVersion::Unknown, Handshake::Failed);
            tracing::debug!(service = %passage.name(), %error, "TLS handshake failed");
            return Err(Why::TlsFailed);
        }
    };
    let connection = stream.get_ref().1;
    passage.handshake(TlsVersion::of(connection), Handshake::of(connection));
    passage.handshake_took(began.elapsed());
    passage.set_asked(connection.server_name().map(str::to_ascii_lowercase));
    Ok(stream)
}

/// Connects a client to a target and carries bytes until both are done. `read`: what the client sent already.
async fn relayed<S: Client>(
    mut client: S,
    read: &[u8],
    splice: &Spliced,
    passage: &mut Passage,
) -> Result<(), Why> {
    let mut upstream = match connected(splice, passage).await {
        Ok(upstream) => upstream,
        Err(why) => {
            client.refuse(why).await;
            return Err(why);
        }
    };
    if upstream.write_all(read).await.is_err() {
        client.reset();
        return Err(Why::UpstreamReset);
    }
    passage.traffic.up.set(read.len() as u64);
    let idle = passage.config().timeout.idle;
    let result =
        relay::run(&mut client, &mut upstream, idle, || passage.tell_bytes(), &passage.traffic).await;
    // What one side did not get to the end of must not look whole to it.
    match result {
        Ok(()) => Ok(()),
        Err(Side::Client) => {
            reset(&upstream);
            Err(Why::ClientGone)
        }
        Err(Side::Upstream) => {
            client.reset();
            Err(Why::UpstreamReset)
        }
        Err(Side::Neither) => {
            reset(&upstream);
            client.reset();
            Err(Why::IdleTimeout)
        }
    }
}

/// A connection to one of the targets that the client's name, or the want of one, leads to.
async fn connected(splice: &Spliced, passage: &mut Passage) -> Result<TcpStream, Why> {
    let group = splice.group(passage.asked()).ok_or(Why::NoRoute)?;
    let limit = passage.config().timeout.connect;
    let header = passage.announcement();
    let mut tried = Tried::default();
    let mut failed = Why::NoHealthyTarget;
    for _ in 0..TRIES {
        let Some(active) = group.pick(passage.source(), &mut tried) else { break };
        let (began, addr) = (Instant::now(), active.target().addr);
        passage.try_target(active);
        let result = timeout(limit, connect(addr, header.as_deref())).await;
        passage.connecting_took(began.elapsed());
        failed = match result {
            Ok(Ok(stream)) => {
                passage.connected();
                return Ok(stream);
            }
            Ok(Err(error)) => {
                tracing::debug!(service = %passage.name(), target = %addr, %error, "cannot connect");
                Why::UpstreamConnectRefused
            }
            Err(_) => Why::UpstreamConnectTimeout,
        };
    }
    Err(failed)
}

/// A client's side of a connection.
trait Client: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin {
    fn socket(&self) -> &TcpStream;

    /// It is closed without its bytes having gone anywhere.
    async fn refuse(&mut self, why: Why);

    fn reset(&self) {
        reset(self.socket());
    }
}

impl Client for TcpStream {
    fn socket(&self) -> &TcpStream {
        self
    }

    /// A client that asks for a name that leads nowhere is told so as TLS does (RFC 6066 section 3).
    async fn refuse(&mut self, why: Why) {
        const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];
        if why == Why::NoRoute {
            // It may be gone, and that is all the same.
            let _ = self.write_all(&UNRECOGNIZED_NAME).await;
        }
    }
}

impl Client for TlsStream<TcpStream> {
    fn socket(&self) -> &TcpStream {
        self.get_ref().0
    }

    async fn refuse(&mut self, _: Why) {}
}

/// The close that follows is no orderly end.
fn reset(socket: &TcpStream) {
    let result: io::Result<()> = socket2::SockRef::from(socket).set_linger(Some(std::time::Duration::ZERO));
    // Without it the other side sees an end, which is all that can be done.
    let _ = result;
}
