//! Consumers and their keys over the admin API.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::problem::Problem;
use crate::{
    auth::StoreError,
    config::{
        model::Consumer,
        units::{self, Moment},
    },
    daemon::Control,
    observe::events,
    runtime::Snapshot,
};

type Shared = State<Arc<Control>>;

/// `{"id": "ci", "until": "2027-01-31"}`, or `"for": "90d"`; all may be left out.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewKey {
    id: Option<String>,
    until: Option<String>,
    #[serde(rename = "for")]
    duration: Option<String>,
}

pub async fn list(State(control): Shared) -> Json<Value> {
    let snapshot = control.snapshot.load();
    let all = snapshot
        .config
        .consumers
        .iter()
        .map(|(name, consumer)| (name.clone(), describe(&snapshot, name, consumer)));
    Json(all.collect())
}

pub async fn show(State(control): Shared, Path(name): Path<String>) -> Result<Json<Value>, Problem> {
    let snapshot = control.snapshot.load();
    Ok(Json(describe(&snapshot, &name, consumer(&snapshot, &name)?)))
}

pub async fn make(
    State(control): Shared,
    Path(name): Path<String>,
    body: String,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let asked = if body.trim().is_empty() { Ok(NewKey::default()) } else { serde_json::from_str(&body) };
    let asked: NewKey = asked.map_err(|error| Problem::bad_request(error.to_string()))?;
    let now = Moment::of(std::time::SystemTime::now());
    let until = until(&asked, now)?;
    if asked.id.as_ref().is_some_and(|id| !crate::config::is_name(id)) {
        return Err(Problem::bad_request("`id` is 1 to 63 letters, digits, `-`, `_` or `.`"));
    }
    let snapshot = control.snapshot.load();
    let consumer = consumer(&snapshot, &name)?;
    let taken = |id: &str| consumer.keys.iter().any(|key| key.id == id);
    let (id, key) = snapshot.auths.store.make(&name, asked.id, until, now, taken)?;
    tracing::info!(consumer = name, id, "an API key was made");
    events::tell("key", json!({ "consumer": name, "id": id, "made": true }));
    Ok((StatusCode::CREATED, Json(json!({ "consumer": name, "id": id, "key": key, "until": until }))))
}

pub async fn revoke(
    State(control): Shared,
    Path((name, id)): Path<(String, String)>,
) -> Result<Json<Value>, Problem> {
    let snapshot = control.snapshot.load();
    let configured = snapshot
        .config
        .consumers
        .get(&name)
        .and_then(|consumer| consumer.keys.iter().find(|key| key.id == id).map(|key| key.hash));
    if !snapshot.auths.store.revoke(&name, &id, configured)? {
        return Err(Problem::not_found("key", &format!("{name}/{id}")));
    }
    tracing::info!(consumer = name, id, "an API key was revoked");
    events::tell("key", json!({ "consumer": name, "id": id, "revoked": true }));
    Ok(Json(json!({ "consumer": name, "revoked": id })))
}

fn until(asked: &NewKey, now: Moment) -> Result<Option<Moment>, Problem> {
    let wrong = |what: &str, error: units::UnitError| Problem::bad_request(format!("`{what}`: {error}"));
    match (&asked.until, &asked.duration) {
        (None, None) => Ok(None),
        (Some(until), None) => until.parse().map(Some).map_err(|error| wrong("until", error)),
        (None, Some(duration)) => {
            let duration = units::parse_duration(duration).map_err(|error| wrong("for", error))?;
            Ok(Some(Moment { seconds: now.seconds.saturating_add(duration.as_secs()) }))
        }
        _ => Err(Problem::bad_request("either `until` or `for`")),
    }
}

fn consumer<'a>(snapshot: &'a Snapshot, name: &str) -> Result<&'a Consumer, Problem> {
    snapshot.config.consumers.get(name).ok_or_else(|| Problem::not_found("consumer", name))
}

/// Never a hash: it is of no use but to who guesses.
fn describe(snapshot: &Snapshot, name: &str, consumer: &Consumer) -> Value {
    let store = &snapshot.auths.store;
    let added = store.added();
    let written = consumer.keys.iter().map(|key| {
        json!({ "id": key.id, "from": "config", "until": key.until, "revoked": added.revoked(&key.hash) })
    });
    let made = store.list(name).into_iter().map(|key| {
        json!({ "id": key.id, "from": "store", "until": key.until, "revoked": false, "made": key.made })
    });
    json!({
        "tier": consumer.tier,
        "grant": consumer.grants,
        "password": !consumer.passwords.is_empty(),
        "certs": consumer.certs.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "keys": written.chain(made).collect::<Vec<_>>(),
    })
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        let (status, kind) = match &error {
            StoreError::NoKey | StoreError::Taken(_) | StoreError::Full => (StatusCode::CONFLICT, "conflict"),
            _ => (StatusCode::INTERNAL_SERVER_ERROR, "not_kept"),
        };
        Problem::new(status, kind, error.to_string())
    }
}
