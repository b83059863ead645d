//! Valid configs load to what they say, and what `show` writes loads to the same.

use std::{fs, path::Path, time::Duration};

use gateway::config::{
    self,
    model::{
        Algorithm, Alpn, Balance, Bind, Config, Forward, HealthCheck, HostPattern, KernelMode, L4Balance,
        L4Protocol, LimitMode, LogTarget, Measure, Overrun, Secret, ServiceLimit, Steer, TlsVersion, Unit,
        UpstreamProtocol,
    },
};
use gateway::proxy_protocol::Version;

fn parse(text: &str) -> Config {
    config::parse(text, Path::new("gateway.toml")).unwrap_or_else(|errors| panic!("{errors}"))
}

const MINIMAL: &str = r#"
[listener.web]
bind = ":8080"

[route.all]
to = ["127.0.0.1:3000", "127.0.0.1:3001"]
"#;

/// Every key that is supported, none at its default.
const FULL: &str = r#"
[gateway]
name = "edge-1"
workers = 4
drain = "1m30s"
limit_keys = 5000
limit_state = "/var/lib/gateway/limits.state"
log = { level = "debug", format = "json" }

[kernel]
interfaces = ["eth0", "wg0"]
mode = "native"
steer = "off"
required = true
pin = "/sys/fs/bpf/other"
adapt = { cpu = "70%", p99 = "250ms", errors = "2%", queue = 100, from = "5%" }
limit.packets = { rate = "20k/s", burst = 40_000 }
limit.new = "5/m"
limit.exempt = ["10.0.0.0/8", "2001:db8:aa::/48", "192.0.2.1"]
limit.ipv6_prefix = 56
block.cidrs = ["198.51.100.0/24"]
block.except = "198.51.100.7"
limit.bytes = { rate = "125MB/s", burst = "1MiB" }
limit.mode = "soft"
flows = 3000
syn_cookies = { above = "10k/s" }
class.office = { from = ["10.2.0.0/16", "10.1.0.0/16"], packets = "100k/s", bytes = "1KB/s" }
class."odd.name" = { from = "2001:db8::/32", new = "5/m", mode = "soft" }

[cert.main]
chain = "main.pem"
key = { credential = "tls-key" }
[cert.spare]
chain = "/etc/spare.pem"
key = { env = "SPARE_KEY" }
[listener.secure]
bind = ":443"
tls = { cert = ["main", "spare"], min = "1.3", alpn = ["http/1.1", "h2"], client_ca = "ca.pem", client = "request", clients = { "*.Example.com" = { client_ca = "other.pem", client_crl = "crl.pem" }, "admin.example.com" = { client_ca = "ca.pem", client = "request" } } }
hsts = { max_age = "365d", subdomains = true, preload = true }
proxy_protocol = { from = ["192.0.2.0/24", "2001:db8::1"] }
real_ip = { from = "10.0.0.0/8", header = "CF-Connecting-IP" }
[listener.redirected]
bind = ":8088"
redirect = "https"
real_ip = { from = ["::/0", "0.0.0.0/0"], header = "forwarded" }
[listener.web]
bind = ":80"
protocols = ["h1"]
max = { connections = 10, header = "8KiB", body = "unlimited" }
timeout = { header = "1s", idle = "2s", body = "3s" }

[listener."odd.name"]
bind = "[::1]:81"
max.body = 1000

[upstream.items]
to = [{ addr = "http://10.0.0.1:80", weight = 3 }, "localhost:81", "[::1]:82"]
balance = "ip-hash"
bounded_load = 1.25
health = { path = "/healthz?full", every = "100ms", timeout = "50ms", rise = 1, fall = 2, expect = [200, 204] }
retry = { on = ["connect"], tries = 5 }
proxy_protocol = "v2"
timeout = { connect = "250ms", first_byte = "1s", idle = "2s", total = "1h" }
pool = { idle = 0, idle_for = "5s" }

[upstream.secure]
to = ["https://10.0.0.1", { addr = "https://localhost:8443", weight = 2 }]
tls = { sni = "App.internal", cert = "main", verify = false, min = "1.3" }
protocol = "auto"
health.grpc = "shop.v1.Carts"
[upstream.carts]
to = "10.0.0.9:80"
protocol = "h2"
tls.ca = "ca.pem"
balance = "least-conn"
health.tcp = true
retry.on = []

