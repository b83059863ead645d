//! What comes before HTTP on listeners that are more than plain HTTP/1.1: the PROXY header, the TLS handshake, and
//! telling HTTP/2 from HTTP/1.1.

use std::{
    cell::Cell,
    io,
    net::SocketAddr,
    rc::Rc,
    time::{Duration, Instant},
};

use tokio::{io::ReadBuf, net::TcpStream};
use tokio_rustls::{LazyConfigAcceptor, TlsAcceptor, server::TlsStream};

use super::{
    client::{Client, Manner, Origin},
    connection::{self, Admitted, Open},
    http2,
    timer::Wait,
    transport::Transport,
    worker::Worker,
};
use crate::{
    auth,
    config::model::CertMark,
    observe::{
        Why,
        stats::{Handshake, ProxyHeader, TlsVersion},
    },
    proxy_protocol::{self, Says},
    tls::{Acceptor, Rules, Shaken, acme},
};

/// Between two looks at a preface that comes byte by byte.
const PAUSE: Duration = Duration::from_millis(10);

/// Serves an admitted connection to its end.
pub async fn serve(mut stream: TcpStream, peer: SocketAddr, admitted: Admitted, worker: Rc<Worker>) {
    let open = Open::new(admitted, worker, peer);
    // Of a source that a proxy tells.
    let mut _held = None;
    let mut origin = Origin::peer(peer);
    if open.listener().tells {
        origin.destination = stream.local_addr().ok();
    }
    let listener = open.listener();
    if listener.hears_of_clients(peer) {
        // Boxed: the future of connections without it stays small.
        match Box::pin(proxy_header(&mut stream, &open)).await {
            Some(Says::Proxied { source, destination }) => {
                origin = Origin { source, destination: Some(destination), ..origin };
                if let Some(sources) = &listener.sources {
                    let source = (origin.source.ip(), false);
                    match connection::hold(sources, listener, &open.state.worker, source) {
                        Some(held) => _held = held,
                        None => return connection::turn_away(&stream),
                    }
                }
            }
            Some(Says::Local | Says::Unknown) => {}
            None => return,
        }
        if let (Some(_), Some(sources)) = (&listener.tls, &listener.sources) {
            let source = origin.source.ip();
            let source = (source, source == origin.peer.ip());
            if !connection::may_shake(sources, listener, &open.state.worker, source) {
                return connection::turn_away(&stream);
            }
        }
    }
    match &listener.tls {
        Some(acceptor) => {
            let began = Instant::now();
            match is_plain_http(&stream, &open).await {
                Some(false) => {}
                Some(true) => {
                    let client = Client::new(origin, Manner::PLAIN_HTTP1);
                    open.set_client(client);
                    return Box::pin(connection::refuse(stream, &open.state, Why::PlainHttp)).await;
                }
                None => return,
            }
            // Boxed, as what follows is: a connection holds what its phase needs, and not what the largest one would.
            let handshake = Box::pin(handshake(stream, acceptor, &open, began)).await;
            let Some((stream, version, agreed)) = handshake else { return };
            let spoken = stream.get_ref().1.alpn_protocol();
            // An ACME authority has seen what it wanted to see: the certificate (RFC 8737 section 3).
            if spoken == Some(acme::ALPN) {
                return;
            }
            let http2 = spoken == Some(b"h2");
            go_on(stream, open, origin, (http2, Some(version.name())), agreed).await;
        }
        None => {
            if let Some(http2) = sniff(&stream, &open).await {
                go_on(stream, open, origin, (http2, None), Agreed::default()).await;
            }
        }
    }
}

/// What a handshake came to.
#[derive(Default)]
struct Agreed {
    /// Of the client's certificate.
    marks: Option<Rc<[CertMark]>>,
    rules: Rules,
    /// For a trace, if there are any.
    shaken: Option<Box<Shaken>>,
    took: Option<Duration>,
}

/// What the client's certificate says, which the handshake has checked.
fn marks(stream: &TlsStream<TcpStream>) -> Option<Rc<[CertMark]>> {
    let leaf = stream.get_ref().1.peer_certificates()?.first()?;
    Some(auth::marks(leaf).into())
}

