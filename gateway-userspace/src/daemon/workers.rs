//! Worker threads and what the control thread tells them.

use std::{
    collections::HashMap,
    fmt, io,
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{
        Notify,
        mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    },
};

use super::{busy::Busy, privileges};
use crate::{
    config::model::{Bind, among_listeners},
    net::{self, Spare},
    observe::access_log::{AccessLog, FLUSH_EVERY},
    proxy::{
        connection::{self, Admitted},
        front,
        reuse::Reuse,
        worker::Worker,
    },
    runtime::Snapshot,
    splice,
};

/// Accept errors that nothing can be done about are retried after this long.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);
const TICK: Duration = Duration::from_secs(1);

/// Where clients come in.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Door {
    /// By the listener's name.
    Listener(String),
    /// By the service's name; it may have several addresses.
    Service(String, Bind),
    /// As well, for UDP.
    Datagrams(String, Bind),
}

/// A door's sockets.
pub enum Sockets {
    Tcp(Vec<std::net::TcpListener>),
    /// One a worker.
    Udp(Vec<std::net::UdpSocket>),
}

impl Door {
    pub fn name(&self) -> &str {
        match self {
            Door::Listener(name) | Door::Service(name, _) | Door::Datagrams(name, _) => name,
        }
    }
}

impl Door {
    /// As the registry of counters has it.
    pub fn series(&self) -> String {
        match self {
            Door::Listener(name) => name.clone(),
            Door::Service(name, _) | Door::Datagrams(name, _) => among_listeners(name),
        }
    }
}

impl fmt::Display for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Door::Listener(name) => write!(f, "listener {name}"),
            Door::Service(name, _) | Door::Datagrams(name, _) => write!(f, "service {name}"),
        }
    }
}

enum Command {
    /// Accept connections for it.
    Listen(Door, Vec<std::net::TcpListener>),
    /// Receive datagrams for it.
    Receive(Door, std::net::UdpSocket),
    /// Stop accepting for it. A listener's connections end after their requests, a service's when they are done, and
    /// sessions of UDP at once.
    Close(Door),
    /// Another process is about to take this one's place: sessions of UDP are to outlast what they came by.
    Settle,
    /// Stop accepting, end every connection after its request, then end the worker.
    Drain,
    /// End now.
    Stop,
}

/// All workers, as the control thread sees them.
pub struct Workers {
    commands: Vec<UnboundedSender<Command>>,
    threads: Vec<JoinHandle<()>>,
    /// Runtime metrics, for how busy each worker is.
    handles: Vec<tokio::runtime::Handle>,
    busy: Busy,
}