[route.items]
host = ["API.example.com", "*.api.example.com"]
path = "/items/{id}/x%2Fy/*"
to = "items"
limit = ["hard", "soft", "dynamic", "at-once"]
upgrade = "WebSocket"
early_hints = true
grpc_web = true
compress = false
cache = "big"
client_cache = { control = "public, max-age=60", override = true, etag = true, max = "2MiB" }

[cache.big]
memory = "1GiB"
ttl = "30s"
override = true
negative = "500ms"
heuristic = true
stale = { while_revalidate = "1m", if_error = "1h" }
key = ["path", "query:b", "query:a", "header:Accept-Language", "cookie:s", "consumer"]
bypass = "cookie:session"
coalesce = false
max_body = "8MiB"
variants = 4
store_set_cookie = true

[cache.small]

[route.versioned]
host = "v.example.com"
path = "/api/{version}/things/{id}"
to = "items"
mirror = { to = "carts" }
compress = true
[route.versioned.version]
from = ["path", "host", "header:API-Version", "accept", "query:V"]
default = "latest"
on_conflict = "first"
aliases = { latest = "1.2" }
strip = []
header = "off"
[route.versioned.version.v1]
deprecated = 2026-06-01
sunset = { at = 2027-01-31T12:00:00+01:00, then = "redirect", link = "/docs" }
successor = "1.2"
brownout = [{ at = 2026-12-01, for = "1h", every = "1d" }, { at = "2026-12-24", for = "1d" }]
canary = { to = "1.2", share = "2.5%", header = "X-Canary: Yes", sticky = "cookie:uid", named = true }
rewrite = { set = { x-id = "${param.id}" } }
[route.versioned.version."1.2"]
to = ["10.0.0.9:80"]
deprecated = { at = 2030-01-01, link = "https://docs.example.com/" }
successor = "beta"
[route.versioned.version.beta]
respond = { body = "soon" }

[route.carts]
host = "[::1]"
path = "/carts/"
to = "carts"
auth = ["all", "key", "page"]
allow_from = ["10.0.0.0/8", "2001:db8::/32"]
deny_from = "10.9.0.0/16"
max = { header = "4KiB", body = "1MiB" }
content_types = ["application/json", "text/*"]
encoded_slash = "refuse"
allow = { GET = [], PUT = ["all", "carts:write", "tier:gold"], POST = "claim:org=acme" }

[auth.key]
type = "api-key"
from = ["query:api_key", "header:X-Key", "cookie:k", "bearer"]
keep = true
realm = "the shop"
[auth.page]
type = "api-key"
from = "header:x-page"
[auth.token]
type = "jwt"
from = ["bearer", "cookie:t"]
issuer = "https://id.example.com/"
audience = ["api", "web"]
jwks = "https://id.example.com/jwks"
ca = "id.pem"
refresh = "5m"
algorithms = ["PS512", "ES384"]
consumer = "claim:azp"
known = true
skew = "5s"
typ = "AT+jwt"
[auth.shared]
type = "jwt"
issuer = "a"
audience = "b"
secret = { env = "SHARED" }
[auth.file]
type = "jwt"
issuer = "a"
audience = "b"
jwks = "/etc/keys.json"
[auth.login]
type = "basic"
keep = true
[auth.cert]
type = "mtls"
[auth.signed]
type = "hmac"
window = "1m"
[auth.asked]
type = "forward"
to = "carts"
path = "/verify?x"
send = "Cookie"
copy = ["X-User", "x-role"]
consumer = "header:X-User"
timeout = "250ms"
on_error = "pass"

[consumer.acme]
tier = "gold"
secrets = [{ id = "s1", secret = { credential = "acme" }, until = 2030-01-01 }]
password = "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHRzYWx0$3lwBtIO3SLSZQ3zqNFmpDIZKlXY7H3MPoGiqmXtkMSg"
certs = ["uri:spiffe://acme/app", "dns:App.acme.test", "subject:CN=app, O=Acme", "email:a@acme.test", "sha256:AF1349B9F5F9A1A6A0404DEA36DCC9499BCB25C9ADC112B7CC9A93CAE41F3262"]
grant = ["carts:write", "carts:read"]
keys = [
  { id = "k1", hash = "blake3:7f83b1657ff1fc53b92dc18148a1d65dfc2d4b1fa3d677284addd200126d9069", until = 2027-01-01 },
  { id = "k2", hash = "blake3:AF1349B9F5F9A1A6A0404DEA36DCC9499BCB25C9ADC112B7CC9A93CAE41F3262", until = 2027-01-01T12:00:00+01:00 },
]

