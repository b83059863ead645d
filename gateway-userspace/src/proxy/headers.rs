//! Header fields on their way through: hop-by-hop fields end here, what tells of the client and of us is added.
//!
//! RFC 9110 sections 7.6.1 (Connection) and 7.6.3 (Via), RFC 7239 (Forwarded). What a client says of itself in
//! `X-Forwarded-*` or `Forwarded` is replaced; what a trusted proxy says of it goes on, see [`super::real_ip`].

use std::{net::IpAddr, rc::Rc};

use http::{HeaderMap, HeaderName, HeaderValue, Version, header, request};

use super::{
    client::{Client, Told},
    exchange::Exchange,
    websocket::Extended,
};
use crate::{
    net::put_ip,
    runtime::Snapshot,
    upstream::http1::{self, Switch},
};

pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// What the client asks to switch to and may, or that it takes trailers.
pub fn switch(head: &request::Parts, allowed: &[String]) -> Switch {
    match wanted_upgrade(head, allowed) {
        Some(protocol) => Switch::Upgrade(protocol),
        None if head.headers.contains_key(header::TE) && accepts_trailers(&head.headers) => Switch::Trailers,
        None => Switch::No,
    }
}

/// The protocol that the client asks to switch to, if the route allows it.
fn wanted_upgrade(head: &request::Parts, allowed: &[String]) -> Option<HeaderValue> {
    if allowed.is_empty() || head.version != Version::HTTP_11 && !is_extended(head) {
        return None;
    }
    let wanted = head.headers.get(header::UPGRADE)?;
    let listed = connection_tokens(&head.headers).any(|token| token.eq_ignore_ascii_case(b"upgrade"));
    let known = allowed.iter().any(|name| wanted.as_bytes().eq_ignore_ascii_case(name.as_bytes()));
    (listed && known).then(|| wanted.clone())
}

/// What HTTP/2 has in place of an upgrade.
fn is_extended(head: &request::Parts) -> bool {
    head.version == Version::HTTP_2 && head.extensions.get::<Extended>().is_some()
}

fn connection_tokens(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    headers
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
}

/// Which fields that end here are present, found in one pass: most messages have none or one.
#[derive(Default)]
struct Found {
    connection: bool,
    keep_alive: bool,
    proxy_connection: bool,
    proxy_authenticate: bool,
    te: bool,
    transfer_encoding: bool,
    upgrade: bool,
    expect: bool,
}

impl Found {
    fn of(headers: &HeaderMap) -> Self {
        let mut found = Found::default();
        for name in headers.keys() {
            // Standard names compare as numbers.
            match *name {
                header::HOST
                | header::USER_AGENT
                | header::ACCEPT
                | header::DATE
                | header::CONTENT_TYPE
                | header::CONTENT_LENGTH
                | header::SERVER => {}
                header::CONNECTION => found.connection = true,
                header::TE => found.te = true,
                header::TRANSFER_ENCODING => found.transfer_encoding = true,
                header::UPGRADE => found.upgrade = true,
                header::EXPECT => found.expect = true,
                header::PROXY_AUTHENTICATE => found.proxy_authenticate = true,
                _ if *name == KEEP_ALIVE => found.keep_alive = true,
                _ if *name == PROXY_CONNECTION => found.proxy_connection = true,
                _ => {}
            }
        }
        found
    }

    fn remove(&self, headers: &mut HeaderMap) {
        if self.connection {
            remove_listed(headers);
            headers.remove(header::CONNECTION);
        }
        for (present, name) in [
            (self.keep_alive, KEEP_ALIVE),
            (self.proxy_connection, PROXY_CONNECTION),
            (self.proxy_authenticate, header::PROXY_AUTHENTICATE),
            (self.te, header::TE),
            (self.transfer_encoding, header::TRANSFER_ENCODING),
            (self.upgrade, header::UPGRADE),
            (self.expect, header::EXPECT),
        ] {
            if present {
                headers.remove(name);
            }
        }
    }
}

/// Whether no other request comes on this connection for sure: the client said so, and how most say it.
pub fn closes(head: &request::Parts) -> bool {
    head.version == http::Version::HTTP_11
        && head
            .headers
            .get(header::CONNECTION)
            .is_some_and(|only| only.as_bytes().eq_ignore_ascii_case(b"close"))
}

