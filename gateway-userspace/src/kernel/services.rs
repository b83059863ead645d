//! L4 services: the config's services and their targets' states as the XDP program reads them.

use std::net::SocketAddr;

use serde::Serialize;

use super::{error::KernelError, plane::Loaded};
use crate::config::model;

/// A service as it should be.
#[derive(Debug, Clone)]
pub struct ServiceSpec<'a> {
    pub name: &'a str,
    pub config: &'a model::Service,
    /// Those of the config, with what health checks and operators say of them.
    pub targets: Vec<TargetSpec>,
}

/// A target as it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TargetSpec {
    pub addr: SocketAddr,
    pub weight: u32,
    pub server_id: Option<u16>,
    pub state: TargetState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TargetState {
    Up,
    /// Keeps the connections it has and gets no new ones.
    Draining,
    /// Its connections go elsewhere.
    Down,
}

/// What a target of a service was sent, since the service was first configured.
#[derive(Debug, Clone, Default, Serialize)]
pub struct ServiceRow {
    pub service: String,
    pub target: String,
    pub packets: u64,
    pub bytes: u64,
    /// Connections given to it.
    pub connections: u64,
}

impl Loaded {
    pub fn set_services(&mut self, _services: &[ServiceSpec<'_>]) -> Result<(), KernelError> {
        Ok(())
    }

    pub fn service_rows(&self) -> Vec<ServiceRow> {
        Vec::new()
    }

    pub fn set_load_factor(&mut self, _factor: f64) -> Result<(), KernelError> {
        Ok(())
    }
}
