//! The dashboard's files, which are part of the program.

use axum::{
    Router,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};

/// Path, type, contents.
const FILES: &[(&str, &str, &str)] = &[
    ("/", "text/html; charset=utf-8", include_str!("../../../dashboard/index.html")),
    ("/style.css", "text/css; charset=utf-8", include_str!("../../../dashboard/style.css")),
    ("/app.js", "text/javascript; charset=utf-8", include_str!("../../../dashboard/app.js")),
    ("/api.js", "text/javascript; charset=utf-8", include_str!("../../../dashboard/api.js")),
    ("/draw.js", "text/javascript; charset=utf-8", include_str!("../../../dashboard/draw.js")),
    ("/views.js", "text/javascript; charset=utf-8", include_str!("../../../dashboard/views.js")),
    ("/icon.svg", "image/svg+xml", include_str!("../../../dashboard/icon.svg")),
];

pub fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    FILES.iter().fold(Router::new(), |router, (path, kind, text)| {
        let tag = tag(text);
        router.route(path, get(move |headers: HeaderMap| async move { file(&headers, kind, text, tag) }))
    })
}

/// Browsers ask each time, and get it anew after an upgrade only.
fn file(headers: &HeaderMap, kind: &'static str, text: &'static str, tag: String) -> Response {
    let known = headers.get(header::IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == tag.as_bytes());
    let fields = [
        (header::CONTENT_TYPE, kind.to_owned()),
        (header::CACHE_CONTROL, "no-cache".into()),
        (header::ETAG, tag),
    ];
    match known {
        true => (StatusCode::NOT_MODIFIED, fields).into_response(),
        false => (fields, text).into_response(),
    }
}

fn tag(text: &str) -> String {
    let sum = text.bytes().fold(5381, |sum: usize, byte| sum.wrapping_mul(33) ^ usize::from(byte));
    format!("\"{}-{sum:x}\"", env!("CARGO_PKG_VERSION"))
}
