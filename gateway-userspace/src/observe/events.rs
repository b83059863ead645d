//! What happens, as it happens: for `gateway observe` and `GET /v1/events`.
//!
//! The last few are remembered; beyond that an event goes to whoever listens now. A slow listener loses events and
//! is told how many. Memory is bounded whatever happens.

use std::{
    collections::VecDeque,
    sync::{
        Arc, LazyLock, Mutex, OnceLock, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use serde_json::{Map, Value, json};
use tokio::sync::broadcast;

use super::access_log::AccessLog;

/// Remembered for those who ask later.
const RECENT: usize = 256;
/// On their way to a listener.
const QUEUE: usize = 1024;

/// One JSON object: `ts` (seconds since 1970) and `event`, then what the event has.
pub type Event = Arc<Value>;

struct Hub {
    recent: Mutex<VecDeque<Event>>,
    sender: broadcast::Sender<Event>,
}

/// One a process, as the process log is.
static HUB: LazyLock<Hub> =
    LazyLock::new(|| Hub { recent: Mutex::default(), sender: broadcast::channel(QUEUE).0 });

/// Where they are written besides.
static LOG: OnceLock<AccessLog> = OnceLock::new();

/// From now on events go to the access log too, where its config wants them.
pub fn write_to(log: &AccessLog) {
    let _ = LOG.set(log.clone());
}

/// How many listeners want requests too.
static REQUESTS: AtomicUsize = AtomicUsize::new(0);

/// Whether anybody wants to be told of requests.
#[inline]
pub fn requests_wanted() -> bool {
    REQUESTS.load(Relaxed) > 0
}

/// For as long as it lives, requests are told of.
pub struct Requests(());

impl Requests {
    pub fn wanted() -> Self {
        REQUESTS.fetch_add(1, Relaxed);
        Requests(())
    }
}

impl Drop for Requests {
    fn drop(&mut self) {
        REQUESTS.fetch_sub(1, Relaxed);
    }
}

/// Tells of a request by its line of the access log, whoever listens; it is not remembered here.
pub fn tell_of_request(line: &[u8]) {
    let Ok(Value::Object(fields)) = serde_json::from_slice(line) else { return };
    let mut event = stamped("request", Value::Null);
    if let Value::Object(all) = &mut event {
        all.extend(fields.into_iter().filter(|(name, _)| name != "ts"));
    }
    let _ = HUB.sender.send(Arc::new(event));
}

/// Whether anybody listens.
pub fn listening() -> bool {
    HUB.sender.receiver_count() > 0
}

/// Tells of an event; `fields` is a JSON object.
pub fn tell(event: &str, fields: Value) {
    let event = Arc::new(stamped(event, fields));
    if let Some(log) = LOG.get() {
        log.event(&event);
    }
    // Nobody may be listening.
    let _ = HUB.sender.send(event.clone());
    let mut recent = HUB.recent.lock().unwrap_or_else(PoisonError::into_inner);
    if recent.len() == RECENT {
        recent.pop_front();
    }
    recent.push_back(event);
}

/// Tells that the checks of a target have a new verdict; `of` is "upstream" or "service".
pub fn tell_of_target(of: &str, name: &str, target: &str, result: &Result<(), String>) {
    let state = if result.is_ok() { "up" } else { "down" };
    let why = result.as_ref().err().map_or("ok", String::as_str);
    tell("target", json!({ of: name, "target": target, "state": state, "why": why }));
}

/// What is remembered, and what comes from now on.
pub fn listen() -> (Vec<Event>, broadcast::Receiver<Event>) {
    let recent = HUB.recent.lock().unwrap_or_else(PoisonError::into_inner);
    (recent.iter().cloned().collect(), HUB.sender.subscribe())
}

/// What a listener is told that was too slow.
pub fn lost(count: u64) -> Value {
    stamped("lost", json!({ "count": count }))
}

fn stamped(event: &str, fields: Value) -> Value {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let mut all = Map::new();
    all.insert("ts".into(), json!(now));
    all.insert("event".into(), event.into());
    if let Value::Object(fields) = fields {
        all.extend(fields);
    }
    Value::Object(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_gets_what_is_remembered_and_then_what_comes_and_a_slow_one_is_told_what_it_lost() {
        tell("test", json!({ "n": -1 }));
        let (recent, mut receiver) = listen();
        assert!(listening() && recent.iter().any(|event| event["n"] == -1));
        for n in 0..QUEUE + 10 {
            tell("test", json!({ "n": n }));
        }
        let Err(broadcast::error::TryRecvError::Lagged(count)) = receiver.try_recv() else {
            panic!("lost nothing")
        };
        assert!(count >= 10);
        assert_eq!(lost(count)["count"], count);
        let (recent, _) = listen();
        assert_eq!(recent.len(), RECENT);
    }
}
