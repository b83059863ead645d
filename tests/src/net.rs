//! A network of namespaces: the gateway in the middle, clients, attackers and backends around it, a veth to each.
//!
//! Node number `i` has 10.77.i.2 and fd77:0:0:i::2, the gateway's end of its link .1 and ::1; on that end the link is
//! named as the node is (`c1`, `atk`, `b1`, …). Clients reach the gateway at [`VIP4`] and [`VIP6`]. A node also owns
//! all of 10.(100+i).0.0/16 and fd78:0:0:i::/64, to be many clients at once. Neighbours are static, so that the first
//! packet is the one that a test sent, and not an ARP request.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs::File,
    io::{self, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use crate::{
    cleanup::{self, NAMESPACES},
    sys::{self, ChildSetup},
};

/// Where the gateway is reached from every node.
pub const VIP4: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
pub const VIP6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 1);

/// A network namespace.
#[derive(Debug, Clone)]
pub struct Namespace {
    name: String,
    file: Arc<File>,
}

impl Namespace {
    fn open(name: String) -> Result<Self> {
        let path = Path::new(NAMESPACES).join(&name);
        let file = File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
        Ok(Namespace { name, file: Arc::new(file) })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it can be entered by `nsenter --net=`.
    pub fn path(&self) -> PathBuf {
        Path::new(NAMESPACES).join(&self.name)
    }

    /// Does something in the namespace, on a thread of its own: sockets made there stay in it. Processes started there
    /// with [`ChildSetup::die_with_parent`] would die with that thread; start them by [`Namespace::command`].
    pub fn run<T: Send>(&self, f: impl FnOnce() -> T + Send) -> io::Result<T> {
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                sys::enter_netns(&*self.file)?;
                Ok(f())
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// A command that will run in the namespace and be killed with the thread that starts it.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> io::Result<Command> {
        let mut command = Command::new(program);
        command.in_netns(&self.file)?.die_with_parent();
        Ok(command)
    }

    /// Runs a command to its end and returns what it printed.
    pub fn output(&self, program: &str, arguments: &[&str]) -> Result<String> {
        let output = self.command(program)?.args(arguments).stdin(Stdio::null()).output();
        let output = output.with_context(|| format!("cannot run {program}"))?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{program} {}: {errors}", arguments.join(" "));
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Sets a sysctl of the namespace, such as `net/ipv4/ip_forward`.
    pub fn set_sysctl(&self, name: &str, value: &str) -> Result<()> {
        let path = Path::new("/proc/sys").join(name);
        self.run(|| std::fs::write(&path, value))?.with_context(|| format!("cannot set {name}"))
    }
}

/// A client, attacker or backend.
#[derive(Debug, Clone)]
pub struct Node {
    /// Also the name of the gateway's end of the link.
    pub role: String,
    pub namespace: Namespace,
    index: u8,
}

impl Node {
    /// The node's own end of its link.
    pub const INTERFACE: &'static str = "eth0";

    /// A namespace taken for a client, to talk to what listens in it.
    pub fn of_namespace(namespace: Namespace) -> Node {
        Node { role: "local".into(), namespace, index: 0 }
    }

    pub fn v4(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, self.index, 2)
    }

    pub fn v6(&self) -> Ipv6Addr {
        Ipv6Addr::new(0xfd77, 0, 0, self.index.into(), 0, 0, 0, 2)
    }

    /// An address beside the node that takes packets and never answers.
    pub fn black_hole(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, self.index, 99)
    }

    /// The n-th of the many IPv4 addresses that the node owns besides.
    pub fn many_v4(&self, n: u16) -> Ipv4Addr {
        let [high, low] = n.to_be_bytes();
        Ipv4Addr::new(10, 100 + self.index, high, low)
    }

    /// The n-th address of its own /64.
    pub fn many_v6(&self, n: u64) -> Ipv6Addr {
        Ipv6Addr::from((u128::from(0xfd78_0000_0000_0000 | u64::from(self.index)) << 64) | u128::from(n))
    }

    pub fn mac(&self) -> [u8; 6] {
        [2, 0x77, 0, 0, self.index, 2]
    }

    /// The gateway's end of the link.
    pub fn gateway_mac(&self) -> [u8; 6] {
        [2, 0x77, 0, 0, self.index, 1]
    }

    pub fn at(&self, port: u16) -> SocketAddr {
        SocketAddr::from((self.v4(), port))
    }

    /// Connects to an address within 3 s, from one of the node's own if given.
    pub fn connect(&self, to: SocketAddr, from: Option<IpAddr>) -> io::Result<TcpStream> {
        self.connect_within(Duration::from_secs(3), to, from)
    }

    /// A SYN that is dropped is sent again after a second.
    pub fn connect_within(
        &self,
        limit: Duration,
        to: SocketAddr,
        from: Option<IpAddr>,
    ) -> io::Result<TcpStream> {
        self.namespace.run(|| connect(limit, to, from))?
    }

