//! Bans over the admin API.

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::problem::Problem;
use crate::{
    config::units::{self, Prefix},
    daemon::Control,
    kernel::Ban,
    observe::events,
};

type Shared = State<Arc<Control>>;

/// `{"cidr": "192.0.2.1", "for": "1h", "why": "scraper"}`; without `for` it holds until it is lifted.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewBan {
    cidr: String,
    #[serde(rename = "for")]
    duration: Option<String>,
    why: Option<String>,
}

pub async fn list(State(control): Shared) -> Json<Vec<Ban>> {
    Json(control.kernel.bans())
}

pub async fn add(
    State(control): Shared,
    Json(new): Json<NewBan>,
) -> Result<(StatusCode, Json<Ban>), Problem> {
    let prefix = prefix(&new.cidr)?;
    let duration = new.duration.as_deref().map(duration).transpose()?;
    let ban = control.kernel.ban(prefix, duration, new.why.as_deref().unwrap_or("operator"))?;
    tracing::info!(cidr = %prefix, why = new.why, "banned");
    events::tell("ban", json!(ban));
    Ok((StatusCode::CREATED, Json(ban)))
}

pub async fn show(State(control): Shared, Path(cidr): Path<String>) -> Result<Json<Ban>, Problem> {
    let prefix = prefix(&cidr)?;
    let found = control.kernel.bans().into_iter().find(|ban| ban.cidr == prefix);
    found.map(Json).ok_or_else(|| Problem::not_found("ban on", &cidr))
}

pub async fn remove(State(control): Shared, Path(cidr): Path<String>) -> Result<Json<Value>, Problem> {
    let prefix = prefix(&cidr)?;
    if !control.kernel.unban(prefix)? {
        return Err(Problem::not_found("ban on", &cidr));
    }
    tracing::info!(cidr = %prefix, "ban lifted");
    events::tell("unban", json!({ "cidr": prefix }));
    Ok(Json(json!({ "lifted": prefix })))
}

fn prefix(text: &str) -> Result<Prefix, Problem> {
    text.parse().map_err(|error| Problem::bad_request(format!("{text}: {error}")))
}

fn duration(text: &str) -> Result<Duration, Problem> {
    units::parse_duration(text).map_err(|error| Problem::bad_request(format!("{text}: {error}")))
}