[route.rest]
to = ["10.0.0.1:1"]

[service.dns]
bind = ["192.0.2.53:53", "192.0.2.54:53"]
protocol = "udp"
to = [{ addr = "10.0.0.1:5353", weight = 3 }, "10.0.0.2:53"]
balance = "ip-hash"
path = "kernel"
health = { udp = true, send = "hex:00ff", answer = false, every = "1s", timeout = "500ms", rise = 3, fall = 4 }
limit = { packets = "1k/s", new = { rate = "5/s", burst = 9 }, bytes = "1MiB/s" }

[service.quic]
bind = ":443"
protocol = "udp"
to = [{ addr = "10.0.0.1:443", server_id = 0 }, { addr = "[2001:db8::1]:443", weight = 2, server_id = 65535 }]
forward = "gue"
flows = false
quic = true
health = { udp = true, send = "ping" }

[service."odd.name"]
bind = "[2001:db8::5]:25"
to = "[2001:db8::1]:25"
forward = "ipip"
health = { path = "/ready", expect = 204 }

[service.passed]
bind = ["192.0.2.7:444", "[2001:db8::7]:444"]
path = "splice"
to = { addr = "10.0.0.1:443", weight = 2 }
sni = { "A.example.com" = ["10.0.0.2:443", "[2001:db8::2]:443"], "*.example.com" = "10.0.0.1:443" }
balance = "least-conn"
proxy_protocol = { from = ["10.0.0.0/8", "192.0.2.1"], send = "v1" }
timeout = { connect = "2s", header = "3s", idle = "off" }
max.connections = 7
health.tcp = true

[service.ended]
bind = ":8443"
path = "splice"
to = "10.0.0.1:80"
balance = "random"
proxy_protocol = "v2"
tls = { cert = "main", alpn = ["h2"], min = "1.3" }

[state]
directory = "state"
key = { credential = "state-key" }
old_keys = [{ file = "old.key" }, { env = "OLDER" }]

[access_log]
to = "access.log"
format = "json"
on_full = "drop"

[metrics]
bind = "off"
consumer_label = false

[admin]
socket = "/tmp/gateway.sock"

[limit.hard]
key = ["consumer", "ip", "header:X-Tenant", "query:k", "cookie:sid", "claim:org", "route", "host", "version", "method", "path"]
rate = "1001/15m"
burst = 2000
per = { gold = "1M/h" }
cost = { POST = 5 }
shared = false
dry_run = true
headers = ["ratelimit", "x-ratelimit"]
ipv4_prefix = 24
ipv6_prefix = 56
ban = { after = 50, within = "2m", for = "60s", where = "http" }

[limit.any]
rate = "100/m"
algorithm = "sliding-window"

[limit.paced]
unit = "bytes"
rate = "1MiB/s"
pace = true

[shared]
redis = "redis://10.0.0.5:6379/2"
budget = "5ms"
on_error = "refuse"
name = "edge"

[limit.soft]
mode = "soft"
unit = "tokens"
rate = "5M/month"
shed = "150%"
cost = "json:/usage/total_tokens"

[limit.delayed]
mode = "soft"
unit = "bytes"
rate = "10MiB/s"
burst = "64MiB"
delay = "2s"

[limit.window]
algorithm = "fixed-window"
rate = "100/d"
cost = "header:x-cost"

[limit.dynamic]
mode = "dynamic"
rate = { from = "200/s", to = "5k/s" }
target = { p99 = "250ms", errors = "2%", queue = 100, cpu = "80%" }
priority = ["gold", "silver"]

[limit.at-once]
mode = "dynamic"
unit = "connections"
max = { from = 10, to = 500 }
target = { cpu = "80%" }

[penalty]
threshold = 50
within = "5m"
for = "10m"
where = "http"
exempt = ["10.0.0.0/8"]
login = 1
malformed = 2
slow = 3
"#;