impl Workers {
    pub fn start(count: usize, snapshot: &Arc<ArcSwap<Snapshot>>, log: &AccessLog) -> io::Result<Workers> {
        let busy = Busy::new(count, Instant::now());
        let mut workers = Workers { commands: Vec::new(), threads: Vec::new(), handles: Vec::new(), busy };
        for index in 0..count {
            let (commands, received) = unbounded_channel();
            let (snapshot, log) = (snapshot.clone(), log.clone());
            let (send_handle, handle) = std::sync::mpsc::sync_channel(1);
            let thread = std::thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
                privileges::keep_nothing();
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_io()
                    .enable_time()
                    .build_local(Default::default());
                match runtime {
                    Ok(runtime) => {
                        let _ = send_handle.send(Ok(runtime.handle().clone()));
                        let worker = Rc::new(Worker::new(index, snapshot, log.buffer()));
                        runtime.block_on(work(worker.clone(), received));
                        // Requests that are cut by this know why.
                        worker.stop();
                        drop(runtime);
                        worker.flush_log();
                    }
                    Err(error) => {
                        let _ = send_handle.send(Err(error));
                    }
                }
            })?;
            workers.handles.push(handle.recv().map_err(io::Error::other)??);
            workers.commands.push(commands);
            workers.threads.push(thread);
        }
        Ok(workers)
    }

    pub fn count(&self) -> usize {
        self.commands.len()
    }

    /// How long each worker was busy since its start.
    pub fn busy_times(&self) -> Vec<Duration> {
        self.handles.iter().map(|handle| handle.metrics().worker_total_busy_duration(0)).collect()
    }

    /// To be called once a second.
    pub fn sample_busy(&self) {
        self.busy.sample(Instant::now(), self.busy_times());
    }

    /// The share of its time, of late, that each worker was busy.
    pub fn busy_ratios(&self) -> Vec<f64> {
        self.busy.ratios(Instant::now(), &self.busy_times())
    }

    /// Of TCP at least one socket a worker, and every socket has one: an earlier process may have had more workers.
    pub fn listen(&self, door: &Door, sockets: Sockets) {
        let sockets = match sockets {
            Sockets::Tcp(sockets) => sockets,
            Sockets::Udp(sockets) => {
                for (worker, socket) in self.commands.iter().zip(sockets) {
                    let _ = worker.send(Command::Receive(door.clone(), socket));
                }
                return;
            }
        };
        let mut shares: Vec<Vec<std::net::TcpListener>> = self.commands.iter().map(|_| Vec::new()).collect();
        for (place, socket) in sockets.into_iter().enumerate() {
            shares[place % self.commands.len()].push(socket);
        }
        for (worker, share) in self.commands.iter().zip(shares) {
            let _ = worker.send(Command::Listen(door.clone(), share));
        }
    }

    pub fn close(&self, door: &Door) {
        for worker in &self.commands {
            let _ = worker.send(Command::Close(door.clone()));
        }
    }

    pub fn settle(&self) {
        for worker in &self.commands {
            let _ = worker.send(Command::Settle);
        }
    }

    pub fn drain(&self) {
        for worker in &self.commands {
            let _ = worker.send(Command::Drain);
        }
    }

    pub fn stop(&self) {
        for worker in &self.commands {
            let _ = worker.send(Command::Stop);
        }
    }

    /// Whether all workers have ended.
    pub fn ended(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished)
    }
}

struct Accepting {
    stop: Rc<Notify>,
    /// Of sessions.
    settle: Option<Rc<Notify>>,
    task: tokio::task::JoinHandle<()>,
}

async fn work(worker: Rc<Worker>, mut commands: UnboundedReceiver<Command>) {
    let _upkeep = tokio::task::spawn_local(upkeep(worker.clone()));
    let mut accepting: HashMap<Door, Vec<Accepting>> = HashMap::new();
    while let Some(command) = commands.recv().await {
        match command {
            Command::Listen(door, sockets) => {
                end(accepting.remove(&door)).await;
                let started = sockets.into_iter().filter_map(|socket| start(&door, socket, &worker));
                let started = started.collect();
                accepting.insert(door, started);
            }
            Command::Receive(door, socket) => {
                end(accepting.remove(&door)).await;
                let (stop, settle) = (Rc::new(Notify::new()), Rc::new(Notify::new()));
                let name = door.name().to_owned();
                let serve = splice::udp::serve(name, socket, worker.clone(), stop.clone(), settle.clone());
                let task = tokio::task::spawn_local(serve);
                accepting.insert(door, vec![Accepting { stop, settle: Some(settle), task }]);
            }
            Command::Close(door) => {
                end(accepting.remove(&door)).await;
                if let Door::Listener(name) = &door {
                    worker.drain_listener(name);
                }
            }
            Command::Settle => {
                accepting
                    .values()
                    .flatten()
                    .filter_map(|one| one.settle.as_ref())
                    .for_each(|all| all.notify_one());
            }
            Command::Drain => {
                end(accepting.into_values()).await;
                worker.drain();
                drained(&worker, &mut commands).await;
                return;
            }
            Command::Stop => return,
        }
    }
}

fn start(door: &Door, socket: std::net::TcpListener, worker: &Rc<Worker>) -> Option<Accepting> {
    let socket = TcpListener::from_std(socket)
        .inspect_err(|error| tracing::error!(%door, %error, "cannot listen"))
        .ok()?;
    let stop = Rc::new(Notify::new());
    let task = tokio::task::spawn_local(accept(door.clone(), socket, worker.clone(), stop.clone()));
    Some(Accepting { stop, settle: None, task })
}

