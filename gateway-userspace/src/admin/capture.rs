//! `GET /v1/capture`: packets with their verdicts as a pcapng stream, until enough, too long, or nobody reads on.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::{Query, State},
    http::header,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http_body_util::channel::{Channel, Sender};
use serde::Deserialize;
use tokio::time::Instant;

use super::problem::Problem;
use crate::{daemon::Control, kernel::CaptureSpec, observe::pcapng::Writer};

/// The ring holds a twentieth of a second at the highest rate.
const EVERY: Duration = Duration::from_millis(20);

/// Lists are separated by commas.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    #[serde(default)]
    verdict: String,
    #[serde(default)]
    reason: String,
    #[serde(default = "thousand")]
    rate: u32,
    #[serde(default = "headers")]
    snaplen: u32,
    count: Option<u64>,
    seconds: Option<f64>,
}

fn thousand() -> u32 {
    1000
}

fn headers() -> u32 {
    128
}

pub async fn capture(
    State(control): State<Arc<Control>>,
    Query(asked): Query<Asked>,
) -> Result<Response, Problem> {
    let list = |text: &str| text.split(',').filter(|item| !item.is_empty()).map(str::to_owned).collect();
    let spec = CaptureSpec {
        reasons: list(&asked.reason),
        actions: list(&asked.verdict),
        rate: asked.rate,
        snaplen: asked.snaplen,
    };
    spec.check().map_err(Problem::bad_request)?;
    control.kernel.start_capture(&spec)?;
    let guard = Off(control);
    let (sender, body) = Channel::<Bytes, Infallible>::new(64);
    let most = asked.count.unwrap_or(u64::MAX);
    let end =
        asked.seconds.and_then(|s| Duration::try_from_secs_f64(s).ok()).map(|limit| Instant::now() + limit);
    tokio::spawn(forward(guard, sender, most, end));
    Ok(([(header::CONTENT_TYPE, "application/x-pcapng")], Body::new(body)).into_response())
}

/// Switches the capture off, however it ends.
struct Off(Arc<Control>);

impl Drop for Off {
    fn drop(&mut self) {
        let lost = self.0.kernel.stop_capture();
        if lost > 0 {
            tracing::info!(lost, "capture: packets over the rate were left out");
        }
    }
}

async fn forward(running: Off, mut to: Sender<Bytes>, most: u64, end: Option<Instant>) {
    let mut writer = Writer::default();
    if to.send_data(writer.begin().into()).await.is_err() {
        return;
    }
    let mut sent = 0;
    loop {
        let over = end.is_some_and(|end| Instant::now() >= end);
        let mut bytes = Vec::new();
        for packet in running.0.kernel.captured().into_iter().take((most - sent).min(1 << 20) as usize) {
            let comment = format!("{}: {}", packet.action, packet.reason);
            bytes.extend(writer.packet(
                &packet.interface,
                packet.time_ns,
                packet.length,
                &packet.data,
                &comment,
            ));
            sent += 1;
        }
        // An empty one tells whether anybody still reads.
        if to.send_data(bytes.into()).await.is_err() || over || sent >= most {
            return;
        }
        tokio::time::sleep(EVERY).await;
    }
}
