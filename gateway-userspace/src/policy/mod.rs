//! What a route does besides forwarding. Each policy is one file: built from the config once, asked for each request.
//! A route without any has none of them, and its requests never come here.

pub mod answer;
pub mod rewrite;
pub mod template;

use crate::config::model::{self, Destination, Rewrite as RewriteConfig};
use answer::Answer;
use rewrite::Rewrite;

/// The policies of one route.
#[derive(Debug)]
pub struct Policies {
    pub rewrite: Option<Rewrite>,
    /// Instead of an upstream's.
    pub answer: Option<Answer>,
}

impl Policies {
    /// `None`: the route only forwards.
    pub fn new(route: &model::Route) -> Option<Box<Self>> {
        let policies = Policies {
            rewrite: (route.rewrite != RewriteConfig::default()).then(|| Rewrite::new(&route.rewrite)),
            answer: match &route.to {
                Destination::Upstream(_) => None,
                Destination::Respond(respond) => Some(Answer::respond(respond)),
                Destination::Redirect(redirect) => Some(Answer::redirect(redirect)),
            },
        };
        let any = policies.rewrite.is_some() || policies.answer.is_some();
        any.then(|| Box::new(policies))
    }
}
