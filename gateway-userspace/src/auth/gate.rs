//! What a route asks of those who call.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Uri, header, request};

use super::{Caller, Check, Memory, Way, allow::Allow, place::Place};
use crate::{
    config::{
        model::{self, CertMark},
        units::Moment,
    },
    observe::{Why, stats::AuthResult},
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
}

/// Who is asked of, and when.
#[derive(Debug, Clone, Copy)]
pub struct Asking<'a> {
    pub head: &'a request::Parts,
    pub now: Moment,
    pub worker: usize,
    pub memory: &'a Memory,
    /// Of the client's certificate. `None`: it has shown none.
    pub marks: Option<&'a [CertMark]>,
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
            false => Err(Refused { why: Why::Forbidden, fields: HeaderMap::new(), presented: false }),
        }
    }

    async fn caller(&self, asking: &Asking<'_>) -> Result<Arc<Caller>, Refused> {
        let mut first = None;
        let mut found = Vec::new();
        for way in &self.ways {
            let result = match way.check(asking) {
                Check::Done(result) => result,
                Check::Later(result) => result.await,
            };
            match result {
                Ok(caller) => {
                    way.stats.count(asking.worker, AuthResult::Ok);
                    if !self.all {
                        return Ok(caller);
                    }
                    first.get_or_insert(caller);
                    found.push(AuthResult::Ok);
                }
                Err(result) => {
                    found.push(result);
                    if self.all {
                        break;
                    }
                }
            }
        }
        if let (Some(caller), true) = (first, found.iter().all(|result| *result == AuthResult::Ok)) {
            return Ok(caller);
        }
        Err(self.unauthorized(&found, asking.worker))
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
            true => Refused { why: Why::AuthUnavailable, fields: HeaderMap::new(), presented: false },
            false => Refused { why: Why::Unauthorized, fields, presented: !nothing },
        }
    }

    /// Takes out what proves who calls.
    pub fn strip(&self, head: &mut request::Parts) {
        for way in self.ways.iter().filter(|way| !way.keep) {
            way.places().iter().for_each(|place| place.strip(head));
        }
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
