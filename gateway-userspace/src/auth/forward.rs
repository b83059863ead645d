//! Asking somebody else: a request without a body goes to an upstream, whose answer says whether the client's may go on.

use std::{pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header, request};

use super::{Caller, Check, No, consumers::Consumers, gate::Asking};
use crate::observe::stats::AuthResult;

/// Who can be asked: the proxy has the connections.
pub trait Elsewhere {
    /// `None`: there was no answer in time.
    fn ask<'a>(
        &'a self,
        upstream: &'a str,
        head: request::Parts,
        patience: Duration,
    ) -> Pin<Box<dyn Future<Output = Option<Answered>> + 'a>>;
}

/// What an upstream has answered.
#[derive(Debug)]
pub struct Answered {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

#[derive(Debug)]
pub struct Forward {
    pub upstream: String,
    /// Path and query.
    pub path: Uri,
    /// Fields of the client's request that are sent along.
    pub send: Vec<HeaderName>,
    /// Fields of the answer that go to the upstream, in place of what a client sends in them.
    pub copy: Vec<HeaderName>,
    /// The field of the answer that names the consumer.
    pub consumer: HeaderName,
    pub timeout: Duration,
    /// Without an answer, the request goes on.
    pub open: bool,
    pub consumers: Arc<Consumers>,
}

const METHOD: HeaderName = HeaderName::from_static("x-forwarded-method");
const URI: HeaderName = HeaderName::from_static("x-forwarded-uri");

/// Of an answer that is passed on to the client.
const PASSED: [HeaderName; 5] = [
    header::CONTENT_TYPE,
    header::WWW_AUTHENTICATE,
    header::LOCATION,
    header::SET_COOKIE,
    header::RETRY_AFTER,
];

impl Forward {
    pub fn check<'a>(&'a self, asking: &'a Asking<'a>) -> Check<'a> {
        let head = self.question(asking.head);
        Check::Later(Box::pin(async move {
            match asking.elsewhere.ask(&self.upstream, head, self.timeout).await {
                Some(answer) if answer.status.is_success() => Ok(self.caller(&answer.headers)),
                // Not the client's fault, nor a word about it.
                Some(answer) if !answer.status.is_server_error() && answer.status.as_u16() >= 300 => {
                    Err(No { result: AuthResult::Refused, answer: Some(Box::new(passed(answer))) })
                }
                _ if self.open => Ok(self.caller(&HeaderMap::new())),
                _ => Err(AuthResult::Unavailable.into()),
            }
        }))
    }

    fn question(&self, client: &request::Parts) -> request::Parts {
        let (mut head, ()) = http::Request::new(()).into_parts();
        head.method = Method::GET;
        head.uri = self.path.clone();
        let host = client.headers.get(header::HOST).cloned();
        head.headers.extend(host.map(|host| (header::HOST, host)));
        for name in &self.send {
            for value in client.headers.get_all(name) {
                head.headers.append(name, value.clone());
            }
        }
        let uri = client.uri.path_and_query().map_or("/", |uri| uri.as_str());
        // Both were a request's, and so are fields' values.
        head.headers.extend(HeaderValue::from_str(uri).ok().map(|uri| (URI, uri)));
        head.headers
            .extend(HeaderValue::from_str(client.method.as_str()).ok().map(|method| (METHOD, method)));
        head
    }

    fn caller(&self, answer: &HeaderMap) -> Arc<Caller> {
        let named = answer.get(&self.consumer).and_then(|name| name.to_str().ok()).unwrap_or_default();
        let known = self.consumers.named(named);
        let fields = self.copy.iter().map(|name| (name.clone(), answer.get(name).cloned()));
        Arc::new(Caller {
            consumer: known.map_or_else(|| named.into(), |known| known.consumer.clone()),
            tier: known.and_then(|known| known.tier.clone()),
            grants: known.map(|known| known.grants.clone()).unwrap_or_default(),
            fields: fields.collect(),
            ..Caller::default()
        })
    }
}

fn passed(answer: Answered) -> Answered {
    let mut headers = HeaderMap::new();
    for name in &PASSED {
        for value in answer.headers.get_all(name) {
            headers.append(name, value.clone());
        }
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Answered { headers, ..answer }
}
