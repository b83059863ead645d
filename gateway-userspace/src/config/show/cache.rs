//! `[cache.NAME]`.

use std::time::Duration;

use serde_json::{Value, json};

use crate::config::{
    model::{Cache, ClientCache, KeyPart},
    units::{ByteSize, show_duration},
};

pub(super) fn cache(cache: &Cache) -> Value {
    let or_off = |duration: Option<Duration>| duration.map_or("off".into(), show_duration);
    let some = |duration: Duration| or_off(Some(duration).filter(|duration| !duration.is_zero()));
    let parts = |parts: &[KeyPart]| parts.iter().map(ToString::to_string).collect::<Vec<_>>();
    let mut shown = json!({
        "memory": ByteSize(cache.memory),
        "ttl": or_off(cache.ttl),
        "override": cache.override_ttl,
        "negative": or_off(cache.negative),
        "heuristic": cache.heuristic,
        "stale": {
            "while_revalidate": some(cache.while_revalidate),
            "if_error": some(cache.if_error),
        },
        "key": parts(&cache.key),
        "methods": cache.methods,
        "max_request": ByteSize(cache.max_request),
        "bypass": parts(&cache.bypass),
        "coalesce": cache.coalesce,
        "max_body": ByteSize(cache.max_body),
        "variants": cache.variants,
        "store_set_cookie": cache.store_set_cookie,
    });
    if let Some(disk) = &cache.disk {
        shown["disk"] = json!({ "path": disk.path, "size": ByteSize(disk.size) });
    }
    shown
}

pub(super) fn client(client: &ClientCache) -> Value {
    let mut shown = json!({ "override": client.over, "etag": client.etag, "max": ByteSize(client.max) });
    if let Some(control) = &client.control {
        shown["control"] = json!(control);
    }
    shown
}
