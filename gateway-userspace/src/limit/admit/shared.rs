//! Limits that hold over several gateways: what they let in is paid for in the store as well, before or afterwards.

use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};

use super::{
    super::{
        Facts, Limit, Now, Store, lease,
        sharing::{Ask, Leased, Reply, Share},
    },
    Admission, RouteLimits,
    checked::{Checked, Verdict},
};
use crate::config::model::OnStoreError;

/// When whoever is refused for want of the store may come again: it is tried twice a second.
const AGAIN_NS: u64 = 1_000_000_000;

impl RouteLimits {
    /// Whether a request may have to wait for the store.
    pub fn may_wait(&self) -> bool {
        self.limits.iter().any(|limit| limit.waits())
    }

    /// As [`RouteLimits::admit`], with the store's word on what no lease pays for. Waits no longer than the budget: what
    /// becomes of it then says `on_error`.
    pub async fn admit_shared(&self, worker: usize, facts: &Facts<'_>) -> Admission {
        let now = Now::read();
        let shared = &self.store.shared;
        let lost = !shared.is_up() && shared.on_error() == OnStoreError::Pass;
        let asked = |limit: &Limit| {
            let passes = lost && limit.waits();
            if passes {
                shared.decided_alone();
            }
            !passes
        };
        let mut taken = Taken { store: &self.store, now, checked: self.check(facts, now, asked) };
        if !taken.checked.iter().any(Checked::refuses) {
            taken.settle().await;
        }
        let mut checked = std::mem::take(&mut taken.checked);
        self.admission((worker, now), facts, &mut checked)
    }
}

/// What limits gave: given back if the client goes away while the store is asked.
struct Taken<'a> {
    store: &'a Store,
    now: Now,
    checked: Vec<Checked<'a>>,
}

impl Taken<'_> {
    async fn settle(&mut self) {
        let mut asked = Vec::new();
        for one in &mut self.checked {
            asked.push(one.pay(self.store, self.now));
        }
        let until = Instant::now() + self.store.shared.budget();
        for (one, reply) in self.checked.iter_mut().zip(asked) {
            let Some(reply) = reply else { continue };
            let Ok(Ok(reply)) = timeout_at(until, reply).await else {
                one.alone(self.store);
                continue;
            };
            one.learn(self.store, Now::read());
            match reply {
                Reply::Paid => one.paid = true,
                Reply::Over { wait_ns } => one.deny(wait_ns),
            }
        }
        if self.checked.iter().any(Checked::refuses) {
            self.give_back();
        }
    }

    fn give_back(&self) {
        for one in &self.checked {
            one.give_back(self.store);
            if one.paid && one.taken > 0 {
                self.store.pay_back(&one.owner, self.now, one.taken);
            }
        }
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.give_back();
    }
}

impl Checked<'_> {
    /// Pays out of a lease, or asks.
    fn pay(&mut self, store: &Store, now: Now) -> Option<oneshot::Receiver<Reply>> {
        let meter = self.meter?;
        let most = match self.limit.shares()? {
            Share::Before if self.taken > 0 => lease::most(&meter),
            Share::End => 0,
            Share::Before | Share::Told => return None,
        };
        if !store.shared.is_up() {
            self.alone(store);
            return None;
        }
        let (mut ask, reply) = match store.pay(&self.owner, most, now, self.taken) {
            Leased::Paid { renew } => {
                self.paid = true;
                if renew > 0 {
                    store.shared.ask(Ask { spare: renew, ..self.ask(meter) });
                }
                return None;
            }
            Leased::Missing { back, spare } => {
                (Ask { cost: self.taken, back, spare, ..self.ask(meter) }, oneshot::channel())
            }
        };
        ask.reply = Some(reply.0);
        if store.shared.ask(ask) {
            return Some(reply.1);
        }
        self.alone(store);
        None
    }

    /// What would become of it if the store is gone.
    pub(super) fn miss(&mut self, store: &Store) {
        if !self.limit.waits() || store.shared.is_up() {
            return;
        }
        match store.shared.on_error() {
            OnStoreError::Local => {}
            OnStoreError::Pass => self.verdict = Verdict::Allow,
            OnStoreError::Refuse if self.denies() => {}
            OnStoreError::Refuse => self.refuse_unknown(),
        }
    }

    /// The store does not say.
    fn alone(&mut self, store: &Store) {
        if store.shared.decided_alone() == OnStoreError::Refuse {
            self.refuse_unknown();
        }
    }

    fn refuse_unknown(&mut self) {
        self.unknown = true;
        self.deny(AGAIN_NS);
    }

    fn ask(&self, meter: super::Meter) -> Ask {
        Ask::of(self.limit, self.owner, meter)
    }

    /// Of what only is to be known.
    pub(super) fn tell(&self, store: &Store) {
        if let (Some(Share::Told), Some(meter)) = (self.limit.shares(), self.meter)
            && self.taken > 0
        {
            store.shared.ask(Ask { spent: self.taken, ..self.ask(meter) });
        }
    }

    /// What is left, now that the store has said so.
    fn learn(&mut self, store: &Store, now: Now) {
        if let Some(grade) = self.grade {
            let (at, meter) = self.limit.place(store, grade.meter, self.owner, now, 1);
            self.left = meter.left(store.rates().read(&at), now);
        }
    }

    /// All gateways together have used it up, or nobody knows.
    fn deny(&mut self, wait_ns: u64) {
        self.verdict = Verdict::Deny { wait_ns: wait_ns.max(1) };
        self.note_wait();
    }
}

impl Limit {
    /// `None`: it is this gateway's alone.
    pub(in crate::limit) fn shares(&self) -> Option<Share> {
        self.share
    }

    /// The store is asked before a request goes on.
    pub(super) fn waits(&self) -> bool {
        matches!(self.share, Some(Share::Before | Share::End))
    }
}
