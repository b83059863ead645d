//! `gateway explain`

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::{Error, Global, Outcome, ban::text, client, exit, output};
use crate::kernel::PacketSpec;

#[derive(Debug, Subcommand)]
pub enum Explain {
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
        let Explain::Packet(packet) = self;
        let spec = packet.spec();
        spec.frame([0; 6], [0; 6]).map_err(Error::Usage)?;
        let told = client::post(global, "/v1/explain", Some(json!({ "packet": spec })))?;
        output::print(global, &told, || describe(&told, global.verbose > 0));
        Ok(exit::OK)
    }
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
