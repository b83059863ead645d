//! Overload: a backend that can do so much and no more, and consumers who ask for more than that.

use std::{
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use crate::{
    http::Client,
    net::{Namespace, Node},
};

/// What consumers of one kind do: so many, with so many connections and requests a second each. They are told apart by `Host`.
#[derive(Clone, Copy)]
pub struct Kind {
    pub name: &'static str,
    pub consumers: usize,
    pub connections: usize,
    pub rate: f64,
}

impl Kind {
    /// Requests a second.
    pub fn asks(&self) -> f64 {
        self.rate * self.consumers as f64
    }
}

/// How consumers of one kind fared.
#[derive(Debug, Clone, Copy, Default)]
pub struct Fared {
    /// Answers 200, in time and late.
    pub in_time: u64,
    pub late: u64,
    pub refused: u64,
}

#[derive(Default)]
struct Counts {
    in_time: AtomicU64,
    late: AtomicU64,
    refused: AtomicU64,
}

/// How consumers of each kind fare.
pub fn load(node: &Node, to: SocketAddr, kinds: &[Kind], in_time: Duration, lasts: Duration) -> Vec<Fared> {
    let counts: Vec<Counts> = kinds.iter().map(|_| Counts::default()).collect();
    let until = Instant::now() + lasts;
    thread::scope(|scope| {
        for (kind, count) in kinds.iter().zip(&counts) {
            for n in 0..kind.consumers * kind.connections {
                let host = format!("{}-{}.test", kind.name, n % kind.consumers);
                let every = Duration::from_secs_f64(kind.connections as f64 / kind.rate);
                // Not all in step.
                let due =
                    Instant::now() + every.mul_f64(n as f64 / (kind.consumers * kind.connections) as f64);
                scope.spawn(move || ask(node, to, &host, (due, every), (in_time, until), count));
            }
        }
    });
    let fared = |counts: &Counts| Fared {
        in_time: counts.in_time.load(Relaxed),
        late: counts.late.load(Relaxed),
        refused: counts.refused.load(Relaxed),
    };
    counts.iter().map(fared).collect()
}

/// One connection of a consumer: a request at each time that is due; those that a slow answer holds up are asked late.
fn ask(
    node: &Node,
    to: SocketAddr,
    host: &str,
    (mut due, every): (Instant, Duration),
    (in_time, until): (Duration, Instant),
    counts: &Counts,
) {
    let request = format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n");
    let mut client: Option<Client> = None;
    while Instant::now() < until {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let began = Instant::now();
        due = (due + every).max(began - every);
        if client.is_none() {
            client = Client::connect(node, to).ok();
        }
        let answer = client.as_mut().and_then(|client| {
            client.send(&request).ok()?;
            client.response().ok()
        });
        let count = match answer {
            Some(answer) if answer.status != 200 => &counts.refused,
            Some(_) if began.elapsed() <= in_time => &counts.in_time,
            Some(_) => &counts.late,
            None => {
                client = None;
                continue;
            }
        };
        count.fetch_add(1, Relaxed);
    }
}

/// A backend of some slots, each of which serves one request in the same time, in the order in which they come.
pub struct Slots {
    namespace: Namespace,
    at: SocketAddr,
    over: Arc<AtomicBool>,
}

/// Whose turn it is: tickets in the order in which requests came.
#[derive(Default)]
struct Turns {
    next: u64,
    busy: usize,
    first: u64,
}

impl Slots {
    pub fn listen(namespace: &Namespace, at: SocketAddr, slots: usize, service: Duration) -> Result<Slots> {
        let listener = namespace.run(|| TcpListener::bind(at))?.context("the backend cannot listen")?;
        let over = Arc::new(AtomicBool::new(false));
        let turns: Arc<(Mutex<Turns>, Condvar)> = Arc::default();
        let ended = over.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if ended.load(Relaxed) {
                    return;
                }
                let turns = turns.clone();
                thread::spawn(move || serve(&stream, &turns, slots, service));
            }
        });
        Ok(Slots { namespace: namespace.clone(), at, over })
    }
}

impl Drop for Slots {
    fn drop(&mut self) {
        self.over.store(true, Relaxed);
        // It waits for one more.
        let _ = self.namespace.run(|| TcpStream::connect(self.at));
    }
}

/// Until the connection ends.
fn serve(stream: &TcpStream, turns: &(Mutex<Turns>, Condvar), slots: usize, service: Duration) -> Option<()> {
    let _ = stream.set_nodelay(true);
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            if reader.read_line(&mut line).ok()? == 0 {
                return None;
            }
        }
        let lock = || turns.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all = lock();
        let mine = all.next;
        all.next += 1;
        while all.busy >= slots || all.first != mine {
            all = turns.1.wait(all).unwrap_or_else(PoisonError::into_inner);
        }
        all.busy += 1;
        all.first += 1;
        drop(all);
        turns.1.notify_all();
        thread::sleep(service);
        lock().busy -= 1;
        turns.1.notify_all();
        (&*stream).write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").ok()?;
    }
}
