//! Undoing: what the lab makes outside its own memory is noted here, so that a signal can undo it too, and what a
//! killed run left behind is recognised by its name and removed.

use std::{
    io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Mutex, MutexGuard, Once, PoisonError,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
};

use tempfile::TempDir;

use crate::sys;

/// Every namespace, pin directory and scratch directory of the lab starts with this, then the maker's process id.
const PREFIX: &str = "gwlab-";
pub const NAMESPACES: &str = "/run/netns";
pub const BPFFS: &str = "/sys/fs/bpf";

#[derive(Debug, Clone, PartialEq, Eq)]
enum Thing {
    Process(u32),
    Namespace(String),
    Directory(PathBuf),
}

static THINGS: Mutex<Vec<Thing>> = Mutex::new(Vec::new());
static SERIAL: AtomicU32 = AtomicU32::new(0);

fn things() -> MutexGuard<'static, Vec<Thing>> {
    THINGS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn note(thing: Thing) {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        if let Err(error) = sys::on_interrupt(undo_all) {
            eprintln!("lab: Ctrl-C will not clean up: {error}");
        }
    });
    things().push(thing);
}

fn forget(thing: &Thing) {
    things().retain(|other| other != thing);
}

/// A name of the lab that no other process and no other call has.
pub fn unique_name() -> String {
    format!("{PREFIX}{}-{}", std::process::id(), SERIAL.fetch_add(1, Relaxed))
}

pub fn note_process(pid: u32) {
    note(Thing::Process(pid));
}

/// It has been waited for: its id may now be anybody's.
pub fn forget_process(pid: u32) {
    forget(&Thing::Process(pid));
}

pub fn note_namespace(name: &str) {
    note(Thing::Namespace(name.to_owned()));
}

pub fn note_directory(path: &Path) {
    note(Thing::Directory(path.to_owned()));
}

/// A directory for files of a run. It goes with the value, on Ctrl-C, or with the next run's sweep.
pub fn scratch() -> io::Result<TempDir> {
    let dir = tempfile::Builder::new().prefix(&format!("{}-", unique_name())).tempdir()?;
    note_directory(dir.path());
    Ok(dir)
}

/// Removes namespaces made by [`note_namespace`]. Processes in them must be gone, or they live on.
pub fn remove_namespaces(names: &[String]) {
    let batch: String = names.iter().map(|name| format!("netns del {name}\n")).collect();
    // One that is gone already is as it should be.
    let _ = crate::net::ip_batch(None, &batch, true);
    names.iter().for_each(|name| forget(&Thing::Namespace(name.clone())));
}

pub fn remove_directory(path: &Path) {
    // What is gone already is as it should be.
    let _ = std::fs::remove_dir_all(path);
    forget(&Thing::Directory(path.to_owned()));
}

/// Everything noted and not yet forgotten: processes first, for they hold the rest.
pub fn undo_all() {
    let all = things().clone();
    for thing in &all {
        if let Thing::Process(pid) = thing {
            let mut all = crate::process::descendants(*pid);
            all.push(*pid);
            for pid in all {
                // It may have ended by itself.
                let _ = sys::signal(pid, libc::SIGKILL);
            }
        }
    }
    let names: Vec<String> = all
        .iter()
        .filter_map(|thing| match thing {
            Thing::Namespace(name) => Some(name.clone()),
            _ => None,
        })
        .collect();
    remove_namespaces(&names);
    for thing in &all {
        if let Thing::Directory(path) = thing {
            remove_directory(path);
        }
    }
}

/// Removes what earlier runs that were killed left behind. Once a process.
pub fn sweep() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let stale = stale_names(Path::new(NAMESPACES));
        for name in &stale {
            kill_in_namespace(name);
        }
        if !stale.is_empty() {
            remove_namespaces(&stale);
        }
        for place in [PathBuf::from(BPFFS), std::env::temp_dir()] {
            for name in stale_names(&place) {
                remove_directory(&place.join(name));
            }
        }
    });
}

/// Names of the lab in a directory, made by processes that are no more.
fn stale_names(directory: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| maker(name).is_some_and(|pid| !sys::alive(pid))).collect()
}

/// The process id in a name of the lab.
fn maker(name: &str) -> Option<u32> {
    name.strip_prefix(PREFIX)?.split('-').next()?.parse().ok()
}

/// Ends what still runs in a namespace whose maker is dead: it was started there by that run and by nobody else.
fn kill_in_namespace(name: &str) {
    let pids = Command::new("ip").args(["netns", "pids", name]).stderr(Stdio::null()).output();
    let Ok(pids) = pids else { return };
    for pid in String::from_utf8_lossy(&pids.stdout).lines().filter_map(|line| line.trim().parse().ok()) {
        // It may have ended meanwhile.
        let _ = sys::signal(pid, libc::SIGKILL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_the_lab_tells_who_made_it() {
        assert_eq!(maker(&unique_name()), Some(std::process::id()));
        assert_eq!(maker("gwlab-12-3-c1"), Some(12));
        assert_eq!(maker("blue"), None);
    }
}
