//! L7 limits: R1 to R16.

mod bans;
mod dynamic;
mod halves;
mod keys;
mod overload;
mod quotas;
mod shared;
mod units;

use lab::prelude::*;

/// `limits` and the keys of the route `all`, which leads to one backend.
fn rig(limits: &str, route: &str) -> Result<Rig> {
    Rig::start(1, |backends| config(&backends[0].addr.to_string(), limits, route))
}

fn config(app: &str, limits: &str, route: &str) -> String {
    format!(
        "[gateway]\nworkers = 2\n[listener.web]\nbind = \":80\"\n[upstream.app]\nto = \"{app}\"\n\
         [route.all]\nto = \"app\"\n{route}\n{limits}\n"
    )
}

/// GETs a path on a connection of its own.
fn get(rig: &Rig, path: &str, fields: &str) -> Result<Response> {
    rig.ask(&format!("GET {path}"), "a", fields)
}

/// How many of `n` are answered 200; the others must be answered 429.
fn passed(rig: &Rig, n: usize, fields: &str) -> Result<usize> {
    let mut passed = 0;
    for _ in 0..n {
        match get(rig, "/", fields)?.status {
            200 => passed += 1,
            429 => {}
            status => bail!("status {status}"),
        }
    }
    Ok(passed)
}

/// `name=value` of the item of a `RateLimit` or `RateLimit-Policy` field.
fn parameter(field: &str, item: &str, name: &str) -> Result<u64> {
    let item = field.split(", ").find(|one| one.starts_with(&format!("\"{item}\""))).context("no item")?;
    let value = item.split(';').find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
    value.with_context(|| format!("no {name} in {field}"))?.parse().context("not a number")
}
