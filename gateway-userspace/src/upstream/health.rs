//! Active health checks: one task a target, on the control thread.

use std::{pin::pin, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, header};
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, task::JoinHandle, time::timeout};

use super::Upstream;
use crate::{
    config::model::{Health, HealthCheck},
    observe::events,
};

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
    pub fn start<'a>(upstreams: impl Iterator<Item = &'a Arc<Upstream>>) -> Self {
        let mut tasks = Vec::new();
        for upstream in upstreams {
            if let Some(health) = &upstream.config.health {
                for member in 0..upstream.members.len() {
                    tasks.push(tokio::task::spawn_local(watch(upstream.clone(), member, health.clone())));
                }
            }
        }
        Checks(tasks)
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

async fn watch(upstream: Arc<Upstream>, member: usize, health: Health) {
    let target = upstream.members[member].target.clone();
    let mut streak = Streak { healthy: target.healthy(), against: 0 };
    // Not all targets of all gateways at the same moment.
    tokio::time::sleep(health.every.min(Duration::from_millis(200)).mul_f64(fastrand::f64())).await;
    loop {
        let result = match timeout(health.timeout, check(target.addr, &target.name, &health.check)).await {
            Ok(result) => result,
            Err(_) => Err(format!("no answer within {:?}", health.timeout)),
        };
        let changed = streak.note(result.is_ok(), &health);
        upstream.note_check(member, result.as_ref().err().cloned().unwrap_or_else(|| "ok".into()));
        if changed {
            upstream.set_healthy(member, streak.healthy);
            events::tell(
                "target",
                serde_json::json!({
                    "upstream": upstream.name.to_string(),
                    "target": target.name.to_string(),
                    "state": if streak.healthy { "up" } else { "down" },
                    "why": result.as_ref().err().map_or("ok", String::as_str),
                }),
            );
            match result {
                Ok(()) => tracing::info!(upstream = %upstream.name, target = %target.name, "target is up"),
                Err(why) => {
                    tracing::warn!(upstream = %upstream.name, target = %target.name, %why, "target is down")
                }
            }
        }
        tokio::time::sleep(health.every.mul_f64(0.95 + 0.1 * fastrand::f64())).await;
    }
}

async fn check(addr: std::net::SocketAddr, host: &str, check: &HealthCheck) -> Result<(), String> {
    let stream = TcpStream::connect(addr).await.map_err(|error| format!("cannot connect: {error}"))?;
    match check {
        HealthCheck::Tcp => Ok(()),
        HealthCheck::Udp { .. } => Err("a UDP check of an upstream".into()),
        HealthCheck::Http { path, expect } => {
            let status = get(stream, host, path).await.map_err(|error| format!("bad answer: {error}"))?;
            let fine =
                if expect.is_empty() { (200..300).contains(&status) } else { expect.contains(&status) };
            if fine { Ok(()) } else { Err(format!("status {status}")) }
        }
    }
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