    /// Whether a connection from this address is taken: false if nothing comes back for 300 ms.
    pub fn gets_through(&self, to: SocketAddr, from: IpAddr) -> Result<bool> {
        match self.connect_within(Duration::from_millis(300), to, Some(from)) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => Ok(false),
            Err(error) => Err(error).with_context(|| format!("{from} to {to}")),
        }
    }
}

/// In the calling thread's namespace.
fn connect(limit: Duration, to: SocketAddr, from: Option<IpAddr>) -> io::Result<TcpStream> {
    let socket = socket2::Socket::new(socket2::Domain::for_address(to), socket2::Type::STREAM, None)?;
    if let Some(from) = from {
        sys::bind_any_address(&socket, from.is_ipv6())?;
        socket.bind(&SocketAddr::new(from, 0).into())?;
    }
    socket.connect_timeout(&to.into(), limit)?;
    socket.set_tcp_nodelay(true)?;
    Ok(socket.into())
}

/// The whole network. Dropping it takes it down; stop what runs in it first.
#[derive(Debug)]
pub struct Net {
    id: String,
    pub gateway: Namespace,
    nodes: Vec<Node>,
}

impl Net {
    /// One client and `backends` backends.
    pub fn simple(backends: usize) -> Result<Net> {
        Net::of(1, 0, backends)
    }

    pub fn of(clients: usize, attackers: usize, backends: usize) -> Result<Net> {
        let names = |prefix: &str, n: usize| (1..=n).map(|i| format!("{prefix}{i}")).collect::<Vec<_>>();
        let attackers = if attackers == 1 { vec!["atk".to_owned()] } else { names("atk", attackers) };
        Net::with_roles(&[names("c", clients), attackers, names("b", backends)].concat())
    }

    fn with_roles(roles: &[String]) -> Result<Net> {
        cleanup::sweep();
        sys::mount_bpffs().context("cannot mount bpffs")?;
        let id = cleanup::unique_name();
        let full = |role: &str| format!("{id}-{role}");
        let mut make = String::new();
        for role in std::iter::once("gw").chain(roles.iter().map(String::as_str)) {
            cleanup::note_namespace(&full(role));
            writeln!(make, "netns add {}", full(role))?;
        }
        ip_batch(None, &make, false)?;
        let gateway = Namespace::open(full("gw"))?;
        let nodes = roles.iter().zip(1..).map(|(role, index)| {
            Ok(Node { role: role.clone(), namespace: Namespace::open(full(role))?, index })
        });
        let nodes = nodes.collect::<Result<_>>()?;
        let net = Net { id, gateway, nodes };
        net.wire()?;
        Ok(net)
    }

    fn wire(&self) -> Result<()> {
        let mut gateway =
            format!("link set lo up\naddr add {VIP4}/32 dev lo\naddr add {VIP6}/128 dev lo nodad\n");
        let mut links = String::new();
        for node in &self.nodes {
            let (role, i, eth) = (&node.role, node.index, Node::INTERFACE);
            let (inner, outer) = (mac(node.gateway_mac()), mac(node.mac()));
            writeln!(
                links,
                "link add {role} address {inner} netns {} type veth peer name {eth} address {outer} netns {}",
                self.gateway.name(),
                node.namespace.name()
            )?;
            write!(
                gateway,
                "link set {role} addrgenmode none\nlink set {role} up\n\
                 addr add 10.77.{i}.1/24 dev {role}\naddr add fd77:0:0:{i:x}::1/64 dev {role} nodad\n\
                 neigh add {} lladdr {outer} dev {role} nud permanent\n\
                 neigh add {} lladdr {outer} dev {role} nud permanent\n\
                 neigh add {} lladdr 02:77:00:00:ff:ff dev {role} nud permanent\n\
                 route add 10.{many}.0.0/16 via {}\nroute add fd78:0:0:{i:x}::/64 via {}\n",
                node.v4(),
                node.v6(),
                node.black_hole(),
                node.v4(),
                node.v6(),
                many = 100 + i,
            )?;
        }
        ip_batch(None, &links, false)?;
        ip_batch(Some(&self.gateway), &gateway, false)?;
        for node in &self.nodes {
            let (i, eth, inner) = (node.index, Node::INTERFACE, mac(node.gateway_mac()));
            let batch = format!(
                "link set lo up\nlink set {eth} addrgenmode none\nlink set {eth} up\n\
                 addr add {}/24 dev {eth}\naddr add {}/64 dev {eth} nodad\n\
                 neigh add 10.77.{i}.1 lladdr {inner} dev {eth} nud permanent\n\
                 neigh add fd77:0:0:{i:x}::1 lladdr {inner} dev {eth} nud permanent\n\
                 route add default via 10.77.{i}.1\nroute add default via fd77:0:0:{i:x}::1\n\
                 route add local 10.{many}.0.0/16 dev lo\nroute add local fd78:0:0:{i:x}::/64 dev lo\n",
                node.v4(),
                node.v6(),
                many = 100 + i,
            );
            ip_batch(Some(&node.namespace), &batch, false)?;
            node.namespace.set_sysctl("net/ipv4/ip_local_port_range", "1024 65535")?;
        }
        self.gateway.set_sysctl("net/ipv4/ip_local_port_range", "1024 65535")
    }