/// Removes what `Connection` lists, except what routing and framing stand on: naming it there is an attack.
pub fn remove_listed(headers: &mut HeaderMap) {
    let mut options = headers.get_all(header::CONNECTION).iter();
    match (options.next(), options.next()) {
        (None, _) => return,
        (Some(only), None) if only == "keep-alive" || only == "close" => return,
        _ => {}
    }
    let listed: Vec<HeaderName> = connection_tokens(headers)
        .filter(|token| !token.is_empty())
        .filter(|token| !token.eq_ignore_ascii_case(b"close") && !token.eq_ignore_ascii_case(b"keep-alive"))
        .filter_map(|token| HeaderName::from_bytes(token).ok())
        .filter(|name| *name != header::HOST && *name != header::CONTENT_LENGTH)
        .collect();
    for name in listed {
        headers.remove(name);
    }
}

fn accepts_trailers(headers: &HeaderMap) -> bool {
    let mut codings =
        headers.get_all(header::TE).iter().flat_map(|te| te.as_bytes().split(|byte| *byte == b','));
    codings.any(|coding| coding.trim_ascii().eq_ignore_ascii_case(b"trailers"))
}

/// The lines that tell an upstream of the client and of us.
pub struct About {
    host: HeaderValue,
    via: HeaderValue,
    lines: Rc<[u8]>,
}

/// `X-Forwarded-*`, `Forwarded` (RFC 7239 section 4) and `Via` in wire format. Clients seldom change the host on a
/// connection, so the last ones are kept.
pub fn about(client: &Client, host: Option<&HeaderValue>, snapshot: &Snapshot) -> Rc<[u8]> {
    let ours = if client.http2 { &snapshot.via_http2 } else { &snapshot.via };
    if let Some(told) = &client.told {
        return told_lines(client, told, host.and_then(|host| host.to_str().ok()), ours).into();
    }
    let mut kept = client.about.borrow_mut();
    if let (Some(About { host: kept_host, via, lines }), Some(host)) = (&*kept, host)
        && kept_host == host
        && via == ours
    {
        return lines.clone();
    }
    let text = host.and_then(|host| host.to_str().ok());
    let lines: Rc<[u8]> = lines(client, text, ours).into();
    // A copy: a clone would keep all of the buffer that the request was read into.
    if let Some(host) = host.and_then(|host| HeaderValue::from_bytes(host.as_bytes()).ok()) {
        *kept = Some(About { host, via: ours.clone(), lines: lines.clone() });
    }
    lines
}

fn lines(client: &Client, host: Option<&str>, via: &HeaderValue) -> Vec<u8> {
    let Client { addr, scheme, text, .. } = client;
    written(text.as_bytes(), scheme, host, via, |out| forwarded(out, *addr, scheme, host))
}

/// As [`lines`], behind a trusted proxy: its chains go on, with the proxy itself at their ends.
fn told_lines(client: &Client, told: &Told, host: Option<&str>, via: &HeaderValue) -> Vec<u8> {
    let (proxy, scheme) = (client.origin.source.ip(), client.scheme);
    let named = told.host.as_deref().or(host);
    let chain = match &told.chain {
        Some(chain) => format!("{chain}, {proxy}"),
        None if client.addr == proxy => proxy.to_string(),
        None => format!("{}, {proxy}", client.addr),
    };
    let mut lines = written(chain.as_bytes(), scheme, named, via, |out| match &told.forwarded {
        Some(chain) => {
            out.extend_from_slice(chain.as_bytes());
            out.extend_from_slice(b", ");
            forwarded(out, proxy, client.manner.scheme(), host);
        }
        None => forwarded(out, client.addr, scheme, named),
    });
    for (name, value) in &told.more {
        http1::field(&mut lines, name.as_str(), value.as_bytes());
    }
    lines
}

/// An element of `Forwarded`.
fn forwarded(out: &mut Vec<u8>, addr: IpAddr, scheme: &str, host: Option<&str>) {
    let (open, close) = if addr.is_ipv6() { ("for=\"[", "]\"") } else { ("for=", "") };
    out.extend_from_slice(open.as_bytes());
    put_ip(out, addr);
    let mut put = |pieces: &[&str]| pieces.iter().for_each(|piece| out.extend_from_slice(piece.as_bytes()));
    put(&[close, ";proto=", scheme]);
    let is_token = |host: &str| host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~%".contains(&b));
    match host {
        None => {}
        Some(host) if is_token(host) => put(&[";host=", host]),
        Some(host) => put(&[";host=\"", host, "\""]),
    }
}

