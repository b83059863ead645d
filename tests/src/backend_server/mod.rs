//! The backend program: an HTTP server that behaves as badly as the path asks it to, and counts what it gets.
//!
//! It runs in a namespace of its own as `gateway-lab backend`, is driven over stdin and answers on stdout, one JSON
//! line a command: `stats`, `health STATUS`, `slow MS`, `fail STATUS` (0: no more), `down` (refuse connections, cut those there are), `up`.

mod behaviour;
mod request;

use std::{
    collections::BTreeMap,
    io::{self, BufRead, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::AsRawFd,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU16, AtomicU64, Ordering::Relaxed},
    },
    thread,
};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use request::Reader;

/// Threads are many and shallow.
const STACK: usize = 256 * 1024;

/// What the connections of one backend share.
#[derive(Debug)]
pub struct State {
    pub name: String,
    /// What `/healthz` answers.
    health: AtomicU16,
    /// How long any other answer takes, in milliseconds.
    slow: AtomicU64,
    /// What any other answer is; 0: as its path says.
    fail: AtomicU16,
    connections: AtomicU64,
    open: AtomicU64,
    requests: AtomicU64,
    checks: AtomicU64,
    /// Answers of `/made`.
    made: AtomicU64,
    /// Answers that the other side did not wait for.
    aborted: AtomicU64,
    /// Requests by path, without `/healthz`.
    paths: Mutex<BTreeMap<String, u64>>,
    /// The sources of connections, in order.
    peers: Mutex<Vec<SocketAddr>>,
    streams: Mutex<BTreeMap<u64, TcpStream>>,
    listeners: Mutex<Vec<TcpListener>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Serves until stdin ends.
pub fn run(name: &str, binds: &[SocketAddr]) -> Result<()> {
    let state = Arc::new(State {
        name: name.to_owned(),
        health: AtomicU16::new(200),
        slow: AtomicU64::new(0),
        fail: AtomicU16::new(0),
        connections: AtomicU64::new(0),
        open: AtomicU64::new(0),
        requests: AtomicU64::new(0),
        checks: AtomicU64::new(0),
        made: AtomicU64::new(0),
        aborted: AtomicU64::new(0),
        paths: Mutex::default(),
        peers: Mutex::default(),
        streams: Mutex::default(),
        listeners: Mutex::default(),
    });
    up(&state, binds)?;
    println!("{}", json!({ "ready": true }));
    for command in io::stdin().lock().lines() {
        let answer =
            obey(&state, binds, &command?).unwrap_or_else(|error| json!({ "error": format!("{error:#}") }));
        println!("{answer}");
        io::stdout().flush()?;
    }
    Ok(())
}

fn obey(state: &Arc<State>, binds: &[SocketAddr], command: &str) -> Result<Value> {
    let mut words = command.split_whitespace();
    match words.next().unwrap_or("") {
        "stats" => return Ok(stats(state)),
        "slow" => state.slow.store(words.next().context("how long?")?.parse()?, Relaxed),
        "fail" => state.fail.store(words.next().context("which status?")?.parse()?, Relaxed),
        "health" => state.health.store(words.next().context("which status?")?.parse()?, Relaxed),
        "down" => down(state),
        "up" => up(state, binds)?,
        other => anyhow::bail!("no such command: {other}"),
    }
    Ok(json!({ "ok": true }))
}

fn stats(state: &State) -> Value {
    json!({
        "connections": state.connections.load(Relaxed),
        "open": state.open.load(Relaxed),
        "requests": state.requests.load(Relaxed),
        "checks": state.checks.load(Relaxed),
        "aborted": state.aborted.load(Relaxed),
        "paths": *locked(&state.paths),
        "peers": locked(&state.peers).iter().map(SocketAddr::to_string).collect::<Vec<_>>(),
    })
}

fn up(state: &Arc<State>, binds: &[SocketAddr]) -> Result<()> {
    for bind in binds {
        let listener = TcpListener::bind(bind).with_context(|| format!("cannot listen on {bind}"))?;
        locked(&state.listeners).push(listener.try_clone()?);
        let state = state.clone();
        thread::spawn(move || accept(&listener, &state));
    }
    Ok(())
}

fn down(state: &State) {
    for listener in locked(&state.listeners).drain(..) {
        // SAFETY: shutdown takes integers only, and the descriptor is open. It wakes the thread that accepts.
        unsafe { libc::shutdown(listener.as_raw_fd(), libc::SHUT_RDWR) };
    }
    for stream in locked(&state.streams).values() {
        // One that is closed already is as it should be.
        let _ = stream.shutdown(std::net::Shutdown::Both);
    }
}

fn accept(listener: &TcpListener, state: &Arc<State>) {
    while let Ok((stream, peer)) = listener.accept() {
        let id = state.connections.fetch_add(1, Relaxed);
        locked(&state.peers).push(peer);
        if let Ok(copy) = stream.try_clone() {
            locked(&state.streams).insert(id, copy);
        }
        state.open.fetch_add(1, Relaxed);
        let state = state.clone();
        let serving = thread::Builder::new().stack_size(STACK).spawn(move || {
            // An error is the other side's affair: it went away, or sent what a test wanted it to send.
            let _ = serve(&stream, id, &state);
            locked(&state.streams).remove(&id);
            state.open.fetch_sub(1, Relaxed);
        });
        if serving.is_err() {
            eprintln!("backend: too many connections");
        }
    }
}

/// One connection, request after request.
fn serve(stream: &TcpStream, id: u64, state: &State) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = Reader::new(stream);
    while let Some(mut request) = reader.head()? {
        if request.path() == "/healthz" {
            state.checks.fetch_add(1, Relaxed);
        } else {
            state.requests.fetch_add(1, Relaxed);
            *locked(&state.paths).entry(request.path().to_owned()).or_default() += 1;
        }
        let keep = behaviour::answer(state, stream, id, &mut reader, &mut request);
        match keep {
            Ok(true) => {}
            Ok(false) => return Ok(()),
            Err(error) => {
                state.aborted.fetch_add(1, Relaxed);
                return Err(error);
            }
        }
    }
    Ok(())
}
