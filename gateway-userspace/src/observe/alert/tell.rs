//! Telling others: one task each, which tries again and never forgets the last word on an alert.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::{sync::Notify, task::JoinHandle};

use super::message::{Notice, body};
use crate::sync::lock;
use crate::{config::model::NotifyRule, observe::post::post, seal};

/// Alerts of so short a time are told of together.
const GROUP: Duration = Duration::from_millis(500);
const PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Somebody who is told; ends with its value.
#[derive(Debug)]
pub struct Teller {
    pub rule: NotifyRule,
    outbox: Arc<Outbox>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Outbox {
    /// By alert: only the last word counts.
    notices: Mutex<BTreeMap<String, Notice>>,
    filled: Notify,
    sent: AtomicU64,
    failed: AtomicU64,
}

impl Outbox {
    /// What has been said meanwhile is newer.
    fn put_back(&self, notices: Vec<Notice>) {
        let mut waiting = lock(&self.notices);
        for notice in notices {
            waiting.entry(notice.alert.clone()).or_insert(notice);
        }
    }
}

impl Drop for Teller {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Teller {
    pub fn start(name: &str, rule: NotifyRule, instance: &str) -> Self {
        let outbox = Arc::new(Outbox::default());
        let task = tokio::spawn(run(name.to_owned(), rule.clone(), instance.to_owned(), outbox.clone()));
        Teller { rule, outbox, task }
    }

    pub fn tell(&self, notice: Notice) {
        lock(&self.outbox.notices).insert(notice.alert.clone(), notice);
        self.outbox.filled.notify_one();
    }

    /// Messages that were taken, and attempts that failed.
    pub fn counts(&self) -> (u64, u64) {
        (self.outbox.sent.load(Relaxed), self.outbox.failed.load(Relaxed))
    }
}

async fn run(name: String, rule: NotifyRule, instance: String, outbox: Arc<Outbox>) {
    let mut pause = PAUSE;
    loop {
        outbox.filled.notified().await;
        tokio::time::sleep(GROUP).await;
        loop {
            let notices: Vec<Notice> = std::mem::take(&mut *lock(&outbox.notices)).into_values().collect();
            if notices.is_empty() {
                break;
            }
            let Err(error) = send(&rule, &instance, &notices).await else {
                outbox.sent.fetch_add(1, Relaxed);
                pause = PAUSE;
                continue;
            };
            outbox.failed.fetch_add(1, Relaxed);
            tracing::warn!(notify = name, error, again_in = ?pause, "an alert could not be told");
            outbox.put_back(notices);
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

async fn send(rule: &NotifyRule, instance: &str, notices: &[Notice]) -> Result<(), String> {
    let url = url(rule)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let body = body(rule.format, instance, notices, now).to_string().into_bytes();
    post(&url, "application/json", body).await.map(drop).map_err(|error| error.to_string())
}

/// Read each time: a file or a credential may change.
fn url(rule: &NotifyRule) -> Result<String, String> {
    use crate::config::model::{NotifyFormat, Webhook};
    let url = match &rule.webhook {
        Webhook::Plain(url) => url.clone(),
        Webhook::Secret(secret) => {
            let bytes = seal::read(secret).map_err(|error| error.to_string())?;
            std::str::from_utf8(&bytes).map_err(|_| "the webhook's URL is no text")?.trim().to_owned()
        }
    };
    let has_path =
        url.split_once("://").and_then(|(_, rest)| rest.split_once('/')).is_some_and(|(_, p)| !p.is_empty());
    Ok(match rule.format {
        NotifyFormat::Alertmanager if !has_path => format!("{}/api/v2/alerts", url.trim_end_matches('/')),
        _ => url,
    })
}
