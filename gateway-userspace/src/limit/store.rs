//! What limits remember: it outlasts snapshots, and (in a file) processes.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    path::PathBuf,
    sync::{Arc, Mutex, OnceLock},
};

use tokio::sync::mpsc;

use super::{
    Dial, Limit, Offence,
    bans::Bans,
    clock,
    hash::Key,
    labels::{Labels, Row},
    sharing::Sharing,
    sliding,
    table::{MOST_WALKED, Seen, Table},
};
use crate::{
    config::model::{Config, LimitState},
    kernel::{Connections, View},
    seal::Vault,
};

/// Where limits are remembered from one process to the next; others lie beside it. `None`: nowhere.
pub fn state_file(config: &Config) -> Option<PathBuf> {
    match &config.gateway.limit_state {
        LimitState::Default => config.admin.socket.parent().map(|folder| folder.join("limits.state")),
        LimitState::File(file) => Some(file.clone()),
        LimitState::Off => None,
    }
}

/// Keys that have something used.
#[derive(Debug, Default)]
pub struct InUse {
    pub by_group: HashMap<u32, u64>,
    /// There are so many that only some were counted.
    pub estimated: bool,
}

impl InUse {
    pub fn of(&self, limit: &Limit) -> u64 {
        self.by_group.get(&limit.group).copied().unwrap_or(0)
    }
}

/// Made when the first limit is.
#[derive(Debug)]
pub struct Store {
    file: Option<PathBuf>,
    keys: usize,
    /// Of things in time.
    rates: OnceLock<Table>,
    /// Of requests under way, which end with the process.
    active: OnceLock<Table>,
    pub(super) labels: Labels,
    pub bans: Bans,
    pub shared: Sharing,
    kernel: OnceLock<Arc<View>>,
    offences: OnceLock<mpsc::Sender<Offence>>,
    /// Where dynamic limits are, by name: a reload goes on there.
    pub(super) dials: Mutex<BTreeMap<String, Arc<Dial>>>,
}

impl Store {
    pub fn new(config: &Config, vault: &Arc<Vault>, workers: usize) -> Self {
        let file = state_file(config);
        let keys = config.gateway.limit_keys as usize;
        let labels = Labels::new(workers);
        let bans = Bans::new(file.as_ref().map(|file| file.with_file_name("bans.json")), vault);
        Store {
            file,
            keys,
            rates: OnceLock::new(),
            active: OnceLock::new(),
            labels,
            bans,
            shared: Sharing::default(),
            kernel: OnceLock::new(),
            offences: OnceLock::new(),
            dials: Mutex::default(),
        }
    }

    /// Where the kernel half's buckets are seen.
    pub fn set_kernel(&self, view: Arc<View>) {
        let _ = self.kernel.set(view);
    }

    /// What the kernel half has left for a source's connections.
    pub(super) fn connections(&self, client: IpAddr) -> Option<Connections> {
        self.kernel.get()?.connections(client)
    }

    /// Who deals with offences; asked for once.
    pub fn offences(&self) -> mpsc::Receiver<Offence> {
        let (sender, receiver) = mpsc::channel(1024);
        let _ = self.offences.set(sender);
        receiver
    }

    /// When there are too many at once some are passed over: they come again.
    pub(super) fn tell(&self, offence: Offence) {
        if let Some(sender) = self.offences.get() {
            let _ = sender.try_send(offence);
        }
    }

    pub(super) fn rates(&self) -> &Table {
        let lost = "what is used of limits does not outlast this process";
        self.rates.get_or_init(|| Table::open(self.file.as_deref(), self.keys, lost))
    }

    pub(super) fn active(&self) -> &Table {
        self.active.get_or_init(|| Table::private(self.keys))
    }

    pub(super) fn hash_key(&self) -> Key {
        self.rates().key()
    }

    /// Keys that have something used. Looks at a million places at most: not for whoever may not wait some milliseconds.
    pub fn keys_in_use(&self) -> InUse {
        let now = clock::now_ns();
        let mut all = InUse::default();
        for table in [&self.rates, &self.active].into_iter().filter_map(OnceLock::get) {
            let mut counts = HashMap::new();
            let count = |seen: Seen| *counts.entry(seen.group).or_default() += 1;
            let stands_for = table.for_each(now, MOST_WALKED, count);
            all.estimated |= stands_for > 1;
            counts
                .into_iter()
                .for_each(|(group, n): (u32, u64)| *all.by_group.entry(group).or_default() += n * stands_for);
        }
        all
    }

    /// Decisions that were made by words that keys share.
    pub fn crowded(&self) -> u64 {
        [&self.rates, &self.active].into_iter().filter_map(OnceLock::get).map(Table::crowded).sum()
    }

    pub fn capacity(&self) -> usize {
        self.rates.get().map_or(0, Table::capacity)
    }

    /// The keys of a limit that were refused most, or are nearest to it.
    pub fn top(&self, limit: &Limit, most: usize) -> Vec<Row> {
        self.labels.top(self, limit, most)
    }

    /// Everything of a limit starts anew.
    pub fn clear(&self, limit: &Limit) {
        self.rates().clear(limit.group);
    }

    /// One key of a limit starts anew: its id in full. `None`: it is none.
    pub fn reset(&self, limit: &Limit, id: &str) -> Option<String> {
        let key = u128::from_str_radix(id, 16).ok()?;
        self.forget_said(&limit.owner(key));
        for owner in [limit.owner(key), limit.shed_owner(key)] {
            self.rates().forget(&owner);
            if limit.slides() {
                sliding::parts(owner).for_each(|part| self.rates().forget(&part));
            }
        }
        Some(format!("{key:032x}"))
    }
}
