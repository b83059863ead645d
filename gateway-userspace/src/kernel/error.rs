//! What can go wrong with the kernel half, each with its cure. Those at start mean exit code 3.

use std::path::PathBuf;

use crate::config::units::Prefix;

/// An error of the kernel half.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    #[error(
        "the kernel half is off: {why}; start as root or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON, and see \
         `gateway doctor`"
    )]
    Off { why: String },
    #[error("kernel.required is true, but {why}; see `gateway doctor`")]
    Required { why: String },
    #[error("kernel.interfaces: there is no interface {name:?}; `ip link` lists them")]
    NoInterface { name: String },
    #[error(
        "kernel.mode = {mode:?}: {interface} cannot run XDP in this mode ({why}); use mode = \"auto\" or another \
         interface"
    )]
    Mode { interface: String, mode: &'static str, why: String },
    #[error(
        "another XDP program is attached to {interface} ({other}): {cure}; or leave {interface} out of \
         kernel.interfaces"
    )]
    Busy { interface: String, other: String, cure: String },
    #[error(
        "the kernel refused the program {program:?}: {why}; Linux 6.1 or later is needed, see `gateway doctor`"
    )]
    Load { program: &'static str, why: String },
    #[error("BPF map {map}: {why}")]
    Map { map: &'static str, why: String },
    #[error(
        "kernel.block and kernel.limit.exempt name {count} {family} prefixes, the kernel's table has room for \
         {capacity}; use wider prefixes"
    )]
    TooManyPrefixes { family: &'static str, count: usize, capacity: u32 },
    #[error("{prefix} is not banned: {why}")]
    BanRefused { prefix: Prefix, why: String },
    #[error(
        "steering needs {wanted} sockets, its map has room for {capacity}; use fewer workers or listeners"
    )]
    TooManySockets { wanted: usize, capacity: u32 },
    #[error("this cannot be explained: {why}")]
    Unexplained { why: String },
    #[error("a capture runs already; end that one first")]
    CaptureRunning,
    #[error("another gateway runs with the pins in {path}; stop it, or set another kernel.pin")]
    PinsInUse { path: PathBuf },
    #[error("there are more {what} than the kernel's tables have room for ({capacity}); use fewer")]
    TooManyServices { what: &'static str, capacity: u32 },
    #[error("the kernel half belongs to the process that takes this one's place")]
    HandedOver,
    #[error("{path}: {why}")]
    Pin { path: PathBuf, why: String },
}

impl KernelError {
    /// Whether the config asked for exactly what cannot be had, so that going on without would be a silent fall-back.
    pub(super) fn is_insisted(&self) -> bool {
        matches!(
            self,
            Self::NoInterface { .. }
                | Self::Mode { .. }
                | Self::Busy { .. }
                | Self::PinsInUse { .. }
                | Self::TooManyPrefixes { .. }
        )
    }

    pub(super) fn map(map: &'static str) -> impl Fn(aya::maps::MapError) -> Self {
        move |error| Self::Map { map, why: chain(&error) }
    }
}

/// An error with all its causes in one line; aya keeps the system's word for it in the last.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

/// The system's error number behind an error.
pub(super) fn errno(error: &(dyn std::error::Error + 'static)) -> Option<i32> {
    let mut error = Some(error);
    while let Some(current) = error {
        if let Some(io) = current.downcast_ref::<std::io::Error>() {
            return io.raw_os_error();
        }
        error = current.source();
    }
    None
}
