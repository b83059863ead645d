//! What several gateways share through a store, Redis or Valkey: limits, bans, purges. On a thread of its own, so that
//! nothing here waits for anything else; see docs/limits.md for what it promises.

mod batch;
mod link;
mod news;

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use redis::{RedisError, Script, aio::MultiplexedConnection};
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};

use self::{
    batch::Batch,
    link::{Link, late, patience},
};
use super::Control;
use crate::{
    config::model::{OnStoreError, Shared as Config},
    limit::{Ask, Store},
};
pub use news::{News, Outbox, left, parse};

const SPEND: &str = include_str!("spend.lua");
/// Between attempts to reach a store that is gone, and looks whether the config has another.
const AGAIN: Duration = Duration::from_millis(500);
/// How long what nobody waits for may wait for company.
const COMPANY: Duration = Duration::from_millis(10);

/// Starts the thread when the config first has a store.
pub async fn follow(control: Arc<Control>) {
    while control.snapshot.load().config.shared.is_none() {
        sleep(AGAIN).await;
    }
    let thread = std::thread::Builder::new().name("shared".into()).spawn(move || run(control));
    if let Err(error) = thread {
        tracing::error!(%error, "no thread for limits that gateways share");
    }
}

fn run(control: Arc<Control>) {
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(keep(control)),
        Err(error) => tracing::error!(%error, "no runtime for limits that gateways share"),
    }
}

/// What outlasts connections.
struct Keeper {
    control: Arc<Control>,
    store: Arc<Store>,
    script: Script,
    asks: mpsc::Receiver<Ask>,
    news: news::Desk,
    /// It was said that the store is gone.
    told: bool,
}

async fn keep(control: Arc<Control>) {
    let store = control.snapshot.load().limit_store.clone();
    let mut keeper = Keeper {
        asks: store.shared.asks(),
        news: news::Desk::new(&control.news),
        script: Script::new(SPEND),
        told: false,
        store,
        control,
    };
    loop {
        let config = keeper.control.snapshot.load().config.shared.clone();
        if let Some(config) = config {
            let failed = match Link::open(&config).await {
                Ok(link) => keeper.serve(&config, link).await,
                Err(why) => Some(why),
            };
            keeper.store.shared.up.store(false, Relaxed);
            if let Some(why) = failed {
                keeper.failed(&why);
            }
        }
        // Who asked while it was there decides alone now.
        while keeper.asks.try_recv().is_ok() {}
        sleep(AGAIN).await;
    }
}

impl Keeper {
    /// Says so once, until it is there again.
    fn failed(&mut self, why: &str) {
        self.store.shared.failed.fetch_add(1, Relaxed);
        if !std::mem::replace(&mut self.told, true) {
            let so = match self.store.shared.on_error() {
                OnStoreError::Local => "limits hold for this gateway alone",
                OnStoreError::Pass => "shared limits let everything in",
                OnStoreError::Refuse => "requests that shared limits hold for are refused",
            };
            tracing::warn!("{so}, as the store that it shares is not there: {why}");
        }
    }

    /// Until the store fails: why; or the config has another one.
    async fn serve(&mut self, config: &Config, link: Link) -> Option<String> {
        let Link { mut main, news: mut listening } = link;
        if let Err(error) =
            timeout(patience(config), self.script.load_async(&mut main)).await.unwrap_or_else(|_| Err(late()))
        {
            return Some(error.to_string());
        }
        self.store.shared.up.store(true, Relaxed);
        self.told = false;
        tracing::info!("limits, bans and purges are shared with the other gateways of {:?}", config.name);
        let Keeper { control, store, script, asks, news, .. } = self;
        let (mut writing, control) = (main.clone(), &*control);
        let ended = tokio::select! {
            error = spend(store, config, script, asks, &mut main) => Some(error),
            error = news.exchange(control, config, (&mut writing, &mut listening)) => Some(error),
            () = changed(control, config) => None,
        };
        ended.map(|error| error.to_string())
    }
}

async fn changed(control: &Control, config: &Config) {
    while control.snapshot.load().config.shared.as_ref() == Some(config) {
        sleep(AGAIN).await;
    }
}

/// Asks for everybody, as much at once as has come together, until the store fails.
async fn spend(
    store: &Store,
    config: &Config,
    script: &Script,
    asks: &mut mpsc::Receiver<Ask>,
    connection: &mut MultiplexedConnection,
) -> RedisError {
    let mut owed = Vec::new();
    loop {
        let mut batch = Batch::default();
        owed.drain(..).for_each(|ask| batch.add(ask));
        gather(asks, &mut batch).await;
        let exchange = batch.exchange(&config.name, script, connection);
        match timeout(patience(config), exchange).await.unwrap_or_else(|_| Err(late())) {
            Ok(answers) => {
                store.shared.exchanges.fetch_add(1, Relaxed);
                owed = batch.settle(store, &answers);
            }
            Err(error) => return error,
        }
    }
}

async fn gather(asks: &mut mpsc::Receiver<Ask>, batch: &mut Batch) {
    if batch.is_empty() {
        match asks.recv().await {
            Some(ask) => batch.add(ask),
            None => std::future::pending().await,
        }
    }
    let company = sleep(COMPANY);
    tokio::pin!(company);
    while !batch.urgent && !batch.is_full() {
        tokio::select! {
            ask = asks.recv() => match ask {
                Some(ask) => batch.add(ask),
                None => break,
            },
            () = &mut company => break,
        }
    }
    while !batch.is_full() {
        let Ok(ask) = asks.try_recv() else { break };
        batch.add(ask);
    }
}
