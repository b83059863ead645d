//! The demo: two honest clients, an attacker, a gateway and three backends, before, during and after a flood.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use anyhow::Result;
use lab::{
    backend::{Backend, start_all, targets},
    flood::{Flood, Sent},
    gateway::{Gateway, Options},
    metrics::Metrics,
    net::{Net, VIP4, VIP6},
    tools,
    wrk::{Load, Outcome, Wrk},
};

use crate::{MEASURED_CPU, OTHER_CPU, show};

const CONNECTIONS: usize = 16;

pub fn run(hold: bool) -> Result<()> {
    println!("{}", show::bold("gateway: an honest client, and a flood"));
    let net = Net::of(2, 1, 3)?;
    let backends = start_all(&net)?;
    // With two CPUs the flood gets one and everything else the other, so that what is left to the honest client is
    // the gateway's doing and not the scheduler's.
    let (ours, theirs) = match std::thread::available_parallelism()?.get() {
        1 => (None, None),
        _ => (Some(MEASURED_CPU), Some(OTHER_CPU)),
    };
    let gateway = Gateway::start_with(
        &net,
        &config(&backends),
        Options { cpu: ours, quiet: true, ..Options::default() },
    )?;
    picture(&net, &gateway)?;
    let phase = |duration: u64| -> Result<(Outcome, Outcome)> {
        let to = SocketAddr::from((VIP4, 80));
        let load = Load { cpu: ours, ..Load::new(CONNECTIONS, Duration::from_secs(duration)) };
        let (one, two) = (Wrk::start(net.client(1), to, &load)?, Wrk::start(net.client(2), to, &load)?);
        Ok((one.finish()?, two.finish()?))
    };
    println!("\n  {}", show::dim("                     requests/s    p50 ms    p99 ms    errors"));
    let before = phase(4)?;
    report("before the flood", before, None);
    let counted = gateway.metrics()?;
    let flood = Flood { cpu: theirs, ..Flood::new(net.attacker(), (VIP4, 80), Duration::from_millis(6500)) };
    let flooding = flood.start(net.attacker())?;
    std::thread::sleep(Duration::from_millis(300));
    let during = phase(5)?;
    let sent = flooding.finish()?;
    let flooded = gateway.metrics()?;
    report("during the flood", during, Some(before));
    let attacker = net.attacker().v4().to_string();
    gateway.cli(&["ban", "add", &attacker, "--for", "1m"])?.ok()?;
    let flooding = flood.start(net.attacker())?;
    std::thread::sleep(Duration::from_millis(300));
    report("attacker banned", phase(5)?, Some(before));
    let sent_banned = flooding.finish()?;
    let banned = gateway.metrics()?;
    let after = phase(4)?;
    report("after the flood", after, Some(before));
    kernel("The flood", &counted, &flooded, sent);
    kernel("The flood, attacker banned", &flooded, &banned, sent_banned);
    spread(&gateway.metrics()?, &backends);
    if hold {
        hold_up(&net, &gateway)?;
    }
    Ok(())
}

fn config(backends: &[Backend]) -> String {
    format!(
        "[listener.web]\nbind = \":80\"\n\n[route.all]\nto = \"pool\"\n\n[upstream.pool]\nto = {}\n\
         health = {{ path = \"/healthz\", every = \"1s\" }}\n\n[kernel]\nlimit = {{ packets = {{ rate = \"50k/s\", burst = 50_000 }}, \
         new = {{ rate = \"200/s\", burst = 400 }} }}\n",
        targets(backends)
    )
}

fn picture(net: &Net, gateway: &Gateway) -> Result<()> {
    let mode = gateway.metrics()?.by("kernel_mode", "mode", &[]);
    let mode = mode.keys().cloned().collect::<Vec<_>>().join(", ");
    let middle = format!("─ XDP {mode} ─ gateway {VIP4}:80 ─");
    let gap = |text: &str| format!("{text:<width$}", width = middle.chars().count());
    let row = |left: &str, from: std::net::Ipv4Addr, joint: char, middle: &str, other: char, n: usize| {
        println!("  {left}  {from}  ─{joint}{middle}{other}─ backend {n}  {}", net.backend(n).v4());
    };
    println!();
    row("client 1", net.client(1).v4(), '┐', &gap(""), '┌', 1);
    row("client 2", net.client(2).v4(), '┼', &middle, '┼', 2);
    row("attacker", net.attacker().v4(), '┘', &gap("  limit: 50k packets/s,"), '└', 3);
    println!("{:27}200 new connections/s, a source", "");
    Ok(())
}