#[test]
fn five_lines_are_a_config() {
    let config = parse(MINIMAL);
    assert_eq!(config.listeners["web"].bind, Bind::Any(8080));
    assert_eq!(config.routes["all"].to.upstreams(), ["all"]);
    let targets: Vec<String> =
        config.upstreams["all"].targets.iter().map(|target| target.addr.to_string()).collect();
    assert_eq!(targets, ["127.0.0.1:3000", "127.0.0.1:3001"]);
    assert!(config.routes["all"].hosts.is_empty() && config.routes["all"].path.rest);
}

#[test]
fn what_is_left_out_has_the_defaults_that_the_model_names() {
    let config = parse(MINIMAL);
    assert!(!config.gateway.name.is_empty());
    assert_eq!(config.gateway.workers, None);
    assert_eq!(config.gateway.drain, Duration::from_secs(30));
    assert_eq!(config.kernel.mode, KernelMode::Auto);
    assert_eq!(config.kernel.steer, Steer::IpHash);
    assert_eq!(config.kernel.pin, Path::new("/sys/fs/bpf/gateway"));
    assert_eq!(config.kernel.limit.ipv6_prefix, 64);
    assert!(config.kernel.limit.packets.is_none() && config.kernel.limit.new.is_none());
    assert!(config.kernel.limit.bytes.is_none() && config.kernel.limit.mode == LimitMode::Hard);
    assert_eq!((config.kernel.flows, config.kernel.syn_cookies), (262_144, None));
    assert!(config.kernel.classes.is_empty() && config.services.is_empty());
    let web = &config.listeners["web"];
    assert_eq!((web.max.connections, web.max.header, web.max.body), (100_000, 32 << 10, Some(10 << 20)));
    assert_eq!(
        [web.timeout.header, web.timeout.idle, web.timeout.body],
        [10, 75, 30].map(Duration::from_secs)
    );
    let all = &config.upstreams["all"];
    assert_eq!((all.balance, all.bounded_load, all.retry.tries), (Balance::RoundRobin, None, 2));
    assert!(all.health.is_none() && all.timeout.total.is_none());
    assert_eq!(
        [all.timeout.connect, all.timeout.first_byte, all.timeout.idle, all.pool.idle_for],
        [1, 15, 60, 60].map(Duration::from_secs)
    );
    assert_eq!(all.pool.idle, 256);
    assert_eq!(config.access_log.to, LogTarget::Stdout);
    assert_eq!(config.metrics.bind, "127.0.0.1:9180".parse().ok());
    assert_eq!(config.admin.socket, Path::new("/run/gateway/admin.sock"));
}

#[test]
fn a_service_has_the_defaults_that_the_model_names() {
    let config = parse("[service.a]\nbind = \":53\"\nto = [\"10.0.0.1:53\", \"[::1]:54\"]\n");
    let service = &config.services["a"];
    assert_eq!((service.protocol, service.forward), (L4Protocol::Tcp, Forward::Nat));
    assert_eq!((service.balance, service.flows, service.quic), (L4Balance::Maglev, true, false));
    assert_eq!(service.binds, [Bind::Any(53)]);
    assert_eq!((service.targets[1].weight, service.targets[1].server_id), (1, None));
    assert!(service.health.is_none() && service.limit == ServiceLimit::default());
}

