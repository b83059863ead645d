//! `gateway explain`

use std::net::IpAddr;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::{Error, Global, Outcome, ban::text, client, exit, output, route::plain};
use crate::{kernel::PacketSpec, proxy::explain::RequestSpec};

#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "Examples:\n  gateway explain GET https://shop.test/items?page=2\n  \
                  gateway explain POST http://127.0.0.1:8080/orders -H 'Host: shop.test' -H 'X-Canary: 1' --from 192.0.2.7\n  \
                  gateway explain packet tcp 192.0.2.7 198.51.100.1:443"
)]
pub struct Explain {
    #[command(subcommand)]
    what: Option<What>,
    #[command(flatten)]
    request: Request,
}

/// Which listener and route take a request and why not the others, and where it goes.
#[derive(Debug, Args)]
struct Request {
    /// Such as GET
    #[arg(required = true)]
    method: Option<String>,
    /// With its scheme and host
    #[arg(required = true)]
    url: Option<String>,
    /// A header field
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// The client's address [default: 127.0.0.1]
    #[arg(long, value_name = "IP")]
    from: Option<IpAddr>,
    /// The consumer who calls, for limits and `hash_on` [default: none]
    #[arg(long = "as", value_name = "CONSUMER")]
    consumer: Option<String>,
    /// The listener [default: the one at the URL's port]
    #[arg(long, value_name = "NAME")]
    listener: Option<String>,
}

