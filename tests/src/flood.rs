//! Floods: SYNs and UDP from a node as fast as they go, or at a rate.
//!
//! The fast way has the kernel send copies of a frame through a tiny XDP program (BPF_PROG_TEST_RUN with live frames,
//! 1.5 to 2 million a second); the other is a raw socket, which can also invent a source a packet.

use std::{
    net::{IpAddr, SocketAddr},
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::{
    bpf::{Program, XDP_DROP, XDP_PASS, XDP_TX, interface_index},
    net::{Namespace, Node},
    packet::{self, Frame, Inside, SYN},
    process::Process,
    sys::{self, ChildSetup},
    tools,
};

/// What to send, for how long.
#[derive(Debug, Clone)]
pub struct Flood {
    pub from: IpAddr,
    pub to: SocketAddr,
    pub syn: bool,
    pub udp: bool,
    /// Packets a second; 0: as many as possible.
    pub rate: u64,
    pub duration: Duration,
    /// A new source for each packet, counted up from `from`.
    pub spoof: bool,
    pub cpu: Option<usize>,
}

impl Flood {
    /// SYNs and UDP from the node's own address, as fast as possible.
    pub fn new(node: &Node, to: impl Into<SocketAddr>, duration: Duration) -> Flood {
        let to = to.into();
        let from = if to.is_ipv4() { node.v4().into() } else { node.v6().into() };
        Flood { from, to, syn: true, udp: true, rate: 0, duration, spoof: false, cpu: None }
    }
}

/// A flood under way.
#[derive(Debug)]
pub struct Running {
    process: Process,
    limit: Duration,
}

/// How much was sent.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sent {
    pub packets: u64,
    pub seconds: f64,
}

impl Sent {
    pub fn rate(&self) -> f64 {
        self.packets as f64 / self.seconds.max(1e-9)
    }
}

impl Flood {
    /// Starts it in a process of its own, in the node's namespace.
    pub fn start(&self, node: &Node) -> Result<Running> {
        let hex = |mac: [u8; 6]| mac.map(|octet| format!("{octet:02x}")).concat();
        let plan = json!({
            "from_mac": hex(node.mac()), "to_mac": hex(node.gateway_mac()),
            "from": self.from.to_string(), "to": self.to.to_string(),
            "syn": self.syn, "udp": self.udp, "rate": self.rate, "ms": self.duration.as_millis() as u64,
            "spoof": self.spoof,
        });
        let mut command = node.namespace.command(tools::lab()?)?;
        command.args(["flood", &plan.to_string()]).on_cpu(self.cpu);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        Ok(Running { process: Process::start(command)?, limit: self.duration + Duration::from_secs(10) })
    }

    pub fn run(&self, node: &Node) -> Result<Sent> {
        self.start(node)?.finish()
    }
}

impl Running {
    pub fn finish(mut self) -> Result<Sent> {
        self.process.wait(self.limit)?;
        let stdout = self.process.child.stdout.take().context("no stdout")?;
        let sent: Value = serde_json::from_reader(stdout).context("the flood did not say what it sent")?;
        Ok(Sent {
            packets: sent["sent"].as_u64().unwrap_or(0),
            seconds: sent["seconds"].as_f64().unwrap_or(0.0),
        })
    }
}

/// What `gateway-lab flood PLAN` does, in the namespace that it was started in.
pub fn run_plan(plan: &str) -> Result<()> {
    let plan: Value = serde_json::from_str(plan)?;
    let text = |name: &str| plan[name].as_str().with_context(|| format!("no {name}"));
    let (from, to): (IpAddr, SocketAddr) = (text("from")?.parse()?, text("to")?.parse()?);
    let flag = |name: &str| plan[name].as_bool().unwrap_or(false);
    let frame = Frame {
        from_mac: mac(text("from_mac")?)?,
        to_mac: mac(text("to_mac")?)?,
        from: SocketAddr::new(from, 40_000),
        to,
        inside: Inside::tcp(SYN),
        vlans: Vec::new(),
        fragment: packet::DONT_FRAGMENT,
        options: Vec::new(),
        extensions: Vec::new(),
    };
    let mut kinds = Vec::new();
    if flag("syn") {
        kinds.push(frame.clone());
    }
    if flag("udp") {
        kinds.push(Frame { inside: Inside::Udp { payload: vec![b'u'; 18] }, ..frame });
    }
    let pace = Pace::new(plan["rate"].as_u64().unwrap_or(0), plan["ms"].as_u64().unwrap_or(1000));
    let (sent, seconds) =
        if flag("spoof") || pace.rate > 0 { raw(&kinds, pace, flag("spoof"))? } else { live(&kinds, pace)? };
    println!("{}", json!({ "sent": sent, "seconds": seconds }));
    Ok(())
}

fn mac(hex: &str) -> Result<[u8; 6]> {
    let value = u64::from_str_radix(hex, 16)?;
    let [_, _, mac @ ..] = value.to_be_bytes();
    Ok(mac)
}

struct Pace {
    rate: u64,
    began: Instant,
    end: Instant,
}