    /// Makes the links fit for XDP programs that send: a veth takes frames of a program only with GRO on (or a program of
    /// its own) at its end, and programs need checksums that are there.
    pub fn for_forwarding(&self) -> Result<()> {
        for node in &self.nodes {
            node.namespace.output("ethtool", &["-K", Node::INTERFACE, "gro", "on", "tx", "off"])?;
            self.gateway.output("ethtool", &["-K", &node.role, "gro", "on", "tx", "off"])?;
        }
        Ok(())
    }

    /// The gateway's interfaces towards all nodes, as a TOML list.
    pub fn all_interfaces(&self) -> String {
        let names: Vec<String> = self.nodes.iter().map(|node| format!("{:?}", node.role)).collect();
        format!("[{}]", names.join(", "))
    }

    /// Unique to this network; also a good name for its pin directory.
    pub fn id(&self) -> &str {
        &self.id
    }

    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Panics if there is no such node: a mistake in the test.
    #[track_caller]
    pub fn node(&self, role: &str) -> &Node {
        self.nodes.iter().find(|node| node.role == role).expect("no node of that role")
    }

    pub fn client(&self, n: usize) -> &Node {
        self.node(&format!("c{n}"))
    }

    pub fn attacker(&self) -> &Node {
        self.node("atk")
    }

    pub fn backend(&self, n: usize) -> &Node {
        self.node(&format!("b{n}"))
    }

    /// The gateway's interfaces towards clients and attackers, as a TOML list.
    pub fn front_interfaces(&self) -> String {
        let front = self.nodes.iter().filter(|node| !node.role.starts_with('b'));
        format!("[{}]", front.map(|node| format!("\"{}\"", node.role)).collect::<Vec<_>>().join(", "))
    }

    /// What the kernel says of an interface of the gateway: counters, and the XDP program on it, if any.
    pub fn link(&self, interface: &str) -> Result<serde_json::Value> {
        let text = self.gateway.output("ip", &["-s", "-d", "-j", "link", "show", "dev", interface])?;
        let mut links: serde_json::Value = serde_json::from_str(&text)?;
        Ok(links[0].take())
    }

    /// Moves the gateway's receive work for an interface to a kernel thread of its own, pinned to a CPU: a veth's is
    /// otherwise done by whoever sends. The interface must have a program in native mode already.
    /// The ids of the threads.
    pub fn thread_receive(&self, interface: &str, cpu: usize) -> Result<Vec<u32>> {
        // The sysfs of a namespace shows only in a mount made inside it, which `ip netns exec` makes.
        let path = format!("/sys/class/net/{interface}/threaded");
        let status = Command::new("ip")
            .args(["netns", "exec", self.gateway.name(), "sh", "-c", &format!("echo 1 > {path}")])
            .status()?;
        ensure!(status.success(), "cannot make the receive work of {interface} threaded");
        let threads = kernel_threads(&format!("napi/{interface}-"))?;
        ensure!(!threads.is_empty(), "{interface} has no receive thread: is a native program attached?");
        for tid in &threads {
            sys::pin_task(*tid, cpu).context("cannot pin a receive thread")?;
        }
        Ok(threads.into_iter().map(i32::cast_unsigned).collect())
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        let mut names = vec![self.gateway.name().to_owned()];
        names.extend(self.nodes.iter().map(|node| node.namespace.name().to_owned()));
        cleanup::remove_namespaces(&names);
    }
}

fn mac(octets: [u8; 6]) -> String {
    octets.map(|octet| format!("{octet:02x}")).join(":")
}

/// Ids of the kernel threads whose names start so.
fn kernel_threads(prefix: &str) -> Result<BTreeSet<i32>> {
    let named = |tid: &i32| {
        std::fs::read_to_string(format!("/proc/{tid}/comm")).is_ok_and(|name| name.starts_with(prefix))
    };
    let tids =
        std::fs::read_dir("/proc")?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    Ok(tids.filter(named).collect())
}

/// Runs a batch of `ip` commands, in a namespace if given; `force`: go on after a failed one.
pub fn ip_batch(namespace: Option<&Namespace>, batch: &str, force: bool) -> Result<()> {
    let mut command = Command::new("ip");
    if let Some(namespace) = namespace {
        command.args(["-n", namespace.name()]);
    }
    if force {
        command.arg("-force");
    }
    command.args(["-batch", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().context("cannot run `ip`")?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(batch.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    let errors = String::from_utf8_lossy(&output.stderr);
    // It says "Command failed -:LINE".
    let line = errors.rsplit_once("-:").and_then(|(_, line)| line.trim().parse::<usize>().ok());
    let failed = line.and_then(|line| batch.lines().nth(line.saturating_sub(1))).unwrap_or("");
    ensure!(output.status.success(), "ip {failed}: {errors}");
    Ok(())
}
