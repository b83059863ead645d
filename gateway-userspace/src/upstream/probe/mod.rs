//! One look at a target: whether it takes part, and how.

mod grpc;
mod http2;

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    pin::pin,
};

use bytes::Bytes;
use http::{Request, header};
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use tokio::{net::UdpSocket, time::timeout};

use super::link::{ConnectError, Raw, dial};
use crate::{
    config::model::{Health, HealthCheck, UpstreamProtocol},
    net::Spare,
    tls::Connector,
};

const AGENT: &str = concat!("gateway/", env!("CARGO_PKG_VERSION"), " health-check");

type Failure = Box<dyn std::error::Error>;

/// What is looked at.
pub struct Probed<'a> {
    pub addr: SocketAddr,
    /// The address as text.
    pub name: &'a str,
    /// The PROXY header that says that nobody else is asking.
    pub header: Option<&'a [u8]>,
    /// `None`: in clear.
    pub tls: Option<&'a Connector>,
    pub protocol: UpstreamProtocol,
}

/// How a target that takes part showed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    Came,
    /// Nothing came, and nothing had to.
    Silence,
    /// The gateway has no descriptor left to ask with, which says nothing of the target.
    Unasked,
}

/// One check; `Err` says why it failed.
pub async fn check(target: &Probed<'_>, health: &Health) -> Result<Answer, String> {
    let silent = || format!("no answer within {:?}", health.timeout);
    if !Spare::is_there() {
        return Ok(Answer::Unasked);
    }
    match &health.check {
        HealthCheck::Tcp => {
            timeout(health.timeout, connect(target)).await.map_err(|_| silent())?.map(|_| Answer::Came)
        }
        HealthCheck::Http { path, expect } => {
            let asked = timeout(health.timeout, ask(target, path, expect)).await;
            asked.map_err(|_| silent())?.map(|()| Answer::Came)
        }
        HealthCheck::Grpc { service } => {
            let asked = timeout(health.timeout, grpc::serves(target, service)).await;
            asked.map_err(|_| silent())?.map(|()| Answer::Came)
        }
        HealthCheck::Udp { send, answer } => {
            match timeout(health.timeout, exchange(target.addr, send)).await {
                Ok(Ok(())) => Ok(Answer::Came),
                Ok(Err(error)) => Err(format!("cannot reach it: {error}")),
                // Nothing came, not even "port unreachable".
                Err(_) if *answer => Err(silent()),
                Err(_) => Ok(Answer::Silence),
            }
        }
    }
}

/// Also: whether it is to speak HTTP/2.
async fn connect(target: &Probed<'_>) -> Result<(Raw, bool), String> {
    dial(target.addr, target.header, target.tls, target.protocol).await.map_err(|error| match error {
        ConnectError::Refused(error) => format!("cannot connect: {error}"),
        error => error.to_string(),
    })
}

async fn ask(target: &Probed<'_>, path: &str, expect: &[u16]) -> Result<(), String> {
    let status = match connect(target).await? {
        (raw, true) => http2::get(raw, target, path).await,
        (Raw::Plain(stream), false) => get(TokioIo::new(stream), target.name, path).await,
        (Raw::Tls(stream, _), false) => get(TokioIo::new(stream), target.name, path).await,
    };
    let status = status.map_err(|error| format!("bad answer: {error}"))?;
    let fine = if expect.is_empty() { (200..300).contains(&status) } else { expect.contains(&status) };
    if fine { Ok(()) } else { Err(format!("status {status}")) }
}

/// Sends a datagram and waits for one. The socket is connected, so that ICMP errors come back as its errors.
async fn exchange(addr: SocketAddr, send: &[u8]) -> std::io::Result<()> {
    let any: IpAddr =
        if addr.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(addr).await?;
    socket.send(send).await?;
    socket.recv(&mut [0; 1]).await.map(drop)
}

async fn get<S>(stream: S, host: &str, path: &str) -> Result<u16, Failure>
where
    S: hyper::rt::Read + hyper::rt::Write + Unpin + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await?;
    let request = Request::get(path)
        .header(header::HOST, host)
        .header(header::USER_AGENT, AGENT)
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())?;
    let mut answer = pin!(sender.send_request(request));
    // The connection has to be polled for the answer to come, and may well end together with it.
    let response = tokio::select! {
        biased;
        response = &mut answer => response?,
        ended = connection => {
            ended?;
            answer.await?
        }
    };
    Ok(response.status().as_u16())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(addr: SocketAddr) -> Probed<'static> {
        Probed { addr, name: "", header: None, tls: None, protocol: UpstreamProtocol::Http1 }
    }

    fn udp(send: &[u8], answer: bool) -> Health {
        Health {
            check: HealthCheck::Udp { send: send.to_vec(), answer },
            every: Duration::from_secs(1),
            timeout: Duration::from_millis(100),
            rise: 1,
            fall: 1,
        }
    }

    #[tokio::test]
    async fn a_udp_check_tells_silence_from_refusal() {
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let addr = server.local_addr().unwrap();
        assert_eq!(check(&at(addr), &udp(b"", false)).await, Ok(Answer::Silence));
        assert!(
            check(&at(addr), &udp(b"ping", true)).await.is_err_and(|why| why.contains("no answer within"))
        );

        let answering = tokio::spawn(async move {
            let mut buffer = [0; 64];
            loop {
                let (n, from) = server.recv_from(&mut buffer).await.unwrap();
                if &buffer[..n] == b"hello" {
                    server.send_to(b"hi", from).await.unwrap();
                }
            }
        });
        assert_eq!(check(&at(addr), &udp(b"hello", true)).await, Ok(Answer::Came));
        answering.abort();
        let _ = answering.await;
        for answer in [false, true] {
            let refused = check(&at(addr), &udp(b"hello", answer)).await;
            assert!(refused.is_err_and(|why| why.contains("cannot reach it")), "nobody listens any more");
        }
    }
}
