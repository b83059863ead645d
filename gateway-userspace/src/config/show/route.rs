//! Routes.

use serde_json::{Value, json};

use super::{auth, cache, some, version};
use crate::config::{
    model::{
        Compress, Cors, Destination, JsonMap, JsonSet, Matcher, Mirror, PathRewrite, Respond, Rewrite, Route,
        RouteRetry, RouteTimeout,
    },
    units::{ByteSize, Template, show_duration},
};

pub(super) fn route(route: &Route) -> Value {
    let hosts: Vec<String> = route.hosts.iter().map(ToString::to_string).collect();
    let (mut to, mut sticky, mut respond, mut redirect) = (None, None, None, None);
    match &route.to {
        Destination::Upstream(name) => to = Some(json!(name)),
        Destination::Split(split) => {
            to = Some(split.shares.iter().map(|(name, weight)| (name.clone(), json!(weight))).collect());
            sticky = split.sticky.as_ref().map(|sticky| json!(sticky.to_string()));
        }
        Destination::Respond(fixed) => {
            respond = Some(self::respond(fixed));
        }
        Destination::Redirect(there) => {
            redirect = Some(json!({ "to": there.to.to_string(), "status": there.status }))
        }
        Destination::Versions => {}
    }
    // With the segment for the version, where it does not come first.
    let with_version = route.versions.as_ref().filter(|versions| versions.segment > 0);
    let path = with_version.and_then(|versions| versions.paths.first()).unwrap_or(&route.path);
    let [allow_from, deny_from, max, content_types, encoded_slash, csrf] = auth::guard(&route.guard);
    some([
        ("host", (!hosts.is_empty()).then(|| json!(hosts))),
        ("path", Some(json!(path.to_string()))),
        ("methods", (!route.when.methods.is_empty()).then(|| json!(route.when.methods))),
        ("headers", matchers(&route.when.headers)),
        ("query", matchers(&route.when.query)),
        ("to", to),
        ("sticky", sticky),
        ("respond", respond),
        ("redirect", redirect),
        ("rewrite", rewrite(&route.rewrite)),
        ("cors", route.cors.as_ref().map(cors)),
        ("client_cache", route.client_cache.as_ref().map(cache::client)),
        ("cache", route.cache.as_ref().map(|name| json!(name))),
        ("compress", route.compress.as_ref().map(compress)),
        ("mirror", route.mirror.as_ref().map(mirror)),
        ("limit", (!route.limits.is_empty()).then(|| json!(route.limits))),
        ("upgrade", Some(json!(route.upgrade))),
        ("early_hints", Some(json!(route.early_hints))),
        ("grpc_web", Some(json!(route.grpc_web))),
        ("timeout", route_timeout(&route.timeout)),
        ("retry", route_retry(&route.retry)),
        ("auth", route.auth.as_ref().map(auth::route_auth)),
        ("allow", route.allow.as_ref().map(auth::allow)),
        allow_from,
        deny_from,
        max,
        content_types,
        encoded_slash,
        csrf,
        ("security_headers", route.security_headers.as_ref().map(auth::security_headers)),
        ("version", route.versions.as_deref().map(version::versions)),
    ])
}

fn cors(cors: &Cors) -> Value {
    json!({
        "origins": cors.origins.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "methods": cors.methods,
        "headers": cors.headers,
        "expose": cors.expose,
        "credentials": cors.credentials,
        "max_age": show_duration(cors.max_age),
    })
}

fn compress(compress: &Compress) -> Value {
    let codings: Vec<_> = compress.codings.iter().map(|coding| coding.word()).collect();
    json!({ "codings": codings, "min": ByteSize(compress.min), "types": compress.types })
}

fn mirror(mirror: &Mirror) -> Value {
    let body = ByteSize(mirror.body as u64);
    let compare = mirror.compare.as_ref().map(|compare| {
        let body = ByteSize(compare.body as u64);
        json!({ "ignore": compare.ignore, "headers": compare.headers, "body": body })
    });
    some([
        ("to", mirror.version.is_none().then(|| json!(mirror.to))),
        ("version", mirror.version.as_ref().map(|version| json!(version.name))),
        ("share", Some(json!(mirror.share))),
        ("body", Some(json!(body))),
        ("queue", Some(json!(mirror.queue))),
        ("compare", Some(compare.unwrap_or(json!(false)))),
    ])
}

