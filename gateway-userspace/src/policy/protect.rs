//! `security_headers`: what answers tell browsers to be careful with, where the upstream says nothing of it.

use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::config::model::SecurityHeaders;

#[derive(Debug)]
pub struct Protect(Vec<(HeaderName, HeaderValue)>);

impl Protect {
    pub fn new(config: &SecurityHeaders) -> Self {
        let fields = [
            (header::X_CONTENT_TYPE_OPTIONS, Some("nosniff".to_owned())),
            (header::X_FRAME_OPTIONS, config.frame.clone()),
            (header::REFERRER_POLICY, config.referrer.clone()),
            (header::CONTENT_SECURITY_POLICY, config.csp.clone()),
            (HeaderName::from_static("permissions-policy"), config.permissions.clone()),
        ];
        let field =
            |(name, value): (HeaderName, Option<String>)| Some((name, HeaderValue::from_str(&value?).ok()?));
        Protect(fields.into_iter().filter_map(field).collect())
    }

    pub fn apply(&self, headers: &mut HeaderMap) {
        for (name, value) in &self.0 {
            if !headers.contains_key(name) {
                headers.insert(name, value.clone());
            }
        }
    }
}
