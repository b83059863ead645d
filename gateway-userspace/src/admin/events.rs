//! `GET /v1/events`: what happens, as server-sent events. `?recent=1`: what is remembered, and no more.

use std::{convert::Infallible, time::Duration};

use axum::{
    body::Body,
    extract::Query,
    http::header,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http_body_util::channel::{Channel, Sender};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::broadcast::{Receiver, error::RecvError};

use crate::observe::events::{self, Event, Requests};

/// A comment a while keeps middlemen awake and tells us who is gone.
const ALIVE: Duration = Duration::from_secs(1);

#[derive(Deserialize)]
pub struct Asked {
    #[serde(default)]
    recent: u8,
    /// 1: requests too, as they end.
    #[serde(default)]
    requests: u8,
}

pub async fn events(Query(asked): Query<Asked>) -> Response {
    let (recent, receiver) = events::listen();
    let (sender, body) = Channel::<Bytes, Infallible>::new(16);
    let follow = (asked.recent == 0).then_some(receiver);
    let requests = (asked.requests == 1 && follow.is_some()).then(Requests::wanted);
    tokio::spawn(forward(recent, follow, sender, requests));
    let headers = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-store")];
    (headers, Body::new(body)).into_response()
}

async fn forward(
    recent: Vec<Event>,
    follow: Option<Receiver<Event>>,
    mut to: Sender<Bytes>,
    _requests: Option<Requests>,
) {
    let first: String = recent.iter().map(|event| line(event)).collect();
    if to.send_data(first.into()).await.is_err() {
        return;
    }
    let Some(mut receiver) = follow else { return };
    loop {
        let text = match tokio::time::timeout(ALIVE, receiver.recv()).await {
            Ok(Ok(event)) => line(&event),
            Ok(Err(RecvError::Lagged(count))) => line(&events::lost(count)),
            Ok(Err(RecvError::Closed)) => return,
            Err(_) => ":\n\n".to_owned(),
        };
        if to.send_data(text.into()).await.is_err() {
            return;
        }
    }
}

fn line(event: &Value) -> String {
    format!("data: {event}\n\n")
}
