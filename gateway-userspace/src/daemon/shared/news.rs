//! What gateways tell each other: bans and their ends, purges, limits that start anew. A stream in the store, so that who
//! was away for a while, or starts, learns of what holds still.

use std::{
    collections::VecDeque,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use redis::{RedisError, aio::MultiplexedConnection, cmd};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::mpsc;
use uuid::Uuid;

use super::{super::bans, Control, link::BLOCK};
use crate::{
    admin::Wanted,
    config::{model::Shared as Config, units::Prefix},
    limit::HttpBan,
    observe::events,
};

/// As many are kept.
const KEPT: usize = 10_000;
/// Read at once.
const COUNT: usize = 256;
/// On their way to the store; more are lost.
const QUEUE: usize = 4096;
/// A longer message is none of ours.
const LONGEST: usize = 16 << 10;

/// Something that all gateways should know.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum News {
    Ban {
        #[serde(flatten)]
        ban: HttpBan,
        /// In the kernel half, where that can be.
        kernel: bool,
    },
    /// Lifted: where. Neither: nowhere.
    Unban {
        cidr: Prefix,
        kernel: bool,
        http: bool,
    },
    Purge {
        cache: String,
        what: Wanted,
    },
    Reset {
        limit: String,
        key: Option<String>,
    },
}

/// Where the daemon puts news for others.
pub struct Outbox {
    sender: mpsc::Sender<News>,
    receiver: std::sync::Mutex<Option<mpsc::Receiver<News>>>,
}

impl Default for Outbox {
    fn default() -> Self {
        let (sender, receiver) = mpsc::channel(QUEUE);
        Outbox { sender, receiver: std::sync::Mutex::new(Some(receiver)) }
    }
}

impl Outbox {
    fn take(&self) -> Option<mpsc::Receiver<News>> {
        self.receiver.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take()
    }
}

impl Control {
    /// Tells other gateways, if this one shares anything with them.
    pub fn tell_others(&self, news: News) {
        if self.snapshot.load().config.shared.is_some() && self.news.sender.try_send(news).is_err() {
            tracing::warn!("other gateways are not told: there is too much to tell");
        }
    }
}

/// A message of another gateway.
///
/// # Errors
/// It is none.
pub fn parse(text: &str) -> Result<News, String> {
    if text.len() > LONGEST {
        return Err("it is too long".into());
    }
    serde_json::from_str(text).map_err(|error| error.to_string())
}

/// Takes news to the store and brings others' back; goes on with the next connection where it was.
pub struct Desk {
    queue: Option<mpsc::Receiver<News>>,
    waiting: VecDeque<News>,
    /// The last message that was read.
    last: String,
    /// What this process calls itself.
    me: String,
    /// When it began, in milliseconds of the store's clock: what was purged before does not concern it.
    began_ms: Option<u64>,
}

impl Desk {
    pub fn new(outbox: &Outbox) -> Self {
        let me = Uuid::from_u128(fastrand::u128(..)).to_string();
        Desk { queue: outbox.take(), waiting: VecDeque::new(), last: "0".into(), me, began_ms: None }
    }

    /// Until the store fails.
    pub async fn exchange(
        &mut self,
        control: &Control,
        config: &Config,
        (writing, listening): (&mut MultiplexedConnection, &mut MultiplexedConnection),
    ) -> RedisError {
        let stream = format!("{}:news", config.name);
        let Desk { queue, waiting, last, me, began_ms } = self;
        let publish = async {
            loop {
                while let Some(news) = waiting.front() {
                    if let Err(error) = send(news, &stream, config, me, writing).await {
                        return error;
                    }
                    waiting.pop_front();
                }
                match queue {
                    Some(queue) => waiting.extend(queue.recv().await),
                    None => std::future::pending().await,
                }
            }
        };
        let listen = async {
            loop {
                if let Err(error) = read(control, &stream, (last, me, began_ms), listening).await {
                    return error;
                }
            }
        };
        tokio::select! {
            error = publish => error,
            error = listen => error,
        }
    }
}

async fn send(
    news: &News,
    stream: &str,
    config: &Config,
    me: &str,
    connection: &mut MultiplexedConnection,
) -> Result<(), RedisError> {
    if let News::Reset { limit, key } = news {
        forget(&config.name, limit, key.as_deref(), connection).await?;
    }
    let text = serde_json::to_string(news).map_err(std::io::Error::from)?;
    let mut add = cmd("XADD");
    add.arg(stream).arg("MAXLEN").arg("~").arg(KEPT).arg("*").arg("from").arg(me).arg("news").arg(text);
    add.query_async(connection).await
}

/// Everything that the store has of a limit, or of one key of it.
async fn forget(
    name: &str,
    limit: &str,
    key: Option<&str>,
    connection: &mut MultiplexedConnection,
) -> Result<(), RedisError> {
    let pattern = format!("{name}:limit:{limit}:{}*", key.unwrap_or(""));
    let mut cursor = 0u64;
    loop {
        let mut scan = cmd("SCAN");
        scan.arg(cursor).arg("MATCH").arg(&pattern).arg("COUNT").arg(1000);
        let (next, keys): (u64, Vec<String>) = scan.query_async(connection).await?;
        if !keys.is_empty() {
            let () = cmd("UNLINK").arg(keys).query_async(connection).await?;
        }
        if next == 0 {
            return Ok(());
        }
        cursor = next;
    }
}