#[test]
fn every_key_of_services_and_classes_is_read() {
    let config = parse(FULL);
    let kernel = &config.kernel;
    let bytes = kernel.limit.bytes.expect("written");
    assert_eq!((bytes.rate.per_second, bytes.burst), (125e6, 1 << 20));
    assert_eq!((kernel.limit.mode, kernel.flows), (LimitMode::Soft, 4096));
    assert_eq!(kernel.syn_cookies.map(|rate| rate.per_second), Some(10_000.0));
    let office = &kernel.classes["office"];
    assert_eq!(
        office.from.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["10.1.0.0/16", "10.2.0.0/16"]
    );
    assert_eq!(office.bytes.map(|bucket| bucket.burst), Some(64 << 10), "room for any frame");
    assert_eq!(kernel.classes["odd.name"].mode, LimitMode::Soft);

    let dns = &config.services["dns"];
    assert_eq!((dns.binds.len(), dns.protocol, dns.balance), (2, L4Protocol::Udp, L4Balance::IpHash));
    assert_eq!(dns.targets.iter().map(|target| target.weight).collect::<Vec<_>>(), [3, 1]);
    let passed = config.services["passed"].splice.as_ref().expect("through userspace");
    assert_eq!((passed.to.len(), passed.sni.len(), config.services["passed"].targets.len()), (1, 2, 3));
    assert_eq!(passed.sni[1].0, HostPattern::Exact("a.example.com".into()));
    assert_eq!((passed.timeout.idle, passed.timeout.header), (None, Duration::from_secs(3)));
    assert_eq!((passed.announce, passed.connections), (Some(Version::V1), 7));
    let ended = config.services["ended"].splice.as_ref().expect("through userspace");
    assert_eq!((ended.announce, ended.proxy_protocol.is_none()), (Some(Version::V2), true));
    assert_eq!(ended.timeout.idle, Some(Duration::from_secs(600)));
    assert_eq!(ended.tls.as_ref().map(|tls| tls.alpn.clone()), Some(vec![Alpn::Http2]));
    let check = |name: &str| config.services[name].health.as_ref().map(|health| health.check.clone());
    assert_eq!(check("dns"), Some(HealthCheck::Udp { send: vec![0, 255], answer: false }));
    assert_eq!(check("quic"), Some(HealthCheck::Udp { send: b"ping".to_vec(), answer: true }));
    assert_eq!(check("odd.name"), Some(HealthCheck::Http { path: "/ready".into(), expect: vec![204] }));
    assert_eq!(dns.limit.new.map(|bucket| bucket.burst), Some(9));
    assert_eq!(dns.limit.bytes.map(|bucket| bucket.burst), Some(1 << 20));
    let quic = &config.services["quic"];
    assert_eq!((quic.forward, quic.flows, quic.quic), (Forward::Gue, false, true));
    assert_eq!(quic.targets[1].server_id, Some(65_535));
}

fn limits_are_read(config: &Config) {
    assert_eq!((config.gateway.limit_keys, config.routes["items"].limits.len()), (8192, 4));
    let hard = &config.limits["hard"];
    assert_eq!((hard.key.len(), hard.key[2].to_string()), (11, "header:x-tenant".into()));
    let Measure::Rate { unit, algorithm, quota, burst, per, .. } = &hard.measure else { panic!("a rate") };
    assert_eq!((*unit, *algorithm, *burst), (Unit::Requests, Algorithm::TokenBucket, Some(2000)));
    assert_eq!((quota.to_string(), per["gold"].to_string()), ("1001/15m".into(), "1M/h".into()));
    assert!(hard.ban.is_some_and(|ban| ban.after == 50 && !ban.kernel));
    assert_eq!(config.limits["soft"].mode, Overrun::Soft { shed: Some(1.5), delay: None });
    assert_eq!(config.limits["at-once"].measure, Measure::Connections { max: 500, from: Some(10) });
    assert!(config.penalty.as_ref().is_some_and(|penalty| penalty.threshold == 50 && penalty.slow == 3));
    assert!(config.kernel.adapt.is_some_and(|adapt| adapt.from == 0.05 && adapt.queue == Some(100)));
}

