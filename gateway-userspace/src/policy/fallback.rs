//! `fallback` of an upstream: who answers where it cannot be asked.

use std::sync::Arc;

use super::answer::Answer;
use crate::{
    config::model::{self, FallbackOn},
    observe::Why,
    upstream::Upstream,
};

#[derive(Debug)]
pub struct Fallback {
    on: FallbackOn,
    pub to: Option<Arc<Upstream>>,
    /// Where there is no `to`, or none that answers.
    pub answer: Option<Answer>,
    status: Option<u16>,
}

impl Fallback {
    /// `upstream`: the one of that name, which the config's reader knows to exist.
    pub fn new(config: &model::Fallback, upstream: impl Fn(&str) -> Option<Arc<Upstream>>) -> Self {
        let respond = config.respond.as_ref();
        Fallback {
            on: config.on,
            to: config.to.as_deref().and_then(upstream),
            answer: respond.map(Answer::respond),
            status: respond.map(|respond| respond.status),
        }
    }

    /// Whether it answers in this case. In none of them has anything of the request been sent.
    pub fn is_for(&self, why: Why) -> bool {
        match why {
            Why::BreakerOpen => self.on.breaker,
            Why::NoHealthyTarget => self.on.unhealthy,
            Why::UpstreamConnectRefused | Why::UpstreamConnectTimeout => self.on.connect,
            _ => false,
        }
    }

    /// An upstream's name, a status, or both.
    pub fn told(&self) -> String {
        match (&self.to, self.status) {
            (Some(to), Some(status)) => format!("{}, or else {status}", to.name),
            (Some(to), None) => to.name.to_string(),
            (None, status) => status.unwrap_or_default().to_string(),
        }
    }
}
