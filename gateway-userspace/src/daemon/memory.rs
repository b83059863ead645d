//! What a process remembers and its successor goes on with: what checks and operators say of targets.

use std::{
    net::SocketAddr,
    time::{Duration, Instant, SystemTime},
};

use super::handover::{Said, Target};
use crate::{
    runtime::Snapshot,
    upstream::operator::{Operator, Override, Taken},
};

/// Of every target about which there is something to say.
pub fn targets(snapshot: &Snapshot) -> Vec<Target> {
    let of_upstreams = snapshot.upstreams.iter().flat_map(|(name, upstream)| {
        let members = upstream.members.iter();
        members.map(|member| {
            describe(false, name, member.target.addr, member.target.healthy(), &member.target.operator)
        })
    });
    let of_services = snapshot.services.iter().flat_map(|(name, service)| {
        let targets = service.targets();
        targets
            .map(|(target, _)| describe(true, name, target.addr, service.healthy(target), &target.operator))
    });
    let told = |target: &Target| !target.healthy || target.taken.is_some() || target.weight.is_some();
    of_upstreams.chain(of_services).filter(told).collect()
}

fn describe(of_service: bool, name: &str, addr: SocketAddr, healthy: bool, operator: &Operator) -> Target {
    let said = operator.said();
    Target {
        of_service,
        name: name.to_owned(),
        addr,
        healthy,
        taken: said.taken.map(|taken| show(&taken, taken.value.word().to_owned())),
        weight: said.weight.map(|weight| show(&weight, weight.value)),
    }
}

fn show<T, U>(said: &Override<T>, value: U) -> Said<U> {
    let since = said.since.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let left = |ends: Instant| ends.saturating_duration_since(Instant::now()).as_millis();
    Said {
        value,
        by: said.by.clone(),
        since: since.as_secs_f64(),
        left_ms: said.ends.map(|ends| left(ends).try_into().unwrap_or(u64::MAX)),
    }
}

fn read<T, U>(said: &Said<T>, value: U) -> Override<U> {
    let since = Duration::try_from_secs_f64(said.since).unwrap_or_default();
    Override {
        since: SystemTime::UNIX_EPOCH.checked_add(since).unwrap_or(SystemTime::UNIX_EPOCH),
        ..Override::new(value, &said.by, said.left_ms.map(Duration::from_millis))
    }
}

/// Says the same of the targets of a snapshot that nobody uses yet.
pub fn recall(snapshot: &Snapshot, targets: &[Target]) {
    for told in targets {
        if told.of_service {
            let Some(service) = snapshot.services.get(&told.name) else { continue };
            let Some((target, _)) = service.targets().find(|(target, _)| target.addr == told.addr) else {
                continue;
            };
            target.set_healthy(told.healthy);
            say(&target.operator, told);
        } else {
            let Some(upstream) = snapshot.upstreams.get(&told.name) else { continue };
            let of_target = |member: &crate::upstream::Member| member.target.addr == told.addr;
            let Some(member) = upstream.members.iter().position(of_target) else { continue };
            say(&upstream.members[member].target.operator, told);
            // Without checks nothing would ever find it healthy again.
            upstream.set_healthy(member, told.healthy || upstream.config.health.is_none());
        }
    }
}

fn say(operator: &Operator, told: &Target) {
    let taken = |said: &Said<String>| {
        let taken = [Taken::Drain, Taken::Down].into_iter().find(|taken| taken.word() == said.value)?;
        Some(read(said, taken))
    };
    if let Some(taken) = told.taken.as_ref().and_then(taken) {
        operator.take(Some(taken));
    }
    if let Some(weight) = told.weight.as_ref().filter(|weight| weight.value > 0) {
        operator.weigh(Some(read(weight, weight.value)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_operators_said_goes_on_with_who_since_when_and_until_when() {
        let operator = Operator::default();
        operator.take(Some(Override::new(Taken::Drain, "ann", Some(Duration::from_secs(60)))));
        operator.weigh(Some(Override::new(7, "bob", None)));
        let told = describe(false, "pool", "10.0.0.1:80".parse().unwrap(), true, &operator);
        let told: Target = serde_json::from_str(&serde_json::to_string(&told).unwrap()).unwrap();
        let next = Operator::default();
        say(&next, &told);
        let (before, after) = (operator.said(), next.said());
        let (before_taken, after_taken) = (before.taken.unwrap(), after.taken.unwrap());
        assert_eq!((after_taken.value, &*after_taken.by), (Taken::Drain, "ann"));
        let apart = after_taken.since.duration_since(before_taken.since).unwrap_or_else(|e| e.duration());
        assert!(apart < Duration::from_millis(1), "{apart:?}");
        let left = after_taken.ends.unwrap().saturating_duration_since(Instant::now());
        assert!((50..=60).contains(&left.as_secs()), "{left:?}");
        assert_eq!(
            after.weight.map(|weight| (weight.value, weight.by, weight.ends)),
            Some((7, "bob".into(), None))
        );
    }
}
