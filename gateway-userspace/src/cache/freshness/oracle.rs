//! The same messages, read by another implementation of RFC 9111: the npm package http-cache-semantics, which
//! `cargo xtask setup` installs. What is stored and used here may be stored and used by it too, and for as long; where it
//! is stricter or laxer than the RFC the difference is named.

use std::{
    io::Write,
    path::PathBuf,
    process::{Command, Stdio},
};

use http::{HeaderName, HeaderValue};
use serde_json::{Value, json};

use super::{super::directives::RequestDirectives, *};

const CASES: usize = 4000;
/// When responses come, and their `Date`.
const NOW: i64 = 1_800_000_000_000;

/// Judges each case: whether the response may be stored, for how long it is fresh, its age, and whether it is used.
const SCRIPT: &str = r#"
const CachePolicy = require(process.argv[1]);
const cases = JSON.parse(require('fs').readFileSync(0));
process.stdout.write(JSON.stringify(cases.map(({ request, response, then, now, later }) => {
  const policy = new CachePolicy(request, response, { shared: true, cacheHeuristic: 0.1, immutableMinTimeToLive: 0, trustServerDate: true });
  policy._responseTime = now;
  policy.now = () => later;
  return {
    storable: policy.storable(),
    maxAge: policy.maxAge(),
    age: policy.age(),
    fresh: policy.satisfiesWithoutRevalidation(then),
  };
})));
"#;

fn package() -> Option<PathBuf> {
    let modules = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/http-cache-tests/node_modules");
    modules.join("http-cache-semantics/index.js").canonicalize().ok()
}

type Fields = Vec<(&'static str, String)>;

/// A request, its response, and a later request for the same.
#[derive(Debug)]
struct Case {
    request: Fields,
    status: u16,
    response: Fields,
    then: Fields,
    /// Milliseconds after the response came.
    after: i64,
}

impl Case {
    fn any(random: &mut fastrand::Rng) -> Case {
        let mut request = Fields::new();
        if random.u8(..8) == 0 {
            request.push(("authorization", "Bearer x".into()));
        }
        if random.u8(..12) == 0 {
            request.push(("cache-control", "no-store".into()));
        }
        // Of others it stores nothing, whatever they say of themselves.
        let statuses = [200, 200, 200, 200, 203, 204, 300, 301, 302, 308, 404, 410, 501, 206];
        Case {
            request,
            status: statuses[random.usize(..statuses.len())],
            response: response(random),
            then: later_request(random),
            after: random.i64(0..120) * 1000 + 500,
        }
    }

    fn json(&self) -> Value {
        let object = |fields: &Fields| -> Value {
            fields.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect()
        };
        let asked = |fields: &Fields| {
            let mut headers = object(fields);
            headers["host"] = json!("a.test");
            json!({ "method": "GET", "url": "/", "headers": headers })
        };
        json!({
            "request": asked(&self.request),
            "response": { "status": self.status, "headers": object(&self.response) },
            "then": asked(&self.then),
            "now": NOW,
            "later": NOW + self.after,
        })
    }
}

fn seconds(random: &mut fastrand::Rng) -> u32 {
    [0, 1, 30, 60, 61, 90, 100, 3600][random.usize(..8)]
}

fn some(random: &mut fastrand::Rng, all: &[(u8, &str)]) -> String {
    let mut directives = Vec::new();
    for (one_in, name) in all {
        if random.u8(..*one_in) == 0 {
            directives.push(match name.strip_suffix('=') {
                Some(_) => format!("{name}{}", seconds(random)),
                None => (*name).to_owned(),
            });
        }
    }
    random.shuffle(&mut directives);
    directives.join(", ")
}

fn response(random: &mut fastrand::Rng) -> Fields {
    let at = |ms: i64| httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + Duration::from_millis(ms as u64));
    let mut fields = vec![("date", at(NOW))];
    let directives = some(
        random,
        &[
            (2, "max-age="),
            (4, "s-maxage="),
            (6, "public"),
            (14, "private"),
            (14, "no-store"),
            (12, "no-cache"),
            (6, "must-revalidate"),
            (12, "proxy-revalidate"),
            (10, "immutable"),
            (10, "x-other=1"),
        ],
    );
    if !directives.is_empty() {
        fields.push(("cache-control", directives));
    }
    if random.u8(..3) == 0 {
        let expires = NOW + (i64::from(seconds(random)) - 30) * 1000;
        fields.push(("expires", if random.u8(..6) == 0 { "0".into() } else { at(expires) }));
    }
    if random.u8(..3) == 0 {
        fields.push(("age", seconds(random).to_string()));
    }
    if random.u8(..3) == 0 {
        fields.push(("last-modified", at(NOW - i64::from(seconds(random)) * 10_000)));
    }
    if random.bool() {
        fields.push(("etag", "\"v\"".into()));
    }
    if random.u8(..14) == 0 {
        fields.push(("set-cookie", "a=b".into()));
    }
    fields
}

