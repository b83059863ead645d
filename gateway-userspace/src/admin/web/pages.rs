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
        router.route(path, get(move |headers: HeaderMap| async move { file(&headers, kind, text) }))
    })
}

/// Browsers ask each time, and get it anew after an upgrade only.
fn file(headers: &HeaderMap, kind: &'static str, text: &'static str) -> Response {
    let tag = concat!("\"", env!("CARGO_PKG_VERSION"), "-");
    let tag = format!("{tag}{:x}\"", text.len() ^ checksum(text));
    let known = headers.get(header::IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == tag.as_bytes());
    let fields = [(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "no-cache")];
    let tag = [(header::ETAG, tag)];
    if known {
        return (StatusCode::NOT_MODIFIED, fields, tag).into_response();
    }
    (fields, tag, text).into_response()
}

fn checksum(text: &str) -> usize {
    text.bytes().fold(5381, |sum: usize, byte| sum.wrapping_mul(33) ^ usize::from(byte))
}
