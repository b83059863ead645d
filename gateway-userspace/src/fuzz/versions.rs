//! What clients call versions of an API.

use http::{HeaderMap, HeaderValue, Method};

use crate::{
    config,
    route::Asked,
    version::{Chooser, path_with, path_without},
};

const CONFIG: &str = r#"
[listener.a]
bind = ":80"
[route.a]
path = "/items/*"
to = ["10.0.0.1:1"]
[route.a.version]
from = ["path", "host", "header:api-version", "accept", "query:v"]
on_conflict = "first"
aliases = { latest = "v2" }
[route.a.version.v1]
[route.a.version.v2]
[route.a.version."1.5"]
[route.a.version.2026-06-01]
"#;

/// Lines: path, host, `api-version`, `accept`, query. One version or a reason, the same each time, and a version in the
/// path comes out of it and goes in again.
pub fn asked(bytes: &[u8]) {
    thread_local! {
        static CHOOSER: Option<Chooser> = config::parse(CONFIG, "x.toml".as_ref())
            .ok()
            .and_then(|config| Some(Chooser::new(config.routes["a"].versions.as_deref()?)));
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let mut lines = text.split('\n');
    let mut line = || lines.next().unwrap_or_default();
    let (path, host) = (line(), line());
    let mut headers = HeaderMap::new();
    for name in ["api-version", "accept"] {
        headers.extend(
            HeaderValue::from_str(line()).ok().map(|value| (http::HeaderName::from_static(name), value)),
        );
    }
    let query = lines.next();
    let asked = Asked { host, path, method: &Method::GET, headers: &headers, query };
    CHOOSER.with(|chooser| {
        let Some(chooser) = chooser else { panic!("the config is right") };
        let once = chooser.choose(&asked);
        assert_eq!(once, chooser.choose(&asked));
        if let Ok(picked) = once
            && picked.in_path
        {
            let name = path.split('/').nth(1).unwrap_or_default();
            let short = path_without(path, 0);
            assert!(
                short.starts_with('/')
                    && path_with(&short, 0, name).trim_end_matches('/') == path.trim_end_matches('/')
            );
        }
    });
}
