//! An issuer's keys: fetched when the gateway starts and every so often, and when a token names one that is not known yet,
//! but not as often as tokens are forged. What was fetched last stays good while the issuer is away.

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use http::{Request, StatusCode, Uri, header};
use tokio::sync::{Notify, watch};

use super::{keys::KeySet, token::Algorithm};
use crate::fetch::{Answer, fetch};

/// A whole fetch.
const PATIENCE: Duration = Duration::from_secs(5);
/// Of the answer.
const MOST_BYTES: usize = 256 << 10;
/// Between two fetches that were asked for by a key's name.
const APART: Duration = Duration::from_secs(10);
/// After a failure, doubling up to the usual time.
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// How long a request waits for keys that are being fetched.
const WAIT: Duration = Duration::from_secs(3);

#[derive(Debug, Clone, PartialEq)]
pub struct Source {
    /// http or https.
    pub url: String,
    pub ca: Option<PathBuf>,
    pub every: Duration,
    pub allowed: Vec<Algorithm>,
}

#[derive(Debug)]
pub struct Jwks {
    pub source: Source,
    keys: ArcSwapOption<KeySet>,
    /// Goes up when keys change.
    epoch: AtomicU64,
    wanted: Notify,
    /// Counts fetches that ended.
    fetched: watch::Sender<u64>,
    last: Mutex<Option<Instant>>,
    followed: AtomicBool,
    text: Mutex<Bytes>,
}

impl Jwks {
    pub fn new(source: Source) -> Arc<Self> {
        Arc::new(Jwks {
            source,
            keys: ArcSwapOption::empty(),
            epoch: AtomicU64::new(0),
            wanted: Notify::new(),
            fetched: watch::Sender::new(0),
            last: Mutex::new(None),
            followed: AtomicBool::new(false),
            text: Mutex::default(),
        })
    }

    /// `None`: none were ever there.
    pub fn keys(&self) -> Option<Arc<KeySet>> {
        self.keys.load_full()
    }

    pub fn epoch(&self) -> u64 {
        self.epoch.load(Relaxed)
    }

    /// Whether it makes sense to wait for newer keys: they were not fetched just now.
    pub fn may_have_more(&self) -> bool {
        let last = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.is_none_or(|last| last.elapsed() >= APART)
    }

    /// Has the keys fetched again, and waits for the end of that, a while.
    pub async fn more(&self) {
        let mut fetched = self.fetched.subscribe();
        let before = *fetched.borrow_and_update();
        self.wanted.notify_one();
        let newer = fetched.wait_for(|count| *count > before);
        let _ = tokio::time::timeout(WAIT, newer).await;
    }

    /// Whether nobody fetches them yet: the caller has to, then.
    pub fn is_to_be_followed(&self) -> bool {
        !self.followed.swap(true, Relaxed)
    }

    /// Fetches them for as long as somebody has them.
    pub async fn follow(this: Weak<Jwks>) {
        let mut failures = 0;
        loop {
            let Some(jwks) = this.upgrade() else { return };
            match jwks.refresh().await {
                Ok(()) => failures = 0,
                Err(error) => {
                    failures += 1;
                    let kept = if jwks.keys.load().is_some() {
                        "the last ones stay in use"
                    } else {
                        "there are none"
                    };
                    tracing::warn!(url = jwks.source.url, %error, "keys of an issuer cannot be fetched: {kept}");
                }
            }
            jwks.fetched.send_modify(|count| *count += 1);
            let pause = match failures {
                0 => jwks.source.every,
                n => jwks.source.every.min(FIRST_RETRY * 2u32.saturating_pow(n - 1)),
            };
            // Not held meanwhile: a reload may let go of it.
            let wanted = jwks.clone();
            drop(jwks);
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = wanted.asked() => {}
            }
        }
    }

    /// Until keys are wanted, and it is not too early for that.
    async fn asked(self: Arc<Self>) {
        self.wanted.notified().await;
        let last = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(early) = last.and_then(|last| APART.checked_sub(last.elapsed())) {
            tokio::time::sleep(early).await;
        }
    }

    async fn refresh(&self) -> Result<(), String> {
        let fetched = tokio::time::timeout(PATIENCE, get(&self.source)).await;
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        let text = fetched.map_err(|_| format!("no answer within {} s", PATIENCE.as_secs()))??;
        let keys = KeySet::published(&text, &self.source.allowed)?;
        let mut before = self.text.lock().unwrap_or_else(PoisonError::into_inner);
        if *before != text {
            *before = text;
            self.keys.store(Some(Arc::new(keys)));
            self.epoch.fetch_add(1, Relaxed);
        }
        Ok(())
    }
}

async fn get(source: &Source) -> Result<Bytes, String> {
    let uri: Uri = source.url.parse().map_err(|error| format!("{error}"))?;
    let request = Request::get("/").header(header::ACCEPT, "application/jwk-set+json, application/json");
    let fetched = fetch(&uri, source.ca.as_deref(), request, Bytes::new(), MOST_BYTES).await;
    match fetched.map_err(|error| error.to_string())? {
        Answer { status: StatusCode::OK, body } => body.map_err(|error| error.to_string()),
        Answer { status, .. } => Err(format!("the answer is {status}")),
    }
}
