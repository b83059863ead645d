//! What is left to the stack does arrive: real packets on a link, to a target whose neighbour is not known yet, and some
//! that have to be cut.

use std::{
    io,
    net::IpAddr,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    time::{Duration, Instant},
};

use gateway::kernel::TargetState;
use gateway_common::verdict::Reason;

use crate::{
    kernel::Kernel,
    kernel_support::{
        count,
        frames::UDP,
        lab::{self, Neighbour, ip},
    },
    needs_bpf, network,
    wire::Ip,
    world::hex,
};

/// Everything that comes and goes at an interface of the thread's network.
struct Wire(OwnedFd);

impl Wire {
    fn open(interface: &std::ffi::CStr) -> Self {
        let all = (libc::ETH_P_ALL as u16).to_be();
        // SAFETY: numbers only; then a new descriptor, ours alone.
        let socket = unsafe {
            let socket = libc::socket(libc::AF_PACKET, libc::SOCK_RAW, i32::from(all));
            assert!(socket >= 0, "{}", io::Error::last_os_error());
            OwnedFd::from_raw_fd(socket)
        };
        let wait = libc::timeval { tv_sec: 0, tv_usec: 50_000 };
        // SAFETY: a zeroed address of this family is one; the calls read structures of the sizes that they are given.
        unsafe {
            let mut address: libc::sockaddr_ll = std::mem::zeroed();
            address.sll_family = libc::AF_PACKET as u16;
            address.sll_protocol = all;
            address.sll_ifindex = libc::if_nametoindex(interface.as_ptr()) as i32;
            let (at, size) = ((&raw const address).cast(), size_of_val(&address) as u32);
            assert_eq!(libc::bind(socket.as_raw_fd(), at, size), 0, "{}", io::Error::last_os_error());
            let (at, size) = ((&raw const wait).cast(), size_of_val(&wait) as u32);
            libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_RCVTIMEO, at, size);
        }
        Self(socket)
    }

    fn send(&self, frame: &[u8]) {
        // SAFETY: the call reads the frame.
        let sent = unsafe { libc::send(self.0.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
        assert_eq!(sent, frame.len() as isize, "{}", io::Error::last_os_error());
    }

    /// Frames that `wanted` says yes to, until there are so many or a few seconds are over.
    fn receive(&self, number: usize, wanted: impl Fn(&[u8]) -> bool) -> Vec<Vec<u8>> {
        let began = Instant::now();
        let mut frames = Vec::new();
        while frames.len() < number && began.elapsed() < Duration::from_secs(5) {
            let mut frame = vec![0; 2048];
            // SAFETY: the call writes at most as much as there is room for.
            let length = unsafe { libc::recv(self.0.as_raw_fd(), frame.as_mut_ptr().cast(), frame.len(), 0) };
            frame.truncate(usize::try_from(length).unwrap_or(0));
            if wanted(&frame) {
                frames.push(frame);
            }
        }
        frames
    }
}

/// Of the one target, in each IP version.
const TARGETS: [&str; 2] = ["10.1.0.9", "2001:db8:1::9"];
const CLIENTS: [&str; 2] = ["10.1.0.7", "2001:db8:1::7"];

fn services() -> gateway::config::model::Config {
    let mut text = String::new();
    for (mode, name) in network::MODES.iter().enumerate().filter(|(_, name)| **name != "dsr") {
        for (v6, target) in TARGETS.iter().enumerate() {
            let bind = std::net::SocketAddr::new(network::vip(mode, v6 == 1), 80);
            let to = std::net::SocketAddr::new(target.parse().unwrap(), 80);
            text += &format!("[service.{name}{v6}]\nbind = \"{bind}\"\nprotocol = \"udp\"\n");
            text += &format!("forward = \"{name}\"\nto = \"{to}\"\n");
        }
    }
    gateway::config::parse(&text, std::path::Path::new("gateway.toml"))
        .unwrap_or_else(|errors| panic!("{errors}"))
}

/// Whether a frame is an IP packet to this address.
fn is_to(frame: &[u8], target: IpAddr) -> bool {
    match target {
        IpAddr::V4(v4) => frame.get(12..14) == Some(&[8, 0]) && frame.get(30..34) == Some(&v4.octets()),
        IpAddr::V6(v6) => frame.get(12..14) == Some(&[0x86, 0xdd]) && frame.get(38..54) == Some(&v6.octets()),
    }
}

#[test]
fn what_is_left_to_the_stack_arrives() {
    needs_bpf!();
    lab::inside(|lab| {
        let neighbour = Neighbour::new();
        lab.veth(network::IN, "gw1");
        neighbour.takes("gw1");
        // Whom the frames of `wire.rs` are for.
        ip(&["link", "set", network::IN, "address", "02:00:00:00:00:02"]);
        ip(&["address", "add", "10.1.0.254/16", "dev", network::IN]);
        ip(&["address", "add", "2001:db8:1::fe/64", "dev", network::IN, "nodad"]);
        let wire = neighbour.run(|| {
            ip(&["link", "set", "gw1", "up"]);
            ip(&["address", "add", "10.1.0.9/16", "dev", "gw1"]);
            ip(&["address", "add", "2001:db8:1::9/64", "dev", "gw1", "nodad"]);
            Wire::open(c"gw1")
        });
        // Before Linux 6.17 this is for the operator to decide.
        if !std::path::Path::new("/proc/sys/net/ipv6/conf/gw0/force_forwarding").exists() {
            std::fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1").unwrap();
        }
        let kernel = Kernel::start(lab, 1024);
        network::set(&kernel.plane, &services(), |_, _| TargetState::Up);
        for (mode, name) in network::MODES.iter().enumerate().filter(|(_, name)| **name != "dsr") {
            for v6 in [0, 1] {
                let target: IpAddr = TARGETS[v6].parse().unwrap();
                let header = Ip::new(CLIENTS[v6].parse().unwrap(), network::vip(mode, v6 == 1));
                let send = |length: usize| {
                    let before = count(&kernel.plane, Reason::Unresolved);
                    let data = vec![0xa5; length];
                    wire.send(&header.frame(&[], UDP, &header.udp((4000, 80), &data)));
                    let cut = length > 1000;
                    let got = wire.receive(1 + usize::from(cut), |frame| {
                        is_to(frame, target) && frame.windows(8).any(|bytes| bytes == [0xa5; 8])
                    });
                    let what = format!("{name}, {target}, {length} bytes");
                    // The target's own answer, an error, may be one too.
                    assert!(count(&kernel.plane, Reason::Unresolved) > before, "{what}");
                    assert_eq!(got.len(), 1 + usize::from(cut), "{what}: {:?}", kernel.plane.counters());
                    let marked = got.iter().flatten().filter(|byte| **byte == 0xa5).count();
                    assert!((length..length + 4).contains(&marked), "{what}: {}", hex(&got[0]));
                };
                // What a CPU knows of a next hop it knows for a quarter of a second.
                std::thread::sleep(Duration::from_millis(300));
                ip(&["neigh", "flush", "dev", network::IN]);
                send(100);
                if v6 == 0 && *name != "nat" {
                    send(1460);
                }
            }
        }
        kernel.plane.stop();
    });
}
