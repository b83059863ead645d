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
    check::{Checked, Verdict},
};

impl RouteLimits {
    /// Whether a request may have to wait for the store.
    pub fn may_wait(&self) -> bool {
        let waits = |share| matches!(share, Share::Before | Share::End);
        self.limits.iter().any(|limit| limit.shares().is_some_and(waits))
    }

    /// As [`RouteLimits::admit`], with the store's word on what no lease pays for. Waits no longer than the budget: this
    /// gateway decides alone then.
    pub async fn admit_shared(&self, worker: usize, facts: &Facts<'_>) -> Admission {
        let now = Now::read();
        let mut taken = Taken { store: &self.store, now, checked: self.check(facts, now) };
        if !taken.checked.iter().any(Checked::refuses) {
            taken.settle().await;
        }
        let checked = std::mem::take(&mut taken.checked);
        self.admission(worker, facts, checked)
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
        if asked.iter().all(Option::is_none) {
            return;
        }
        let until = Instant::now() + self.store.shared.budget();
        for (one, reply) in self.checked.iter_mut().zip(asked) {
            let Some(reply) = reply else { continue };
            match timeout_at(until, reply).await {
                Ok(Ok(Reply::Paid)) => one.paid = true,
                Ok(Ok(Reply::Over { wait_ns })) => one.deny(wait_ns),
                _ => self.store.shared.decided_alone(),
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
            store.shared.decided_alone();
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
        store.shared.decided_alone();
        None
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

    /// All gateways together have used it up.
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
}
