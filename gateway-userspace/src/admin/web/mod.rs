//! The admin API over TCP (`admin.http`) and the dashboard, a page in the browser that uses nothing but that API.
//!
//! Nothing of the API is answered without the token, or a session that was opened with it; the page itself tells nothing.

mod gate;
mod guard;
mod pages;
mod sessions;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{Extension, Router, extract::ConnectInfo, middleware};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
};

#[cfg(test)]
pub use gate::same_text;
pub use gate::{Gate, TokenError};

use super::{api, audit, peer::Peer};
use crate::{config::model::AdminHttp, daemon::Control};

/// Connections at once; each page has two.
const MOST: usize = 64;
/// A handshake, and a request's head.
const PATIENCE: Duration = Duration::from_secs(10);
/// After a failed accept, which is for want of descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves until `over`; what was asked before is still answered.
pub async fn serve(
    listener: TcpListener,
    gate: Gate,
    control: Arc<Control>,
    over: impl Future<Output = ()> + Send + 'static,
) {
    // As it was when the gate was opened: a reload changes nothing of it.
    let secure = gate.secure;
    let app = app(gate, &control);
    let places = Arc::new(Semaphore::new(MOST));
    let (stop, stopped) = watch::channel(false);
    let mut over = std::pin::pin!(over);
    loop {
        let place = tokio::select! {
            place = places.clone().acquire_owned() => place,
            () = &mut over => break,
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut over => break,
        };
        let Ok((stream, peer)) = accepted else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let (app, control, stopped) = (app.clone(), control.clone(), stopped.clone());
        tokio::spawn(async move {
            connection(stream, peer, (app, secure), &control, stopped).await;
            drop(place);
        });
    }
    drop(listener);
    stop.send_replace(true);
    drop(stopped);
    stop.closed().await;
}

fn app(gate: Gate, control: &Arc<Control>) -> Router {
    let gate = Arc::new(gate);
    let guarded = api::routes()
        .merge(sessions::mine())
        .layer(middleware::from_fn_with_state(gate.clone(), guard::guard))
        .with_state(control.clone());
    let open = sessions::login().with_state(gate.clone());
    let pages = if gate.dashboard { pages::routes() } else { Router::new() };
    let audited = middleware::from_fn_with_state(control.clone(), audit::audit);
    guarded
        .merge(open)
        .layer(audited)
        .merge(pages)
        .layer(Extension(gate))
        .layer(middleware::map_response(guard::harden))
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    (app, secure): (Router, bool),
    control: &Control,
    stopped: watch::Receiver<bool>,
) {
    let _ = stream.set_nodelay(true);
    let app = app.layer(Extension(ConnectInfo(Peer::Remote(crate::net::canonical(peer).ip()))));
    if !secure {
        return requests(stream, app, stopped).await;
    }
    let acceptor = control.snapshot.load().tls.acceptors.get(AdminHttp::AMONG_LISTENERS).cloned();
    let Some(acceptor) = acceptor else { return };
    let handshake = tokio_rustls::TlsAcceptor::from(acceptor.config()).accept(stream);
    if let Ok(Ok(stream)) = tokio::time::timeout(PATIENCE, handshake).await {
        requests(stream, app, stopped).await;
    }
}

async fn requests(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    app: Router,
    mut stopped: watch::Receiver<bool>,
) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(PATIENCE);
    let served = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(app));
    let mut served = std::pin::pin!(served);
    tokio::select! {
        // Clients that break off are no concern of anyone.
        _ = served.as_mut() => return,
        _ = stopped.wait_for(|stopped| *stopped) => {}
    }
    served.as_mut().graceful_shutdown();
    let _ = served.await;
}