impl Pace {
    fn new(rate: u64, ms: u64) -> Pace {
        let began = Instant::now();
        Pace { rate, began, end: began + Duration::from_millis(ms) }
    }

    /// How many may be sent now, after `sent`; waits for the next. `None` when it is over.
    fn next(&self, sent: u64, most: u64) -> Option<u64> {
        loop {
            let now = Instant::now();
            if now >= self.end {
                return None;
            }
            if self.rate == 0 {
                return Some(most);
            }
            let due = (now - self.began).as_secs_f64() * self.rate as f64;
            if due as u64 > sent {
                return Some((due as u64 - sent).min(most));
            }
            thread::sleep(Duration::from_micros(200));
        }
    }
}

fn raw(kinds: &[Frame], pace: Pace, spoof: bool) -> Result<(u64, f64)> {
    let socket = sys::packet_socket(Node::INTERFACE)?;
    let mut sent = 0;
    let same: Vec<Vec<u8>> = kinds.iter().map(Frame::bytes).collect();
    while let Some(n) = pace.next(sent, 64) {
        let frames: Vec<Vec<u8>> = (sent..sent + n)
            .zip(kinds.iter().zip(&same).cycle())
            .map(|(i, (kind, bytes))| if spoof { from_another(kind, i).bytes() } else { bytes.clone() })
            .collect();
        let frames: Vec<&[u8]> = frames.iter().map(Vec::as_slice).collect();
        match sys::send_frames(&socket, &frames) {
            Ok(n) => sent += n as u64,
            // The other end's queue is full.
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {}
            Err(error) => return Err(error).context("cannot send"),
        }
    }
    Ok((sent, pace.began.elapsed().as_secs_f64()))
}

/// The frame from the i-th address after its own.
fn from_another(frame: &Frame, i: u64) -> Frame {
    let from = match frame.from.ip() {
        IpAddr::V4(v4) => IpAddr::from((u32::from(v4).wrapping_add(i as u32)).to_be_bytes()),
        // Another /64 each, as limits go by /64.
        IpAddr::V6(v6) => IpAddr::from((u128::from(v6) + (u128::from(i) << 64)).to_be_bytes()),
    };
    Frame { from: SocketAddr::new(from, frame.from.port()), ..frame.clone() }
}

/// Source ports that a live flood goes through: one alone would be one connection, tried again and again.
const PORTS: u16 = 64;

fn live(kinds: &[Frame], pace: Pace) -> Result<(u64, f64)> {
    const TIMES: u32 = 1024;
    let port = |kind: &Frame, n: u16| {
        let from = SocketAddr::new(kind.from.ip(), kind.from.port() + n);
        Frame { from, ..kind.clone() }.bytes()
    };
    let mut frames: Vec<Vec<u8>> =
        (0..PORTS).flat_map(|n| kinds.iter().map(move |kind| port(kind, n))).collect();
    let longest = frames.iter().map(Vec::len).max().unwrap_or(0).next_multiple_of(8);
    frames.iter_mut().for_each(|frame| frame.resize(longest, 0));
    let program = Program::send_off(interface_index(Node::INTERFACE)?, &frames)?;
    // A program that is attached somewhere runs at once, any other only after 15 ms of kernel housekeeping a call.
    if interface_index("gen0").is_err() {
        crate::net::ip_batch(None, "link add gen0 type veth peer name gen1\n", false)?;
    }
    let _attached = program.attach(interface_index("gen0")?)?;
    let mut sent = 0;
    while pace.next(sent, u64::from(TIMES)).is_some() {
        program.run_live(&frames[0], TIMES).context("cannot send live frames")?;
        sent += u64::from(TIMES);
    }
    Ok((sent, pace.began.elapsed().as_secs_f64()))
}

/// What a bare XDP program does with every packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bare {
    Drop,
    Pass,
    /// Sends it back.
    Tx,
}

/// Puts a bare program on an interface, in native mode, for as long as the process that is returned lives.
pub fn attach_bare(namespace: &Namespace, interface: &str, bare: Bare) -> Result<Process> {
    let mut command = namespace.command(tools::lab()?)?;
    let verdict = match bare {
        Bare::Drop => "drop",
        Bare::Pass => "pass",
        Bare::Tx => "tx",
    };
    command.args(["xdp", verdict, interface]).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut process = Process::start(command)?;
    let mut ready = [0; 6];
    let mut stdout = process.child.stdout.take().context("no stdout")?;
    if std::io::Read::read_exact(&mut stdout, &mut ready).is_err() {
        bail!("cannot attach a bare XDP program to {interface}");
    }
    Ok(process)
}

/// What `gateway-lab xdp drop|pass|tx INTERFACE` does: holds the link until it is killed.
pub fn hold_bare(bare: Bare, interface: &str) -> Result<()> {
    let program = Program::same_for_all(match bare {
        Bare::Drop => XDP_DROP,
        Bare::Pass => XDP_PASS,
        Bare::Tx => XDP_TX,
    })?;
    let _attached = program.attach(interface_index(interface)?)?;
    println!("ready");
    loop {
        thread::park();
    }
}
