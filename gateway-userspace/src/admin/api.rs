//! The routes of the admin API.

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf, sync::Arc};

use axum::{
    Json, Router,
    extract::{Path, Query, State},
    http::StatusCode,
    routing::{delete, get, patch, post},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    alerts, bans, caches, capture, certs, consumers, events, explain, limits, problem::Problem, services,
    settings, stats, status, targets, versions, warm, why,
};
use crate::{
    config,
    daemon::{Control, Reach, Request},
    kernel,
};

type Shared = State<Arc<Control>>;

pub fn routes() -> Router<Arc<Control>> {
    Router::new()
        .route("/v1/status", get(show_status))
        .route("/v1/stats", get(|State(control): Shared| async move { Json(stats::stats(&control)) }))
        .route("/v1/config", get(settings::show).put(settings::put))
        .route("/v1/config/toml", get(settings::toml))
        .route("/v1/config/check", post(settings::check))
        .route(
            "/v1/listeners",
            get(|State(control): Shared| async move { Json(status::listeners(&control)) }),
        )
        .route("/v1/listeners/{name}", get(listener))
        .route("/v1/routes", get(routes_list))
        .route("/v1/routes/{name}", get(route))
        .route("/v1/upstreams", get(upstreams))
        .route("/v1/upstreams/{name}", get(upstream))
        .route("/v1/upstreams/{name}/targets/{addr}", patch(targets::patch_upstream))
        .route("/v1/services", get(services::list))
        .route("/v1/services/{name}", get(services::show))
        .route("/v1/services/{name}/targets/{addr}", patch(targets::patch_service))
        .route("/v1/caches", get(caches::list))
        .route("/v1/caches/{name}", get(caches::show))
        .route("/v1/caches/{name}/purge", post(caches::purge))
        .route("/v1/warm", post(warm::warm))
        .route("/v1/certs", get(certs::list))
        .route("/v1/certs/{name}", get(certs::show))
        .route("/v1/certs/{name}/renew", post(certs::renew))
        .route("/v1/why/{of}", get(why::why))
        .route("/v1/alerts", get(alerts::list))
        .route("/v1/alerts/{name}", get(alerts::show))
        .route("/v1/alerts/{name}/silence", post(alerts::silence).delete(alerts::unsilence))
        .route("/v1/consumers", get(consumers::list))
        .route("/v1/consumers/{name}", get(consumers::show))
        .route("/v1/consumers/{name}/keys", post(consumers::make))
        .route("/v1/consumers/{name}/keys/{id}", axum::routing::delete(consumers::revoke))
        .route("/v1/kernel", get(kernel_status))
        .route("/v1/kernel/maps", get(|State(control): Shared| async move { Json(control.kernel.maps()) }))
        .route("/v1/kernel/sources", get(sources))
        .route("/v1/kernel/sources/{source}", get(source).delete(reset_source))
        .route("/v1/kernel/verify", get(verify).post(repair))
        .route("/v1/limits", get(limits::list))
        .route("/v1/limits/{name}", get(limits::show))
        .route("/v1/limits/{name}/keys", get(limits::keys).delete(limits::clear))
        .route("/v1/limits/{name}/keys/{key}", delete(limits::reset))
        .route("/v1/limit-keys", get(limits::all_keys))
        .route("/v1/limit-top", get(limits::top))
        .route("/v1/bans", get(bans::list).post(bans::add))
        .route("/v1/bans/{*cidr}", get(bans::show).delete(bans::remove))
        .route("/v1/explain", post(explain::explain))
        .route("/v1/events", get(events::events))
        .route("/v1/capture", get(capture::capture))
        .route("/v1/reload", post(reload))
        .route("/v1/diff", get(settings::diff).post(settings::diff_with))
        .route("/v1/stop", post(stop))
        .route("/v1/upgrade", post(upgrade))
        .fallback(|| async { Problem::new(StatusCode::NOT_FOUND, "not_found", "there is no such resource") })
}

#[derive(Serialize)]
struct Told {
    #[serde(flatten)]
    status: status::Status,
    healthy: bool,
}

async fn show_status(State(control): Shared) -> Json<Told> {
    let status = status::status(&control);
    Json(Told { healthy: status::healthy(&status), status })
}

async fn routes_list(State(control): Shared) -> Json<Value> {
    Json(config::to_json(&control.snapshot.load().config)["route"].take())
}

