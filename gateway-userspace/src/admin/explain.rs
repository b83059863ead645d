//! `POST /v1/explain`: what would become of a packet.

use std::sync::Arc;

use axum::{Json, extract::State};
use serde::Deserialize;

use super::problem::Problem;
use crate::{
    daemon::Control,
    kernel::{Explained, PacketSpec},
};

/// `{"packet": {"protocol": "tcp", "source": "192.0.2.1:4000", "destination": "198.51.100.1:443"}}`
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    packet: PacketSpec,
}

pub async fn explain(
    State(control): State<Arc<Control>>,
    Json(question): Json<Question>,
) -> Result<Json<Explained>, Problem> {
    let mut told = control.kernel.explain(&question.packet)?;
    if let Some(before) = usize::from(told.class_number).checked_sub(1) {
        told.class = control.snapshot.load().config.kernel.classes.keys().nth(before).cloned();
    }
    Ok(Json(told))
}
