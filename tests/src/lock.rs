//! Tests that measure time or rates run alone; all others run beside each other.
//!
//! The lock is a file, so it holds between the processes of nextest and between checkouts on one machine too.

use std::{fs::File, path::PathBuf};

use anyhow::{Context, Result};

/// Held for as long as a test runs.
#[must_use]
#[derive(Debug)]
pub struct Turn(#[expect(dead_code, reason = "closing the file gives the lock back")] File);

fn open() -> Result<File> {
    let path: PathBuf = std::env::temp_dir().join("gateway-lab.lock");
    File::create(&path).with_context(|| format!("cannot open {}", path.display()))
}

/// Waits until no test measures.
pub fn shared() -> Result<Turn> {
    let file = open()?;
    file.lock_shared()?;
    Ok(Turn(file))
}

/// Waits until no other test runs.
pub fn alone() -> Result<Turn> {
    let file = open()?;
    file.lock()?;
    Ok(Turn(file))
}
