//! Who changed what by the admin API: a line in the process log for each request that is more than a look.

use axum::{
    extract::{ConnectInfo, Request},
    http::Method,
    middleware::Next,
    response::Response,
};

use super::peer::Peer;

pub async fn audit(request: Request, next: Next) -> Response {
    if *request.method() == Method::GET {
        return next.run(request).await;
    }
    let who = request.extensions().get::<ConnectInfo<Peer>>().map(|ConnectInfo(peer)| *peer);
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let answer = next.run(request).await;
    let (who, status) = (who.map_or("unknown".into(), Peer::name), answer.status().as_u16());
    tracing::info!(target: "audit", who, %method, path, status, "admin API");
    answer
}
