//! Active health checks: one task a target, on the control thread.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    time::{Duration, Instant},
};

use tokio::task::JoinHandle;

use super::probe::{self, Answer, Probed};
use crate::{
    config::model::{Health, UpstreamProtocol},
    proxy_protocol::{self, Version},
    tls::Connector,
};

/// A target of an upstream or a service, as the checks see it.
pub trait Checked {
    fn health(&self) -> &Health;
    /// Its address, and that as text.
    fn target(&self) -> (SocketAddr, &str);
    /// How it is spoken to: by TLS, and what.
    fn way(&self) -> (Option<&Connector>, UpstreamProtocol) {
        (None, UpstreamProtocol::Http1)
    }
    fn healthy(&self) -> bool;
    /// Checks in a row that said otherwise: checks begin anew more often than they may need to come to a result.
    fn against(&self) -> &AtomicU32;
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

/// Hosts send "port unreachable" about once a second and destination (Linux: net.ipv4.icmp_ratelimit), however often
/// they are asked: for so long after one, silence is no good sign.
const QUIET: Duration = Duration::from_secs(3);

/// Within so long every target is checked for the first time.
const FIRST: Duration = Duration::from_millis(200);

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
    let (tls, protocol) = target.way();
    let probed = Probed { addr, name, header: header.as_deref(), tls, protocol };
    let mut streak = Streak { healthy: target.healthy(), against: target.against().load(Relaxed) };
    // What made it unhealthy may have been a moment before a reload.
    let mut refused = Refused((!streak.healthy).then(Instant::now));
    // Not all targets of all gateways at the same moment, now and later.
    tokio::time::sleep(health.every.min(FIRST).mul_f64(fastrand::f64())).await;
    loop {
        match probe::check(&probed, health).await {
            Ok(Answer::Unasked) => target.found("not asked: the gateway has no file descriptor left".into()),
            checked => {
                let result = refused.judge(checked, Instant::now());
                let changed = streak.note(result.is_ok(), health);
                target.against().store(streak.against, Relaxed);
                target.found(result.as_ref().err().cloned().unwrap_or_else(|| "ok".into()));
                if changed {
                    target.change(result);
                }
            }
        }
        tokio::time::sleep(health.every.mul_f64(0.95 + 0.1 * fastrand::f64())).await;
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, rc::Rc};

    use super::*;
    use crate::config::model::HealthCheck;

    const HEALTH: Health = Health {
        check: HealthCheck::Tcp,
        every: Duration::from_millis(200),
        timeout: Duration::from_secs(1),
        rise: 2,
        fall: 3,
    };

    /// Notes when it was checked. Nobody listens there.
    struct Noted {
        against: AtomicU32,
        at: Rc<RefCell<Vec<Instant>>>,
    }

    impl Checked for Noted {
        fn health(&self) -> &Health {
            &HEALTH
        }

        fn target(&self) -> (SocketAddr, &str) {
            (([127, 0, 0, 1], 1).into(), "noted")
        }

        fn healthy(&self) -> bool {
            true
        }

        fn against(&self) -> &AtomicU32 {
            &self.against
        }

        fn proxy_protocol(&self) -> Option<Version> {
            None
        }

        fn found(&self, _: String) {
            self.at.borrow_mut().push(Instant::now());
        }

        fn change(&self, _: Result<(), String>) {}
    }

    // LB10. Nothing but chance lets a check come sooner than `every` after the one before.
    #[tokio::test]
    async fn targets_are_not_checked_in_step() {
        let all: Vec<Rc<RefCell<Vec<Instant>>>> = (0..12).map(|_| Rc::default()).collect();
        let targets = all
            .iter()
            .map(|at| Box::new(Noted { against: AtomicU32::new(0), at: at.clone() }) as Box<dyn Checked>);
        let checked = async {
            let _checks = Checks::start(targets);
            tokio::time::sleep(Duration::from_millis(1600)).await;
        };
        tokio::task::LocalSet::new().run_until(checked).await;
        let first = |at: &Rc<RefCell<Vec<Instant>>>| at.borrow()[0];
        let spread = all.iter().map(first).max().unwrap() - all.iter().map(first).min().unwrap();
        assert!(spread > FIRST / 10, "{spread:?}");
        let gaps: Vec<Duration> = all
            .iter()
            .flat_map(|at| at.borrow().windows(2).map(|two| two[1] - two[0]).collect::<Vec<_>>())
            .collect();
        let sooner = gaps.iter().filter(|gap| **gap < HEALTH.every).count();
        assert!(sooner > 0 && gaps.iter().all(|gap| *gap >= HEALTH.every.mul_f64(0.95)), "{gaps:?}");
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
        let mut streak = Streak { healthy: true, against: 0 };
        let changes: Vec<bool> = [false, false, true, false, false, false, true, false, true, true]
            .map(|ok| streak.note(ok, &HEALTH))
            .to_vec();
        assert_eq!(changes, [false, false, false, false, false, true, false, false, false, true]);
        assert!(streak.healthy);
    }
}
