//! Bans at L7: who is refused before anything else is looked at. They are few and change seldom; a request pays one read
//! of a number while there are none.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use serde::{Deserialize, Serialize};

use super::clock::wall_ns;
use crate::{
    config::units::Prefix,
    seal::{FileError, Vault},
};

const PURPOSE: &str = "bans";
/// More would be refused: who bans so many has banned everybody.
pub const MOST: usize = 65_536;

/// A ban at L7.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpBan {
    pub cidr: Prefix,
    /// Milliseconds since 1970; `None`: until it is lifted.
    pub until_ms: Option<u64>,
    pub why: String,
    /// "operator", "limit NAME" or "penalty".
    pub by: String,
}

impl HttpBan {
    pub fn new(cidr: Prefix, duration: Option<Duration>, why: &str, by: &str) -> Self {
        let until = |duration: Duration| {
            now_ms().saturating_add(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
        };
        HttpBan { cidr, until_ms: duration.map(until), why: why.into(), by: by.into() }
    }

    /// Rounded up; `None`: until it is lifted.
    pub fn left_seconds(&self) -> Option<u64> {
        self.until_ms.map(|until| until.saturating_sub(now_ms()).div_ceil(1000))
    }

    fn is_over(&self, now_ms: u64) -> bool {
        self.until_ms.is_some_and(|until| until <= now_ms)
    }
}

#[derive(Debug, Default)]
struct Set {
    bans: HashMap<Prefix, HttpBan>,
    /// The lengths there are, IPv4 or not.
    lengths: BTreeSet<(bool, u8)>,
}

#[derive(Debug)]
pub struct Bans {
    count: AtomicUsize,
    set: ArcSwap<Set>,
    /// Held by who changes the set.
    changing: Mutex<()>,
    file: Option<PathBuf>,
    vault: ArcSwap<Vault>,
}

impl Bans {
    /// With those that are in the file.
    pub fn new(file: Option<PathBuf>, vault: &Arc<Vault>) -> Self {
        let read = file.as_ref().and_then(|file| match vault.read(file, PURPOSE) {
            Ok(kept) => kept,
            Err(error) => {
                tracing::error!("bans at L7 are forgotten: {error}");
                None
            }
        });
        let known: Vec<HttpBan> =
            read.and_then(|kept| serde_json::from_slice(&kept.plain).ok()).unwrap_or_default();
        let bans = Bans {
            count: AtomicUsize::new(0),
            set: ArcSwap::default(),
            changing: Mutex::default(),
            file,
            vault: ArcSwap::new(vault.clone()),
        };
        bans.store(known.into_iter().take(MOST).map(|ban| (ban.cidr, ban)).collect());
        bans
    }

    /// From now on.
    pub fn seal_with(&self, vault: &Arc<Vault>) {
        if !Arc::ptr_eq(&self.vault.load(), vault) {
            let _turn = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
            self.vault.store(vault.clone());
            self.store(self.set.load().bans.clone());
        }
    }

    /// Seconds that an address is still refused, rounded up; 0: until it is lifted. `None`: it is not.
    pub fn check(&self, client: IpAddr) -> Option<u64> {
        if self.count.load(Relaxed) == 0 {
            return None;
        }
        let (set, now) = (self.set.load(), now_ms());
        let of_family = set.lengths.iter().filter(|(v4, _)| *v4 == client.is_ipv4());
        of_family
            .filter_map(|(_, len)| set.bans.get(&Prefix::new_masked(client, *len)))
            .filter(|ban| !ban.is_over(now))
            .map(|ban| ban.until_ms.map_or(0, |until| (until - now).div_ceil(1000)))
            .max()
    }

    /// Replaces one of the same prefix. False: there are too many.
    pub fn add(&self, ban: HttpBan) -> bool {
        let _turn = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut bans = self.set.load().bans.clone();
        if bans.len() >= MOST && !bans.contains_key(&ban.cidr) {
            return false;
        }
        bans.insert(ban.cidr, ban);
        self.store(bans);
        true
    }

    /// False: there is none on exactly this prefix.
    pub fn lift(&self, cidr: Prefix) -> bool {
        let _turn = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut bans = self.set.load().bans.clone();
        let was = bans.remove(&cidr).is_some();
        if was {
            self.store(bans);
        }
        was
    }

