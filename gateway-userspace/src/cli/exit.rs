//! Exit codes, part of the interface.

use std::process::{ExitCode, Termination};

/// A process exit code that can be a constant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit(u8);

pub const OK: Exit = Exit(0);
/// Differs, unhealthy, or failed in a way that has no code of its own.
pub const FAILED: Exit = Exit(1);
/// Bad usage or config.
pub const USAGE: Exit = Exit(2);
/// Missing privilege or kernel feature.
pub const PRIVILEGE: Exit = Exit(3);
/// No running gateway reachable.
pub const NOT_RUNNING: Exit = Exit(4);
/// Refused by the running gateway.
pub const REFUSED: Exit = Exit(5);
pub const PANIC: Exit = Exit(70);

impl Termination for Exit {
    fn report(self) -> ExitCode {
        ExitCode::from(self.0)
    }
}
