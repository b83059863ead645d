//! `gateway explain packet`: asks the programs what they would do with a packet, and tells why.

mod decode;
mod frame;
mod sandbox;

use std::{collections::BTreeMap, net::IpAddr};

use gateway_common::{
    bucket::Limit,
    flow::{self, Flow},
    forward,
    packet::{self, Parsed, bit},
    service::{Service, ServiceKey, mode, option},
    verdict::{Action, Reason},
};
use serde::Serialize;

use super::{
    error::KernelError,
    plane::Loaded,
    services::{mode_name, target_addr},
    sources::{self, Names as _},
    sys, table,
    tell::name_of,
};
use crate::{config::units::Prefix, hex};

pub use frame::PacketSpec;
pub use sandbox::Sandbox;

/// Seconds for which nobody asks until the sandbox and its memory are given back.
const IDLE: u32 = 60;

/// What becomes of a packet, and why.
#[derive(Debug, Clone, Serialize)]
pub struct Explained {
    /// Where it came in.
    pub interface: String,
    /// pass | drop | tx | forward
    pub verdict: &'static str,
    pub reason: &'static str,
    /// The reason in a sentence.
    pub meaning: &'static str,
    /// The rule or ban that decided.
    pub rule: Option<String>,
    /// The source's tokens, before this packet; of a limit that is off there are none.
    pub packets_left: Option<u64>,
    pub new_left: Option<u64>,
    pub bytes_left: Option<u64>,
    /// The source's class of limits; who knows the config fills it in.
    pub class: Option<String>,
    /// Zero: none.
    #[serde(skip)]
    pub class_number: u8,
    /// The service that it is sent to.
    pub service: Option<String>,
    /// nat | dsr | ipip | gue | echo
    pub forward: Option<&'static str>,
    pub target: Option<String>,
    /// Why that target.
    pub chosen_by: Option<String>,
    pub next_hop: Option<NextHop>,
    /// Its headers as it came, and as it leaves if it is not the same.
    pub before: Vec<String>,
    pub after: Option<Vec<String>>,
    pub before_hex: String,
    pub after_hex: Option<String>,
}

#[derive(Debug, Clone, Serialize)]
pub struct NextHop {
    pub interface: String,
    /// MAC addresses.
    pub to: String,
    pub from: String,
}

impl Loaded {
    pub fn explain(&mut self, spec: &PacketSpec) -> Result<Explained, KernelError> {
        let (interface, ifindex) = self.where_it_comes_in(spec)?;
        let address = std::fs::read_to_string(format!("/sys/class/net/{interface}/address"));
        let frame = spec
            .frame(CLIENT_MAC, address.ok().and_then(|text| mac_of(text.trim())).unwrap_or(OUR_MAC))
            .map_err(|why| KernelError::Unexplained { why })?;
        let mut parsed = Parsed::default();
        let known = packet::parse(&frame, true, &mut parsed).is_ok();
        let service = self.service_of(&parsed, known);

        let mut sandbox = match self.sandbox.take() {
            Some(sandbox) => sandbox,
            None => self.open_sandbox()?,
        };
        sandbox.used = self.ticks;
        let tried = self.try_out(&mut sandbox, &frame, ifindex, service);
        let flow = service.and_then(|service| self.known_flow(&sandbox, &parsed, service.vip));
        self.sandbox = Some(sandbox);
        let Tried { reason, out_ifindex, out, target, begins } = tried?;

        let source = IpAddr::from(parsed.source);
        let bucket = if known { self.limits_of(source) } else { [None; 3] };
        let changed = out != frame;
        let forwarded = reason.action() == Action::Forward || reason.action() == Action::Tx;
        let out_interface =
            if out_ifindex == 0 { interface.clone() } else { name_of(&self.attached, out_ifindex) };
        let next_hop = (forwarded && out.len() >= 12).then(|| NextHop {
            interface: out_interface,
            to: decode::mac(&out[..6]),
            from: decode::mac(&out[6..12]),
        });
        let of_service = service.filter(|service| service.mode != mode::ECHO);
        Ok(Explained {
            verdict: reason.action().name(),
            reason: reason.name(),
            meaning: reason.meaning(),
            rule: if known { self.rule_for(reason, source) } else { None },
            packets_left: bucket[0],
            new_left: bucket[1],
            bytes_left: bucket[2],
            class: None,
            class_number: if known { table::class_around(&self.rules, whole(source)) } else { 0 },
            service: of_service
                .map(|service| service.service)
                .or_else(|| target.and_then(|index| Some(self.services.target(index)?.service)))
                .map(|index| self.service_label(index)),
            forward: service.map(|service| mode_name(service.mode)),
            target: target
                .and_then(|index| self.services.target(index))
                .map(|target| target_addr(target).to_string()),
            chosen_by: match (of_service, target) {
                (Some(service), Some(target)) => Some(self.why(&parsed, &service, target, flow, begins)),
                _ => None,
            },
            next_hop,
            before: decode::headers(&frame),
            after: changed.then(|| decode::headers(&out)),
            before_hex: hex::text(&frame),
            after_hex: changed.then(|| hex::text(&out)),
            interface,
        })
    }