/// `forwarded`: writes the value of `Forwarded`.
fn written(
    chain: &[u8],
    scheme: &str,
    host: Option<&str>,
    via: &HeaderValue,
    forwarded: impl FnOnce(&mut Vec<u8>),
) -> Vec<u8> {
    let mut lines = Vec::with_capacity(256);
    http1::field(&mut lines, "x-forwarded-for", chain);
    http1::field(&mut lines, "x-forwarded-proto", scheme.as_bytes());
    if let Some(host) = host {
        http1::field(&mut lines, "x-forwarded-host", host.as_bytes());
    }
    lines.extend_from_slice(b"forwarded: ");
    forwarded(&mut lines);
    lines.extend_from_slice(b"\r\n");
    http1::field(&mut lines, "via", via.as_bytes());
    lines
}

/// Takes out what is for one connection only.
pub fn remove_hop_by_hop(headers: &mut HeaderMap) {
    Found::of(headers).remove(headers);
}

/// Makes an upstream's head fit to be sent to the client. `upgrade`: the protocol that is switched to; `via`: of the
/// one that it came by.
pub fn to_client(
    headers: &mut HeaderMap,
    upgrade: Option<&HeaderValue>,
    exchange: &Exchange,
    via: &HeaderValue,
) {
    Found::of(headers).remove(headers);
    if let Some(protocol) = upgrade {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, protocol.clone());
    }
    headers.append(header::VIA, via.clone());
    headers.insert(X_REQUEST_ID, exchange.id());
    if let Some(times) = exchange.server_timing() {
        headers.append(SERVER_TIMING, times);
    }
    if let Some(hsts) = &exchange.state.listener.hsts {
        headers.insert(header::STRICT_TRANSPORT_SECURITY, hsts.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::client::{Manner, Origin},
        *,
    };

    fn head(request: http::request::Builder) -> request::Parts {
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn hop_by_hop_fields_end_here_but_host_and_length_cannot_be_removed() {
        let mut head = head(
            http::Request::get("/")
                .header("host", "a")
                .header("content-length", "0")
                .header("connection", "close, x-secret, host, content-length")
                .header("x-secret", "1")
                .header("keep-alive", "timeout=5")
                .header("proxy-connection", "keep-alive")
                .header("te", "gzip")
                .header("upgrade", "h2c"),
        );
        Found::of(&head.headers).remove(&mut head.headers);
        let left: Vec<&str> = head.headers.keys().map(HeaderName::as_str).collect();
        assert_eq!(left, ["host", "content-length"]);
    }

    #[test]
    fn upstreams_are_told_of_the_client() {
        let told = |client: &str, host| {
            let via = HeaderValue::from_static("1.1 gateway");
            let peer = std::net::SocketAddr::new(client.parse().unwrap(), 1);
            let client = Client::new(Origin::peer(peer), Manner::PLAIN_HTTP1);
            String::from_utf8(lines(&client, host, &via)).unwrap()
        };
        assert_eq!(
            told("192.0.2.1", Some("a.example")),
            "x-forwarded-for: 192.0.2.1\r\nx-forwarded-proto: http\r\nx-forwarded-host: a.example\r\n\
             forwarded: for=192.0.2.1;proto=http;host=a.example\r\nvia: 1.1 gateway\r\n"
        );
        let six = told("2001:db8::1", Some("a:8080"));
        assert!(six.contains("forwarded: for=\"[2001:db8::1]\";proto=http;host=\"a:8080\"\r\n"), "{six}");
        assert!(!told("192.0.2.1", None).contains("host"));
    }

    #[test]
    fn an_upgrade_needs_the_route_s_leave_and_the_connection_option() {
        let websocket = |connection: &str| {
            head(http::Request::get("/").header("connection", connection).header("upgrade", "WebSocket"))
        };
        let allowed = ["websocket".to_owned()];
        assert!(wanted_upgrade(&websocket("keep-alive, Upgrade"), &allowed).is_some());
        assert!(wanted_upgrade(&websocket("keep-alive"), &allowed).is_none());
        assert!(wanted_upgrade(&websocket("upgrade"), &[]).is_none());
    }
}