#[derive(Debug, Subcommand)]
enum What {
    /// What the kernel half would do with a packet: its own programs are asked, and nothing they count changes
    #[command(after_help = "Examples:\n  gateway explain packet tcp 192.0.2.7 198.51.100.1:443\n  \
                            gateway explain packet udp [2001:db8::7]:5353 [2001:db8:1::1]:53 --length 1400\n  \
                            gateway explain packet tcp 192.0.2.7:4000 198.51.100.1:443 --ack -v\n  \
                            gateway explain packet --hex 0200…")]
    Packet(Packet),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Protocol {
    Tcp,
    Udp,
    /// An echo request
    Icmp,
}

#[derive(Debug, Args)]
pub struct Packet {
    #[arg(value_enum, required_unless_present = "hex")]
    protocol: Option<Protocol>,
    /// An address, or one with a port
    #[arg(value_name = "SRC[:PORT]", required_unless_present = "hex")]
    source: Option<String>,
    /// An address with a port (icmp: without)
    #[arg(value_name = "DST:PORT", required_unless_present = "hex")]
    destination: Option<String>,
    /// TCP that opens a connection (the default)
    #[arg(long, conflicts_with_all = ["ack", "flags"])]
    syn: bool,
    /// TCP in the middle of a connection
    #[arg(long, conflicts_with = "flags")]
    ack: bool,
    /// TCP flags, separated by commas: fin, syn, rst, psh, ack, urg
    #[arg(long, value_delimiter = ',', value_name = "FLAGS")]
    flags: Option<Vec<String>>,
    /// Bytes of the IP packet
    #[arg(long, value_name = "BYTES")]
    length: Option<u32>,
    /// Time to live (hop limit)
    #[arg(long, default_value_t = 64)]
    ttl: u8,
    /// In this VLAN; twice: the outer one first
    #[arg(long, value_name = "ID")]
    vlan: Vec<u16>,
    /// Comes in at this interface [default: the first one with XDP]
    #[arg(long, value_name = "NAME")]
    interface: Option<String>,
    /// The whole frame, from the Ethernet header on, in hexadecimal
    #[arg(long, value_name = "BYTES", conflicts_with_all = ["protocol", "flags", "length", "vlan"])]
    hex: Option<String>,
}

impl Explain {
    pub fn run(self, global: &Global) -> Outcome {
        match self.what {
            Some(What::Packet(packet)) => {
                let spec = packet.spec();
                spec.frame([0; 6], [0; 6]).map_err(Error::Usage)?;
                let told = client::post(global, "/v1/explain", Some(json!({ "packet": spec })))?;
                output::print(global, &told, || describe(&told, global.verbose > 0));
            }
            None => {
                let spec = self.request.spec()?;
                let told = client::post(global, "/v1/explain", Some(json!({ "request": spec })))?;
                output::print(global, &told, || request(&told));
            }
        }
        Ok(exit::OK)
    }
}

impl Request {
    fn spec(self) -> Result<RequestSpec, Error> {
        Ok(RequestSpec {
            method: self.method.unwrap_or_default(),
            url: self.url.unwrap_or_default(),
            headers: self.headers.iter().map(field).collect::<Result<_, Error>>()?,
            from: self.from,
            listener: self.listener,
            consumer: self.consumer,
        })
    }
}

/// A header field as it is written on the command line.
pub fn field(line: &String) -> Result<(String, String), Error> {
    let (name, value) = line
        .split_once(':')
        .ok_or_else(|| Error::Usage(format!("{line:?} is no header field; write it as 'Name: value'")))?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

fn request(told: &Value) -> String {
    let mut rows = vec![
        ("listener", text(&told["listener"])),
        ("routed as", format!("{}{}", text(&told["host"]), text(&told["path"]))),
    ];
    if let Some(rules) = told["client_cert"].as_object() {
        let how = if rules["required"] == json!(true) { "required" } else { "checked if shown" };
        let of = rules.get("host").map(|host| format!(", by the rules of {}", text(host)));
        rows.push(("client cert", format!("{how}, from {}{}", text(&rules["ca"]), of.unwrap_or_default())));
    }
    if !told["route"].is_null() {
        rows.push(("route", text(&told["route"])));
    }
    if let Some(version) = told["version"].as_object() {
        rows.push(("version", format!("{}: {}", text(&version["name"]), text(&version["why"]))));
        if let Some(since) = version.get("deprecated") {
            rows.push(("", format!("deprecated {}", text(since))));
        }
    }
    for (key, value) in told["settings"].as_object().into_iter().flatten() {
        let said = ["host", "path", "to", "respond", "redirect"].contains(&key.as_str());
        let off = *value == json!(false) || *value == json!([]);
        if !said && !off {
            rows.push(("", format!("{key} {}", plain(value))));
        }
    }
    rows.extend(cache(&told["cache"]));
    for to in told["upstreams"].as_array().into_iter().flatten() {
        let weight = to["weight"].as_u64().map(|weight| format!(", weight {weight}")).unwrap_or_default();
        let target = match &to["target"] {
            Value::Null if to["usable"] == json!([]) => "none that is usable".into(),
            Value::Null => format!("one of {}", plain(&to["usable"])),
            target => text(target),
        };
        rows.push((
            "upstream",
            format!("{}{weight}, {}: {target}", text(&to["upstream"]), text(&to["balance"])),
        ));
        if let Some(breaker) = to["breaker"].as_str() {
            rows.push(("", format!("its breaker is {breaker}")));
        }
        if let Some(fallback) = to["fallback"].as_str() {
            rows.push(("", format!("falls back on {fallback}")));
        }
    }
    for (at, limit) in told["limits"].as_array().into_iter().flatten().enumerate() {
        rows.push((if at == 0 { "limits" } else { "" }, near(limit)));
        rows.push(("", format!("  of {}", text(&limit["key"]))));
    }
    for (at, other) in told["others"].as_array().into_iter().flatten().enumerate() {
        let what = if at == 0 { "not taken by" } else { "" };
        rows.push((what, format!("{}: {}", text(&other["route"]), text(&other["why"]))));
    }
    let rows: String = rows.into_iter().map(|(what, value)| format!("{what:<17} {value}\n")).collect();
    format!("{}\n{rows}", text(&told["outcome"]))
}

fn cache(told: &Value) -> Vec<(&'static str, String)> {
    if told.is_null() {
        return Vec::new();
    }
    let mut rows = vec![(
        "cache",
        format!("{}: {}: {}", text(&told["cache"]), text(&told["would"]), text(&told["why"])),
    )];
    if let (Some(age), Some(ttl)) = (told["age"].as_u64(), told["ttl"].as_i64()) {
        rows.push(("", format!("age {age}s, ttl {ttl}s, in {}", text(&told["stored"]))));
    }
    rows.extend(told["not_stored"].as_array().into_iter().flatten().map(|why| ("not stored", text(why))));
    let key: Vec<String> = told["key"].as_array().into_iter().flatten().map(text).collect();
    rows.push(("key", key.join(", ")));
    rows
}

/// How near a limit is.
fn near(limit: &Value) -> String {
    let [name, decision, left, of] = ["limit", "decision", "left", "of"].map(|field| text(&limit[field]));
    let seconds = |field: &str| limit[field].as_f64().unwrap_or(0.0).ceil();
    let then = match (seconds("wait_seconds"), seconds("full_seconds")) {
        (0.0, 0.0) => String::new(),
        (0.0, full) => format!(", all of it in {full} s"),
        (wait, _) => format!(", again in {wait} s"),
    };
    format!("{name}: {decision}, {left} of {of} left{then}")
}

impl Packet {
    fn spec(self) -> PacketSpec {
        let protocol = match self.protocol {
            Some(Protocol::Tcp) => "tcp",
            Some(Protocol::Udp) => "udp",
            Some(Protocol::Icmp) => "icmp",
            None => "",
        };
        PacketSpec {
            protocol: protocol.to_owned(),
            source: self.source.unwrap_or_default(),
            destination: self.destination.unwrap_or_default(),
            flags: if self.ack { Some(vec!["ack".to_owned()]) } else { self.flags },
            length: self.length,
            ttl: self.ttl,
            vlan: self.vlan,
            interface: self.interface,
            hex: self.hex,
        }
    }
}

fn describe(told: &Value, verbose: bool) -> String {
    let mut out =
        format!("{}: {}\n  {}\n", text(&told["verdict"]), text(&told["reason"]), text(&told["meaning"]));
    let hop = &told["next_hop"];
    let hop = hop.as_object().map(|_| {
        let [interface, to, from] = ["interface", "to", "from"].map(|field| text(&hop[field]));
        Value::from(format!("{interface}, to {to} from {from}"))
    });
    let rows = [
        ("comes in at", &told["interface"]),
        ("rule", &told["rule"]),
        ("class", &told["class"]),
        ("packets left", &told["packets_left"]),
        ("connections left", &told["new_left"]),
        ("bytes left", &told["bytes_left"]),
        ("service", &told["service"]),
        ("forwarded by", &told["forward"]),
        ("target", &told["target"]),
        ("chosen by", &told["chosen_by"]),
        ("next hop", hop.as_ref().unwrap_or(&Value::Null)),
    ];
    for (name, value) in rows.into_iter().filter(|(_, value)| !value.is_null()) {
        out += &format!("{name:<17} {}\n", text(value));
    }
    for (name, lines, hex) in
        [("packet", &told["before"], &told["before_hex"]), ("leaves as", &told["after"], &told["after_hex"])]
    {
        for (at, line) in lines.as_array().into_iter().flatten().enumerate() {
            out += &format!("{:<17} {}\n", if at == 0 { name } else { "" }, text(line));
        }
        if let (true, Some(hex)) = (verbose, hex.as_str()) {
            out += &format!("{:<17} {hex}\n", "");
        }
    }
    out
}
