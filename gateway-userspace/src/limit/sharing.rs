//! Limits over several gateways, as workers see them: who is asked for what, and what is known of its answers. The one who
//! talks to the store is `daemon::shared`.
//!
//! What a hard limit lets in is paid before: out of a lease, or by an exchange that the request waits for, a moment at
//! most. What is counted when a request is over, or never refused, is reported afterwards. See docs/limits.md.

use std::{
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::sync::{mpsc, oneshot};

use super::{
    Limit, Now, Store,
    hash::Key,
    lease::{self, Lease},
    meter::Meter,
    table::{Kind, Owner, Word},
};
use crate::config::model::{self, OnStoreError};

/// Asked for at once; more decide for themselves.
const QUEUE: usize = 1 << 16;

/// How a limit is shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Share {
    /// Paid before.
    Before,
    /// Asked whether anything is left, and paid at the end.
    End,
    /// Only told.
    Told,
}

/// What is asked of the store for one key.
#[derive(Debug)]
pub struct Ask {
    pub limit: Arc<Limit>,
    pub owner: Owner,
    pub meter: Meter,
    /// Wanted now; 0: whether anything is left.
    pub cost: u64,
    /// To have in advance.
    pub spare: u64,
    /// Spent already; and what is given back.
    pub spent: u64,
    pub back: u64,
    pub reply: Option<oneshot::Sender<Reply>>,
}

impl Ask {
    /// For nothing yet.
    pub(super) fn of(limit: &Arc<Limit>, owner: Owner, meter: Meter) -> Self {
        Ask { limit: limit.clone(), owner, meter, cost: 0, spare: 0, spent: 0, back: 0, reply: None }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    Paid,
    Over { wait_ns: u64 },
}

/// What the store says of one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Said {
    /// Units.
    pub granted: u64,
    /// By all gateways: nanoseconds until the bucket is full, or units of the window.
    pub used: u64,
    /// Of sliding windows: until what was wanted is there, and until anything comes back. 0: it is there, or nothing does.
    pub wait_ns: u64,
    pub next_ns: u64,
}

#[derive(Debug, Default)]
pub struct Sharing {
    asks: OnceLock<mpsc::Sender<Ask>>,
    /// The store answers.
    pub up: AtomicBool,
    /// What keys are hashed with over all gateways, if they share any.
    key: Mutex<Option<Key>>,
    budget_us: AtomicU64,
    pub exchanges: AtomicU64,
    pub failed: AtomicU64,
    /// Decisions without the store, as it did not answer in time: by what `on_error` says, see [`OnStoreError::ALL`].
    pub alone: [AtomicU64; 3],
    on_error: AtomicU8,
}

impl Sharing {
    /// As the config wants it from now on.
    pub fn configure(&self, shared: Option<&model::Shared>) {
        let key = shared.map(hash_key);
        *self.key.lock().unwrap_or_else(PoisonError::into_inner) = key;
        let budget = shared.map_or(Duration::ZERO, |shared| shared.budget);
        self.budget_us.store(budget.as_micros() as u64, Relaxed);
        let on_error = shared.map_or(OnStoreError::Local, |shared| shared.on_error);
        self.on_error.store(on_error as u8, Relaxed);
        if shared.is_none() {
            self.up.store(false, Relaxed);
        }
    }

