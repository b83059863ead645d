//! Active health checks: one task a target, on the control thread.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    pin::pin,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Request, header};
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use tokio::{
    io::AsyncWriteExt,
    net::{TcpStream, UdpSocket},
    task::JoinHandle,
    time::timeout,
};

use crate::{
    config::model::{Health, HealthCheck},
    proxy_protocol::{self, Version},
};

/// A target of an upstream or a service, as the checks see it.
pub trait Checked {
    fn health(&self) -> &Health;
    /// Its address, and that as text.
    fn target(&self) -> (SocketAddr, &str);
    fn healthy(&self) -> bool;
    /// What connections to it begin with.
    fn proxy_protocol(&self) -> Option<Version>;
    /// Keeps what a check found, for `status`.
    fn found(&self, what: String);
    /// Enough checks in a row say that it is healthy, or why it is not.
    fn change(&self, result: Result<(), String>);
}

/// The running checks of a snapshot; dropping them stops them.
#[derive(Default)]
pub struct Checks(Vec<JoinHandle<()>>);

impl Drop for Checks {
    fn drop(&mut self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}

impl Checks {
    /// Must be called inside the control thread's runtime.
    pub fn start(targets: impl Iterator<Item = Box<dyn Checked>>) -> Self {
        Checks(targets.map(|target| tokio::task::spawn_local(watch(target))).collect())
    }
}

/// How a target that takes part showed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Came,
    /// Nothing came, and nothing had to.
    Silence,
}

/// Hosts send "port unreachable" about once a second and destination (Linux: net.ipv4.icmp_ratelimit), however often
/// they are asked: for so long after one, silence is no good sign.
const QUIET: Duration = Duration::from_secs(3);

/// When a check last failed by more than silence.
struct Refused(Option<Instant>);

impl Refused {
    /// Whether this is a success, knowing those before.
    fn judge(&mut self, result: Result<Answer, String>, now: Instant) -> Result<(), String> {
        match result {
            Ok(Answer::Silence) if self.0.is_some_and(|at| now.duration_since(at) < QUIET) => {
                Err("silent, and unreachable a moment ago".into())
            }
            Ok(_) => Ok(()),
            Err(why) => {
                self.0 = Some(now);
                Err(why)
            }
        }
    }
}

/// A target that was up is taken out after `fall` failures in a row and comes back after `rise` successes.
struct Streak {
    healthy: bool,
    against: u32,
}

impl Streak {
    /// Whether this result changes the target's state.
    fn note(&mut self, ok: bool, health: &Health) -> bool {
        if ok == self.healthy {
            self.against = 0;
            return false;
        }
        self.against += 1;
        let needed = if self.healthy { health.fall } else { health.rise };
        if self.against < needed {
            return false;
        }
        self.healthy = ok;
        self.against = 0;
        true
    }
}

async fn watch(target: Box<dyn Checked>) {
    let health = target.health();
    let (addr, name) = target.target();
    let header = target.proxy_protocol().map(proxy_protocol::own);
    let mut streak = Streak { healthy: target.healthy(), against: 0 };
    // What made it unhealthy may have been a moment before a reload.
    let mut refused = Refused((!streak.healthy).then(Instant::now));
    // Not all targets of all gateways at the same moment.
    tokio::time::sleep(health.every.min(Duration::from_millis(200)).mul_f64(fastrand::f64())).await;
    loop {
        let result = refused.judge(check(addr, name, health, header.as_deref()).await, Instant::now());
        let changed = streak.note(result.is_ok(), health);
        target.found(result.as_ref().err().cloned().unwrap_or_else(|| "ok".into()));
        if changed {
            target.change(result);
        }
        tokio::time::sleep(health.every.mul_f64(0.95 + 0.1 * fastrand::f64())).await;
    }
}

