//! Every parser of ours as a function of bytes that must hold for any bytes: no panic, no hang, and agreement with
//! another reader or with itself. [`run`] mutates a corpus for them on stable Rust; see docs/testing.md.

mod answers;
mod auth;
mod caching;
mod config;
mod json_map;
mod limits;
mod requests;
mod run;
mod versions;
mod wire;

type Target = (&'static str, fn(&[u8]));

/// What is fuzzed, by the name of its folder in the corpus. It panics where something does not hold.
const TARGETS: [Target; 26] = [
    ("answer-body", answers::body),
    ("answer-head", answers::head),
    ("cache", caching::messages),
    ("cache-segment", caching::segment),
    ("certificate", config::certificate),
    ("config", config::config),
    ("config-formats", config::other_formats),
    ("cost", limits::cost),
    ("cookies", requests::cookies),
    ("credentials", auth::credentials),
    ("forwarded", requests::forwarded),
    ("host", requests::host),
    ("json", requests::json),
    ("json-map", json_map::apply),
    ("jwt", auth::jwt),
    ("kafka", wire::kafka),
    ("news", limits::news),
    ("packet", wire::packet),
    ("path", requests::path),
    ("proxy-protocol", wire::proxy_protocol),
    ("request-head", requests::head),
    ("sealed", auth::sealed),
    ("signature", auth::signature),
    ("template", config::template),
    ("trace-context", requests::trace_context),
    ("version", versions::asked),
];
