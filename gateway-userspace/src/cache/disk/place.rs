//! Where a tier is: whether it can be there, and with which key.

use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::segment::{self, OpenError, Segment};
use crate::{
    config::{
        ConfigErrors, Problems,
        model::{self, Config},
        units::ByteSize,
    },
    seal::Vault,
};

/// Of a record beside its body, at most.
const HEAD: u64 = 256 << 10;
const LEAST_SEGMENT: u64 = 1 << 20;
const MOST_SEGMENT: u64 = 64 << 20;
/// What segments are never larger than, so that places in them are short.
const MOST_RECORD: u64 = 1 << 30;
const SEGMENTS: u64 = 64;
/// Fewer would mean that much goes at once.
const FEWEST: u64 = 4;

/// A tier that can be.
#[derive(Debug, Clone)]
pub struct Wanted {
    pub directory: PathBuf,
    pub size: u64,
    pub segment: u64,
    /// What it is sealed with, if anything.
    pub vault: Arc<Vault>,
}

/// Those of a config, by the cache's name.
pub type Disks = BTreeMap<String, Wanted>;

#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    #[error("cannot write to {}: {error}", path.display())]
    Write { path: PathBuf, error: io::Error },
    #[error("{} is in the way: it is no directory", .0.display())]
    NoDirectory(PathBuf),
    #[error("`size` is {size}, and the whole file system of {} has {has}", path.display())]
    TooLarge { size: ByteSize, has: ByteSize, path: PathBuf },
    #[error("what is in {}: {error}. Name that key in `state.old_keys`, or delete the directory", path.display())]
    Key { path: PathBuf, error: OpenError },
}

impl Wanted {
    fn new(name: &str, disk: &model::CacheDisk, max_body: u64, vault: &Arc<Vault>) -> Wanted {
        let segment = segment_size(disk.size, max_body);
        Wanted { directory: disk.path.join(name), size: disk.size, segment, vault: vault.clone() }
    }

    /// Whether it is the same directory and the same key.
    pub(super) fn is_there(&self, other: &Wanted) -> bool {
        self.vault.is(&other.vault) && self.directory == other.directory
    }

    /// Whether it can be.
    fn check(&self) -> Result<(), PlaceError> {
        let there = self.directory.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
        if !there.is_dir() {
            return Err(PlaceError::NoDirectory(there.to_owned()));
        }
        let write = |error| PlaceError::Write { path: there.to_owned(), error };
        let probe = there.join(format!(".gateway-{}", std::process::id()));
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&probe).map_err(write)?;
        fs::remove_file(&probe).map_err(write)?;
        if let Ok(of) = rustix::fs::statvfs(there) {
            let has = of.f_blocks.saturating_mul(of.f_frsize);
            if has > 0 && self.size > has {
                let (size, has) = (ByteSize(self.size), ByteSize(has));
                return Err(PlaceError::TooLarge { size, has, path: there.to_owned() });
            }
        }
        self.check_key()
    }

    /// What is there must not be lost because of a wrong key.
    fn check_key(&self) -> Result<(), PlaceError> {
        for (number, path) in segments(&self.directory).unwrap_or_default() {
            let opened = Segment::open(&path, number, self.vault.sealer());
            if let Err(error @ (OpenError::Key(_) | OpenError::NoKey)) = opened {
                return Err(PlaceError::Key { path: self.directory.clone(), error });
            }
        }
        Ok(())
    }

    fn make(&self) -> Result<(), PlaceError> {
        self.check()?;
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&self.directory);
        made.map_err(|error| PlaceError::Write { path: self.directory.clone(), error })
    }
}

/// Of a tier of this size: large enough for any response.
fn segment_size(size: u64, max_body: u64) -> u64 {
    (size / SEGMENTS).clamp(LEAST_SEGMENT, MOST_SEGMENT).max(max_body.min(MOST_RECORD) + HEAD)
}

/// The least that a tier must have for bodies of this size.
pub fn least_size(max_body: u64) -> u64 {
    segment_size(0, max_body) * FEWEST
}

/// The tiers of a config, in directories that are there now.
///
/// # Errors
/// What cannot be, by its place in the config.
pub fn load(config: &Config, vault: &Arc<Vault>) -> Result<Disks, ConfigErrors> {
    each(config, vault, Wanted::make)
}

/// As [`load`], and changes nothing. A key that cannot be read here may be where only the daemon finds it.
///
/// # Errors
/// What cannot be, by its place in the config.
pub fn check(config: &Config) -> Result<(), ConfigErrors> {
    match Vault::load(config, None) {
        Ok(vault) => each(config, &vault, Wanted::check).map(drop),
        Err(_) => Ok(()),
    }
}

fn each(
    config: &Config,
    vault: &Arc<Vault>,
    make: impl Fn(&Wanted) -> Result<(), PlaceError>,
) -> Result<Disks, ConfigErrors> {
    let mut problems = Problems::default();
    let mut disks = Disks::new();
    for (name, cache) in &config.caches {
        let Some(disk) = &cache.disk else { continue };
        let wanted = Wanted::new(name, disk, cache.max_body, vault);
        match make(&wanted) {
            Ok(()) => drop(disks.insert(name.clone(), wanted)),
            Err(error) => problems.file(&disk.at, format!("cache.{name}.disk: {error}")),
        }
    }
    problems.into_result(Some(disks))
}

/// The segments in a directory, by number.
pub(super) fn segments(directory: &Path) -> io::Result<BTreeMap<u32, PathBuf>> {
    let mut found = BTreeMap::new();
    for file in fs::read_dir(directory)? {
        let path = file?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        if let Some(number) = name.and_then(segment::number) {
            found.insert(number, path);
        }
    }
    Ok(found)
}
