//! Listeners, certificates, TLS to upstreams.

use serde_json::{Value, json};

use super::some;
use crate::config::{
    model::{Acme, AdminHttp, Alpn, Cert, ClientAuth, Listener, Secret, Tls, TlsVersion, UpstreamTls},
    units::{ByteSize, show_duration},
};

pub(super) fn listener(listener: &Listener) -> Value {
    some([
        ("bind", Some(json!(listener.bind.to_string()))),
        (
            "max",
            Some(some([
                ("connections", Some(json!(listener.max.connections))),
                ("connections_per_source", listener.max.connections_per_source.map(|most| json!(most))),
                (
                    "handshakes_per_source",
                    listener.max.handshakes_per_source.map(|quota| json!(quota.to_string())),
                ),
                ("header", Some(json!(ByteSize(listener.max.header as u64)))),
                ("body", Some(listener.max.body.map_or(json!("unlimited"), |bytes| json!(ByteSize(bytes))))),
                ("streams", Some(json!(listener.max.streams))),
            ])),
        ),
        (
            "timeout",
            Some(json!({
                "header": show_duration(listener.timeout.header),
                "idle": show_duration(listener.timeout.idle),
                "body": show_duration(listener.timeout.body),
            })),
        ),
        ("protocols", Some(json!(protocols(listener)))),
        ("tls", listener.tls.as_ref().map(tls)),
        ("redirect", listener.redirect.map(|_| json!("https"))),
        (
            "hsts",
            listener.hsts.as_ref().map(|hsts| {
                json!({
                    "max_age": show_duration(hsts.max_age),
                    "subdomains": hsts.subdomains,
                    "preload": hsts.preload,
                })
            }),
        ),
        (
            "proxy_protocol",
            listener.proxy_protocol.as_ref().map(|proxy| json!({ "from": proxy.from.listed() })),
        ),
        (
            "real_ip",
            listener
                .real_ip
                .as_ref()
                .map(|real| json!({ "from": real.from.listed(), "header": real.header.word() })),
        ),
    ])
}

fn protocols(listener: &Listener) -> Vec<&'static str> {
    [("h1", listener.http1), ("h2", listener.http2)]
        .into_iter()
        .filter_map(|(name, spoken)| spoken.then_some(name))
        .collect()
}

pub(super) fn tls(tls: &Tls) -> Value {
    let alpn = || json!(tls.alpn.iter().map(|alpn| Alpn::name(*alpn)).collect::<Vec<_>>());
    let [ca, crl, client] = tls.client.as_ref().map(client_auth).unwrap_or_default();
    some([
        ("cert", Some(json!(cert_names(tls)))),
        ("min", Some(min(tls.min))),
        ("alpn", Some(if tls.alpn_auto { json!("auto") } else { alpn() })),
        ("client_ca", ca),
        ("client_crl", crl),
        ("client", client),
        (
            "clients",
            (!tls.clients.is_empty()).then(|| {
                tls.clients.iter().map(|(name, client)| (name.to_string(), clients(client))).collect()
            }),
        ),
        ("ticket_rotation", Some(json!(show_duration(tls.ticket_rotation)))),
    ])
}

/// `client_ca`, `client_crl` and `client`.
fn client_auth(client: &ClientAuth) -> [Option<Value>; 3] {
    [
        Some(json!(client.ca.to_string_lossy())),
        client.crl.as_ref().map(|path| json!(path.to_string_lossy())),
        Some(json!(if client.required { "require" } else { "request" })),
    ]
}

fn clients(client: &ClientAuth) -> Value {
    let [ca, crl, client] = client_auth(client);
    some([("client_ca", ca), ("client_crl", crl), ("client", client)])
}

/// As written: "auto" for those by ACME.
fn cert_names(tls: &Tls) -> Vec<&str> {
    let named = tls.certs.iter().map(String::as_str).filter(|name| !name.starts_with(Cert::ISSUED));
    named.chain(tls.auto.then_some("auto")).collect()
}

pub(super) fn acme(acme: &Acme) -> Value {
    some([
        ("email", acme.email.as_ref().map(|email| json!(email))),
        ("directory", Some(json!(acme.directory))),
        ("challenge", Some(json!(acme.challenge.word()))),
        ("names", Some(json!(acme.names.iter().map(ToString::to_string).collect::<Vec<_>>()))),
        ("storage", Some(json!(acme.storage.to_string_lossy()))),
        ("ca", acme.ca.as_ref().map(|ca| json!(ca.to_string_lossy()))),
    ])
}

fn min(version: TlsVersion) -> Value {
    json!(match version {
        TlsVersion::V12 => "1.2",
        TlsVersion::V13 => "1.3",
    })
}

pub(super) fn upstream_tls(tls: &UpstreamTls) -> Value {
    some([
        ("sni", tls.sni.as_ref().map(|name| json!(name))),
        ("ca", tls.ca.as_ref().map(|file| json!(file.to_string_lossy()))),
        ("cert", tls.cert.as_ref().map(|name| json!(name))),
        ("verify", Some(json!(tls.verify))),
        ("min", Some(min(tls.min))),
    ])
}

pub(super) fn cert(cert: &Cert) -> Value {
    json!({ "chain": cert.chain.to_string_lossy(), "key": secret(&cert.key) })
}

/// Where it is, not what.
pub(super) fn secret(secret: &Secret) -> Value {
    match secret {
        Secret::File(path) => json!({ "file": path.to_string_lossy() }),
        Secret::Env(variable) => json!({ "env": variable }),
        Secret::Credential(name) => json!({ "credential": name }),
    }
}

pub(super) fn admin_http(http: &AdminHttp) -> Value {
    some([
        ("bind", Some(json!(http.bind))),
        ("token", Some(secret(&http.token))),
        ("tls", http.tls.as_ref().map(tls)),
        ("dashboard", Some(json!(http.dashboard))),
    ])
}
