//! Logging in and out.

use std::{sync::Arc, time::Instant};

use axum::{
    Extension, Json, Router,
    extract::{ConnectInfo, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    gate::{Gate, SESSION},
    guard,
};
use crate::{
    admin::{peer::Peer, problem::Problem},
    daemon::Control,
};

/// For everybody.
pub fn login() -> Router<Arc<Gate>> {
    Router::new().route("/login", post(log_in))
}

/// For who is logged in.
pub fn mine() -> Router<Arc<Control>> {
    Router::new().route("/session", get(mine_is)).route("/logout", post(log_out))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Login {
    token: String,
}

async fn log_in(
    State(gate): State<Arc<Gate>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    login: Result<Json<Login>, axum::extract::rejection::JsonRejection>,
) -> Response {
    // Only our page can send JSON: other origins would have to ask first, and are refused.
    let Ok(Json(login)) = login else {
        return Problem::bad_request("the body is {\"token\": \"…\"}").into_response();
    };
    match gate.log_in(login.token.trim().as_bytes(), guard::address(peer), Instant::now()) {
        Ok(opened) => {
            tracing::info!(by = peer.name(), "logged in to the dashboard");
            let cookie = set_cookie(&gate, &opened.id, SESSION.as_secs());
            ([(header::SET_COOKIE, cookie)], Json(json!({ "csrf": opened.csrf }))).into_response()
        }
        Err(refused) => {
            tracing::warn!(by = peer.name(), ?refused, "login to the dashboard refused");
            guard::refuse(refused)
        }
    }
}

async fn mine_is(
    State(control): State<Arc<Control>>,
    Extension(gate): Extension<Arc<Gate>>,
    headers: HeaderMap,
) -> Json<Value> {
    let csrf = guard::session(&gate, &headers).and_then(|id| gate.session(id, Instant::now()));
    let name = &control.snapshot.load().config.gateway.name;
    Json(json!({ "csrf": csrf, "name": name, "version": env!("CARGO_PKG_VERSION") }))
}

async fn log_out(Extension(gate): Extension<Arc<Gate>>, headers: HeaderMap) -> Response {
    if let Some(id) = guard::session(&gate, &headers) {
        gate.log_out(id);
    }
    (StatusCode::NO_CONTENT, [(header::SET_COOKIE, set_cookie(&gate, "", 0))]).into_response()
}

fn set_cookie(gate: &Gate, id: &str, seconds: u64) -> String {
    let secure = if gate.secure { "; Secure" } else { "" };
    format!("{}={id}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}", guard::cookie(gate))
}
