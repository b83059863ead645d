use std::path::Path;

use super::*;
use crate::{config, upstream::operator::Override};

fn services(text: &str, old: Option<&Services>) -> Services {
    let config = config::parse(text, Path::new("gateway.toml")).unwrap_or_else(|errors| panic!("{errors}"));
    compile(&config.services, old, &Registry::new(1))
}

const CHECKED: &str = "[service.a]\nbind = \":1\"\nto = [\"10.0.0.1:1\", { addr = \"10.0.0.2:1\", weight = 3 }]\n\
                       health = { tcp = true }\n";

/// State and weight of each target.
fn states(services: &Services) -> Vec<(TargetState, u32)> {
    specs(services)[0].targets.iter().map(|target| (target.state, target.weight)).collect()
}

fn target(services: &Services, index: usize) -> Arc<Target> {
    services["a"].targets[index].clone()
}

#[test]
fn a_target_is_in_what_state_checks_and_operators_leave_it() {
    use TargetState::{Down, Draining, Up};
    let services = services(CHECKED, None);
    assert_eq!(states(&services), [(Up, 1), (Up, 3)]);
    let first = target(&services, 0);
    for (healthy, taken, state) in [
        (true, Some(Taken::Drain), Draining),
        (true, Some(Taken::Down), Down),
        // It cannot keep what it has.
        (false, Some(Taken::Drain), Down),
        (false, None, Down),
        (true, None, Up),
    ] {
        first.healthy.store(healthy, Relaxed);
        first.operator.take(taken.map(|taken| Override::new(taken, "ann", None)));
        assert_eq!(states(&services)[0].0, state, "{healthy} {taken:?}");
    }
    first.operator.weigh(Some(Override::new(9, "ann", None)));
    assert_eq!(states(&services), [(Up, 9), (Up, 3)]);
}

#[test]
fn a_reload_keeps_health_and_overrides_of_the_targets_that_stay() {
    let old = services(CHECKED, None);
    target(&old, 1).healthy.store(false, Relaxed);
    target(&old, 1).operator.weigh(Some(Override::new(9, "ann", None)));
    let new = CHECKED.replace("\"10.0.0.1:1\"", "\"10.0.0.3:1\"").replace("weight = 3", "weight = 2");
    let new = services(&new, Some(&old));
    assert_eq!(states(&new), [(TargetState::Up, 1), (TargetState::Down, 9)]);
    // Another service is another matter, and without checks nothing is down.
    let renamed = services(&CHECKED.replace("service.a", "service.b"), Some(&old));
    assert_eq!(states(&renamed)[1], (TargetState::Up, 3));
    let unchecked = services(&CHECKED.replace("health = { tcp = true }", ""), Some(&old));
    assert_eq!(states(&unchecked)[1], (TargetState::Up, 9));
}

#[test]
fn a_check_that_changes_a_target_says_so() {
    let services = services(CHECKED, None);
    let changed = Arc::new(Notify::new());
    let checked = services["a"].checked(&changed);
    checked[1].change(Err("gone".into()));
    checked[1].found("gone".into());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(changed.notified());
    assert_eq!(states(&services)[1].0, TargetState::Down);
    assert_eq!(services["a"].last_check(&target(&services, 1)), Some("gone".into()));
    assert_eq!(services["a"].last_check(&target(&services, 0)), None);
}

#[test]
fn what_cannot_work_on_this_host_is_warned_of() {
    let parse = |text: &str| {
        config::parse(text, Path::new("gateway.toml")).unwrap_or_else(|errors| panic!("{errors}"))
    };
    let service = "[service.a]\nbind = \":1\"\nto = [\"127.0.0.1:1\", \"255.255.255.255:1\"]\n";
    let off = |kernel: &str| not_forwarded(&parse(&format!("{service}[kernel]\n{kernel}\n")));
    let place = "gateway.toml:1:10: services are forwarded by XDP only, and";
    assert_eq!(off(""), Some(format!("{place} kernel.interfaces names no interface")));
    assert_eq!(off("interfaces = \"lo\""), None);
    assert_eq!(off("interfaces = \"lo\"\nmode = \"off\""), Some(format!("{place} kernel.mode is \"off\"")));
    assert_eq!(
        not_forwarded(&parse("[listener.a]\nbind = \":1\"\n[route.a]\nto = [\"127.0.0.1:1\"]\n")),
        None
    );
    // A broadcast address cannot be sent to just so, whatever the routes of this host are.
    let said = unreachable(&parse(service));
    let start = "gateway.toml:1:10: service `a`: no route to target 255.255.255.255:1 (";
    assert!(said.len() == 1 && said[0].starts_with(start), "{said:?}");
}
