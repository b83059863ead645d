//! The admin API: JSON over HTTP on a unix socket. The command line uses nothing else.
//!
//! Also what monitoring asks for over TCP: `/metrics`, `/livez`, `/readyz`.

mod alerts;
mod api;
mod audit;
mod bans;
mod caches;
mod capture;
mod certs;
mod consumers;
mod events;
mod explain;
mod limits;
mod metrics;
mod peer;
mod problem;
mod services;
mod settings;
mod socket;
pub mod stats;
mod status;
mod targets;
mod troubles;
mod versions;
mod warm;
mod web;
mod why;

pub use caches::{CacheStatus, DiskStatus, Wanted};
pub use certs::CertStatus;
pub use services::{ServiceStatus, TargetStatus as ServiceTargetStatus};
pub use socket::{SocketError, bind};
pub use status::{NameStatus, Status, TargetStatus, UpstreamStatus};
pub use targets::{OverrideRow, OverrideStatus};
pub use troubles::{Level, Trouble};
#[cfg(test)]
pub use web::same_text;
pub use web::{Gate, TokenError, serve as serve_http};

use std::sync::{Arc, atomic::Ordering::Relaxed};

use axum::{Router, extract::State, http::StatusCode, response::IntoResponse, routing::get};
use tokio::net::{TcpListener, UnixListener};

use crate::daemon::Control;

/// Serves the admin API until `over`; what was asked before is still answered.
pub async fn serve(
    listener: UnixListener,
    control: Arc<Control>,
    over: impl Future<Output = ()> + Send + 'static,
) {
    let audit = axum::middleware::from_fn_with_state(control.clone(), audit::audit);
    let app = api::routes().merge(health()).layer(audit).with_state(control);
    let app = app.into_make_service_with_connect_info::<peer::Peer>();
    if let Err(error) = axum::serve(listener, app).with_graceful_shutdown(over).await {
        tracing::error!(%error, "the admin API ended");
    }
}

/// Serves metrics and health over TCP until `over`.
pub async fn serve_metrics(
    listener: TcpListener,
    control: Arc<Control>,
    over: impl Future<Output = ()> + Send + 'static,
) {
    let app = health().with_state(control);
    if let Err(error) = axum::serve(listener, app).with_graceful_shutdown(over).await {
        tracing::error!(%error, "the metrics endpoint ended");
    }
}

fn health() -> Router<Arc<Control>> {
    Router::new()
        .route("/metrics", get(metrics::show))
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
}

async fn ready(State(control): State<Arc<Control>>) -> impl IntoResponse {
    if control.ready() {
        (StatusCode::OK, "ready\n")
    } else if control.draining.load(Relaxed) {
        (StatusCode::SERVICE_UNAVAILABLE, "draining\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "starting\n")
    }
}
