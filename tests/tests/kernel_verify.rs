//! `gateway kernel verify`: maps that somebody else wrote to are found out, entry by entry, and repaired.

use std::process::Command;

use lab::prelude::*;

/// A map, opened by its pin or found among those a process holds.
fn bpftool(arguments: &[&str]) -> Result<Value> {
    let output = Command::new("bpftool").arg("-j").args(arguments).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(
        output.status.success(),
        "bpftool {arguments:?}: {text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(if text.trim().is_empty() { Value::Null } else { serde_json::from_str(&text)? })
}

/// The id of a process's map that is not pinned.
fn map_of(pid: u32, name: &str) -> Result<String> {
    for entry in std::fs::read_dir(format!("/proc/{pid}/fdinfo"))?.flatten() {
        let info = std::fs::read_to_string(entry.path()).unwrap_or_default();
        let Some(id) = info.lines().find_map(|line| line.strip_prefix("map_id:")) else { continue };
        if bpftool(&["map", "show", "id", id.trim()])?["name"] == name {
            return Ok(id.trim().to_owned());
        }
    }
    bail!("process {pid} has no map {name}")
}

/// The bytes of a value, as bpftool prints them.
fn bytes(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(|byte| byte.as_str().map(str::to_owned)).collect()
}

fn write(id: &str, key: &[&str], value: &[String]) -> Result<()> {
    let value: Vec<&str> = value.iter().map(String::as_str).collect();
    bpftool(&[&["map", "update", "id", id, "key"], key, &["value"], &value].concat()).map(drop)
}

const ZERO: [&str; 4] = ["0", "0", "0", "0"];

#[test]
fn what_others_changed_in_the_maps_is_found_and_repaired() -> Result<()> {
    lab_test!();
    if lab::tools::missing("bpftool") {
        lab::skip("kernel verify", "`bpftool` is not installed");
        return Ok(());
    }
    let _turn = shared()?;
    let net = Net::simple(2)?;
    net.for_forwarding()?;
    let config = format!(
        "[kernel]\ninterfaces = {}\nflows = 1024\nblock = {{ cidrs = [\"198.51.100.0/24\", \"203.0.113.0/24\", \"2001:db8::/32\"] }}\n\
         limit = {{ packets = {{ rate = \"1k/s\", burst = 1_000 }} }}\n\
         [service.web]\nbind = \"10.98.0.5:8080\"\nto = [\"{}\", \"{}\"]\n",
        net.all_interfaces(),
        net.backend(1).at(80),
        net.backend(2).at(80),
    );
    let gateway = Gateway::start(&net, &config)?;
    let verify = |more: &[&str]| gateway.cli(&[&["kernel", "verify"], more].concat());
    gateway.cli(&["ban", "add", "192.0.2.9", "--for", "1s"])?.ok()?;
    gateway.cli(&["ban", "add", "192.0.2.128/25", "--for", "1s"])?.ok()?;
    gateway.cli(&["ban", "add", "192.0.2.10", "--for", "1h"])?.ok()?;
    let clean = verify(&["-o", "json"])?.ok()?.json()?;
    assert!(clean["total"] == 0 && clean["checked"].as_u64() > Some(65_537), "{clean}");

    // A slot of a Maglev table.
    let version = std::fs::read_dir(gateway.pin())?.flatten().next().context("nothing is pinned")?.path();
    let rings = version.join("RINGS").display().to_string();
    let inner = bpftool(&["map", "lookup", "pinned", &rings, "key", "1", "0", "0", "0"])?;
    let inner = bytes(&inner["value"]).iter().rev().try_fold(0, |id: u32, byte| {
        Ok::<_, std::num::ParseIntError>(id << 8 | u32::from_str_radix(byte.trim_start_matches("0x"), 16)?)
    })?;
    let inner = inner.to_string();
    let found = bpftool(&["map", "lookup", "id", &inner, "key", "7", "0", "0", "0"])?;
    let mut word = bytes(&found["value"]);
    let other = if word.first().context("no value")? == "0x01" { "0x02" } else { "0x01" };
    if let Some(byte) = word.first_mut() {
        *byte = other.to_owned();
    }
    write(&inner, &["7", "0", "0", "0"], &word)?;
    // An entry of the block list.
    let list = version.join("ACCESS_V4").display().to_string();
    bpftool(&["map", "delete", "pinned", &list, "key", "24", "0", "0", "0", "203", "0", "113", "0"])?;
    // Bans that are over meanwhile are no differences. To sweep them writes the settings anew, so these come last.
    eventually("the short bans are over", || {
        Ok(gateway.cli(&["kernel", "status", "-o", "json"])?.json()?["bans"] == 1)
    })?;
    // The interval of the packet limit: behind the switch, in the settings that count, after the clock.
    let settings = map_of(gateway.pid(), "SETTINGS")?;
    let mut all = bytes(&bpftool(&["map", "lookup", "id", &settings, "key", "0", "0", "0", "0"])?["value"]);
    let active = usize::from(all.first().is_some_and(|byte| byte == "0x01"));
    let at = 8 + active * ((all.len() - 8) / 2) + 16;
    all.get_mut(at + 1).context("no such byte")?.replace_range(.., "0xff");
    write(&settings, &ZERO, &all)?;
    let found = verify(&[])?;
    assert_eq!(found.code, 1, "{found:?}");
    let lines: Vec<&str> = found.stdout.lines().collect();
    assert_eq!(lines.len(), 4, "{found:?}");
    for says in [
        "ACCESS_V4 203.0.113.0/24: is nothing, should be block",
        "SETTINGS packets: is ",
        "RINGS web slot 28: is target ",
    ] {
        assert!(lines.iter().any(|line| line.starts_with(says)), "{says} in {lines:?}");
    }
    assert!(lines.contains(&&*format!("3 differences in {} entries", found_entries(&lines))), "{lines:?}");
    assert_eq!(gateway.metrics()?.sum("kernel_drift", &[]), 3.0);

    let repaired = verify(&["--repair"])?.ok()?;
    assert!(repaired.stdout.contains("; 3 repaired"), "{repaired:?}");
    let clean = verify(&["-o", "json"])?.ok()?.json()?;
    assert_eq!(clean["total"], 0, "{clean}");
    assert_eq!(gateway.metrics()?.sum("kernel_drift", &[]), 0.0);
    Ok(())
}

/// The number in the last line.
fn found_entries(lines: &[&str]) -> String {
    lines.last().and_then(|line| line.split(' ').rev().nth(1)).unwrap_or_default().to_owned()
}

#[test]
fn states_of_targets_bans_and_reloads_are_no_differences() -> Result<()> {
    lab_test!();
    let _turn = shared()?;
    let net = Net::simple(2)?;
    net.for_forwarding()?;
    let config = |rate: &str| {
        format!(
            "[kernel]\ninterfaces = {}\nflows = 1024\nblock = {{ cidrs = [\"198.51.100.0/24\"], except = [\"198.51.100.7/32\"] }}\n\
             limit = {{ packets = {{ rate = \"{rate}\", burst = 1_000 }}, exempt = [\"10.1.0.0/16\"] }}\n\
             [service.web]\nbind = [\"10.98.0.5:8080\", \":53\"]\nto = [\"{}\", \"{}\"]\nprotocol = \"udp\"\n",
            net.all_interfaces(),
            net.backend(1).at(80),
            net.backend(2).at(80),
        )
    };
    let mut gateway = Gateway::start(&net, &config("1k/s"))?;
    let same = |gateway: &Gateway| gateway.cli(&["kernel", "verify"])?.ok().map(drop);
    same(&gateway)?;
    let first = format!("web/{}", net.backend(1).at(80));
    gateway.cli(&["target", "drain", &first])?.ok()?;
    same(&gateway)?;
    gateway.cli(&["target", "weight", &first, "5"])?.ok()?;
    gateway.cli(&["ban", "add", "198.51.0.0/16"])?.ok()?;
    same(&gateway)?;
    gateway.write(&config("2k/s"))?;
    gateway.cli(&["reload"])?.ok()?;
    same(&gateway)?;
    gateway.cli(&["ban", "del", "198.51.0.0/16"])?.ok()?;
    same(&gateway)?;
    gateway.kill();
    gateway.run()?;
    same(&gateway)
}