async fn go_on<S: Transport>(
    stream: S,
    open: Open,
    origin: Origin,
    (http2, tls): (bool, Option<&'static str>),
    Agreed { marks, rules, shaken, took }: Agreed,
) {
    let protocol = if http2 { "h2" } else { "h1" };
    let mut client = Client::new(origin, Manner { protocol, tls });
    client.marks = marks;
    client.rules = rules;
    client.shaken = Cell::new(shaken);
    client.shook = Cell::new(took);
    open.set_client(client);
    match http2 {
        true => Box::pin(http2::serve(stream, open)).await,
        // A client that does not know ALPN, of a listener that speaks nothing else.
        false if !open.listener().config.http1 => {}
        false => Box::pin(connection::serve_http1(stream, open)).await,
    }
}

/// What the proxy in front says. `None`: it does not say it, and its connection is refused.
async fn proxy_header(stream: &mut TcpStream, open: &Open) -> Option<Says> {
    let limit = open.listener().config.timeout.header;
    let read = tokio::time::timeout(limit, proxy_protocol::read(stream)).await;
    let result = read.as_ref().map_or(ProxyHeader::Timeout, ProxyHeader::of);
    open.listener().stats.shards.of(open.worker()).proxy_header(result);
    match read {
        Ok(Ok(header)) => Some(header.says),
        Ok(Err(error)) => {
            let peer = open.state.client().origin.peer;
            tracing::debug!(listener = %open.listener().name, %peer, %error, "connection refused");
            None
        }
        Err(_) => None,
    }
}

/// Whether the client speaks HTTP/2, in clear: it begins with "PRI " then (RFC 9113 section 3.4), which no HTTP/1.1
/// request does. `None`: it is gone.
async fn sniff(stream: &TcpStream, open: &Open) -> Option<bool> {
    const PREFACE: &[u8] = b"PRI ";
    let listener = open.listener();
    if !(listener.config.http1 && listener.config.http2) {
        return Some(listener.config.http2);
    }
    let now = Instant::now();
    let until = now + listener.config.timeout.header;
    open.state.fresh(now);
    open.state.timer.start(Wait::Idle, now + listener.config.timeout.idle);
    loop {
        let mut start = [0; PREFACE.len()];
        let mut into = ReadBuf::new(&mut start);
        let peeked = connection::unless_over(&open.state, |cx| stream.poll_peek(cx, &mut into)).await;
        let n = peeked?.ok()?;
        let start = &start[..n];
        if n == PREFACE.len() || n == 0 || !PREFACE.starts_with(start) {
            return Some(start == PREFACE);
        }
        // What is there stays there, so the socket cannot tell when there is more. Nobody writes so few bytes at once.
        if Instant::now() > until {
            return None;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Whether a request comes where a handshake should: no record of TLS begins with a capital letter (RFC 8446 section 5.1).
/// `None`: nothing comes in time.
async fn is_plain_http(stream: &TcpStream, open: &Open) -> Option<bool> {
    let mut first = [0];
    let stats = open.listener().stats.shards.of(open.worker());
    match tokio::time::timeout(open.listener().config.timeout.header, stream.peek(&mut first)).await {
        Ok(Ok(1)) if first[0].is_ascii_uppercase() => {
            stats.handshake(TlsVersion::Unknown, Handshake::Failed);
            Some(true)
        }
        Ok(_) => Some(false),
        Err(_) => {
            stats.handshake(TlsVersion::Unknown, Handshake::Timeout);
            None
        }
    }
}

/// `began`: with the wait for its first byte. `None`: it failed, which the client was told if it could be.
async fn handshake(
    stream: TcpStream,
    acceptor: &Acceptor,
    open: &Open,
    began: Instant,
) -> Option<(TlsStream<TcpStream>, TlsVersion, Agreed)> {
    let limit = open.listener().config.timeout.header;
    let stats = open.listener().stats.shards.of(open.worker());
    match tokio::time::timeout_at((began + limit).into(), shake(stream, acceptor)).await {
        Ok(Ok((stream, rules))) => {
            let took = Some(began.elapsed());
            let connection = stream.get_ref().1;
            let version = TlsVersion::of(connection);
            stats.handshake(version, Handshake::of(connection));
            let traced = open.state.worker.snapshot().tracer.is_some();
            let shaken = traced.then(|| Box::new(Shaken::now(began, connection)));
            let marks = marks(&stream);
            Some((stream, version, Agreed { marks, rules, shaken, took }))
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

/// By the rules of the name that is asked for, where names have their own.
async fn shake(stream: TcpStream, acceptor: &Acceptor) -> io::Result<(TlsStream<TcpStream>, Rules)> {
    if !acceptor.goes_by_name() {
        let stream = TlsAcceptor::from(acceptor.config()).accept(stream).await?;
        return Ok((stream, Rules::default()));
    }
    let start = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), stream).await?;
    let (rules, config) = acceptor.config_for(start.client_hello().server_name());
    Ok((start.into_stream(config).await?, rules))
}