fn later_request(random: &mut fastrand::Rng) -> Fields {
    let directives = some(random, &[(5, "max-age="), (6, "min-fresh="), (5, "max-stale="), (12, "no-cache")]);
    if directives.is_empty() { Fields::new() } else { vec![("cache-control", directives)] }
}

fn map(fields: &Fields) -> HeaderMap {
    let pairs = fields.iter().map(|(name, value)| {
        (HeaderName::from_static(name), HeaderValue::try_from(value.as_str()).expect("a value"))
    });
    pairs.collect()
}

fn rules() -> Rules {
    Rules {
        ttl: None,
        override_ttl: false,
        negative: None,
        heuristic: true,
        while_revalidate: Duration::ZERO,
        if_error: Duration::ZERO,
        store_set_cookie: false,
    }
}

fn told(cases: &[Case], package: &std::path::Path) -> Vec<Value> {
    let mut node = Command::new("node")
        .args(["-e", SCRIPT, &package.display().to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("node starts");
    let cases: Value = cases.iter().map(Case::json).collect();
    node.stdin.take().expect("a pipe").write_all(cases.to_string().as_bytes()).expect("it reads");
    let output = node.wait_with_output().expect("it ends");
    serde_json::from_slice(&output.stdout).expect("it answers in JSON")
}

#[test]
fn another_reading_of_the_rfc_agrees() {
    let Some(package) = package() else {
        eprintln!("skipped: http-cache-semantics is not installed; `cargo xtask setup` installs it");
        return;
    };
    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    let cases: Vec<Case> = (0..CASES).map(|_| Case::any(&mut random)).collect();
    let time = |ms: i64| SystemTime::UNIX_EPOCH + Duration::from_millis(ms as u64);
    let (mut stored, mut fresh, mut stale) = (0, 0, 0);
    for (case, told) in cases.iter().zip(told(&cases, &package)) {
        let (request, response, then) = (map(&case.request), map(&case.response), map(&case.then));
        let asked = Asked {
            authorization: request.contains_key(header::AUTHORIZATION),
            no_store: RequestDirectives::of(&request).no_store,
            ..Asked::default()
        };
        let status = StatusCode::from_u16(case.status).expect("a status");
        let Ok(terms) = storable(&asked, status, &response, &rules(), time(NOW), time(NOW)) else { continue };
        stored += 1;
        let about = || format!("seed {seed}: {case:?}: {terms:?}, and it says {told}");
        assert_eq!(told["storable"], json!(true), "{}", about());
        let directives = ResponseDirectives::of(&response);
        // It takes proxy-revalidate for no lifetime at all, which only forbids use after it (section 5.2.2.8); and no-cache.
        if directives.proxy_revalidate || directives.no_cache {
            continue;
        }
        // It rounds heuristic lifetimes differently, and takes them without a bound.
        let explicit =
            directives.s_maxage.or(directives.max_age).is_some() || response.contains_key(header::EXPIRES);
        let told_lifetime = told["maxAge"].as_f64().unwrap_or_default() * 1000.0;
        if explicit {
            assert!((told_lifetime - terms.lifetime as f64).abs() < 1.0, "{}", about());
        }
        let later = time(NOW + case.after);
        let told_age = told["age"].as_f64().unwrap_or_default() * 1000.0;
        assert!((told_age - terms.age(later) as f64).abs() < 1.0, "{}", about());
        let wants = RequestDirectives::of(&then);
        let used = terms.judge(Some(&wants), None, later);
        match used {
            // It never uses what has must-revalidate, which speaks of what is stale (section 5.2.2.2).
            Use::Fresh | Use::Stale if directives.must_revalidate => {}
            Use::Fresh | Use::Stale => {
                fresh += 1;
                assert_eq!(told["fresh"], json!(true), "{used:?}: {}", about());
            }
            // max-stale is a client's wish, which s-maxage stands against (section 5.2.2.10); it does not know that.
            _ if wants.max_stale.is_some() => {}
            _ if explicit => {
                stale += 1;
                assert_eq!(told["fresh"], json!(false), "{used:?}: {}", about());
            }
            _ => {}
        }
    }
    // What was compared is not nothing.
    assert!(stored > CASES / 4 && fresh > CASES / 20 && stale > CASES / 20, "{stored} {fresh} {stale}");
}