    /// Those that are over since the last time.
    pub fn sweep(&self) -> Vec<Prefix> {
        let now = now_ms();
        let over = |set: &Set| -> Vec<Prefix> {
            set.bans.values().filter(|ban| ban.is_over(now)).map(|ban| ban.cidr).collect()
        };
        if self.count.load(Relaxed) == 0 || over(&self.set.load()).is_empty() {
            return Vec::new();
        }
        let _turn = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let set = self.set.load();
        let ended = over(&set);
        let mut bans = set.bans.clone();
        ended.iter().for_each(|cidr| drop(bans.remove(cidr)));
        self.store(bans);
        ended
    }

    /// In force, by prefix.
    pub fn list(&self) -> Vec<HttpBan> {
        let (set, now) = (self.set.load(), now_ms());
        let mut bans: Vec<HttpBan> = set.bans.values().filter(|ban| !ban.is_over(now)).cloned().collect();
        bans.sort_by_key(|ban| (ban.cidr.addr, ban.cidr.len));
        bans
    }

    /// How many [`Self::list`] has.
    pub fn in_force(&self) -> usize {
        let (set, now) = (self.set.load(), now_ms());
        set.bans.values().filter(|ban| !ban.is_over(now)).count()
    }

    fn store(&self, bans: HashMap<Prefix, HttpBan>) {
        if let Some(file) = &self.file
            && (!bans.is_empty() || file.exists())
        {
            let all: Vec<&HttpBan> = bans.values().collect();
            let written = serde_json::to_vec(&all)
                .map_err(|error| FileError::new(file, std::io::Error::from(error)))
                .and_then(|bytes| self.vault.load().write(file, PURPOSE, &bytes));
            if let Err(error) = written {
                tracing::debug!("bans at L7 do not outlast this process: {error}");
            }
        }
        let lengths = bans.keys().map(|cidr| (cidr.addr.is_ipv4(), cidr.len)).collect();
        self.count.store(bans.len(), Relaxed);
        self.set.store(Arc::new(Set { bans, lengths }));
    }
}

fn now_ms() -> u64 {
    wall_ns() / 1_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ban(cidr: &str, duration: Option<Duration>) -> HttpBan {
        HttpBan::new(cidr.parse().unwrap(), duration, "test", "operator")
    }

    fn addr(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_ban_holds_for_its_prefix_until_it_is_over_or_lifted_and_outlasts_the_process() {
        let dir = tempfile::tempdir().unwrap();
        let file = Some(dir.path().join("bans.json"));
        let bans = Bans::new(file.clone(), &Arc::default());
        assert_eq!(bans.check(addr("192.0.2.7")), None);
        bans.add(ban("192.0.2.7", Some(Duration::from_secs(60))));
        bans.add(ban("198.51.100.0/24", None));
        bans.add(ban("2001:db8::/64", Some(Duration::from_millis(1))));
        assert_eq!(bans.check(addr("192.0.2.7")), Some(60));
        assert_eq!((bans.check(addr("192.0.2.8")), bans.check(addr("198.51.100.9"))), (None, Some(0)));
        std::thread::sleep(Duration::from_millis(5));
        assert_eq!(bans.check(addr("2001:db8::1")), None);
        let again = Bans::new(file, &Arc::default());
        assert_eq!(again.check(addr("192.0.2.7")), Some(60));
        assert_eq!(bans.sweep(), ["2001:db8::/64".parse().unwrap()]);
        assert_eq!((bans.sweep().len(), bans.list().len()), (0, 2));
        assert!(bans.lift("192.0.2.7".parse().unwrap()) && !bans.lift("192.0.2.7".parse().unwrap()));
        assert_eq!(bans.check(addr("192.0.2.7")), None);
    }

    #[test]
    fn bans_and_their_ends_may_race() {
        let bans = Bans::new(None, &Arc::default());
        std::thread::scope(|scope| {
            for worker in 0..4u8 {
                let bans = &bans;
                scope.spawn(move || {
                    for n in 0..50u8 {
                        let cidr = format!("10.0.{worker}.{n}");
                        bans.add(ban(&cidr, None));
                        assert!(bans.check(addr(&cidr)).is_some());
                        bans.sweep();
                        if n % 2 == 0 {
                            assert!(bans.lift(cidr.parse().unwrap()));
                        }
                    }
                });
            }
        });
        assert_eq!(bans.list().len(), 100);
    }
}