/// One check; `Err` says why it failed.
async fn check(
    addr: SocketAddr,
    host: &str,
    health: &Health,
    header: Option<&[u8]>,
) -> Result<Answer, String> {
    let silent = || format!("no answer within {:?}", health.timeout);
    match &health.check {
        HealthCheck::Tcp => {
            timeout(health.timeout, connect(addr, header)).await.map_err(|_| silent())?.map(|_| Answer::Came)
        }
        HealthCheck::Http { path, expect } => {
            let asked = timeout(health.timeout, ask(addr, host, path, expect, header)).await;
            asked.map_err(|_| silent())?.map(|()| Answer::Came)
        }
        HealthCheck::Udp { send, answer } => match timeout(health.timeout, exchange(addr, send)).await {
            Ok(Ok(())) => Ok(Answer::Came),
            Ok(Err(error)) => Err(format!("cannot reach it: {error}")),
            // Nothing came, not even "port unreachable".
            Err(_) if *answer => Err(silent()),
            Err(_) => Ok(Answer::Silence),
        },
    }
}

/// `header`: says that it is a connection of our own, and no client's.
async fn connect(addr: SocketAddr, header: Option<&[u8]>) -> Result<TcpStream, String> {
    let connect = async {
        let mut stream = TcpStream::connect(addr).await?;
        if let Some(header) = header {
            stream.write_all(header).await?;
        }
        std::io::Result::Ok(stream)
    };
    connect.await.map_err(|error| format!("cannot connect: {error}"))
}

async fn ask(
    addr: SocketAddr,
    host: &str,
    path: &str,
    expect: &[u16],
    header: Option<&[u8]>,
) -> Result<(), String> {
    let stream = connect(addr, header).await?;
    let status = get(stream, host, path).await.map_err(|error| format!("bad answer: {error}"))?;
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

async fn get(stream: TcpStream, host: &str, path: &str) -> Result<u16, Box<dyn std::error::Error>> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get(path)
        .header(header::HOST, host)
        .header(header::USER_AGENT, concat!("gateway/", env!("CARGO_PKG_VERSION"), " health-check"))
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
    use super::*;

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
        assert_eq!(check(addr, "", &udp(b"", false), None).await, Ok(Answer::Silence));
        assert!(
            check(addr, "", &udp(b"ping", true), None)
                .await
                .is_err_and(|why| why.contains("no answer within"))
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
        assert_eq!(check(addr, "", &udp(b"hello", true), None).await, Ok(Answer::Came));
        answering.abort();
        let _ = answering.await;
        for answer in [false, true] {
            let refused = check(addr, "", &udp(b"hello", answer), None).await;
            assert!(refused.is_err_and(|why| why.contains("cannot reach it")), "nobody listens any more");
        }
    }

    #[test]
    fn silence_soon_after_a_refusal_is_one_too() {
        let mut refused = Refused(None);
        let start = Instant::now();
        let mut judge = |result, ms| refused.judge(result, start + Duration::from_millis(ms)).is_ok();
        assert!(judge(Ok(Answer::Silence), 0));
        assert!(!judge(Err("refused".into()), 100));
        assert!(!judge(Ok(Answer::Silence), 1000));
        assert!(judge(Ok(Answer::Came), 1100), "an answer always counts");
        assert!(!judge(Ok(Answer::Silence), 3000));
        assert!(judge(Ok(Answer::Silence), 3100), "a silence does not prolong it");
    }

    #[test]
    fn it_takes_fall_failures_in_a_row_to_go_and_rise_successes_to_return() {
        let health = Health {
            check: HealthCheck::Tcp,
            every: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            rise: 2,
            fall: 3,
        };
        let mut streak = Streak { healthy: true, against: 0 };
        let changes: Vec<bool> = [false, false, true, false, false, false, true, false, true, true]
            .map(|ok| streak.note(ok, &health))
            .to_vec();
        assert_eq!(changes, [false, false, false, false, false, true, false, false, false, true]);
        assert!(streak.healthy);
    }
}
