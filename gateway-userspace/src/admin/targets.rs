//! Operators' overrides of targets: of upstreams and of L4 services.

use std::{net::SocketAddr, sync::Arc, time::Duration, time::Instant, time::SystemTime};

use axum::{
    Json,
    extract::{ConnectInfo, Path, State, rejection::JsonRejection},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{peer::Peer, problem::Problem, services, status};
use crate::{
    config::units,
    daemon::Control,
    upstream::operator::{Operator, Override, Said, Taken},
};

type Shared = State<Arc<Control>>;

/// `{"state": "drain", "for": "30m"}`, `{"weight": 5}`, `{"state": "up"}`, `{"weight": "config"}`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Patch {
    state: Option<Wanted>,
    weight: Option<Value>,
    #[serde(rename = "for")]
    duration: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Wanted {
    /// As checks say: takes "drain" and "down" back.
    Up,
    Drain,
    Down,
}

/// A patch that makes sense. The inner `None` takes back what was said before.
#[derive(Debug, PartialEq)]
struct Change {
    taken: Option<Option<Taken>>,
    weight: Option<Option<u32>>,
    duration: Option<Duration>,
}

/// What operators said of a target.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct OverrideStatus {
    /// "drain" or "down".
    pub state: Option<OverrideRow<String>>,
    pub weight: Option<OverrideRow<u32>>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OverrideRow<T> {
    pub value: T,
    pub by: String,
    /// Seconds since 1970.
    pub since: u64,
    /// Rounded up; none: until it is taken back.
    pub left_seconds: Option<u64>,
}

impl OverrideStatus {
    /// `None`: nothing was said.
    pub fn of(operator: &Operator) -> Option<OverrideStatus> {
        let Said { taken, weight } = operator.said();
        (taken.is_some() || weight.is_some()).then(|| OverrideStatus {
            state: taken.map(|taken| row(&taken, taken.value.word().to_owned())),
            weight: weight.map(|weight| row(&weight, weight.value)),
        })
    }
}

fn row<T, U>(said: &Override<T>, value: U) -> OverrideRow<U> {
    let left = |ends: Instant| {
        let left = ends.saturating_duration_since(Instant::now());
        left.as_secs() + u64::from(left.subsec_nanos() > 0)
    };
    OverrideRow {
        value,
        by: said.by.clone(),
        since: said.since.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs(),
        left_seconds: said.ends.map(left),
    }
}

pub async fn patch_upstream(
    State(control): Shared,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Path((name, addr)): Path<(String, String)>,
    patch: Result<Json<Patch>, JsonRejection>,
) -> Result<Json<status::TargetStatus>, Problem> {
    let change = change(patch)?;
    heard(&control)?;
    let snapshot = control.snapshot.load();
    let upstream = snapshot.upstreams.get(&name).ok_or_else(|| Problem::not_found("upstream", &name))?;
    let addr = address(&addr)?;
    let index = upstream.members.iter().position(|member| member.target.addr == addr);
    let index = index.ok_or_else(|| Problem::not_found("target", &format!("{name}/{addr}")))?;
    change.apply(&upstream.members[index].target.operator, &peer.name(), &name, addr);
    upstream.rebuild();
    Ok(Json(status::describe(upstream, &control.names.known()).targets.swap_remove(index)))
}

pub async fn patch_service(
    State(control): Shared,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Path((name, addr)): Path<(String, String)>,
    patch: Result<Json<Patch>, JsonRejection>,
) -> Result<Json<services::TargetStatus>, Problem> {
    let change = change(patch)?;
    heard(&control)?;
    let snapshot = control.snapshot.load();
    let service = snapshot.services.get(&name).ok_or_else(|| Problem::not_found("service", &name))?;
    let addr = address(&addr)?;
    let found = service.targets().enumerate().find(|(_, (target, _))| target.addr == addr);
    let (index, (target, _)) =
        found.ok_or_else(|| Problem::not_found("target", &format!("{name}/{addr}")))?;
    change.apply(&target.operator, &peer.name(), &name, addr);
    control.services_changed.notify_one();
    Ok(Json(services::one(&control, service).targets.swap_remove(index)))
}

/// While another process takes over, what was to be remembered has been told it already.
fn heard(control: &Control) -> Result<(), Problem> {
    if control.hands_over() {
        let why = "an upgrade is under way: say it again in a moment";
        return Err(Problem::new(axum::http::StatusCode::CONFLICT, "refused", why));
    }
    Ok(())
}

fn change(patch: Result<Json<Patch>, JsonRejection>) -> Result<Change, Problem> {
    patch.map_err(|rejection| Problem::bad_request(rejection.body_text()))?.0.check()
}

fn address(text: &str) -> Result<SocketAddr, Problem> {
    units::parse_target(text).map_err(|error| Problem::bad_request(error.to_string()))
}

impl Patch {
    fn check(self) -> Result<Change, Problem> {
        let taken = self.state.map(|state| match state {
            Wanted::Up => None,
            Wanted::Drain => Some(Taken::Drain),
            Wanted::Down => Some(Taken::Down),
        });
        let weight = self.weight.as_ref().map(weight).transpose()?;
        if taken.is_none() && weight.is_none() {
            return Err(Problem::bad_request("it says neither `state` nor `weight`"));
        }
        let duration = match &self.duration {
            Some(_) if taken.flatten().is_none() && weight.flatten().is_none() => {
                return Err(Problem::bad_request("`for` is of what is said, not of what is taken back"));
            }
            Some(text) => Some(duration(text)?),
            None => None,
        };
        Ok(Change { taken, weight, duration })
    }
}

fn weight(value: &Value) -> Result<Option<u32>, Problem> {
    match value.as_u64().and_then(|weight| u32::try_from(weight).ok()) {
        Some(weight @ 1..=1000) => Ok(Some(weight)),
        _ if value == "config" => Ok(None),
        _ => Err(Problem::bad_request(format!("`weight` is from 1 to 1000 or \"config\", found {value}"))),
    }
}

fn duration(text: &str) -> Result<Duration, Problem> {
    match units::parse_duration(text) {
        Ok(Duration::ZERO) => Err(Problem::bad_request("`for` is never zero")),
        Ok(duration) => Ok(duration),
        Err(error) => Err(Problem::bad_request(format!("`for`: {error}"))),
    }
}

impl Change {
    fn apply(self, operator: &Operator, by: &str, name: &str, target: SocketAddr) {
        if let Some(taken) = self.taken {
            operator.take(taken.map(|taken| Override::new(taken, by, self.duration)));
            let state = taken.map_or("up", Taken::word);
            tracing::info!(of = name, %target, state, by, "target overridden");
        }
        if let Some(weight) = self.weight {
            operator.weigh(weight.map(|weight| Override::new(weight, by, self.duration)));
            let weight = weight.map_or("config".into(), |weight| weight.to_string());
            tracing::info!(of = name, %target, weight, by, "target overridden");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(json: &str) -> Option<Change> {
        serde_json::from_str::<Patch>(json).ok()?.check().ok()
    }

    #[test]
    fn a_patch_says_what_to_do_and_for_how_long() {
        let minute = Some(Duration::from_secs(60));
        assert_eq!(
            check(r#"{"state": "drain", "for": "1m"}"#),
            Some(Change { taken: Some(Some(Taken::Drain)), weight: None, duration: minute })
        );
        assert_eq!(
            check(r#"{"state": "up", "weight": 5}"#),
            Some(Change { taken: Some(None), weight: Some(Some(5)), duration: None })
        );
        assert_eq!(
            check(r#"{"weight": "config"}"#),
            Some(Change { taken: None, weight: Some(None), duration: None })
        );
        for wrong in [
            "{}",
            r#"{"for": "1m"}"#,
            r#"{"state": "sideways"}"#,
            r#"{"state": "up", "for": "1m"}"#,
            r#"{"state": "drain", "for": "soon"}"#,
            r#"{"state": "drain", "for": "0s"}"#,
            r#"{"weight": 0}"#,
            r#"{"weight": 1001}"#,
            r#"{"weight": -1}"#,
            r#"{"weight": 1, "x": 1}"#,
        ] {
            assert_eq!(check(wrong), None, "{wrong}");
        }
    }
}
