//! Bans that limits and penalties make: in the kernel half where the source is the other end of the connection, else at
//! L7; for longer each time.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::json;
use tokio::sync::mpsc;

use super::{
    Control,
    shared::{News, left},
};
use crate::{
    config::{model::Config, units::Prefix},
    kernel::{BanBy, KernelError},
    limit::{HttpBan, Offence, prefix},
    observe::events,
};

/// No ban is longer.
const LONGEST: Duration = Duration::from_secs(24 * 3600);
/// Who stays away so long after a ban is a stranger again.
const FORGET_AFTER: Duration = Duration::from_secs(3600);
/// Sources that are remembered.
const MOST: usize = 65_536;

/// How often a source was banned, and when the last ban ended, or ends.
struct Past {
    times: u32,
    ends: Instant,
}

pub async fn follow(control: Arc<Control>, mut offences: mpsc::Receiver<Offence>) {
    let mut past: HashMap<Prefix, Past> = HashMap::new();
    while let Some(offence) = offences.recv().await {
        punish(&control, &mut past, &offence);
    }
}

fn punish(control: &Control, past: &mut HashMap<Prefix, Past>, offence: &Offence) {
    let cidr = prefix(offence.client);
    let now = Instant::now();
    let snapshot = control.snapshot.load();
    if is_spared(&snapshot.config, offence.client) {
        tracing::debug!(%cidr, by = offence.by, "not banned: exempt, or a proxy that is trusted");
        return;
    }
    past.retain(|_, past| past.ends + FORGET_AFTER > now || past.ends + LONGEST > now && past.times > 8);
    let times = past.get(&cidr).map_or(0, |past| past.times);
    // Requests that were under way when it was banned.
    if past.get(&cidr).is_some_and(|past| past.ends > now) && is_banned(control, cidr) {
        return;
    }
    let duration = lasts(offence.duration, times);
    let Some(place) = ban(control, offence, cidr, duration) else { return };
    if past.len() < MOST || past.contains_key(&cidr) {
        past.insert(cidr, Past { times: times.saturating_add(1), ends: now + duration });
    }
    let (by, why) = (&offence.by, &offence.why);
    let ban = HttpBan::new(cidr, Some(duration), why, by);
    control.tell_others(News::Ban { ban, kernel: place == "kernel" });
    tracing::info!(%cidr, by, why, ?duration, place, "banned");
    events::tell(
        "ban",
        json!({ "cidr": cidr, "by": by, "why": why, "where": place, "left_seconds": duration.as_secs() }),
    );
}

/// Twice as long each time.
fn lasts(first: Duration, times: u32) -> Duration {
    first.saturating_mul(1 << times.min(20)).min(LONGEST.max(first))
}

/// Where it was banned. `None`: it could not be.
fn ban(control: &Control, offence: &Offence, cidr: Prefix, duration: Duration) -> Option<&'static str> {
    let ban = HttpBan::new(cidr, Some(duration), &offence.why, &offence.by);
    place(control, ban, Some(duration), offence.kernel && offence.direct)
}

fn place(control: &Control, ban: HttpBan, duration: Option<Duration>, kernel: bool) -> Option<&'static str> {
    let cidr = ban.cidr;
    if kernel {
        let (by, why) = match ban.by.as_str() {
            "operator" => (BanBy::Operator, ban.why.clone()),
            "penalty" => (BanBy::Penalty, format!("penalty: {}", ban.why)),
            by => (BanBy::Limit, format!("{by}: {}", ban.why)),
        };
        match control.kernel.ban_by(cidr, duration, &why, by) {
            Ok(_) => return Some("kernel"),
            Err(KernelError::Off { .. }) => {}
            Err(error) => {
                tracing::debug!(%cidr, "not banned in the kernel: {error}");
                return None;
            }
        }
    }
    let store = control.snapshot.load().limit_store.clone();
    store.bans.add(ban).then_some("http")
}

/// What another gateway has banned: where it is banned here. `None`: it is over, spared here, or everybody.
pub fn take_up(control: &Control, ban: HttpBan, kernel: bool) -> Option<&'static str> {
    let duration = left(ban.until_ms)?;
    let ours = ban.by == "operator" || !is_spared(&control.snapshot.load().config, ban.cidr.addr);
    if !ours || ban.cidr.len == 0 && !kernel {
        return None;
    }
    place(control, ban, duration, kernel)
}

fn is_banned(control: &Control, cidr: Prefix) -> bool {
    let store = control.snapshot.load().limit_store.clone();
    store.bans.check(cidr.addr).is_some() || control.kernel.bans().iter().any(|ban| ban.cidr == cidr)
}

/// Exempt from all limits, or a proxy behind which there are others.
fn is_spared(config: &Config, client: IpAddr) -> bool {
    let client = client.to_canonical();
    let exempt = config.kernel.limit.exempt.iter().chain(config.penalty.iter().flat_map(|rule| &rule.exempt));
    let trusted = config.listeners.values().any(|listener| {
        listener.real_ip.as_ref().is_some_and(|proxies| proxies.from.contain(client))
            || listener.proxy_protocol.as_ref().is_some_and(|proxies| proxies.from.contain(client))
    });
    trusted || exempt.into_iter().any(|prefix| prefix.contains(client))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_ban_is_twice_as_long_and_none_longer_than_a_day() {
        let minute = Duration::from_secs(60);
        let minutes = [0, 1, 2, 3].map(|times| lasts(minute, times).as_secs() / 60);
        assert_eq!(minutes, [1, 2, 4, 8]);
        assert_eq!((lasts(minute, 15), lasts(minute, u32::MAX)), (LONGEST, LONGEST));
        assert_eq!(lasts(Duration::from_secs(7 * 86_400), 0), Duration::from_secs(7 * 86_400));
    }
}
