//! Targets of L4 services that come, go, are drained and die, and a daemon that dies, under load.

use lab::{
    backend::PORT,
    l4::{Rig, Service, Setup, at},
    prelude::*,
    steady::{Outcome, Steady},
};

const CHECKED: &str = "health = { tcp = true, every = \"100ms\", timeout = \"1s\", rise = 1, fall = 1 }";

/// Three of four backends are targets.
fn rig(forward: &'static str) -> Result<Rig> {
    let setup = Setup { services: vec![Service::web().with(CHECKED)], targets: 3, ..Setup::new(forward, 4) };
    Rig::new(shared()?, setup)
}

/// What happened when.
struct Times {
    draining: Instant,
    drained: Instant,
    adding: Instant,
    added: Instant,
    killed: Instant,
    out: Instant,
    up: Instant,
}

fn state(rig: &Rig, target: usize) -> Result<String> {
    Ok(rig.show("web6")?["targets"][target]["state"].as_str().context("no state")?.to_owned())
}

fn becomes(rig: &Rig, target: usize, wanted: &str) -> Result<()> {
    eventually(&format!("target {target} is {wanted}"), || Ok(state(rig, target)? == wanted))
}

/// The tables of the kernel half are made anew a little after the daemon says what will be in them.
fn in_the_kernel() -> Instant {
    std::thread::sleep(Duration::from_millis(300));
    Instant::now()
}

/// Drains the first, adds the fourth, kills the second, lets the first in again.
fn change(rig: &mut Rig, steady: &Steady) -> Result<Times> {
    let first = format!("web6/{}", rig.backends[0].addr6);
    let draining = Instant::now();
    rig.gateway.cli(&["target", "drain", &first])?.ok()?;
    let drained = in_the_kernel();
    steady.rounds(30)?;
    let adding = Instant::now();
    rig.reload(4)?;
    becomes(rig, 3, "up")?;
    let added = in_the_kernel();
    steady.rounds(60)?;
    let killed = Instant::now();
    rig.kill(2);
    becomes(rig, 1, "down")?;
    let out = in_the_kernel();
    steady.rounds(30)?;
    let up = Instant::now();
    rig.gateway.cli(&["target", "up", &first])?.ok()?;
    becomes(rig, 0, "up")?;
    steady.rounds(30)?;
    Ok(Times { draining, drained, adding, added, killed, out, up })
}

/// Those that answered connections begun in this time. None may have failed.
fn answering(outcome: &Outcome, from: Instant, to: Instant) -> BTreeSet<&str> {
    let all = outcome.between(from, to);
    assert!(all.len() > 10, "only {} connections", all.len());
    all.into_iter().map(|one| one.as_ref().expect("a short connection").as_str()).collect()
}

fn changes(forward: &'static str) -> Result<()> {
    lab_test!();
    let mut rig = rig(forward)?;
    becomes(&rig, 2, "up")?;
    let start = Instant::now();
    let steady = Steady::start(rig.net.client(1), at(PORT, true), 48)?;
    steady.rounds(10)?;
    let times = change(&mut rig, &steady)?;
    let outcome = steady.finish()?;
    let on = |name: &str| outcome.held.iter().filter(|held| held.backend == name).count();
    assert!(on("b1") > 4 && on("b2") > 4 && on("b3") > 4 && on("b4") == 0, "{:?}", outcome.held);
    for held in &outcome.held {
        if held.backend == "b2" {
            assert!(held.failed.is_some() && held.last >= times.killed, "{held:?}");
        } else {
            assert!(held.failed.is_none() && held.last >= times.up, "{held:?}");
        }
    }
    // One that began just before a kill may be cut by it, as a held one.
    let early = times.killed.checked_sub(Duration::from_millis(100)).context("a time")?;
    for short in outcome.short.iter().filter(|short| short.answer.is_err()) {
        assert!(short.began >= early && short.began < times.out, "{short:?}");
    }
    let between = |from, to| answering(&outcome, from, to);
    let late = Instant::now();
    assert_eq!(between(start, times.draining), BTreeSet::from(["b1", "b2", "b3"]));
    assert_eq!(between(times.drained, times.adding), BTreeSet::from(["b2", "b3"]));
    assert_eq!(between(times.added, early), BTreeSet::from(["b2", "b3", "b4"]));
    assert_eq!(between(times.out, times.up), BTreeSet::from(["b3", "b4"]), "one is drained, one is dead");
    assert_eq!(between(times.up, late), BTreeSet::from(["b1", "b3", "b4"]));
    Ok(())
}

#[test]
fn with_nat_only_the_connections_of_a_killed_target_break() -> Result<()> {
    changes("nat")
}

#[test]
fn with_gue_only_the_connections_of_a_killed_target_break() -> Result<()> {
    changes("gue")
}

#[test]
fn a_daemon_killed_twenty_times_loses_no_connection_of_a_nat_service() -> Result<()> {
    lab_test!();
    let mut rig = Rig::new(shared()?, Setup::new("nat", 2))?;
    let steady = Steady::start(rig.net.client(1), at(PORT, false), 24)?;
    let steady6 = Steady::start(rig.net.client(1), at(PORT, true), 8)?;
    for _ in 0..20 {
        rig.gateway.kill();
        rig.gateway.run()?;
    }
    steady.rounds(5)?;
    for outcome in [steady.finish()?, steady6.finish()?] {
        let failed: Vec<_> = outcome.held.iter().filter(|held| held.failed.is_some()).collect();
        assert!(failed.is_empty(), "{failed:?}");
        let failed: Vec<_> = outcome.short.iter().filter(|short| short.answer.is_err()).collect();
        assert!(failed.is_empty(), "{failed:?}");
        let slow =
            outcome.short.iter().filter(|short| short.ended - short.began > Duration::from_millis(900));
        assert_eq!(slow.count(), 0, "a SYN was lost");
        assert!(outcome.held.iter().all(|held| held.answers > 100) && outcome.short.len() > 500);
    }
    for reason in ["no_flow", "flows_full", "no_target", "no_route", "no_neighbour"] {
        assert_eq!(rig.packets(reason)?, 0, "{reason}");
    }
    Ok(())
}