async fn end(accepting: impl IntoIterator<Item = Vec<Accepting>>) {
    for one in accepting.into_iter().flatten() {
        one.stop.notify_one();
        let _ = one.task.await;
    }
}

/// Waits for the last connection to end, or for the command to stop at once.
async fn drained(worker: &Rc<Worker>, commands: &mut UnboundedReceiver<Command>) {
    let all_ended = async {
        while worker.clients() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let stop = async { while !matches!(commands.recv().await, Some(Command::Stop) | None) {} };
    tokio::select! {
        () = all_ended => {}
        () = stop => {}
    }
}

async fn upkeep(worker: Rc<Worker>) {
    let mut flush = tokio::time::interval(FLUSH_EVERY);
    flush.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut since_tick = Duration::ZERO;
    loop {
        flush.tick().await;
        worker.flush_log();
        since_tick += FLUSH_EVERY;
        if since_tick >= TICK {
            since_tick = Duration::ZERO;
            worker.tick();
        }
    }
}

/// Accepts until told to stop; then takes what has already been established, so that nobody is turned away by it.
async fn accept(door: Door, socket: TcpListener, worker: Rc<Worker>, stop: Rc<Notify>) {
    let mut spare = Spare::take();
    let mut complained: Option<Instant> = None;
    let (plain, other) = (Reuse::default(), Reuse::default());
    let take = |stream, peer| match &door {
        Door::Listener(name) => {
            let Some(admitted) = admitted(name, &stream, peer, &worker) else { return };
            let worker = worker.clone();
            if admitted.listener.plain {
                tokio::task::spawn_local(plain.run(connection::serve(stream, peer, admitted, worker)));
            } else {
                tokio::task::spawn_local(other.run(front::serve(stream, peer, admitted, worker)));
            }
        }
        Door::Service(name, _) | Door::Datagrams(name, _) => take_for_service(name, stream, peer, &worker),
    };
    loop {
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            () = stop.notified() => break,
        };
        match accepted {
            Ok((stream, peer)) => take(stream, peer),
            Err(error) => {
                if complained.is_none_or(|last| last.elapsed() > COMPLAIN_EVERY) {
                    complained = Some(Instant::now());
                    tracing::error!(%door, %error, "cannot take more connections: they are turned away");
                }
                if !(net::is_ours(&error) && spare.give_up()) {
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
                if let Ok(Ok((stream, _))) = tokio::time::timeout(Duration::ZERO, socket.accept()).await {
                    connection::turn_away(&stream);
                    count_turned_away(&door, &worker);
                }
                spare.take_back();
            }
        }
    }
    if let Ok(socket) = socket.into_std() {
        while let Ok((stream, peer)) = socket.accept() {
            if stream.set_nonblocking(true).is_ok()
                && let Ok(stream) = TcpStream::from_std(stream)
            {
                take(stream, peer);
            }
        }
    }
}

/// The connection's place at its listener, if there is one for it.
fn admitted(name: &str, stream: &TcpStream, peer: SocketAddr, worker: &Worker) -> Option<Admitted> {
    let listener = worker.snapshot().listeners.get(name).cloned()?;
    let admitted = connection::admit(listener, peer, worker);
    if admitted.is_none() {
        connection::turn_away(stream);
    }
    admitted
}

fn take_for_service(name: &str, stream: TcpStream, peer: SocketAddr, worker: &Rc<Worker>) {
    let snapshot = worker.snapshot();
    let Some(service) = snapshot.services.get(name).cloned() else { return };
    if service.splice.as_ref().is_some_and(|splice| splice::admit(splice, worker.index)) {
        let acceptor = snapshot.tls.acceptors.get(&among_listeners(name)).cloned();
        tokio::task::spawn_local(splice::serve(stream, peer, service, acceptor, worker.clone()));
    } else {
        connection::turn_away(&stream);
    }
}

fn count_turned_away(door: &Door, worker: &Worker) {
    if let Door::Listener(name) = door
        && let Some(listener) = worker.snapshot().listeners.get(name)
    {
        listener.stats.turned_away(worker.index);
    }
}
