//! Caches: what they hold and did, and taking things out.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use axum::{
    Json,
    extract::{Path, State, rejection::JsonRejection},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::problem::Problem;
use crate::{
    cache::{Cache, disk::Disk, key::Place, purge::Purge},
    daemon::{Control, News},
    observe::stats::CacheResult,
};

type Shared = State<Arc<Control>>;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CacheStatus {
    /// Bytes that it takes, and may take.
    pub bytes: u64,
    pub memory: u64,
    pub entries: u64,
    /// What had to go for others since the start.
    pub evicted: u64,
    /// Requests by what the cache did for them.
    pub requests: BTreeMap<String, u64>,
    pub routes: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<DiskStatus>,
}

/// The disk tier. Counts are since the start.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DiskStatus {
    pub directory: String,
    /// waiting (another process has it), loading, ready, closed.
    pub state: String,
    pub sealed: bool,
    /// Bytes of its files, and how many they may be.
    pub bytes: u64,
    pub size: u64,
    pub entries: u64,
    pub hits: u64,
    pub written: u64,
    pub evicted: u64,
    /// Not written, because too much was to be.
    pub dropped: u64,
    /// Not read, because too much was to be.
    pub busy: u64,
    /// Not what was written, and so not used.
    pub damaged: u64,
    /// Reads and writes that failed.
    pub failed: u64,
}

fn describe_disk(disk: &Disk) -> DiskStatus {
    let counts = disk.counts();
    let of = |count: &AtomicU64| count.load(Relaxed);
    DiskStatus {
        directory: disk.directory().display().to_string(),
        state: disk.state().word().to_owned(),
        sealed: disk.is_sealed(),
        bytes: disk.bytes(),
        size: disk.size(),
        entries: disk.entries(),
        hits: of(&counts.hits),
        written: of(&counts.written),
        evicted: of(&counts.evicted),
        dropped: of(&counts.dropped),
        busy: of(&counts.busy),
        damaged: of(&counts.damaged),
        failed: of(&counts.failed),
    }
}

fn describe(cache: &Cache) -> CacheStatus {
    let store = cache.store();
    CacheStatus {
        bytes: store.bytes(),
        memory: store.budget(),
        entries: store.entries(),
        evicted: store.evicted(),
        requests: CacheResult::ALL
            .map(|result| (result.word().to_owned(), cache.stats.results(result)))
            .into(),
        routes: cache.routes().to_vec(),
        disk: cache.disk().map(|disk| describe_disk(disk)),
    }
}

pub async fn list(State(control): Shared) -> Json<BTreeMap<String, CacheStatus>> {
    let snapshot = control.snapshot.load();
    Json(snapshot.caches.iter().map(|(name, cache)| (name.clone(), describe(cache))).collect())
}

pub async fn show(State(control): Shared, Path(name): Path<String>) -> Result<Json<CacheStatus>, Problem> {
    Ok(Json(describe(&*find(&control, &name)?)))
}

fn find(control: &Control, name: &str) -> Result<Arc<Cache>, Problem> {
    let snapshot = control.snapshot.load();
    snapshot.caches.get(name).cloned().ok_or_else(|| Problem::not_found("cache", name))
}

/// `{"key": URL}`, `{"prefix": URL}`, `{"tag": T}` or `{"all": true}`, and `"soft": true`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    key: Option<String>,
    prefix: Option<String>,
    tag: Option<String>,
    #[serde(default)]
    all: bool,
    #[serde(default)]
    pub soft: bool,
}

impl Wanted {
    /// # Errors
    /// It says not exactly one thing, or no URL.
    pub fn purge(&self) -> Result<Purge, Problem> {
        let place = |text: &String, whole| {
            let wrong =
                || Problem::bad_request(format!("{text:?} is no URL (http://host/path) and no path (/path)"));
            Place::parse(text, whole).map(Purge::At).ok_or_else(wrong)
        };
        match (&self.key, &self.prefix, &self.tag, self.all) {
            (Some(key), None, None, false) => place(key, true),
            (None, Some(prefix), None, false) => place(prefix, false),
            (None, None, Some(tag), false) if !tag.is_empty() => Ok(Purge::Tag(tag.as_bytes().into())),
            (None, None, None, true) => Ok(Purge::All),
            _ => Err(Problem::bad_request("say one of `key`, `prefix`, `tag` and `all`")),
        }
    }
}

pub async fn purge(
    State(control): Shared,
    Path(name): Path<String>,
    wanted: Result<Json<Wanted>, JsonRejection>,
) -> Result<Json<Value>, Problem> {
    let wanted = wanted.map_err(|rejection| Problem::bad_request(rejection.body_text()))?.0;
    let (cache, purge, told) = (find(&control, &name)?, wanted.purge()?, wanted.clone());
    // A large one is looked through for a while.
    let purged = tokio::task::spawn_blocking(move || cache.purge(purge, wanted.soft)).await;
    let purged = purged.map_err(|error| Problem::bad_request(error.to_string()))?;
    control.tell_others(News::Purge { cache: name.clone(), what: told });
    tracing::info!(cache = name, purged, soft = wanted.soft, "purged");
    Ok(Json(json!({ "purged": purged, "soft": wanted.soft })))
}