/// A stream's name, and its entries: their ids, and names and values in turn.
type Read = Vec<(String, Vec<(String, Vec<String>)>)>;

async fn read(
    control: &Control,
    stream: &str,
    (last, me, began_ms): (&mut String, &str, &mut Option<u64>),
    connection: &mut MultiplexedConnection,
) -> Result<(), RedisError> {
    let began = match *began_ms {
        Some(began) => began,
        None => {
            let (seconds, us): (u64, u64) = cmd("TIME").query_async(connection).await?;
            *began_ms.insert(seconds * 1000 + us / 1000)
        }
    };
    let mut read = cmd("XREAD");
    read.arg("COUNT")
        .arg(COUNT)
        .arg("BLOCK")
        .arg(BLOCK.as_millis() as u64)
        .arg("STREAMS")
        .arg(stream)
        .arg(&*last);
    let read: Option<Read> = read.query_async(connection).await?;
    for (id, fields) in read.into_iter().flatten().flat_map(|(_, entries)| entries) {
        let value = |name: &str| {
            fields.chunks_exact(2).find_map(|pair| match pair {
                [key, value] if key == name => Some(value.as_str()),
                _ => None,
            })
        };
        let old = id.split('-').next().and_then(|ms| ms.parse::<u64>().ok()).is_none_or(|ms| ms < began);
        if value("from") != Some(me) {
            match parse(value("news").unwrap_or_default()) {
                Ok(news) => apply(control, news, old).await,
                Err(error) => tracing::warn!("another gateway's message is not understood: {error}"),
            }
        }
        *last = id;
    }
    Ok(())
}

/// `old`: it was told before this process began.
async fn apply(control: &Control, news: News, old: bool) {
    match news {
        News::Ban { ban, kernel } => {
            let (cidr, by) = (ban.cidr, ban.by.clone());
            if let Some(place) = bans::take_up(control, ban, kernel) {
                tracing::debug!(%cidr, by, place, "banned, as another gateway did");
                events::tell(
                    "ban",
                    json!({ "cidr": cidr, "by": by, "where": place, "from": "another gateway" }),
                );
            }
        }
        News::Unban { cidr, kernel, http } => {
            let lifted = http && control.snapshot.load().limit_store.bans.lift(cidr);
            let unbanned = kernel && control.kernel.unban(cidr).unwrap_or(false);
            if lifted || unbanned {
                events::tell("unban", json!({ "cidr": cidr, "from": "another gateway" }));
            }
        }
        News::Purge { cache, what } if !old => {
            let found = control.snapshot.load().caches.get(&cache).cloned();
            let (Some(found), Ok(purge)) = (found, what.purge()) else { return };
            let purged = tokio::task::spawn_blocking(move || found.purge(purge, what.soft)).await;
            tracing::info!(cache, purged = purged.unwrap_or(0), "purged, as another gateway was");
        }
        News::Reset { limit, key } if !old => {
            let snapshot = control.snapshot.load();
            if let Some(limit) = snapshot.limits.get(&limit) {
                match key {
                    Some(key) => drop(snapshot.limit_store.reset(limit, &key)),
                    None => snapshot.limit_store.clear(limit),
                }
            }
        }
        News::Purge { .. } | News::Reset { .. } => {}
    }
}

/// How long a ban lasts from now on. `None`: it is over.
pub fn left(until_ms: Option<u64>) -> Option<Option<Duration>> {
    let Some(until) = until_ms else { return Some(None) };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Duration::from_millis(until).checked_sub(now).filter(|left| !left.is_zero()).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn news_are_understood_as_they_are_told() {
        let ban = HttpBan::new("192.0.2.0/24".parse().unwrap(), None, "why", "limit few");
        let all = [
            News::Ban { ban, kernel: true },
            News::Unban { cidr: "2001:db8::/64".parse().unwrap(), kernel: true, http: false },
            News::Purge {
                cache: "c".into(),
                what: serde_json::from_str(r#"{"tag": "t", "soft": true}"#).unwrap(),
            },
            News::Reset { limit: "l".into(), key: Some("00ff".into()) },
        ];
        for news in all {
            assert_eq!(parse(&serde_json::to_string(&news).unwrap()), Ok(news));
        }
        for wrong in ["", "{}", r#"{"kind": "ban"}"#, r#"{"kind": "stop"}"#, &" ".repeat(LONGEST + 1)] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn bans_last_as_long_as_they_were_to() {
        assert_eq!((left(None), left(Some(1))), (Some(None), None));
        let far = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + Duration::from_secs(60);
        let left = left(Some(far.as_millis() as u64)).unwrap().unwrap();
        assert!((Duration::from_secs(50)..=Duration::from_secs(60)).contains(&left));
    }
}
