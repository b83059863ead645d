//! UDP through userspace: a session is what a client's address and port sends to one of ours, until nothing passes for a
//! while. Each has a socket of its own to its target, so that answers find back.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
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
    time::{sleep, timeout_at},
};

use super::passage::{Passage, admit};
use crate::{
    balance::Tried,
    net::{Datagrams, Ends, connected, send},
    observe::Why,
    proxy::worker::Worker,
    service::Service,
};

/// Answers of one target that are passed on before anybody else's turn.
const TURN: usize = 32;
/// After an error of the socket itself.
const PAUSE: Duration = Duration::from_millis(50);
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
}

type Sessions = RefCell<HashMap<Ends, Rc<Session>>>;

/// Serves one of a service's sockets until told to stop; its sessions end with it.
pub async fn serve(name: String, socket: std::net::UdpSocket, worker: Rc<Worker>, stop: Rc<Notify>) {
    let socket = match Datagrams::new(socket) {
        Ok(socket) => Rc::new(socket),
        Err(error) => return tracing::error!(service = name, %error, "cannot receive datagrams"),
    };
    let sessions = Rc::new(Sessions::default());
    let mut tasks = JoinSet::new();
    let mut buffer = Vec::new();
    loop {
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
            () = stop.notified() => return,
        }
        for (ends, session) in opened {
            tasks.spawn_local(answers(ends, session, socket.clone(), sessions.clone()));
        }
        while tasks.try_join_next().is_some() {}
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
            }))
        }
        Err(why) => {
            passage.end(Some(why));
            None
        }
    }
}

/// Passes a target's answers on until nothing passes for so long.
async fn answers(ends: Ends, session: Rc<Session>, socket: Rc<Datagrams>, sessions: Rc<Sessions>) {
    let idle = session.passage.borrow().config().timeout.idle;
    loop {
        let end = idle.map(|idle| session.last.get() + idle);
        let far = || Instant::now() + Duration::from_secs(86_400);
        let readable = timeout_at(end.unwrap_or_else(far).into(), session.upstream.readable());
        let waited = tokio::select! {
            waited = readable => waited,
            () = session.replaced.notified() => break,
        };
        match waited {
            Ok(Ok(())) => {
                if let Err(error) = pass_on(ends, &session, &socket) {
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

/// All that has come, or a turn's worth of it.
fn pass_on(ends: Ends, session: &Session, socket: &Datagrams) -> io::Result<()> {
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
            if socket.send(ends, answer).is_ok() {
                let passage = session.passage.borrow();
                passage.traffic.down.set(passage.traffic.down.get() + n as u64);
            }
        }
        session.passage.borrow().tell_bytes();
        Ok(())
    })
}