    fn where_it_comes_in(&self, spec: &PacketSpec) -> Result<(String, u32), KernelError> {
        let attached = || self.attached.iter().filter(|attached| attached.mode.is_some());
        let found = match &spec.interface {
            Some(name) => attached().find(|attached| attached.name == *name),
            None => attached().next(),
        };
        found.map(|attached| (attached.name.clone(), attached.ifindex)).ok_or_else(|| {
            let why = match &spec.interface {
                Some(name) => format!("XDP is not attached to {name}; see `gateway kernel status`"),
                None => "XDP is attached to no interface".to_owned(),
            };
            KernelError::Unexplained { why }
        })
    }

    fn open_sandbox(&self) -> Result<Box<Sandbox>, KernelError> {
        let pins = self.pins.as_ref().ok_or_else(|| {
            let why = self.pin_reason.as_deref().unwrap_or("nothing is pinned");
            KernelError::Unexplained {
                why: format!("the maps can be shared only where they are pinned: {why}"),
            }
        })?;
        Sandbox::open(&self.maps, pins, self.services.sets()).map(Box::new)
    }

    /// Every second.
    pub(super) fn close_sandbox(&mut self) {
        if self.sandbox.as_ref().is_some_and(|sandbox| self.ticks.wrapping_sub(sandbox.used) > IDLE) {
            self.sandbox = None;
        }
    }

    fn try_out(
        &self,
        sandbox: &mut Sandbox,
        frame: &[u8],
        ifindex: u32,
        service: Option<Service>,
    ) -> Result<Tried, KernelError> {
        sandbox.refresh(&self.settings)?;
        let counts = |sandbox: &Sandbox| -> BTreeMap<u16, (u64, u64)> {
            let ours = |of: u16| service.is_none_or(|service| service.service == of);
            let targets = self.services.targets().filter(|(_, target)| ours(target.service));
            targets.map(|(index, _)| (index, counted(sandbox, index))).collect()
        };
        let before = counts(sandbox);
        let (id, out_ifindex, out) = sandbox.run(frame, ifindex)?;
        let after = counts(sandbox);
        let chosen = after.iter().find(|(index, count)| before.get(*index) != Some(*count));
        let begins =
            chosen.is_some_and(|(index, (_, begun))| before.get(index).is_some_and(|b| b.1 != *begun));
        Ok(Tried {
            reason: Reason::from_id(id).unwrap_or(Reason::NoSettings),
            out_ifindex,
            out,
            target: chosen.map(|(index, _)| *index),
            begins,
        })
    }

    fn service_of(&self, parsed: &Parsed, known: bool) -> Option<Service> {
        let (port, protocol) = match parsed.bits & bit::PORTS {
            0 => (0, parsed.protocol),
            _ => (parsed.destination_port, parsed.protocol),
        };
        let key = ServiceKey::new(parsed.destination, port, protocol);
        self.services.service(&key).filter(|_| known)
    }

