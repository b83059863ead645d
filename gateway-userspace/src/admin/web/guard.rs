//! What every request over TCP has to show, and what every answer says to browsers.

use std::{sync::Arc, time::Instant};

use axum::{
    extract::{ConnectInfo, Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::gate::{Gate, Refused, same_text};
use crate::{
    admin::{peer::Peer, problem::Problem},
    request,
};

pub const CSRF: &str = "x-csrf-token";
/// Browsers take the second from secure origins only, for that host and the whole of it.
const COOKIE: &str = "gateway-session";
const SECURE_COOKIE: &str = "__Host-gateway-session";
/// Nothing but what comes from here, and no page around ours.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Lets in who has the token, or a session; what changes something by a session must come from its page.
pub async fn guard(
    State(gate): State<Arc<Gate>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    request: Request,
    next: Next,
) -> Response {
    match admit(&gate, peer, request.method(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(refused) => refuse(refused),
    }
}

fn admit(gate: &Gate, peer: Peer, method: &Method, headers: &HeaderMap) -> Result<(), Refused> {
    let now = Instant::now();
    if let Some(offered) = headers.get(header::AUTHORIZATION) {
        let token = offered.as_bytes().split_at_checked(7);
        let Some((b"Bearer ", token)) = token else { return Err(Refused::Wrong) };
        return gate.token(token, address(peer), now);
    }
    let csrf = session(gate, headers).and_then(|id| gate.session(id, now)).ok_or(Refused::Wrong)?;
    let told = headers.get(CSRF).and_then(|told| told.to_str().ok());
    match method.is_safe() || told.is_some_and(|told| same_text(told, &csrf)) {
        true => Ok(()),
        false => Err(Refused::Elsewhere),
    }
}

pub fn address(peer: Peer) -> std::net::IpAddr {
    match peer {
        Peer::Remote(addr) => addr,
        Peer::User { .. } => std::net::Ipv4Addr::LOCALHOST.into(),
    }
}

/// The session's cookie.
pub fn session<'a>(gate: &Gate, headers: &'a HeaderMap) -> Option<&'a str> {
    std::str::from_utf8(request::cookie(headers, cookie(gate))?).ok()
}

pub fn cookie(gate: &Gate) -> &'static str {
    if gate.secure { SECURE_COOKIE } else { COOKIE }
}

pub fn refuse(refused: Refused) -> Response {
    match refused {
        Refused::Wrong => {
            let why = "the token of admin.http is needed";
            let problem = Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", why);
            ([(header::WWW_AUTHENTICATE, "Bearer realm=\"gateway\"")], problem).into_response()
        }
        Refused::Elsewhere => {
            let why =
                format!("a session's requests that change something carry {CSRF}, which GET /session tells");
            Problem::new(StatusCode::FORBIDDEN, "forbidden", why).into_response()
        }
        Refused::Wait(seconds) => {
            let why = "too many wrong tokens from this address";
            let problem = Problem::new(StatusCode::TOO_MANY_REQUESTS, "limited", why);
            ([(header::RETRY_AFTER, seconds.to_string())], problem).into_response()
        }
    }
}

pub async fn harden(mut response: Response) -> Response {
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}
