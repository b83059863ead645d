//! Bans over the admin API: those of the kernel half and those at L7.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::{
    Json,
    extract::{Path, Query, State},
    http::StatusCode,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::problem::Problem;
use crate::{
    config::units::{self, Prefix},
    daemon::{Control, News},
    kernel,
    limit::HttpBan,
    observe::{events, rfc3339},
};

type Shared = State<Arc<Control>>;

/// `{"cidr": "192.0.2.1", "for": "1h", "why": "scraper", "where": "kernel"}`; without `for` it holds until it is lifted,
/// without `where` in the kernel half.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewBan {
    cidr: String,
    #[serde(rename = "for")]
    duration: Option<String>,
    why: Option<String>,
    #[serde(rename = "where", default)]
    place: Place,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    #[default]
    Kernel,
    Http,
}

/// Only of those in this place.
#[derive(Deserialize)]
pub struct Where {
    #[serde(rename = "where")]
    place: Option<Place>,
}

#[derive(Debug, Serialize)]
pub struct Ban {
    cidr: Prefix,
    #[serde(rename = "where")]
    place: Place,
    /// Rounded up; none: until it is lifted.
    left_seconds: Option<u64>,
    until: Option<String>,
    why: String,
    by: Value,
}

impl Ban {
    fn new(cidr: Prefix, place: Place, left_seconds: Option<u64>, why: String, by: Value) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let until = left_seconds.map(|left| rfc3339(now.saturating_add(left).min(1 << 40)));
        Ban { cidr, place, left_seconds, until, why, by }
    }
}

impl From<kernel::Ban> for Ban {
    fn from(ban: kernel::Ban) -> Self {
        Ban::new(ban.cidr, Place::Kernel, ban.left_seconds, ban.why, json!(ban.by))
    }
}

impl From<HttpBan> for Ban {
    fn from(ban: HttpBan) -> Self {
        let left = ban.left_seconds();
        Ban::new(ban.cidr, Place::Http, left, ban.why, json!(ban.by))
    }
}

fn all(control: &Control) -> Vec<Ban> {
    let http = control.snapshot.load().limit_store.bans.list();
    control.kernel.bans().into_iter().map(Ban::from).chain(http.into_iter().map(Ban::from)).collect()
}

pub async fn list(State(control): Shared, Query(of): Query<Where>) -> Json<Vec<Ban>> {
    Json(all(&control).into_iter().filter(|ban| of.place.is_none_or(|place| place == ban.place)).collect())
}

pub async fn add(
    State(control): Shared,
    Json(new): Json<NewBan>,
) -> Result<(StatusCode, Json<Ban>), Problem> {
    let prefix = prefix(&new.cidr)?;
    let duration = new.duration.as_deref().map(duration).transpose()?;
    let why = new.why.as_deref().unwrap_or("operator");
    let ban: Ban = match new.place {
        Place::Kernel => control.kernel.ban(prefix, duration, why)?.into(),
        Place::Http if prefix.len == 0 => return Err(Problem::bad_request("that would be everybody")),
        Place::Http => {
            let ban = HttpBan::new(prefix, duration, why, "operator");
            if !control.snapshot.load().limit_store.bans.add(ban.clone()) {
                return Err(Problem::new(StatusCode::CONFLICT, "refused", "there are too many bans"));
            }
            ban.into()
        }
    };
    control.tell_others(News::Ban {
        ban: HttpBan::new(prefix, duration, why, "operator"),
        kernel: new.place == Place::Kernel,
    });
    tracing::info!(cidr = %prefix, why = new.why, "banned");
    events::tell("ban", json!(ban));
    Ok((StatusCode::CREATED, Json(ban)))
}

pub async fn show(
    State(control): Shared,
    Path(cidr): Path<String>,
    Query(of): Query<Where>,
) -> Result<Json<Ban>, Problem> {
    let prefix = prefix(&cidr)?;
    let wanted = |ban: &Ban| ban.cidr == prefix && of.place.is_none_or(|place| place == ban.place);
    let found = all(&control).into_iter().find(wanted);
    found.map(Json).ok_or_else(|| Problem::not_found("ban on", &cidr))
}

/// Without `where` in both places.
pub async fn remove(
    State(control): Shared,
    Path(cidr): Path<String>,
    Query(of): Query<Where>,
) -> Result<Json<Value>, Problem> {
    let prefix = prefix(&cidr)?;
    let here = |place| of.place.is_none_or(|wanted| wanted == place);
    let http = here(Place::Http) && control.snapshot.load().limit_store.bans.lift(prefix);
    let kernel = here(Place::Kernel) && control.kernel.unban(prefix)?;
    if !http && !kernel {
        return Err(Problem::not_found("ban on", &cidr));
    }
    control.tell_others(News::Unban { cidr: prefix, kernel: here(Place::Kernel), http: here(Place::Http) });
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
