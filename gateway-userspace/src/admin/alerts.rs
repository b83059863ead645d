//! Alerts over the admin API.

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    extract::{ConnectInfo, Path, State, rejection::JsonRejection},
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{peer::Peer, problem::Problem};
use crate::{
    config::units,
    daemon::Control,
    observe::alert::{Row, Silence},
};

type Shared = State<Arc<Control>>;

pub async fn list(State(control): Shared) -> Json<Vec<Row>> {
    Json(control.alerts.rows())
}

pub async fn show(State(control): Shared, Path(name): Path<String>) -> Result<Json<Row>, Problem> {
    let found = control.alerts.rows().into_iter().find(|row| row.alert == name);
    found.map(Json).ok_or_else(|| Problem::not_found("alert", &name))
}

/// `{"for": "2h", "why": "known"}`
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewSilence {
    #[serde(rename = "for")]
    lasts: String,
    why: Option<String>,
}

/// Longer ones are forgotten by those who made them.
const LONGEST: Duration = Duration::from_secs(90 * 86_400);

pub async fn silence(
    State(control): Shared,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Path(name): Path<String>,
    new: Result<Json<NewSilence>, JsonRejection>,
) -> Result<Json<Silence>, Problem> {
    let Json(new) = new.map_err(|rejection| Problem::bad_request(rejection.body_text()))?;
    let lasts =
        units::parse_duration(&new.lasts).map_err(|error| Problem::bad_request(format!("`for`: {error}")))?;
    if lasts > LONGEST {
        return Err(Problem::bad_request("`for` is at most 90 days"));
    }
    let made = control.alerts.silence(&name, lasts, peer.name(), new.why);
    made.map(Json).ok_or_else(|| Problem::not_found("alert", &name))
}

pub async fn unsilence(State(control): Shared, Path(name): Path<String>) -> Result<Json<Value>, Problem> {
    if !control.alerts.unsilence(&name) {
        return Err(Problem::not_found("silence of", &name));
    }
    Ok(Json(json!({ "alert": name, "silenced": false })))
}
