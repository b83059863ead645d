//! UDP through userspace: a session is what a client's address and port sends to one of ours, until nothing passes for a
//! while. Each has a socket of its own to its target, so that answers find back.
//!
//! When another process is about to take this one's place, each gets a socket of its own to its client too: what others send
//! goes to the new process from then on, and a session stays where it is until it is over.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    future::pending,
    io,
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    net::UdpSocket,
    sync::Notify,
    task::JoinSet,
    time::{sleep, sleep_until, timeout_at},
};

use super::passage::{Passage, admit};
use crate::{
    balance::Tried,
    net::{Datagrams, Ends, canonical, connected, send},
    observe::Why,
    proxy::worker::Worker,
    service::Service,
};

/// Answers of one target that are passed on before anybody else's turn.
const TURN: usize = 32;
/// After an error of the socket itself.
const PAUSE: Duration = Duration::from_millis(50);
/// For what came before a socket is closed whose sessions go on.
const LAST: Duration = Duration::from_millis(5);
/// A session's socket takes no longer ones.
const MOST: usize = 64 * 1024;

thread_local! {
    static ANSWER: RefCell<Vec<u8>> = RefCell::new(vec![0; MOST]);
}

struct Session {
    upstream: UdpSocket,
    last: Cell<Instant>,
    passage: RefCell<Passage>,
    /// Told when another one takes its place.
    replaced: Notify,
    /// Its own to its client, if it has one.
    door: RefCell<Option<Rc<UdpSocket>>>,
    /// Told when it has.
    settled: Notify,
}

impl Session {
    /// Gives it a socket of its own to its client. Without one it ends with the socket that it shares.
    fn settle(&self, ends: Ends, shared: &Datagrams) {
        match shared.between(ends) {
            Ok(door) => {
                self.door.replace(Some(Rc::new(door)));
                self.settled.notify_one();
            }
            Err(error) => tracing::debug!(client = %ends.client, %error, "a session ends with its process"),
        }
    }
}

type Sessions = RefCell<HashMap<Ends, Rc<Session>>>;

/// Serves one of a service's sockets until told to stop; its sessions end with it, unless they were told to settle.
pub async fn serve(
    name: String,
    socket: std::net::UdpSocket,
    worker: Rc<Worker>,
    stop: Rc<Notify>,
    settle: Rc<Notify>,
) {
    let socket = match Datagrams::new(socket) {
        Ok(socket) => Rc::new(socket),
        Err(error) => return tracing::error!(service = name, %error, "cannot receive datagrams"),
    };
    let sessions = Rc::new(Sessions::default());
    let mut tasks = JoinSet::new();
    let mut buffer = Vec::new();
    let (mut settled, mut end) = (false, None::<Instant>);
    while end.is_none_or(|end| Instant::now() < end) {
        let mut opened = Vec::new();
        let receive = socket.receive(&mut buffer, |ends, datagram| {
            opened.extend(take(&name, ends, datagram, &sessions, &worker));
        });
        tokio::select! {
            received = receive => {
                if let Err(error) = received {
                    tracing::debug!(service = name, %error, "cannot receive datagrams; trying on");
                    sleep(PAUSE).await;
                }
            }
            () = settle.notified() => {
                settled = true;
                sessions.borrow().iter().for_each(|(ends, session)| session.settle(*ends, &socket));
            }
            () = stop.notified() => match settled {
                true => end = Some(Instant::now() + LAST),
                false => return,
            },
            () = at(end) => break,
        }
        for (ends, session) in opened {
            if settled {
                session.settle(ends, &socket);
            }
            tasks.spawn_local(answers(ends, session, socket.clone(), sessions.clone()));
        }
        while tasks.try_join_next().is_some() {}
    }
    // Those of sessions without a socket of their own end by themselves.
    drop(socket);
    tasks.detach_all();
}

async fn at(end: Option<Instant>) {
    match end {
        Some(end) => sleep_until(end.into()).await,
        None => pending().await,
    }
}

/// Sends a datagram on, in a session of its own if it is the first one.
fn take(
    name: &str,
    ends: Ends,
    datagram: &[u8],
    sessions: &Sessions,
    worker: &Rc<Worker>,
) -> Option<(Ends, Rc<Session>)> {
    let known = sessions.borrow().get(&ends).cloned();
    // A target that went down meanwhile gets nothing more.
    let stays = |session: &Rc<Session>| {
        let stays = session.passage.borrow().target_stays();
        if !stays {
            session.replaced.notify_one();
        }
        stays
    };
    let (session, fresh) = match known.filter(stays) {
        Some(session) => (session, false),
        None => (open(name, ends.client, worker)?, true),
    };
    session.last.set(Instant::now());
    match send(&session.upstream, datagram) {
        Ok(()) => {
            let passage = session.passage.borrow();
            passage.traffic.up.set(passage.traffic.up.get() + datagram.len() as u64);
        }
        // Of an earlier one: the next will go to another socket, and perhaps target.
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            session.passage.borrow_mut().end(Some(Why::UpstreamConnectRefused));
            session.replaced.notify_one();
        }
        // What the socket does not take is lost, as on any way.
        Err(error) => tracing::debug!(service = name, %error, "datagram lost"),
    }
    if !fresh {
        return None;
    }
    sessions.borrow_mut().insert(ends, session.clone());
    Some((ends, session))
}

