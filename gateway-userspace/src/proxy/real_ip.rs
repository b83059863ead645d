//! `real_ip`: the client's address as a trusted proxy in front tells it in a header.
//!
//! Every proxy of a chain appends the address that its connection came from, so the chain is read from its end, and
//! only as far as it was written by trusted ones: the first address that is none of theirs is the client. What stands
//! before it, anybody may have written.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::{
    client::{Client, Told},
    connection::ClientState,
    strict::valid_host,
};
use crate::config::model::{RealIp, RealIpHeader};

mod forwarded;

#[cfg(test)]
pub(crate) use forwarded::elements;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// What a trusted proxy may say besides, which nothing here goes by.
const MORE: [HeaderName; 3] = [
    HeaderName::from_static("x-forwarded-port"),
    HeaderName::from_static("x-forwarded-prefix"),
    HeaderName::from_static("x-forwarded-server"),
];

/// An address, and a port if it is known, else 0.
type Node = (IpAddr, u16);

/// Makes the request that is about to begin its real client's.
pub fn apply(state: &ClientState, config: &RealIp, headers: &mut HeaderMap) {
    let connection = state.kept_client();
    let source = connection.origin.source;
    if !config.from.contain(source.ip()) {
        // Upstreams shall not take it for ours: the other ones never go on as they come.
        if let RealIpHeader::Single(name) = &config.header {
            headers.remove(name);
        }
        return;
    }
    let (client, told) = read(config, (source.ip(), source.port()), headers);
    state.set_client(connection.behind(client, told));
}

/// A request that cannot be read is the proxy's.
pub fn forget(state: &ClientState) {
    let client = state.kept_client();
    if client.told.is_some() {
        state.set_client(Client::new(client.origin, client.manner));
    }
}

/// `proxy`: who sent this.
fn read(config: &RealIp, proxy: Node, headers: &HeaderMap) -> (Node, Told) {
    let chain = joined(headers, &X_FORWARDED_FOR);
    let untrusted = |node: &Node| !config.from.contain(node.0);
    let mut told =
        Told { scheme: scheme(headers), host: host(headers), more: more(headers), ..Told::default() };
    let client = match &config.header {
        RealIpHeader::XForwardedFor => {
            let nodes = chain.as_deref().unwrap_or_default().rsplit(',').map(str::trim);
            last(proxy, nodes.filter(|node| !node.is_empty()).map(node), untrusted).0
        }
        RealIpHeader::Forwarded => {
            told.forwarded = joined(headers, &header::FORWARDED);
            let elements = told.forwarded.as_deref().and_then(forwarded::elements).unwrap_or_default();
            let nodes = elements.iter().rev().map(|element| element.node.as_deref().and_then(node));
            let (client, from_end) = last(proxy, nodes, untrusted);
            if elements.is_empty() {
                // Not to be read by those behind either.
                told.forwarded = None;
            }
            if let Some(element) = from_end.and_then(|n| elements.iter().rev().nth(n)) {
                told.scheme = element.proto.as_deref().and_then(scheme_of);
                told.host = element.host.clone().filter(|host| valid_host(host.as_bytes()));
            }
            client
        }
        RealIpHeader::Single(name) => only(headers, name).and_then(node).unwrap_or(proxy),
    };
    told.chain = chain.filter(|chain| !chain.is_empty());
    (client, told)
}

/// Goes from the end of a chain to the first node that is not trusted, or to the last one that is known; and which one
/// of the chain that is.
fn last(
    proxy: Node,
    nodes: impl Iterator<Item = Option<Node>>,
    untrusted: impl Fn(&Node) -> bool,
) -> (Node, Option<usize>) {
    let mut found = (proxy, None);
    for (index, node) in nodes.enumerate() {
        // Hidden or malformed: what stands before it is told by nobody who is known.
        let Some(node) = node else { break };
        found = (node, Some(index));
        if untrusted(&node) {
            break;
        }
    }
    found
}

/// "192.0.2.1", "192.0.2.1:80", "2001:db8::1", "[2001:db8::1]", "[2001:db8::1]:80".
fn node(text: &str) -> Option<Node> {
    let text = text.trim();
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    let (addr, port) = match text.parse::<SocketAddr>() {
        Ok(addr) => (addr.ip(), addr.port()),
        Err(_) => match bare {
            Some(v6) => (IpAddr::V6(v6.parse().ok()?), 0),
            None => (text.parse().ok()?, 0),
        },
    };
    Some((addr.to_canonical(), port))
}

/// All lines of a list as one. `None`: there is none, or it is not text.
fn joined(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let lines: Option<Vec<&str>> =
        headers.get_all(name).iter().map(|value| value.to_str().ok().map(str::trim)).collect();
    lines.filter(|lines| !lines.is_empty()).map(|lines| lines.join(", "))
}

/// The value of a field that is there once.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter().map(HeaderValue::to_str);
    match (values.next(), values.next()) {
        (Some(Ok(value)), None) => Some(value.trim()),
        _ => None,
    }
}

fn more(headers: &HeaderMap) -> Vec<(HeaderName, HeaderValue)> {
    let value = |name: &HeaderName| only(headers, name).and_then(|value| HeaderValue::from_str(value).ok());
    MORE.iter().filter_map(|name| Some((name.clone(), value(name)?))).collect()
}

fn scheme(headers: &HeaderMap) -> Option<&'static str> {
    only(headers, &X_FORWARDED_PROTO).and_then(scheme_of)
}

fn scheme_of(word: &str) -> Option<&'static str> {
    ["http", "https"].into_iter().find(|scheme| word.eq_ignore_ascii_case(scheme))
}

fn host(headers: &HeaderMap) -> Option<String> {
    only(headers, &X_FORWARDED_HOST).filter(|host| valid_host(host.as_bytes())).map(str::to_owned)
}

#[cfg(test)]
mod tests;
