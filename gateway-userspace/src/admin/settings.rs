//! The config over the admin API: shown, checked, compared, replaced.

use std::{fs, io, path::Path as File, sync::Arc};

use axum::{
    Json,
    extract::{Query, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::problem::Problem;
use crate::{
    config::{self, Format},
    daemon::{Control, Reach, ReloadError},
    request::media_type,
    seal,
};

type Shared = State<Arc<Control>>;

static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

pub async fn show(State(control): Shared) -> Response {
    let snapshot = control.snapshot.load();
    let tag = [(header::ETAG, tag(snapshot.generation))];
    (tag, Json(config::to_json(&snapshot.config))).into_response()
}

fn tag(generation: u64) -> String {
    format!("\"{generation}\"")
}

pub async fn toml(State(control): Shared) -> Json<String> {
    Json(config::show(&control.snapshot.load().config))
}

/// The body is a config: TOML, YAML or JSON.
pub async fn check(headers: HeaderMap, body: String) -> Result<Json<Value>, Problem> {
    config::parse(&body, named("request", format(&headers, &body).unwrap_or(Format::Toml)).as_ref())?;
    Ok(Json(json!({ "ok": true })))
}

fn named(name: &str, format: Format) -> String {
    format!("{name}.{}", format.extension())
}

/// What a body is: YAML by its `Content-Type`, JSON where it begins as that does and TOML cannot. `None`: TOML, or as
/// the file is.
fn format(headers: &HeaderMap, body: &str) -> Option<Format> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).map(media_type);
    match kind.as_deref().unwrap_or_default() {
        "application/toml" => Some(Format::Toml),
        "application/yaml" | "application/x-yaml" | "text/yaml" | "text/x-yaml" => Some(Format::Yaml),
        _ => body.trim_start().starts_with('{').then_some(Format::Json),
    }
}

/// What a reload would change.
pub async fn diff(State(control): Shared) -> Result<Json<Value>, Problem> {
    compare(&control, &control.read_config()?)
}

/// What a reload would change if the file were the body.
pub async fn diff_with(
    State(control): Shared,
    headers: HeaderMap,
    body: String,
) -> Result<Json<Value>, Problem> {
    let file = named("/request", format(&headers, &body).unwrap_or(Format::Toml));
    compare(&control, &config::parse(&body, file.as_ref())?)
}

fn compare(control: &Control, new: &config::model::Config) -> Result<Json<Value>, Problem> {
    let snapshot = control.snapshot.load();
    let kernel = control.kernel.plan(&new.kernel)?;
    let changes = config::diff(&snapshot.config, new);
    Ok(Json(json!({
        "needs_restart": config::needing_restart(&changes),
        "changes": changes,
        "kernel": kernel,
    })))
}

#[derive(Deserialize)]
pub struct Put {
    #[serde(default)]
    dry_run: u8,
}

/// Replaces the config file by the body and reloads. A file that is refused, at whatever point, leaves the one that was
/// there. A body of another format than the file is converted to that.
pub async fn put(
    State(control): Shared,
    Query(query): Query<Put>,
    headers: HeaderMap,
    body: String,
) -> Result<Json<Value>, Problem> {
    let file = control.config_path().ok_or(ReloadError::NoFile)?.to_owned();
    let _one = ONE_AT_A_TIME.lock().await;
    unchanged(&headers, control.snapshot.load().generation)?;
    let text = in_format_of(&file, format(&headers, &body), body)?;
    let new = config::parse(&text, &file)?;
    if query.dry_run != 0 {
        return compare(&control, &new);
    }
    let old = fs::read(&file).map_err(|error| not_written(&file, &error))?;
    seal::rewrite(&file, text.as_bytes()).map_err(|error| not_written(&file, &error))?;
    let reloaded = control.ask_reload(Reach::Everything).await;
    if reloaded.is_err()
        && let Err(error) = seal::rewrite(&file, &old)
    {
        tracing::error!(file = %file.display(), "the config that was refused cannot be taken back: {error}");
    }
    Ok(Json(json!(reloaded?)))
}

/// `If-Match` (RFC 9110 section 13.1.1): the generation that the client has seen.
fn unchanged(headers: &HeaderMap, generation: u64) -> Result<(), Problem> {
    let Some(wanted) = headers.get(header::IF_MATCH) else { return Ok(()) };
    let wanted = wanted.to_str().unwrap_or_default();
    match wanted.split(',').any(|one| one.trim() == "*" || one.trim() == tag(generation)) {
        true => Ok(()),
        false => {
            let detail =
                format!("the config is of generation {generation}, not {wanted}: somebody changed it");
            Err(Problem::new(StatusCode::PRECONDITION_FAILED, "changed", detail))
        }
    }
}

fn in_format_of(file: &File, format: Option<Format>, body: String) -> Result<String, Problem> {
    match (format, Format::of(file)) {
        (Some(has), wanted) if has != wanted => {
            Ok(config::convert_text(&body, named("request", has).as_ref(), wanted)?)
        }
        _ => Ok(body),
    }
}

fn not_written(file: &File, error: &io::Error) -> Problem {
    let detail = format!("cannot write {}: {error}; give the gateway's user the right to", file.display());
    Problem::new(StatusCode::CONFLICT, "not_written", detail)
}