fn report(when: &str, (one, two): (Outcome, Outcome), before: Option<(Outcome, Outcome)>) {
    let rate = one.rate() + two.rate();
    let kept = before.map(|(one, two)| 100.0 * rate / (one.rate() + two.rate()).max(1e-9));
    let kept = kept.map_or(String::new(), |kept| {
        let text = format!("  {kept:.0} % of before");
        if kept >= 90.0 { show::good(&text) } else { show::bad(&text) }
    });
    let errors = one.errors + two.errors + one.timeouts + two.timeouts;
    let ms = |us: u64| us as f64 / 1000.0;
    println!(
        "  {when:<18} {:>12} {:>9.2} {:>9.2} {:>9}{kept}",
        show::grouped(rate),
        ms(one.p50_us.max(two.p50_us)),
        ms(one.p99_us.max(two.p99_us)),
        errors,
    );
}

/// What the kernel half made of the flood.
fn kernel(title: &str, before: &Metrics, after: &Metrics, sent: Sent) {
    println!(
        "\n  {}  the attacker sent {} packets, {} a second",
        show::bold(title),
        show::grouped(sent.packets as f64),
        show::grouped(sent.rate())
    );
    let by = |metrics: &Metrics, action: &str| -> BTreeMap<String, f64> {
        metrics.by("kernel_packets_total", "reason", &[("interface", "atk"), ("action", action)])
    };
    for action in ["drop", "pass"] {
        let old = by(before, action);
        let mut rows: Vec<(String, f64)> = by(after, action)
            .into_iter()
            .map(|(reason, n)| (reason.clone(), n - old.get(&reason).copied().unwrap_or(0.0)))
            .filter(|(_, n)| *n > 0.0)
            .collect();
        rows.sort_by(|a, b| b.1.total_cmp(&a.1));
        for (reason, n) in rows {
            let bar = show::bar(n, sent.packets as f64, 30);
            println!("  {:<22} {:>12}  {}", format!("{action}  {reason}"), show::grouped(n), show::dim(&bar));
        }
    }
}

fn spread(metrics: &Metrics, backends: &[Backend]) {
    println!("\n  {}", show::bold("Requests by backend"));
    let by = metrics.by("upstream_requests_total", "target", &[]);
    let most = by.values().copied().fold(0.0, f64::max);
    for backend in backends {
        let n = by.get(&backend.addr.to_string()).copied().unwrap_or(0.0);
        println!(
            "  {:<22} {:>12}  {}",
            backend.addr.to_string(),
            show::grouped(n),
            show::dim(&show::bar(n, most, 30))
        );
    }
}

/// Keeps everything up until Ctrl-C, which cleans up.
fn hold_up(net: &Net, gateway: &Gateway) -> Result<()> {
    let enter = |namespace: &lab::net::Namespace| format!("nsenter --net={}", namespace.path().display());
    let cli = format!("{} --socket {}", tools::gateway()?.display(), gateway.socket().display());
    println!(
        "
  {}
  a client's shell      {client} bash
  a request             {client} curl -i http://{VIP4}/       (or http://[{VIP6}]/)
  load                  {client} wrk -c64 -d5s http://{VIP4}/
  a flood               {attacker} hping3 --flood -S -p 80 {VIP4}
  what gateway sees     {cli} status
                        {cli} kernel sources
  ban a client          {cli} ban add {banned} --for 30s
  metrics               {inside} curl -s http://127.0.0.1:9180/metrics
  its config            {config}   (then: {cli} reload)

  Ctrl-C takes it all down.",
        show::bold("Still running. Try, as root:"),
        client = enter(&net.client(1).namespace),
        attacker = enter(&net.attacker().namespace),
        inside = enter(&net.gateway),
        banned = net.client(2).v4(),
        config = gateway.config().display(),
    );
    loop {
        std::thread::park();
    }
}
