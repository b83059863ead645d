//! What a route asks of those who call.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Uri, header, request};

use super::{Answered, Caller, Check, Elsewhere, Memory, Way, allow::Allow, place::Place};
use crate::{
    config::{
        model::{self, CertMark},
        units::Moment,
    },
    observe::{Why, stats::AuthResult},
    request::remove_twins,
};

#[derive(Debug)]
pub struct Gate {
    /// Not empty.
    ways: Vec<Arc<Way>>,
    /// Every one of them, rather than any.
    all: bool,
    allow: Option<Allow>,
    /// A credential is in the path that is logged.
    logged: bool,
}

/// Who may not.
#[derive(Debug)]
pub struct Refused {
    pub why: Why,
    /// Of the answer.
    pub fields: HeaderMap,
    /// It showed credentials, and they are none.
    pub presented: bool,
    /// Somebody else's answer, in place of our own.
    pub answer: Option<Box<Answered>>,
}

/// Who is asked of, and when.
#[derive(Clone, Copy)]
pub struct Asking<'a> {
    pub head: &'a request::Parts,
    pub now: Moment,
    pub worker: usize,
    pub memory: &'a Memory,
    /// Of the client's certificate. `None`: it has shown none.
    pub marks: Option<&'a [CertMark]>,
    /// Something follows the head.
    pub has_body: bool,
    pub elsewhere: &'a dyn Elsewhere,
}

impl Refused {
    /// For this alone.
    pub fn of(why: Why) -> Self {
        Refused { why, fields: HeaderMap::new(), presented: false, answer: None }
    }
}

impl Gate {
    pub fn new(ways: Vec<Arc<Way>>, all: bool, allow: Option<&model::Allow>) -> Self {
        let logged = ways.iter().any(|way| way.places().iter().any(Place::is_logged));
        Gate { ways, all, allow: allow.map(Allow::new), logged }
    }

    /// Who calls, if they may.
    pub async fn admit(&self, asking: &Asking<'_>) -> Result<Arc<Caller>, Refused> {
        let caller = self.caller(asking).await?;
        match self.allow.as_ref().is_none_or(|allow| allow.allows(&caller, &asking.head.method)) {
            true => Ok(caller),
            false => {
                Err(Refused { why: Why::Forbidden, fields: HeaderMap::new(), presented: false, answer: None })
            }
        }
    }

    async fn caller(&self, asking: &Asking<'_>) -> Result<Arc<Caller>, Refused> {
        let mut first: Option<Arc<Caller>> = None;
        let mut found = Vec::new();
        let mut answer = None;
        for way in &self.ways {
            let outcome = match way.check(asking) {
                Check::Done(outcome) => outcome,
                Check::Later(outcome) => outcome.await,
            };
            match outcome {
                Ok(caller) => {
                    way.stats.count(asking.worker, AuthResult::Ok);
                    found.push(AuthResult::Ok);
                    first = Some(match first {
                        None => caller,
                        Some(first) => first.joined(&caller),
                    });
                    if !self.all {
                        break;
                    }
                }
                Err(no) => {
                    found.push(no.result);
                    answer = answer.or(no.answer);
                    if self.all {
                        break;
                    }
                }
            }
        }
        let enough = !self.all || found.iter().all(|result| *result == AuthResult::Ok);
        match first {
            Some(caller) if enough => Ok(caller),
            _ => Err(Refused { answer, ..self.unauthorized(&found, asking.worker) }),
        }
    }

    /// Failures are counted here: with several ways, one that is not used is no failure.
    fn unauthorized(&self, found: &[AuthResult], worker: usize) -> Refused {
        let mut fields = HeaderMap::new();
        let nothing = found.iter().all(|result| *result == AuthResult::Missing);
        for (way, result) in self.ways.iter().zip(found).filter(|(_, result)| **result != AuthResult::Ok) {
            if nothing || *result != AuthResult::Missing {
                way.stats.count(worker, *result);
            }
            if let Ok(challenge) = HeaderValue::try_from(way.challenge(*result)) {
                fields.append(header::WWW_AUTHENTICATE, challenge);
            }
        }
        match found.contains(&AuthResult::Unavailable) {
            true => Refused {
                why: Why::AuthUnavailable,
                fields: HeaderMap::new(),
                presented: false,
                answer: None,
            },
            false => Refused { why: Why::Unauthorized, fields, presented: !nothing, answer: None },
        }
    }

    /// Takes out what proves who calls.
    pub fn strip(&self, head: &mut request::Parts) {
        for way in self.ways.iter().filter(|way| !way.keep) {
            way.places().iter().for_each(|place| place.strip(head));
        }
        // What only an answer may say.
        let answers = self.ways.iter().flat_map(|way| way.answers());
        answers.clone().for_each(|name| drop(head.headers.remove(name)));
        remove_twins(&mut head.headers, answers);
    }

    /// The query as it may be logged, if it has credentials in it.
    pub fn clean_query(&self, uri: &Uri) -> Option<Uri> {
        if !self.logged {
            return None;
        }
        let mut clean = uri.clone();
        let places = self.ways.iter().flat_map(|way| way.places());
        places.for_each(|place| place.strip_logged(&mut clean));
        (clean != *uri).then_some(clean)
    }
}