    pub(super) fn key(&self) -> Option<Key> {
        *self.key.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn budget(&self) -> Duration {
        Duration::from_micros(self.budget_us.load(Relaxed))
    }

    /// Who talks to the store; asked for once.
    pub fn asks(&self) -> mpsc::Receiver<Ask> {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let _ = self.asks.set(sender);
        receiver
    }

    pub(super) fn is_up(&self) -> bool {
        self.up.load(Relaxed)
    }

    /// False: nobody takes it.
    pub(super) fn ask(&self, ask: Ask) -> bool {
        self.is_up() && self.asks.get().is_some_and(|asks| asks.try_send(ask).is_ok())
    }

    /// What becomes of requests that the store says nothing of.
    pub fn on_error(&self) -> OnStoreError {
        let word = usize::from(self.on_error.load(Relaxed));
        OnStoreError::ALL.get(word).copied().unwrap_or(OnStoreError::Local)
    }

    /// Counts a decision without the store, and says what it is to be.
    pub(super) fn decided_alone(&self) -> OnStoreError {
        let on_error = self.on_error();
        self.alone[on_error as usize].fetch_add(1, Relaxed);
        on_error
    }
}

/// The same at every gateway, and nobody else's where the store wants a password.
fn hash_key(shared: &model::Shared) -> Key {
    let url = shared.redis.url().unwrap_or_default();
    let user = url.split_once("://").and_then(|(_, rest)| rest.rsplit_once('@')).map_or("", |(user, _)| user);
    let mut hasher = blake3::Hasher::new_derive_key("gateway: keys of limits that gateways share");
    hasher.update(shared.name.as_bytes()).update(b"\0").update(user.as_bytes());
    let hash = hasher.finalize();
    let half = |at: usize| {
        hash.as_bytes().iter().skip(at).take(8).fold(0, |word, byte| word << 8 | u64::from(*byte))
    };
    [half(0), half(8)]
}

/// What a lease said.
pub enum Leased {
    /// Paid with it; so much more should be asked for.
    Paid { renew: u64 },
    /// Not enough is left: what lapsed, and what to have in advance with the next one.
    Missing { back: u64, spare: u64 },
}

/// A key's lease is a word of its own.
fn lease_owner(owner: &Owner) -> Owner {
    Owner { key: owner.key ^ 0x1ea5_e000_1ea5_e000_1ea5_e000_1ea5_e000, kind: Kind::Until, group: 0 }
}

/// … and what the store said is left of its sliding window, which goes when the limit starts anew.
fn known_owner(owner: &Owner) -> Owner {
    Owner { key: owner.key ^ 0x0a11_0000_0a11_0000_0a11_0000_0a11_0000, kind: Kind::Until, ..*owner }
}

impl Store {
    /// Out of a lease, which holds `most`.
    pub(super) fn pay(&self, owner: &Owner, most: u64, now: Now, cost: u64) -> Leased {
        let mut renew = 0;
        let paid = self.rates().update(&lease_owner(owner), now.steady, |word, shared| {
            let lease = Lease::of(word);
            let Some(mut spent) = lease.spend(now.steady, cost).filter(|_| !shared) else {
                return Err(lease);
            };
            renew = if spent.left < most / 2 && !spent.renewing { most - spent.left } else { 0 };
            spent.renewing |= renew > 0;
            Ok(Word { value: spent.word(), until: spent.until_ns() })
        });
        match paid {
            Ok(_) => Leased::Paid { renew },
            Err(lease) => Leased::Missing {
                back: lease.lapsed(now.steady),
                // In advance only what was wanted a moment ago already.
                spare: if lease.holds(now.steady) { most } else { 0 },
            },
        }
    }

    /// Gives back what [`Store::pay`], or an exchange, paid.
    pub(super) fn pay_back(&self, owner: &Owner, now: Now, cost: u64) {
        self.rates().change(&lease_owner(owner), |word| Lease::of(word).refund(now.steady, cost).word());
    }

    /// A sliding window, with what the store said of it last.
    pub(super) fn among(&self, meter: Meter, (owner, at): (&Owner, &Owner), now: Now) -> Meter {
        let Meter::Sliding(sliding) = meter else { return meter };
        let table = self.rates();
        let lease = Lease::of(table.read(&lease_owner(owner)));
        let held = if lease.holds(now.steady) { lease.left } else { 0 };
        let known = table.current(&known_owner(owner), now.steady);
        Meter::Sliding(sliding.among(known, held, table.read(at), now))
    }

    /// Takes up what the store says of a key: what is granted is its lease's.
    pub fn learn(&self, ask: &Ask, said: Said) {
        let now = Now::read();
        let table = self.rates();
        let mut held = 0;
        let holds = if ask.limit.shares() == Some(Share::End) { lease::KNOWN_MS } else { lease::HOLDS_MS };
        let _ = table.update(&lease_owner(&ask.owner), now.steady, |word, shared| {
            let lease = Lease::of(word).renew(now.steady, said.granted, holds);
            held = lease.left;
            // What nobody can tell apart is nobody's.
            if shared { Err(()) } else { Ok(Word { value: lease.word(), until: lease.until_ns() }) }
        });
        let raise = |owner, raised: &dyn Fn(u64) -> Word| {
            let _ = table.update(
                owner,
                now.steady,
                |word, shared| if shared { Err(()) } else { Ok(raised(word)) },
            );
        };
        match ask.meter {
            Meter::Sliding(_) if said.next_ns == 0 => table.forget(&known_owner(&ask.owner)),
            Meter::Sliding(sliding) => raise(&known_owner(&ask.owner), &|_| sliding.known(&said, now)),
            meter => raise(&ask.owner, &|word| meter.raised(word, now, said.used, held)),
        }
    }

    pub(super) fn forget_said(&self, owner: &Owner) {
        self.rates().forget(&lease_owner(owner));
        self.rates().forget(&known_owner(owner));
    }
}
