//! `POST /v1/explain`: what would become of a packet or a request.

use std::sync::Arc;

use axum::{Json, extract::State, http::StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::problem::Problem;
use crate::{
    daemon::Control,
    kernel::PacketSpec,
    proxy::explain::{self, RequestSpec},
};

/// One of the two: `{"packet": {"protocol": "tcp", "source": "192.0.2.1:4000", "destination": "198.51.100.1:443"}}` or
/// `{"request": {"method": "GET", "url": "http://shop.test/items"}}`
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "lowercase")]
pub enum Question {
    Packet(PacketSpec),
    Request(RequestSpec),
}

pub async fn explain(
    State(control): State<Arc<Control>>,
    Json(question): Json<Question>,
) -> Result<Json<Value>, Problem> {
    match question {
        Question::Packet(packet) => {
            let mut told = control.kernel.explain(&packet)?;
            if let Some(before) = usize::from(told.class_number).checked_sub(1) {
                told.class = control.snapshot.load().config.kernel.classes.keys().nth(before).cloned();
            }
            Ok(Json(json!(told)))
        }
        Question::Request(request) => match explain::explain(&control.snapshot.load(), &request) {
            Ok(told) => Ok(Json(json!(told))),
            Err(why) => Err(Problem::new(StatusCode::BAD_REQUEST, "bad_request", why)),
        },
    }
}
