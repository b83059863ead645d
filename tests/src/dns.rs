//! A DNS server whose answers a test sets.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context, Result};
use hickory_proto::{
    op::{Message, ResponseCode},
    rr::{Name, RData, Record, RecordType, rdata::SRV},
};

use crate::net::Namespace;

#[derive(Debug, Default)]
struct State {
    /// By lower-case name with its last dot.
    records: Mutex<BTreeMap<String, Vec<(u32, RData)>>>,
    /// Answers nothing.
    silent: AtomicBool,
    /// Answers SERVFAIL.
    failing: AtomicBool,
    queries: AtomicU64,
    over: AtomicBool,
}

impl State {
    fn records(&self) -> MutexGuard<'_, BTreeMap<String, Vec<(u32, RData)>>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A server under way, over UDP.
#[derive(Debug)]
pub struct Dns {
    state: Arc<State>,
    thread: Option<JoinHandle<()>>,
}

impl Dns {
    /// Listens in a namespace.
    pub fn start(namespace: &Namespace, at: SocketAddr) -> Result<Dns> {
        let socket = namespace.run(|| UdpSocket::bind(at))?.context("cannot bind the DNS server")?;
        socket.set_read_timeout(Some(Duration::from_millis(50)))?;
        let state = Arc::new(State::default());
        let of_thread = state.clone();
        let thread = std::thread::spawn(move || serve(&socket, &of_thread));
        Ok(Dns { state, thread: Some(thread) })
    }

    /// The addresses of a name from now on; none: there is no such name.
    pub fn addresses(&self, name: &str, ttl: u32, addresses: &[IpAddr]) {
        let records = addresses.iter().map(|ip| (ttl, RData::from(*ip))).collect();
        self.state.records().insert(name.to_owned(), records);
    }

    /// SRV records: priority, weight, port and host.
    pub fn services(&self, name: &str, ttl: u32, services: &[(u16, u16, u16, &str)]) -> Result<()> {
        let record = |(priority, weight, port, host): &(u16, u16, u16, &str)| {
            Ok((ttl, RData::SRV(SRV::new(*priority, *weight, *port, Name::from_ascii(host)?))))
        };
        let records = services.iter().map(record).collect::<Result<Vec<_>>>()?;
        self.state.records().insert(name.to_owned(), records);
        Ok(())
    }

    pub fn set_silent(&self, silent: bool) {
        self.state.silent.store(silent, Relaxed);
    }

    pub fn set_failing(&self, failing: bool) {
        self.state.failing.store(failing, Relaxed);
    }

    pub fn queries(&self) -> u64 {
        self.state.queries.load(Relaxed)
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.state.over.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(socket: &UdpSocket, state: &State) {
    let mut buffer = [0; 4096];
    while !state.over.load(Relaxed) {
        let Ok((n, from)) = socket.recv_from(&mut buffer) else { continue };
        state.queries.fetch_add(1, Relaxed);
        if state.silent.load(Relaxed) {
            continue;
        }
        let answer = buffer.get(..n).and_then(|query| answer(query, state));
        if let Some(answer) = answer {
            // Whoever asked may be gone.
            let _ = socket.send_to(&answer, from);
        }
    }
}

fn answer(query: &[u8], state: &State) -> Option<Vec<u8>> {
    let query = Message::from_vec(query).ok()?;
    let asked = query.queries.first()?.clone();
    let mut answer = Message::response(query.metadata.id, query.metadata.op_code);
    answer.add_query(asked.clone());
    answer.metadata.recursion_desired = query.metadata.recursion_desired;
    answer.metadata.recursion_available = true;
    let name = asked.name().to_ascii().to_ascii_lowercase();
    let records = state.records();
    let found = records.get(&name).filter(|records| !records.is_empty());
    answer.metadata.response_code = match found {
        _ if state.failing.load(Relaxed) => ResponseCode::ServFail,
        None => ResponseCode::NXDomain,
        Some(records) => {
            let fitting = records.iter().filter(|(_, data)| kind(data) == asked.query_type());
            let records =
                fitting.map(|(ttl, data)| Record::from_rdata(asked.name().clone(), *ttl, data.clone()));
            answer.add_answers(records.collect::<Vec<_>>());
            ResponseCode::NoError
        }
    };
    answer.to_vec().ok()
}

fn kind(data: &RData) -> RecordType {
    data.record_type()
}