async fn route(State(control): Shared, Path(name): Path<String>) -> Result<Json<Value>, Problem> {
    let settings = config::to_json(&control.snapshot.load().config)["route"][&name].take();
    if settings.is_null() {
        return Err(Problem::not_found("route", &name));
    }
    let mut codes: BTreeMap<String, u64> = BTreeMap::new();
    for ((_, route, _), stats) in control.registry.routes() {
        if *route == *name {
            for ((_, code), count) in stats.requests() {
                *codes.entry(code.to_string()).or_default() += count;
            }
        }
    }
    let mut told = json!({ "settings": settings, "codes": codes });
    let snapshot = control.snapshot.load();
    let config = snapshot.config.routes.get(&name);
    if config.and_then(|route| route.mirror.as_ref()?.compare.as_ref()).is_some() {
        told["compared"] = versions::compared(&control, &name, "");
    }
    if let Some(all) = config.and_then(|route| route.versions.as_deref()) {
        told["versions"] = versions::show(&control, &name, all);
    }
    Ok(Json(told))
}

async fn listener(State(control): Shared, Path(name): Path<String>) -> Result<Json<Value>, Problem> {
    let found = status::listeners(&control).remove(&name);
    found.map(|found| Json(json!(found))).ok_or_else(|| Problem::not_found("listener", &name))
}

async fn upstreams(State(control): Shared) -> Json<Value> {
    let snapshot = control.snapshot.load();
    let known = control.names.known();
    let all = snapshot
        .upstreams
        .iter()
        .map(|(name, upstream)| (name.clone(), json!(status::describe(upstream, &known))));
    Json(all.collect())
}

async fn upstream(State(control): Shared, Path(name): Path<String>) -> Result<Json<Value>, Problem> {
    let snapshot = control.snapshot.load();
    let found = snapshot.upstreams.get(&name).ok_or_else(|| Problem::not_found("upstream", &name))?;
    Ok(Json(json!(status::describe(found, &control.names.known()))))
}

async fn kernel_status(State(control): Shared) -> Json<Value> {
    let mut body = serde_json::to_value(control.kernel.status()).unwrap_or_default();
    body["summary"] = control.kernel.status().summary().into();
    body["counters"] = json!(control.kernel.counters());
    Json(body)
}

#[derive(Deserialize)]
struct Top {
    #[serde(default = "twenty")]
    top: usize,
}

fn twenty() -> usize {
    20
}

async fn sources(State(control): Shared, Query(query): Query<Top>) -> Json<Vec<kernel::SourceRow>> {
    Json(control.kernel.sources(query.top.min(10_000)))
}

async fn source(
    State(control): Shared,
    Path(source): Path<IpAddr>,
) -> Result<Json<kernel::SourceRow>, Problem> {
    let row = control.kernel.source(source);
    row.map(Json).ok_or_else(|| Problem::not_found("bucket of", &source.to_string()))
}

async fn reset_source(State(control): Shared, Path(source): Path<IpAddr>) -> Result<Json<Value>, Problem> {
    control.kernel.reset(source)?;
    Ok(Json(json!({ "reset": source })))
}

async fn verify(State(control): Shared) -> Result<Json<kernel::VerifyReport>, Problem> {
    Ok(Json(control.verify_kernel(false)?))
}

async fn repair(State(control): Shared) -> Result<Json<kernel::VerifyReport>, Problem> {
    Ok(Json(control.verify_kernel(true)?))
}

async fn reload(State(control): Shared) -> Result<Json<Value>, Problem> {
    Ok(Json(json!(control.ask_reload(Reach::Everything).await?)))
}

#[derive(Deserialize)]
struct Stop {
    #[serde(default)]
    now: bool,
}

async fn stop(State(control): Shared, Query(query): Query<Stop>) -> Json<Value> {
    let _ = control.requests.send(Request::Stop { now: query.now });
    Json(json!({ "stopping": true, "pid": std::process::id() }))
}

/// The body is empty, or says which program and how long it may take until it serves.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Upgrade {
    binary: Option<PathBuf>,
    timeout: Option<String>,
}

async fn upgrade(State(control): Shared, body: String) -> Result<Json<Value>, Problem> {
    let asked = if body.trim().is_empty() { Ok(Upgrade::default()) } else { serde_json::from_str(&body) };
    let Upgrade { binary, timeout } = asked.map_err(|error| Problem::bad_request(error.to_string()))?;
    if binary.as_ref().is_some_and(|binary| !binary.is_absolute()) {
        return Err(Problem::bad_request("`binary` is an absolute path"));
    }
    let timeout = timeout.map(|text| config::units::parse_duration(&text)).transpose();
    let timeout = timeout.map_err(|error| Problem::bad_request(format!("`timeout`: {error}")))?;
    Ok(Json(json!(control.ask_upgrade(binary, timeout).await?)))
}