fn rewrite(rewrite: &Rewrite) -> Option<Value> {
    let path = rewrite.path.as_ref().map(|path| match path {
        PathRewrite::To(to) => json!(to.to_string()),
        PathRewrite::Replace { regex, to } => json!({ "regex": regex.to_string(), "to": to.to_string() }),
    });
    let names = |names: &[String]| (!names.is_empty()).then(|| json!(names));
    let response = some([
        ("set", templates(&rewrite.response.set)),
        ("add", templates(&rewrite.response.add)),
        ("remove", names(&rewrite.response.remove)),
        ("json", rewrite.response_json.as_deref().map(json_map)),
    ]);
    let shown = some([
        ("path", path),
        ("set", templates(&rewrite.request.set)),
        ("add", templates(&rewrite.request.add)),
        ("remove", names(&rewrite.remove)),
        ("json", rewrite.json.as_deref().map(json_map)),
        (
            "response",
            Some(response).filter(|response| response.as_object().is_some_and(|all| !all.is_empty())),
        ),
    ]);
    Some(shown).filter(|shown| shown.as_object().is_some_and(|all| !all.is_empty()))
}

fn json_map(map: &JsonMap) -> Value {
    let value = |set: &JsonSet| match set {
        JsonSet::Text(template) => json!(template.to_string()),
        JsonSet::Json(text) => match serde_json::from_str(text) {
            Ok(plain @ Value::Bool(_)) => plain,
            Ok(Value::Number(number)) if number.as_i64().is_some_and(|number| number >= 0) => number.into(),
            _ => json!({ "json": text }),
        },
    };
    some([
        ("remove", (!map.remove.is_empty()).then(|| json!(map.remove))),
        (
            "rename",
            (!map.rename.is_empty())
                .then(|| map.rename.iter().map(|(from, to)| (from.clone(), json!(to))).collect()),
        ),
        (
            "set",
            (!map.set.is_empty())
                .then(|| map.set.iter().map(|(pointer, set)| (pointer.clone(), value(set))).collect()),
        ),
        ("max", Some(json!(ByteSize(map.max as u64)))),
    ])
}

fn templates(all: &[(String, Template)]) -> Option<Value> {
    let entries = || all.iter().map(|(name, template)| (name.clone(), json!(template.to_string())));
    (!all.is_empty()).then(|| Value::Object(entries().collect()))
}

fn matchers(all: &[(String, Matcher)]) -> Option<Value> {
    let one = |matcher: &Matcher| match matcher {
        Matcher::Is(text) => json!(text),
        Matcher::Present => json!(true),
        Matcher::Absent => json!(false),
        Matcher::Like(pattern) => json!({ "regex": pattern.to_string() }),
    };
    (!all.is_empty()).then(|| all.iter().map(|(name, matcher)| (name.clone(), one(matcher))).collect())
}

pub(super) fn respond(fixed: &Respond) -> Value {
    some([
        ("status", Some(json!(fixed.status))),
        ("body", Some(json!(fixed.body))),
        ("headers", templates(&fixed.headers)),
    ])
}

fn route_retry(retry: &RouteRetry) -> Option<Value> {
    let shown = some([
        ("on", retry.on.map(|on| json!(on.words()))),
        ("tries", retry.tries.map(|tries| json!(tries))),
        (
            "per_try",
            retry.per_try.map(|limit| limit.map_or(json!("off"), |limit| json!(show_duration(limit)))),
        ),
    ]);
    (*retry != RouteRetry::default()).then_some(shown)
}

fn route_timeout(timeout: &RouteTimeout) -> Option<Value> {
    let shown = some([
        ("first_byte", timeout.first_byte.map(|limit| json!(show_duration(limit)))),
        ("idle", timeout.idle.map(|limit| json!(show_duration(limit)))),
        ("total", timeout.total.map(|limit| limit.map_or(json!("off"), |limit| json!(show_duration(limit))))),
    ]);
    (*timeout != RouteTimeout::default()).then_some(shown)
}
