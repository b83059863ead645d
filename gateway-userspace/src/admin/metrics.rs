//! `GET /metrics`: written by a thread of its own, that gives way to workers, and sent as it is written.

use std::{io, sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http_body_util::channel::{Channel, Sender};
use tokio::sync::{Semaphore, mpsc};

use crate::{
    daemon::Control,
    observe::metrics::{Format, Scrape},
    sync::give_way,
};

/// Scrapes at once.
const MOST: usize = 8;
static PLACES: Semaphore = Semaphore::const_new(MOST);

/// Pieces that are written ahead of who reads.
const AHEAD: usize = 4;
/// Who takes nothing for so long gets no more.
const PATIENCE: Duration = Duration::from_secs(10);
/// By how much writing gives way.
const NICE: i32 = 10;

enum Piece {
    Text(Vec<u8>),
    End,
}

pub async fn show(State(control): State<Arc<Control>>, headers: HeaderMap) -> Response {
    let format = Format::of(&headers);
    let Ok(place) = PLACES.try_acquire() else {
        return (StatusCode::SERVICE_UNAVAILABLE, "as many as may read metrics at once do\n").into_response();
    };
    let (to, pieces) = mpsc::channel(AHEAD);
    let write = move || {
        let scrape = Scrape::begin(&control);
        give_way(NICE);
        let whole = scrape.write(format, &mut |piece| {
            let taken = to.blocking_send(Piece::Text(piece)).is_ok();
            // A worker that waits for this CPU has it now.
            std::thread::yield_now();
            taken
        });
        if whole {
            let _ = to.blocking_send(Piece::End);
        }
    };
    if let Err(error) = std::thread::Builder::new().name("metrics".into()).spawn(write) {
        return (StatusCode::SERVICE_UNAVAILABLE, format!("there is no thread for it: {error}\n"))
            .into_response();
    }
    let (sender, body) = Channel::<Bytes, io::Error>::new(1);
    tokio::spawn(async move {
        forward(pieces, sender).await;
        drop(place);
    });
    ([(header::CONTENT_TYPE, format.content_type())], Body::new(body)).into_response()
}

/// What does not come to its end breaks off: half a page must not look whole.
async fn forward(mut pieces: mpsc::Receiver<Piece>, mut to: Sender<Bytes, io::Error>) {
    loop {
        let text = match pieces.recv().await {
            Some(Piece::Text(text)) => text,
            Some(Piece::End) => return,
            None => return to.abort(io::Error::other("the metrics could not be written")),
        };
        match tokio::time::timeout(PATIENCE, to.send_data(text.into())).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return,
            Err(_) => return to.abort(io::ErrorKind::TimedOut.into()),
        }
    }
}
