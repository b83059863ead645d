//! What an upstream does beyond choosing a target and connecting: none of it costs a request of an upstream without.

use std::sync::{Arc, Mutex, PoisonError};

use serde_json::json;

use super::{
    Target, Upstream,
    breaker::{Breaker, Permit, State},
    budget::Budget,
    clock::now_ms,
    eject::may_eject,
    queue::Queue,
};
use crate::{config::model, observe::events};

#[derive(Debug, Default)]
pub struct Extras {
    pub breaker: Option<Arc<Breaker>>,
    pub budget: Option<Arc<Budget>>,
    /// `None`: no target is capped.
    pub queue: Option<Arc<Queue>>,
    /// Held while one is ejected, so that no more go than may.
    ejecting: Mutex<()>,
}

impl Extras {
    /// `None` when the config asks for nothing of the kind. Counts of `old` go on where the settings stay.
    pub fn new(config: &model::Upstream, old: Option<&Upstream>) -> Option<Box<Extras>> {
        let plain = !config.capped()
            && config.eject.is_none()
            && config.breaker.is_none()
            && config.sticky.is_none()
            && config.retry.budget.is_none()
            && config.retry.on.connect | (config.retry.tries == 0)
            && !config.retry.on.after_sending()
            && !matches!(config.balance, model::Balance::P2c | model::Balance::Maglev);
        if plain {
            return None;
        }
        let before = old.and_then(|old| old.extras.as_deref());
        let breaker = config.breaker.map(|wanted| {
            let kept = before.and_then(|before| before.breaker.clone()).filter(|kept| kept.config == wanted);
            kept.unwrap_or_else(|| Arc::new(Breaker::new(wanted)))
        });
        let budget = config.retry.budget.map(|share| {
            let kept = before.and_then(|before| before.budget.clone()).filter(|kept| kept.share() == share);
            kept.unwrap_or_else(|| Arc::new(Budget::new(share)))
        });
        let queue =
            config.capped().then(|| before.and_then(|before| before.queue.clone()).unwrap_or_default());
        Some(Box::new(Extras { breaker, budget, queue, ejecting: Mutex::default() }))
    }
}

impl Upstream {
    /// What became of a request that was sent to a target, or could not be. `us`: how long its answer took.
    pub fn note(&self, target: &Target, ok: bool, us: u64) {
        if self.config.balance == model::Balance::P2c {
            target.latency.note(us, now_ms());
        }
        let Some(config) = &self.config.eject else { return };
        if ok {
            target.passive.success();
        } else if target.passive.error(config, now_ms()) {
            self.eject(target, config);
        }
    }

    /// Takes a target out, unless too many are out already.
    fn eject(&self, target: &Target, config: &model::Eject) {
        let Some(extras) = &self.extras else { return };
        let _one_at_a_time = extras.ejecting.lock().unwrap_or_else(PoisonError::into_inner);
        let out = self.members.iter().filter(|member| member.target.passive.ejected()).count();
        if target.passive.ejected() || !may_eject(config, out, self.members.len()) {
            return;
        }
        let ms = target.passive.eject(config, now_ms());
        target.stats.ejected();
        self.rebuild();
        let (upstream, name) = (&self.name, &target.name);
        tracing::warn!(%upstream, target = %name, ms, "target is ejected: its requests fail");
        events::tell("ejected", json!({ "upstream": &**upstream, "target": &**name, "ms": ms }));
    }

    pub(super) fn tell_back(&self, target: &Target) {
        let (upstream, name) = (&self.name, &target.name);
        tracing::info!(%upstream, target = %name, "ejected target is back on trial");
        events::tell("readmitted", json!({ "upstream": &**upstream, "target": &**name }));
    }

    /// What became of a request as a whole.
    pub fn note_outcome(&self, permit: &Permit<'_>, ok: bool) {
        let Some(state) = permit.note(ok, now_ms()) else { return };
        let upstream = &self.name;
        match state {
            State::Closed => tracing::info!(%upstream, "breaker is closed"),
            _ => tracing::warn!(%upstream, "breaker is open: most requests fail"),
        }
        events::tell("breaker", json!({ "upstream": &**upstream, "state": state.word() }));
    }
}
