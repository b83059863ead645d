//! What a route takes, whoever sends it.

use std::net::IpAddr;

use http::{header, request};

use super::{
    csrf::Csrf,
    json::{Checker, Refused},
};
use crate::{
    config::model,
    observe::Why,
    request::{is_of_type, media_type},
};

#[derive(Debug)]
pub struct Guard {
    config: model::Guard,
    csrf: Option<Csrf>,
}

impl Guard {
    /// `None`: everything.
    pub fn new(config: &model::Guard) -> Option<Self> {
        (*config != model::Guard::default())
            .then(|| Guard { config: config.clone(), csrf: config.csrf.clone().map(Csrf::new) })
    }

    /// Bytes that a body may have.
    pub fn body(&self) -> Option<u64> {
        self.config.body
    }

    /// `length`: of the body, as far as that is known.
    pub fn check(&self, head: &request::Parts, client: IpAddr, length: u64, empty: bool) -> Result<(), Why> {
        let config = &self.config;
        if config.deny_from.as_ref().is_some_and(|denied| denied.contain(client))
            || config.allow_from.as_ref().is_some_and(|allowed| !allowed.contain(client))
        {
            return Err(Why::NetworkDenied);
        }
        if config.header.is_some_and(|most| size(head) > most) {
            return Err(Why::HeaderTooLarge);
        }
        if config.body.is_some_and(|most| length > most) {
            return Err(Why::BodyTooLarge);
        }
        if config.encoded_slash && has_encoded_slash(head.uri.path()) {
            return Err(Why::BadRequest);
        }
        if self.csrf.as_ref().is_some_and(|csrf| !csrf.allows(head)) {
            return Err(Why::CrossSite);
        }
        match &config.content_types {
            Some(types) if !empty && !is_of(head, types) => Err(Why::ContentType),
            _ => Ok(()),
        }
    }

    /// What reads the body on its way, if it is JSON and to be limited.
    pub fn json(&self, head: &request::Parts) -> Result<Option<Checker>, Why> {
        let Some(limits) = self.config.json else { return Ok(None) };
        Checker::of(limits, head).map_err(|Refused| Why::ContentType)
    }
}

/// As HTTP/1.1 would write it.
fn size(head: &request::Parts) -> usize {
    let target = head.uri.path_and_query().map_or(1, |target| target.as_str().len());
    let fields = head.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4);
    head.method.as_str().len() + target + 12 + fields.sum::<usize>()
}

/// Normalised paths have their escapes in upper case.
fn has_encoded_slash(path: &str) -> bool {
    path.contains("%2F") || path.contains("%5C")
}

fn is_of(head: &request::Parts, types: &[String]) -> bool {
    let mut fields = head.headers.get_all(header::CONTENT_TYPE).iter();
    // One that is there twice could be read as either.
    let (Some(field), None) = (fields.next(), fields.next()) else { return false };
    let found = media_type(field.to_str().unwrap_or_default());
    types.iter().any(|wanted| is_of_type(&found, wanted))
}
