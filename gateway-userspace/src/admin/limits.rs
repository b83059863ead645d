//! L7 limits over the admin API. `GET /v1/limits` has the kernel half's beside them.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, Query, State},
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::problem::Problem;
use crate::{
    config,
    daemon::{Control, News},
    kernel::SourceRow,
    limit::{InUse, Limit, Row, rank},
    observe::stats::Decided,
    runtime::Snapshot,
};

type Shared = State<Arc<Control>>;

pub async fn list(State(control): Shared) -> Json<Value> {
    let snapshot = control.snapshot.load();
    let mut config = config::to_json(&snapshot.config);
    let services: Map<String, Value> = config["service"]
        .as_object_mut()
        .into_iter()
        .flatten()
        .filter(|(_, service)| service["limit"] != json!({}))
        .map(|(name, service)| (name.clone(), service["limit"].take()))
        .collect();
    let in_use = in_use(&snapshot).await;
    let l7: Map<String, Value> = snapshot
        .limits
        .iter()
        .map(|(name, limit)| {
            (name.clone(), describe(&snapshot, limit, config["limit"][name].take(), in_use.of(limit)))
        })
        .collect();
    let kernel = &mut config["kernel"];
    Json(json!({
        "kernel": kernel["limit"].take(),
        "classes": kernel["class"].take(),
        "services": services,
        "limits": l7,
        "keys": {
            "in_use": in_use.by_group.values().sum::<u64>(),
            "estimated": in_use.estimated,
            "capacity": snapshot.limit_store.capacity(),
        },
    }))
}

/// Counted beside the control thread, which has other things to do.
async fn in_use(snapshot: &Snapshot) -> InUse {
    let store = snapshot.limit_store.clone();
    tokio::task::spawn_blocking(move || store.keys_in_use()).await.unwrap_or_default()
}

fn describe(snapshot: &Snapshot, limit: &Limit, settings: Value, keys: u64) -> Value {
    let routes =
        snapshot.config.routes.iter().filter(|(_, route)| route.limits.iter().any(|of| **of == *limit.name));
    let decisions = |decided| limit.stats.shards.sum(|shard| shard.decisions(decided));
    json!({
        "settings": settings,
        "routes": routes.map(|(name, _)| name).collect::<Vec<_>>(),
        "rate": limit.rate(),
        "share": limit.even_share(),
        "keys": keys,
        "decisions": Decided::ALL.iter().map(|(decided, word)| ((*word).to_owned(), json!(decisions(*decided)))).collect::<Map<_, _>>(),
    })
}

pub async fn show(State(control): Shared, Path(name): Path<String>) -> Result<Json<Value>, Problem> {
    let snapshot = control.snapshot.load();
    let limit = find(&snapshot, &name)?;
    let settings = config::to_json(&snapshot.config)["limit"][&name].take();
    let mut told = describe(&snapshot, limit, settings, in_use(&snapshot).await.of(limit));
    told["top"] = json!(joined(&control, snapshot.limit_store.top(limit, 10)));
    Ok(Json(told))
}

#[derive(Deserialize)]
pub struct Top {
    #[serde(default = "twenty")]
    top: usize,
}

fn twenty() -> usize {
    20
}

pub async fn keys(
    State(control): Shared,
    Path(name): Path<String>,
    Query(query): Query<Top>,
) -> Result<Json<Vec<Joined>>, Problem> {
    let snapshot = control.snapshot.load();
    let limit = find(&snapshot, &name)?;
    Ok(Json(joined(&control, snapshot.limit_store.top(limit, query.top.min(10_000)))))
}

/// The keys of all limits.
pub async fn all_keys(State(control): Shared, Query(query): Query<Top>) -> Json<Vec<Joined>> {
    Json(joined(&control, all_rows(&control, query.top.min(10_000))))
}

/// The keys of all limits, and the kernel half's sources that are no key's.
pub async fn top(State(control): Shared, Query(query): Query<Top>) -> Json<Value> {
    let most = query.top.min(10_000);
    let keys = joined(&control, all_rows(&control, most));
    let is_key = |row: &SourceRow| {
        keys.iter().filter_map(|key| key.kernel.as_ref()).any(|kernel| kernel.source == row.source)
    };
    let mut sources = control.kernel.sources(most);
    sources.retain(|row| row.service.is_some() || !is_key(row));
    Json(json!({ "keys": keys, "sources": sources }))
}

fn all_rows(control: &Control, most: usize) -> Vec<Row> {
    let snapshot = control.snapshot.load();
    let mut rows = snapshot.limits.values().flat_map(|limit| snapshot.limit_store.top(limit, most)).collect();
    rank(&mut rows, most);
    rows
}

/// A key, and what its client has in the kernel half.
#[derive(Serialize)]
pub struct Joined {
    #[serde(flatten)]
    row: Row,
    kernel: Option<SourceRow>,
}

fn joined(control: &Control, rows: Vec<Row>) -> Vec<Joined> {
    let kernel = |row: &Row| row.source.and_then(|source| control.kernel.source(source));
    rows.into_iter().map(|row| Joined { kernel: kernel(&row), row }).collect()
}

/// Every key of a limit starts anew.
pub async fn clear(State(control): Shared, Path(name): Path<String>) -> Result<Json<Value>, Problem> {
    let snapshot = control.snapshot.load();
    snapshot.limit_store.clear(find(&snapshot, &name)?);
    control.tell_others(News::Reset { limit: name.clone(), key: None });
    Ok(Json(json!({ "reset": name })))
}

pub async fn reset(
    State(control): Shared,
    Path((name, key)): Path<(String, String)>,
) -> Result<Json<Value>, Problem> {
    let snapshot = control.snapshot.load();
    match snapshot.limit_store.reset(find(&snapshot, &name)?, &key) {
        Some(id) => {
            control.tell_others(News::Reset { limit: name.clone(), key: Some(id) });
            Ok(Json(json!({ "reset": name, "key": key })))
        }
        None => Err(Problem::bad_request(format!("{key}: a key's id is 32 hexadecimal digits"))),
    }
}

fn find<'a>(snapshot: &'a Snapshot, name: &str) -> Result<&'a Limit, Problem> {
    let found = snapshot.limits.get(name).map(|limit| &**limit);
    found.ok_or_else(|| Problem::not_found("limit", name))
}
