//! Where the kernel half outlives the daemon: `PIN/v<layout>/` on a bpffs holds maps by name and links as
//! `link_<what>`. The version is in the folder's name, so a daemon can tell what it can adopt without reading it.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use gateway_common::maps::LAYOUT_VERSION;

use super::{error::KernelError, object, report::DetachReport, sys};

const LINK: &str = "link_";

/// The folder of this layout.
#[derive(Debug)]
pub struct Pins {
    root: PathBuf,
    folder: PathBuf,
    /// Holds the lock of [`Pins::lock`].
    lock: Option<fs::File>,
}

/// The XDP mode of a link, which the kernel does not tell of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkMode {
    Native,
    Generic,
}

impl LinkMode {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }
}

impl Pins {
    /// Makes the folder, mounting /sys/fs/bpf if that is allowed and needed. `Err` says why nothing can be pinned.
    pub fn open(root: &Path) -> Result<Self, String> {
        let standing = |path: &Path| path.ancestors().find(|p| p.exists()).map(Path::to_owned);
        let base = standing(root).unwrap_or_else(|| "/".into());
        if !sys::is_bpffs(&base) {
            let usual = Path::new("/sys/fs/bpf");
            if !root.starts_with(usual) || root == usual {
                return Err(format!("{} is not on a bpffs", root.display()));
            }
            sys::mount_bpffs(usual).map_err(|error| {
                format!("there is no bpffs at {} and it cannot be mounted: {error}", usual.display())
            })?;
        }
        let folder = root.join(format!("v{LAYOUT_VERSION}"));
        fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let pins = Self { root: root.to_owned(), folder, lock: None };
        // A folder of an unprivileged user that another made would only fail later.
        let probe = pins.folder.join("writable");
        let _ = fs::remove_dir(&probe);
        fs::create_dir(&probe).map_err(|error| format!("{}: {error}", pins.folder.display()))?;
        let _ = fs::remove_dir(&probe);
        Ok(pins)
    }

    /// Makes this process the only one that works with these pins, until it ends, however it ends.
    ///
    /// # Errors
    /// [`KernelError::PinsInUse`]: another daemon does.
    pub fn lock(&mut self) -> Result<(), KernelError> {
        // One that was just killed, or a child between fork and exec, holds it for a moment longer.
        const PATIENCE: Duration = Duration::from_secs(1);
        let end = Instant::now() + PATIENCE;
        let file = fs::File::open(&self.root)
            .map_err(|error| KernelError::Pin { path: self.root.clone(), why: error.to_string() })?;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(fs::TryLockError::WouldBlock) if Instant::now() < end => {
                    std::thread::sleep(Duration::from_millis(10));
                }
                Err(fs::TryLockError::WouldBlock) => {
                    return Err(KernelError::PinsInUse { path: self.root.clone() });
                }
                Err(fs::TryLockError::Error(error)) => {
                    return Err(KernelError::Pin { path: self.root.clone(), why: error.to_string() });
                }
            }
        }
        self.lock = Some(file);
        Ok(())
    }

    /// Lets another daemon have them.
    pub fn unlock(&mut self) {
        self.lock = None;
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub fn map(&self, map: &str) -> PathBuf {
        self.folder.join(map)
    }

    /// Whether all maps of an earlier run are there and fit; those that do not are removed.
    pub fn adoptable(&self, flows: u32) -> bool {
        if object::pinned().any(|map| !object::fits(self, map, flows)) {
            for map in object::pinned() {
                let _ = fs::remove_file(self.map(map));
            }
        }
        object::pinned().all(|map| self.map(map).exists())
    }

    pub fn xdp_link(&self, interface: &str, mode: LinkMode) -> PathBuf {
        // bpffs keeps names with dots to itself, and VLAN interfaces have them.
        let interface = interface.replace('%', "%25").replace('.', "%2e");
        self.folder.join(format!("{LINK}xdp_{}_{interface}", mode.name()))
    }

    pub fn steer_link(&self) -> PathBuf {
        self.folder.join(format!("{LINK}steer"))
    }

    /// Links that an earlier run left on an interface: of this layout or another.
    pub fn left_xdp_links(&self) -> Vec<LeftLink> {
        let mut left = Vec::new();
        for folder in versions(&self.root) {
            for file in names(&folder) {
                let found = [LinkMode::Native, LinkMode::Generic].into_iter().find_map(|mode| {
                    let interface = file.strip_prefix(LINK)?.strip_prefix("xdp_")?;
                    let interface = interface.strip_prefix(mode.name())?.strip_prefix('_')?;
                    Some((mode, interface.replace("%2e", ".").replace("%25", "%")))
                });
                if let Some((mode, interface)) = found {
                    left.push(LeftLink { path: folder.join(&file), interface, mode });
                }
            }
        }
        left
    }

    /// Removes what other layouts left, links included. What was there, for people.
    pub fn remove_others(&self) -> Option<String> {
        let others: Vec<PathBuf> =
            versions(&self.root).into_iter().filter(|folder| *folder != self.folder).collect();
        let names = others.iter().filter_map(|folder| folder.file_name()?.to_str()).collect::<Vec<_>>();
        let told = (!others.is_empty()).then(|| {
            format!(
                "what was pinned has another layout ({}, ours is v{LAYOUT_VERSION}): bans, buckets and counters \
                 begin anew",
                names.join(", ")
            )
        });
        others.iter().for_each(|folder| remove(folder, &mut DetachReport::default()));
        told
    }
}

/// A pinned XDP link of an earlier run.
#[derive(Debug)]
pub struct LeftLink {
    pub path: PathBuf,
    pub interface: String,
    pub mode: LinkMode,
}

/// Removes every pinned link and map under `root`, with no daemon's help. Links go first: a program without its
/// link is detached, and with it go maps nobody else holds.
///
/// # Errors
/// [`KernelError::Pin`] if something is pinned but may not be removed.
pub fn detach(root: &Path) -> Result<DetachReport, KernelError> {
    let mut report = DetachReport::default();
    if let Err(error) = fs::read_dir(root)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(KernelError::Pin { path: root.to_owned(), why: format!("{error}; run it as root") });
    }
    for folder in versions(root) {
        remove(&folder, &mut report);
        if folder.exists() {
            return Err(KernelError::Pin { path: folder, why: "cannot be removed; run it as root".into() });
        }
    }
    let _ = fs::remove_dir(root);
    Ok(report)
}

fn remove(folder: &Path, report: &mut DetachReport) {
    let (links, maps): (Vec<_>, Vec<_>) = names(folder).into_iter().partition(|file| file.starts_with(LINK));
    for (files, removed) in [(links, &mut report.links), (maps, &mut report.maps)] {
        for file in files {
            if fs::remove_file(folder.join(&file)).is_ok() {
                let what = file.strip_prefix(LINK).unwrap_or(&file);
                removed.push(what.replace('_', " ").replace("%2e", "."));
            }
        }
    }
    let _ = fs::remove_dir(folder);
}

fn versions(root: &Path) -> Vec<PathBuf> {
    let of_a_layout = |file: &String| file.strip_prefix('v').is_some_and(|n| n.parse::<u32>().is_ok());
    names(root).into_iter().filter(of_a_layout).map(|file| root.join(file)).collect()
}

fn names(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut names: Vec<_> =
        entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}