#[test]
fn every_key_is_read() {
    let config = parse(FULL);
    assert_eq!((config.gateway.name.as_str(), config.gateway.workers), ("edge-1", Some(4)));
    let packets = config.kernel.limit.packets.expect("written");
    assert_eq!((packets.rate.per_second, packets.burst), (20_000.0, 40_000));
    assert_eq!(config.kernel.limit.new.map(|bucket| bucket.burst), Some(1));
    assert_eq!(config.kernel.limit.exempt.len(), 3);
    assert_eq!(config.listeners["web"].max.body, None);
    assert_eq!(config.listeners["odd.name"].max.body, Some(1000));
    assert_eq!(config.listeners["redirected"].redirect, Some(443));
    let tls = config.listeners["secure"].tls.as_ref().expect("written");
    assert_eq!((tls.min, tls.client.as_ref().map(|client| client.required)), (TlsVersion::V13, Some(false)));
    assert_eq!(config.certs["main"].key, Secret::Credential("tls-key".into()));
    let tls = config.upstreams["secure"].tls.as_ref().expect("written");
    assert_eq!((tls.sni.as_deref(), tls.cert.as_deref()), (Some("app.internal"), Some("main")));
    assert_eq!((tls.verify, tls.min, tls.ca.is_some()), (false, TlsVersion::V13, false));
    let service = HealthCheck::Grpc { service: "shop.v1.Carts".into() };
    assert!(config.upstreams["secure"].health.as_ref().is_some_and(|health| health.check == service));
    assert!(config.routes["items"].grpc_web && !config.routes["carts"].grpc_web);
    let protocol = |name: &str| config.upstreams[name].protocol;
    assert_eq!((protocol("secure"), protocol("carts")), (UpstreamProtocol::Auto, UpstreamProtocol::Http2));
    assert_eq!(protocol("items"), UpstreamProtocol::Http1);
    assert!(config.upstreams["carts"].tls.as_ref().is_some_and(|tls| tls.verify && tls.ca.is_some()));
    limits_are_read(&config);
    let acme = &config.consumers["acme"];
    assert_eq!(
        (acme.tier.as_deref(), &acme.grants[..]),
        (Some("gold"), &["carts:read".to_owned(), "carts:write".into()][..])
    );
    let until = acme.keys.iter().map(|key| key.until.map(|until| until.to_string()).unwrap_or_default());
    assert_eq!(until.collect::<Vec<_>>(), ["2027-01-01", "2027-01-01T11:00:00Z"]);
    let items = &config.upstreams["items"];
    assert_eq!(items.targets.iter().map(|target| target.weight).collect::<Vec<_>>(), [3, 1, 1]);
    assert_eq!((items.balance, items.bounded_load), (Balance::IpHash, Some(1.25)));
    let health = items.health.as_ref().expect("written");
    assert_eq!(health.check, HealthCheck::Http { path: "/healthz?full".into(), expect: vec![200, 204] });
    assert_eq!(
        config.upstreams["carts"].health.as_ref().map(|health| &health.check),
        Some(&HealthCheck::Tcp)
    );
    assert_eq!(config.upstreams["carts"].retry.tries, 0);
    assert_eq!(config.routes["items"].hosts[1], HostPattern::Wildcard("api.example.com".into()));
    assert_eq!(config.routes["items"].upgrade, ["websocket"]);
    let versioned = &config.routes["versioned"];
    let versions = versioned.versions.as_ref().expect("written");
    let names: Vec<&str> = versions.versions.iter().map(|version| version.name.as_str()).collect();
    assert_eq!((&names[..], versions.default.as_deref()), (&["beta", "v1", "1.2"][..], Some("1.2")));
    assert_eq!(versioned.path.to_string(), "/api/things/{id}");
    assert_eq!(versions.paths[0].to_string(), "/api/{version}/things/{id}");
    let own = |index: usize| &versions.versions[index].route;
    assert!(own(0).mirror.is_none() && own(1).mirror.is_some() && own(2).compress.is_some());
    assert_eq!((own(1).to.upstreams(), own(2).to.upstreams()), (vec!["items"], vec!["versioned.1.2"]));
    let LogTarget::File(log) = &config.access_log.to else { panic!("not a file") };
    assert!(log.is_absolute() && log.ends_with("access.log"));
    assert_eq!(config.metrics.bind, None);
}

#[test]
fn what_is_shown_loads_to_the_same_config() {
    for text in [MINIMAL, FULL] {
        let config = parse(text);
        let shown = config::show(&config);
        let again = parse(&shown);
        assert_eq!(config::diff(&config, &again), [], "{shown}");
        assert_eq!(config::show(&again), shown);
        assert_eq!(config, again);
    }
}

#[test]
fn places_are_those_of_the_names() {
    let config = parse(MINIMAL);
    assert_eq!(config.listeners["web"].at.to_string(), "gateway.toml:2:11");
    assert_eq!(config.routes["all"].at.to_string(), "gateway.toml:5:8");
}

