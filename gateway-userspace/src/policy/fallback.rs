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
}

impl Fallback {
    /// `upstream`: the one of that name, which the config's reader knows to exist.
    pub fn new(config: &model::Fallback, upstream: impl Fn(&str) -> Option<Arc<Upstream>>) -> Self {
        Fallback {
            on: config.on,
            to: config.to.as_deref().and_then(upstream),
            answer: config.respond.as_ref().map(Answer::respond),
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
        let to = self.to.iter().map(|to| to.name.to_string());
        let status = self.answer.iter().map(|answer| answer.status().as_u16().to_string());
        to.chain(status).collect::<Vec<_>>().join(", or else ")
    }
}
