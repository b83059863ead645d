//! Who may call, and what they may do.

mod api_key;
mod basic;
mod forward;
mod guard;
mod jwt;
mod keys;
mod mtls;
mod signed;

use lab::prelude::*;

/// `config`: everything but the listener and the upstream `app`.
fn rig(config: &str) -> Result<Rig> {
    Rig::start(1, |backends| {
        let app = &backends[0].addr;
        format!("[listener.web]\nbind = \":80\"\n[upstream.app]\nto = \"{app}\"\n{config}")
    })
}

fn ask(rig: &Rig, request: &str, fields: &str) -> Result<Response> {
    rig.ask(request, "shop.test", fields)
}

/// All values of a field that the backend saw.
fn seen(answer: &Response, name: &str) -> Result<Vec<String>> {
    Ok(http::echoed(&answer.json()?, name))
}

/// As the config writes it.
fn hash(key: &str) -> String {
    format!("blake3:{}", blake3::hash(key.as_bytes()).to_hex())
}

/// `auth_total` of one result.
fn counted(rig: &Rig, auth: &str, result: &str) -> Result<f64> {
    Ok(rig.gateway.metrics()?.sum("auth_total", &[("auth", auth), ("result", result)]))
}