#[test]
fn a_file_is_read_with_what_it_includes_and_names() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    fs::create_dir(at("conf.d")).expect("made");
    fs::write(at("gateway.toml"), "include = \"conf.d/*.toml\"\n[kernel.block]\nfiles = [\"block.txt\"]\n")
        .expect("written");
    fs::write(at("conf.d/a.toml"), "[listener.web]\nbind = \":80\"\n[route.a]\nto = \"b\"\n")
        .expect("written");
    fs::write(at("conf.d/b.toml"), "[upstream.b]\nto = \"10.0.0.1:80\"\n").expect("written");
    fs::write(at("conf.d/.hidden.toml"), "not toml").expect("written");
    fs::write(at("block.txt"), "# who\n10.0.0.0/8\n\n  192.0.2.1 # one\n10.0.0.0/8\n").expect("written");

    let config = config::load(&at("gateway.toml")).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(config.routes["a"].to.upstreams(), ["b"]);
    assert_eq!(config.kernel.block.prefixes.len(), 2);
    assert_eq!(config.files, [at("gateway.toml"), at("conf.d/a.toml"), at("conf.d/b.toml"), at("block.txt")]);
    let again = parse(&config::show(&config));
    assert_eq!(again.kernel, config.kernel);

    fs::write(at("block.txt"), "10.0.0.0/8\n192.0.2.2\n").expect("written");
    let changed = config::load(&at("gateway.toml")).unwrap_or_else(|errors| panic!("{errors}"));
    let changes: Vec<String> = config::diff(&config, &changed).iter().map(ToString::to_string).collect();
    assert_eq!(
        changes,
        ["~ kernel.block.files: \"2 prefixes in all\" -> \"2 prefixes in all: 1 less, 1 more\""]
    );
}

#[test]
fn a_diff_names_settings_and_what_needs_a_restart() {
    let old = parse(MINIMAL);
    let new = parse(
        r#"
[gateway]
workers = 2
drain = "10s"
[kernel]
mode = "off"
[listener.more]
bind = ":8081"
[listener.web]
bind = ":8082"
[route.all]
to = ["127.0.0.1:3000"]
early_hints = true
"#,
    );
    let changes: Vec<String> = config::diff(&old, &new).iter().map(ToString::to_string).collect();
    assert_eq!(
        changes[..5],
        [
            "~ gateway.workers: \"auto\" -> 2",
            "~ gateway.drain: \"30s\" -> \"10s\"",
            "~ kernel.mode: \"auto\" -> \"off\"",
            "~ listener.web.bind: \":8080\" -> \":8082\"",
            "+ listener.more = { bind = \":8081\", max = { connections = 100000, header = \"32KiB\", body = \"10MiB\", streams = 128 }, \
         timeout = { header = \"10s\", idle = \"1m15s\", body = \"30s\" }, protocols = [\"h1\"] }",
        ]
    );
    assert_eq!(
        changes[5],
        "~ upstream.all.to: [\"127.0.0.1:3000\", \"127.0.0.1:3001\"] -> [\"127.0.0.1:3000\"]"
    );
    assert_eq!(config::needing_restart(&config::diff(&old, &new)), ["gateway.workers", "kernel.mode"]);
    assert_eq!(config::diff(&old, &old), []);
}

#[test]
fn a_config_that_is_only_moved_about_is_the_same_and_of_many_routes_only_those_that_differ_are_told() {
    let route =
        |n: usize, more: &str| format!("[route.r{n}]\npath = \"/{n}\"\nto = [\"127.0.0.1:3000\"]\n{more}");
    let listener = "[listener.web]\nbind = \":8080\"\n";
    let text = |routes: [String; 3]| format!("{}{listener}", routes.concat());
    let old = parse(&text([route(1, ""), route(2, "early_hints = true\n"), route(3, "")]));
    let moved = text([route(3, ""), route(1, ""), route(2, "\n# here\nearly_hints = true\n")]);
    let moved = parse(&format!("# moved\n\n{listener}{}", moved.replace(listener, "")));
    assert!(old.routes == moved.routes && old.routes["r1"].at.line != moved.routes["r1"].at.line);
    assert_eq!(config::diff(&old, &moved), []);
    let new = parse(&text([route(1, ""), route(2, ""), route(4, "")]));
    let changes = config::diff(&old, &new);
    let paths: Vec<&str> = changes.iter().map(|change| &*change.path).collect();
    assert_eq!(paths, ["upstream.r3", "upstream.r4", "route.r2.early_hints", "route.r3", "route.r4"]);
}
