//! Connections to one address that go on while a test changes things: some are held, others are made anew all the time.

use std::{
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use crate::{http::Client, net::Node, wait::eventually};

const LIMIT: Duration = Duration::from_secs(8);

/// A held connection, and what became of it.
#[derive(Debug, Clone)]
pub struct Held {
    /// Who answered first; any other answer is a failure.
    pub backend: String,
    pub answers: u64,
    pub last: Instant,
    pub failed: Option<String>,
}

/// A connection for one request.
#[derive(Debug, Clone)]
pub struct Short {
    pub began: Instant,
    pub ended: Instant,
    /// The backend, or what failed.
    pub answer: Result<String, String>,
}

#[derive(Debug, Default)]
pub struct Outcome {
    pub held: Vec<Held>,
    pub short: Vec<Short>,
}

impl Outcome {
    /// Which backends answered short connections begun and ended in this time, and what failed of them.
    pub fn between(&self, from: Instant, to: Instant) -> Vec<&Result<String, String>> {
        self.short.iter().filter(|one| one.began >= from && one.ended < to).map(|one| &one.answer).collect()
    }
}

/// The load, under way.
#[derive(Debug)]
pub struct Steady {
    stop: Arc<AtomicBool>,
    rounds: Arc<AtomicU64>,
    held: Vec<JoinHandle<Vec<Held>>>,
    short: Vec<JoinHandle<Vec<Short>>>,
}

impl Steady {
    /// So many held connections, and two threads that make short ones. All held ones have had an answer.
    pub fn start(node: &Node, to: SocketAddr, held: usize) -> Result<Steady> {
        let (stop, rounds) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut clients = (0..held).map(|_| first(node, to)).collect::<Result<Vec<_>>>()?;
        let second = clients.split_off(held / 2);
        let hold = |clients: Vec<(Client, Held)>| {
            let (stop, rounds) = (stop.clone(), rounds.clone());
            std::thread::spawn(move || hold(clients, &stop, &rounds))
        };
        let held = vec![hold(clients), hold(second)];
        let short = (0..2).map(|_| {
            let (node, stop) = (node.clone(), stop.clone());
            std::thread::spawn(move || {
                node.namespace.run(|| make_short(to, &stop)).expect("the node's namespace can be entered")
            })
        });
        let short = short.collect();
        Ok(Steady { stop, rounds, held, short })
    }

    /// Waits until all held connections have been asked this often again.
    pub fn rounds(&self, rounds: u64) -> Result<()> {
        let until = self.rounds.load(Relaxed) + (rounds + 1) * self.held.len() as u64;
        eventually("held connections have been asked", || Ok(self.rounds.load(Relaxed) >= until))
    }

    pub fn finish(self) -> Result<Outcome> {
        self.stop.store(true, Relaxed);
        let mut outcome = Outcome::default();
        for thread in self.held {
            outcome
                .held
                .extend(thread.join().map_err(|_| anyhow::anyhow!("a thread of held ones panicked"))?);
        }
        for thread in self.short {
            outcome
                .short
                .extend(thread.join().map_err(|_| anyhow::anyhow!("a thread of short ones panicked"))?);
        }
        Ok(outcome)
    }
}

fn first(node: &Node, to: SocketAddr) -> Result<(Client, Held)> {
    let mut client = Client::connect(node, to)?;
    let backend = client.get("/")?.backend().to_owned();
    Ok((client, Held { backend, answers: 1, last: Instant::now(), failed: None }))
}

fn hold(mut clients: Vec<(Client, Held)>, stop: &AtomicBool, rounds: &AtomicU64) -> Vec<Held> {
    while !stop.load(Relaxed) {
        for (client, held) in clients.iter_mut().filter(|(_, held)| held.failed.is_none()) {
            match ask(client) {
                Ok(backend) if backend == held.backend => held.answers += 1,
                Ok(backend) => held.failed = Some(format!("answered by {backend}")),
                Err(error) => held.failed = Some(format!("{error:#}")),
            }
            held.last = Instant::now();
        }
        rounds.fetch_add(1, Relaxed);
        std::thread::sleep(Duration::from_millis(5));
    }
    clients.into_iter().map(|(_, held)| held).collect()
}

fn ask(client: &mut Client) -> Result<String> {
    let answer = client.get("/")?;
    ensure!(answer.status == 200 && answer.body.len() == 128, "{answer:?}");
    Ok(answer.backend().to_owned())
}

fn make_short(to: SocketAddr, stop: &AtomicBool) -> Vec<Short> {
    let mut all = Vec::new();
    while !stop.load(Relaxed) {
        let began = Instant::now();
        let answer = one_short(to).map_err(|error| format!("{error:#}"));
        all.push(Short { began, ended: Instant::now(), answer });
        std::thread::sleep(Duration::from_millis(2));
    }
    all
}

fn one_short(to: SocketAddr) -> Result<String> {
    let stream = TcpStream::connect_timeout(&to, LIMIT).context("cannot connect")?;
    ask(&mut Client::over(stream)?)
}
