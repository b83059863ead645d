//! A dynamic limit in front of a backend that can do so much and no more.

use lab::{
    overload::{Kind, Slots, load},
    prelude::*,
};

/// Two hundred a second, of which honest ones ask for less than an even share.
const SLOTS: usize = 10;
const SERVICE: Duration = Duration::from_millis(50);
const HONEST: Kind = Kind { name: "honest", consumers: 10, connections: 5, rate: 6.0 };
const GREEDY: Kind = Kind { name: "greedy", consumers: 10, connections: 6, rate: 94.0 };
const IN_TIME: Duration = Duration::from_millis(600);

/// Of what can be answered what is, and of what honest ones ask for what they get; after the limit has found its place.
fn measured(limit: &str) -> Result<(f64, f64)> {
    let text = format!("[limit.all]\nmode = \"dynamic\"\ntarget = {{ p99 = \"400ms\" }}\n{limit}");
    let rig = super::Rig::start(1, |_| super::config("127.0.0.1:8090", &text, "limit = \"all\""))?;
    let _backend = Slots::listen(&rig.net.gateway, "127.0.0.1:8090".parse()?, SLOTS, SERVICE)?;
    let (node, at, kinds) = (rig.net.client(1), rig.gateway.at4(), [HONEST, GREEDY]);
    load(node, at, &kinds, IN_TIME, Duration::from_secs(10));
    let seconds = 9.0;
    let counts = load(node, at, &kinds, IN_TIME, Duration::from_secs_f64(seconds));
    let share = rig.gateway.metrics()?.sum("limit_share", &[("limit", "all")]);
    assert!(share > 0.0 || limit.contains("fair = []"), "{share}");
    println!("{counts:?}, an even share is {share}");
    let goodput = counts.iter().map(|fared| fared.in_time).sum::<u64>() as f64
        / (SLOTS as f64 / SERVICE.as_secs_f64() * seconds);
    Ok((goodput, counts[0].in_time as f64 / (HONEST.asks() * seconds)))
}

// R4
#[test]
fn of_five_times_the_capacity_most_is_answered_in_time_and_honest_consumers_get_what_they_ask_for()
-> Result<()> {
    lab_test!();
    for limit in [
        "rate = { from = \"20/s\", to = \"2000/s\" }\nfair = \"host\"",
        "unit = \"connections\"\nmax = { from = 5, to = 500 }\nfair = \"host\"",
    ] {
        let (goodput, honest) = measured(limit)?;
        assert!(goodput >= 0.85, "{limit}: {goodput} of what can be answered");
        assert!(honest >= 0.93, "{limit}: honest ones get {honest} of what they ask for");
    }
    // By consumer or address they are all one.
    let (_, honest) = measured("rate = { from = \"20/s\", to = \"2000/s\" }")?;
    assert!(honest < 0.8, "without shares of their own honest ones get {honest}");
    Ok(())
}
