//! stand-in until the kernel half is merged
use crate::config::{model, units::Prefix};
use serde::Serialize;
use std::{net::IpAddr, os::fd::BorrowedFd, path::Path, time::Duration};
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct KernelError(String);
pub struct KernelPlane;
pub struct SteerListener<'a> {
    pub bind: model::Bind,
    pub sockets: Vec<BorrowedFd<'a>>,
}
#[derive(Debug, Serialize, Clone)]
pub struct Ban {
    pub cidr: Prefix,
    pub left_seconds: Option<u64>,
    pub why: String,
}
#[derive(Debug, Serialize)]
pub struct InterfaceStatus {
    pub name: String,
    pub mode: String,
}
#[derive(Debug, Serialize)]
pub struct KernelStatus {
    pub interfaces: Vec<InterfaceStatus>,
    pub warnings: Vec<String>,
}
impl KernelStatus {
    pub fn summary(&self) -> String {
        "off".into()
    }
}
#[derive(Debug, Serialize)]
pub struct CounterRow {
    pub interface: String,
    pub action: String,
    pub reason: String,
    pub packets: u64,
    pub bytes: u64,
}
#[derive(Debug, Serialize)]
pub struct MapRow {
    pub name: String,
    pub kind: String,
    pub entries: u64,
    pub capacity: u64,
}
#[derive(Debug, Serialize)]
pub struct SourceRow {
    pub source: String,
}
#[derive(Debug, Serialize)]
pub struct SyncReport {}
#[derive(Debug, Serialize)]
pub struct DropSample {}
#[derive(Debug, Serialize)]
pub struct DetachReport {}
impl std::fmt::Display for DetachReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("nothing")
    }
}
#[derive(Debug, Serialize, PartialEq, Eq, Clone, Copy)]
pub enum CheckState {
    Ok,
    Warn,
    Fail,
}
#[derive(Debug, Serialize)]
pub struct DoctorCheck {
    pub name: String,
    pub state: CheckState,
    pub detail: String,
    pub cure: Option<String>,
}
pub fn doctor(_: &[String]) -> Vec<DoctorCheck> {
    vec![]
}
pub fn detach(_: &Path) -> Result<DetachReport, KernelError> {
    Ok(DetachReport {})
}
impl KernelPlane {
    pub fn start(_: &model::Kernel) -> Result<Self, KernelError> {
        Ok(KernelPlane)
    }
    pub fn steer(&self, _: &[SteerListener<'_>]) -> Result<(), KernelError> {
        Ok(())
    }
    pub fn sync(&self, _: &model::Kernel) -> Result<SyncReport, KernelError> {
        Ok(SyncReport {})
    }
    pub fn plan(&self, _: &model::Kernel) -> Result<SyncReport, KernelError> {
        Ok(SyncReport {})
    }
    pub fn ban(&self, cidr: Prefix, _: Option<Duration>, why: &str) -> Result<Ban, KernelError> {
        Ok(Ban { cidr, left_seconds: None, why: why.into() })
    }
    pub fn unban(&self, _: Prefix) -> Result<bool, KernelError> {
        Ok(false)
    }
    pub fn bans(&self) -> Vec<Ban> {
        vec![]
    }
    pub fn status(&self) -> KernelStatus {
        KernelStatus { interfaces: vec![], warnings: vec![] }
    }
    pub fn counters(&self) -> Vec<CounterRow> {
        vec![]
    }
    pub fn maps(&self) -> Vec<MapRow> {
        vec![]
    }
    pub fn sources(&self, _: usize) -> Vec<SourceRow> {
        vec![]
    }
    pub fn source(&self, _: IpAddr) -> Option<SourceRow> {
        None
    }
    pub fn reset(&self, _: IpAddr) -> Result<(), KernelError> {
        Ok(())
    }
    pub fn samples(&self) -> Vec<DropSample> {
        vec![]
    }
    pub fn tick(&self) {}
    pub fn stop(&self) {}
}
