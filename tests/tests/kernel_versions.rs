//! The kernels we claim: every program loads on them, and traffic passes through the real gateway. K1.

use lab::{prelude::*, vm::Kernel};

/// A client in a namespace of its own behind a veth; one address of it is blocked, the others have three packets each.
const SCRIPT: &str = r#"
insmod /veth.ko || fail "veth"
say "kernel $(uname -r)"
mkdir /www && echo "hello from the backend" > /www/index.html
ip link set lo up
ip netns add client
ip link add gw0 type veth peer name c0 netns client
ip addr add 10.9.0.1/24 dev gw0; ip link set gw0 up
ip -n client addr add 10.9.0.2/24 dev c0; ip -n client addr add 10.9.0.3/24 dev c0; ip -n client link set c0 up
httpd -p 127.0.0.1:3000 -h /www
cat > /etc/gateway.toml <<END
[listener.web]
bind = ":80"
[route.all]
to = ["127.0.0.1:3000"]
[kernel]
interfaces = ["gw0"]
mode = "native"
required = true
block = { cidrs = ["10.9.0.3/32"] }
limit = { packets = { rate = "1k/s", burst = 1_000 }, new = { rate = "1k/s", burst = 1_000 } }
[access_log]
to = "/tmp/access.log"
END
gateway doctor --load -o json > /tmp/load.json 2>/tmp/load.err
say "doctor $(tr -d '\n' < /tmp/load.json)"
gateway run /etc/gateway.toml > /tmp/gateway.log 2>&1 &
tries=0
until curl -s -o /dev/null http://127.0.0.1/; do
    tries=$((tries+1)); [ $tries -lt 100 ] || break; usleep 200000
done
gateway kernel status -o json > /tmp/status.json 2>&1
holds "XDP is native on gw0" grep -q "XDP native on gw0" /tmp/status.json
holds "steering is on" grep -q "steering on" /tmp/status.json
holds "a ping is answered" ip netns exec client ping -c 1 -W 5 -I 10.9.0.2 10.9.0.1
holds "a request is answered" ip netns exec client curl -s -S -m 10 -o /tmp/answer http://10.9.0.1/
holds "by the backend" grep -q "hello from the backend" /tmp/answer
refused "the blocked source is dropped" ip netns exec client ping -c 1 -W 2 -I 10.9.0.3 10.9.0.1
sed -i 's/^limit = .*/limit = { packets = { rate = "1\/m", burst = 3 } }/' /etc/gateway.toml
holds "a reload" gateway reload
ip netns exec client ping -c 6 -W 1 -I 10.9.0.2 10.9.0.1 > /tmp/ping 2>&1
refused "a source over its bucket is dropped" grep -q " 0% packet loss" /tmp/ping
gateway kernel status -o json > /tmp/status.json 2>&1
tr -d ' \n' < /tmp/status.json > /tmp/flat.json
holds "drops are counted as blocked" grep -Eq '"reason":"blocked","packets":[1-9]' /tmp/flat.json
holds "drops are counted as limit_packets" grep -Eq '"reason":"limit_packets","packets":[1-9]' /tmp/flat.json
grep -E 'WARN|ERROR' /tmp/gateway.log | cut -c1-2000 | head -n 5 | while read line; do say "log $line"; done
"#;

fn boots(series: &str) -> Result<()> {
    // A machine is two busy CPUs.
    let _turn = alone()?;
    let kernel = match Kernel::fetch(series)? {
        Ok(kernel) => kernel,
        Err(why) => {
            lab::skip(&format!("Linux {series}"), &why);
            return Ok(());
        }
    };
    let began = Instant::now();
    let said = kernel.run(SCRIPT)?;
    eprintln!("{}\n{:?}", said.join("\n"), began.elapsed());
    let of = |kind: &str| said.iter().filter_map(|line| line.strip_prefix(kind)).collect::<Vec<_>>();
    assert!(of("kernel ").first().is_some_and(|release| release.starts_with(series)), "{said:?}");
    let checks: Value = serde_json::from_str(of("doctor ").first().context("no doctor")?)?;
    let programs: Vec<&Value> = checks
        .as_array()
        .into_iter()
        .flatten()
        .filter(|check| check["name"].as_str().is_some_and(|name| name.starts_with("program ")))
        .collect();
    assert!(programs.len() >= 3, "{checks}");
    for program in programs {
        assert_eq!(program["state"], "ok", "{}: {}", program["name"], program["detail"]);
    }
    assert_eq!(of("FAIL "), Vec::<&str>::new());
    assert_eq!(of("pass ").len(), 10);
    Ok(())
}

#[test]
fn every_program_loads_and_works_on_linux_6_1() -> Result<()> {
    lab_test!();
    boots("6.1")
}

#[test]
fn every_program_loads_and_works_on_linux_6_12() -> Result<()> {
    lab_test!();
    boots("6.12")
}
