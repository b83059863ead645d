//! Much data through what is tested, and whether it came whole.

use std::{
    fs::File,
    io::{self, Read as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::OwnedFd,
    path::Path,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use crate::net::Node;

/// A transfer that stands still for so long has failed.
const PATIENCE: Duration = Duration::from_secs(10);

/// Fills a file with noise.
pub fn noise(path: &Path, bytes: u64) -> Result<()> {
    let mut from = File::open("/dev/urandom")?.take(bytes);
    io::copy(&mut from, &mut File::create(path)?)?;
    Ok(())
}

/// What `sha256sum` says of all that comes.
pub fn sha256(from: impl Into<OwnedFd>) -> Result<String> {
    let output = Command::new("sha256sum").stdin(Stdio::from(from.into())).output()?;
    ensure!(output.status.success(), "sha256sum: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).split(' ').next().unwrap_or("").to_owned())
}

/// Hashes of what came at either end.
#[derive(Debug, PartialEq, Eq)]
pub struct Hashes {
    pub up: String,
    pub down: String,
}

/// Sends a file from a client through `to` to a server that listens at `listen`, and then back, on one connection.
pub fn there_and_back(
    client: &Node,
    to: SocketAddr,
    server: &Node,
    listen: SocketAddr,
    file: &Path,
) -> Result<Hashes> {
    let listener = server.namespace.run(|| TcpListener::bind(listen))??;
    std::thread::scope(|scope| {
        let server = scope.spawn(|| receive_then_send(&listener, file));
        let down = send_then_receive(client.connect(to, None)?, file).context("client");
        let up = server.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)).context("server");
        Ok(Hashes { up: up?, down: down? })
    })
}

fn patient(stream: TcpStream) -> io::Result<TcpStream> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

fn receive_then_send(listener: &TcpListener, file: &Path) -> Result<String> {
    let mut stream = patient(listener.accept()?.0)?;
    let hash = sha256(stream.try_clone()?)?;
    io::copy(&mut File::open(file)?, &mut stream)?;
    Ok(hash)
}

fn send_then_receive(stream: TcpStream, file: &Path) -> Result<String> {
    let mut stream = patient(stream)?;
    io::copy(&mut File::open(file)?, &mut stream)?;
    stream.shutdown(Shutdown::Write)?;
    sha256(stream)
}

/// Sends datagrams back, its number before what came.
#[derive(Debug)]
pub struct Echo {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Echo {
    pub fn start(node: &Node, listen: SocketAddr, number: u8) -> Result<Echo> {
        let socket = node.namespace.run(|| UdpSocket::bind(listen))??;
        socket.set_read_timeout(Some(Duration::from_millis(50)))?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut buffer = vec![0; 65_536];
            buffer[0] = number;
            while !stopped.load(Relaxed) {
                if let Ok((n, from)) = socket.recv_from(&mut buffer[1..]) {
                    // One that is lost is missed by who waits for it.
                    let _ = socket.send_to(&buffer[..=n], from);
                }
            }
        });
        Ok(Echo { stop, thread: Some(thread) })
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        self.thread.take().map(JoinHandle::join);
    }
}

/// A datagram that no other is like.
pub fn datagram(serial: u32, length: usize) -> Vec<u8> {
    let mut state = serial.wrapping_mul(2_654_435_761) | 1;
    let noise = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    });
    serial.to_be_bytes().into_iter().chain(noise).take(length.max(4)).collect()
}

/// Sends these to an [`Echo`] at once and waits for all of them; which numbers answered.
pub fn echoed(socket: &UdpSocket, datagrams: &[Vec<u8>]) -> Result<std::collections::BTreeSet<u8>> {
    for datagram in datagrams {
        socket.send(datagram)?;
    }
    let mut missing: std::collections::BTreeSet<&[u8]> = datagrams.iter().map(Vec::as_slice).collect();
    let mut by = std::collections::BTreeSet::new();
    let mut buffer = vec![0; 65_536];
    while !missing.is_empty() {
        let n = socket.recv(&mut buffer).with_context(|| lost(&missing))?;
        let (number, came) = buffer[..n].split_first().context("nothing in it")?;
        ensure!(missing.remove(came), "changed on its way: {} bytes", came.len());
        by.insert(*number);
    }
    Ok(by)
}

fn lost(missing: &std::collections::BTreeSet<&[u8]>) -> String {
    let lengths: Vec<usize> = missing.iter().map(|datagram| datagram.len()).collect();
    format!("{} datagrams lost, of lengths {lengths:?}", missing.len())
}