fn open(name: &str, client: SocketAddr, worker: &Rc<Worker>) -> Option<Rc<Session>> {
    let service: Arc<Service> = worker.snapshot().services.get(name)?.clone();
    let splice = service.splice.clone()?;
    if !admit(&splice, worker.index) {
        return None;
    }
    let mut passage = Passage::new(service, splice.clone(), worker.clone(), client);
    let result = (|| {
        let group = splice.group(None).ok_or(Why::NoRoute)?;
        let active = group.pick(passage.source(), &mut Tried::default()).ok_or(Why::NoHealthyTarget)?;
        let target = active.target().addr;
        passage.try_target(active);
        connected(target).map_err(|error| {
            tracing::debug!(service = name, %target, %error, "no socket");
            Why::UpstreamConnectRefused
        })
    })();
    match result {
        Ok(upstream) => {
            passage.connected();
            // It ends when nothing passes any more, which is no fault.
            passage.end(None);
            Some(Rc::new(Session {
                upstream,
                last: Cell::new(Instant::now()),
                passage: RefCell::new(passage),
                replaced: Notify::new(),
                door: RefCell::default(),
                settled: Notify::new(),
            }))
        }
        Err(why) => {
            passage.end(Some(why));
            None
        }
    }
}

/// Passes a target's answers on until nothing passes for so long; once it has settled, its client's datagrams too.
async fn answers(ends: Ends, session: Rc<Session>, shared: Rc<Datagrams>, sessions: Rc<Sessions>) {
    let idle = session.passage.borrow().config().timeout.idle;
    let mut shared = Some(shared);
    loop {
        let door = session.door.borrow().clone();
        if door.is_some() {
            shared = None;
        }
        let to_client = |answer: &[u8]| match (&door, &shared) {
            (Some(door), _) => send(door, answer),
            (None, Some(shared)) => shared.send(ends, answer),
            (None, None) => Ok(()),
        };
        let end = idle.map(|idle| session.last.get() + idle);
        let far = || Instant::now() + Duration::from_secs(86_400);
        let readable = timeout_at(end.unwrap_or_else(far).into(), session.upstream.readable());
        let waited = tokio::select! {
            waited = readable => waited,
            () = asked(door.as_deref()) => {
                if let Some(door) = &door
                    && !take_own(ends, &session, door)
                {
                    break;
                }
                tokio::task::yield_now().await;
                continue;
            }
            () = session.settled.notified() => continue,
            () = session.replaced.notified() => break,
        };
        match waited {
            Ok(Ok(())) => {
                if let Err(error) = pass_on(&session, to_client) {
                    tracing::debug!(client = %ends.client, %error, "target does not take datagrams");
                    session.passage.borrow_mut().end(Some(Why::UpstreamConnectRefused));
                    break;
                }
                tokio::task::yield_now().await;
            }
            Ok(Err(_)) => break,
            Err(_) if end.is_some_and(|end| session.last.get() + idle.unwrap_or_default() <= end) => break,
            Err(_) => session.passage.borrow().tell_bytes(),
        }
    }
    // The client may have another one by now.
    let mut sessions = sessions.borrow_mut();
    if sessions.get(&ends).is_some_and(|current| Rc::ptr_eq(current, &session)) {
        sessions.remove(&ends);
    }
}

/// Until there is something to read.
async fn asked(door: Option<&UdpSocket>) {
    match door {
        // What is wrong with it is found out when it is read.
        Some(door) => drop(door.readable().await),
        None => pending().await,
    }
}

/// A client's datagrams on its session's own socket. False: its target gets nothing more.
fn take_own(ends: Ends, session: &Session, door: &UdpSocket) -> bool {
    if !session.passage.borrow().target_stays() {
        return false;
    }
    ANSWER.with_borrow_mut(|buffer| {
        for _ in 0..TURN {
            let (n, from) = match door.try_recv_from(buffer) {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // "Port unreachable", of the client. It may come back.
                Err(_) => continue,
            };
            // What came before it was connected may be another's.
            if from != canonical(ends.client) {
                continue;
            }
            session.last.set(Instant::now());
            match send(&session.upstream, buffer.get(..n).unwrap_or_default()) {
                Ok(()) => {
                    let passage = session.passage.borrow();
                    passage.traffic.up.set(passage.traffic.up.get() + n as u64);
                }
                Err(error) => tracing::debug!(client = %ends.client, %error, "datagram lost"),
            }
        }
    });
    true
}

/// All that has come, or a turn's worth of it.
fn pass_on(session: &Session, to_client: impl Fn(&[u8]) -> io::Result<()>) -> io::Result<()> {
    ANSWER.with_borrow_mut(|buffer| {
        for _ in 0..TURN {
            let n = match session.upstream.try_recv(buffer) {
                Ok(n) => n,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            };
            session.last.set(Instant::now());
            let answer = buffer.get(..n).unwrap_or_default();
            // What cannot be sent is lost, and not the target's fault.
            if to_client(answer).is_ok() {
                let passage = session.passage.borrow();
                passage.traffic.down.set(passage.traffic.down.get() + n as u64);
            }
        }
        session.passage.borrow().tell_bytes();
        Ok(())
    })
}