    /// The target of its connection, if that is known.
    fn known_flow(&self, sandbox: &Sandbox, parsed: &Parsed, vip: u16) -> Option<Flow> {
        let flows = sandbox.live_flows()?;
        let key = flow::client_key(self.settings.flow_seed, parsed.source, parsed.source_port, vip);
        let place = flow::find::<_, 2>(&flows, key)?;
        let flow = Flow(flow::load::<_, 2>(&flows, place, 1));
        (!flow.is_over(sys::monotonic_ns() >> 30)).then_some(flow)
    }

    fn why(
        &self,
        parsed: &Parsed,
        service: &Service,
        target: u16,
        flow: Option<Flow>,
        begins: bool,
    ) -> String {
        if !begins && flow.is_some_and(|flow| flow.target() == target) {
            return "its connection is known".into();
        }
        let slot = maglev_slot(service, parsed);
        let index = self.services.slot(&self.maps, service.ring, slot);
        if index == Some(target) {
            return format!("slot {slot} of the service's Maglev table");
        }
        if service.options & option::QUIC != 0 {
            "the server id in its connection id"
        } else {
            "its connection"
        }
        .into()
    }

    /// The source's tokens of packets and connections and its bytes: a source without a bucket has them all.
    fn limits_of(&self, source: IpAddr) -> [Option<u64>; 3] {
        if let Some(row) = sources::one(&self.maps, &self.settings, self, source) {
            return [row.packets_left, row.new_left, row.bytes_left];
        }
        let limits = self.limits(source, 0);
        let all = |limit: &Limit| limit.is_on().then(|| limit.burst());
        let bytes = limits.bytes.is_on().then(|| limits.bytes.bytes_left(0, 1));
        [all(&limits.packets), all(&limits.new), bytes]
    }

    fn rule_for(&self, reason: Reason, source: IpAddr) -> Option<String> {
        let prefix = whole(source);
        match reason {
            Reason::Blocked => {
                table::rule_around(&self.rules, prefix).map(|(rule, _)| format!("kernel.block has {rule}"))
            }
            Reason::Exempt => table::rule_around(&self.rules, prefix)
                .map(|(rule, _)| format!("kernel.limit.exempt has {rule}")),
            Reason::Banned => table::ban_around(&self.bans, prefix, sys::monotonic_ns())
                .map(|(banned, ban)| format!("{banned} is banned: {}", ban.why)),
            _ => None,
        }
    }
}

/// What the sandbox made of a packet.
struct Tried {
    reason: Reason,
    out_ifindex: u32,
    out: Vec<u8>,
    target: Option<u16>,
    /// Whether a connection was given to the target.
    begins: bool,
}

fn whole(addr: IpAddr) -> Prefix {
    Prefix { addr, len: if addr.is_ipv4() { 32 } else { 128 } }
}

/// Packets and connections that a target got in the sandbox.
fn counted(sandbox: &Sandbox, index: u16) -> (u64, u64) {
    let cpus = sandbox.maps.target_counters.get(&u32::from(index), 0);
    cpus.map_or((0, 0), |cpus| {
        cpus.iter().fold((0, 0), |(packets, begun), cpu| (packets + cpu.packets, begun + cpu.connections))
    })
}

fn maglev_slot(service: &Service, parsed: &Parsed) -> u32 {
    let (from, to) = (parsed.source_port, parsed.destination_port);
    forward::slot_of(service, (parsed.source, from), (parsed.destination, to))
}

/// Locally administered, and nobody's.
const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const OUR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];

fn mac_of(text: &str) -> Option<[u8; 6]> {
    let octets: Vec<u8> =
        text.split(':').map(|o| u8::from_str_radix(o, 16)).collect::<Result<_, _>>().ok()?;
    octets.try_into().ok()
}
