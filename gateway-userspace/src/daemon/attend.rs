//! Doing what is asked of the control thread, until the end.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use serde_json::json;
use tokio::{
    sync::{mpsc::UnboundedReceiver, oneshot},
    task::JoinHandle,
};

use super::{
    control::{Control, Reach, ReloadError, Request},
    manager,
    upgrade::{self, Outcome, Successor, UpgradeError},
};
use crate::{
    config::model::Config,
    observe::{events, trace},
    sync::give_way,
};

/// How long answers of the admin API and the metrics may still take, when another process serves them or nobody does.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// By how much reading a config gives way.
const NICE: i32 = 5;

/// Does what is asked until it is to stop, or another process takes over, and then stops. `asked`: the admin API and the
/// metrics, which end after the answers they owe.
pub async fn attend(
    control: &Arc<Control>,
    mut requests: UnboundedReceiver<Request>,
    asked: Vec<JoinHandle<()>>,
) {
    let mut now = false;
    let mut successor = None;
    while let Some(request) = requests.recv().await {
        match request {
            Request::Reload { reach, reply } => {
                manager::reloading();
                let read = read_aside(control).await;
                if let (Reach::Everything, Ok(config)) = (reach, &read) {
                    control.first_answers(config).await;
                }
                let _ = reply.send(control.reload(read, reach));
                control.follow_names(&control.snapshot.load_full().config);
                manager::ready();
            }
            Request::ReopenLogs => control.access_log.reopen(),
            Request::Upgrade { binary, timeout, reply } => {
                let outcome = upgrade::upgrade(control, &mut requests, binary, timeout).await;
                tell(&outcome);
                let answer = match outcome {
                    Outcome::Upgraded(other) => Ok(successor.insert(other).upgrade.clone()),
                    Outcome::Failed(error) => Err(error),
                    Outcome::Stop { now: at_once } => {
                        let _ = reply.send(Err(UpgradeError::Stopping));
                        now = at_once;
                        break;
                    }
                };
                let _ = reply.send(answer);
                if successor.is_some() {
                    break;
                }
            }
            Request::Stop { now: at_once } => {
                now = at_once;
                break;
            }
        }
    }
    match successor {
        Some(successor) => leave_to(control, &mut requests, successor).await,
        None => stop(control, &mut requests, now).await,
    }
    control.access_log.flush();
    trace::flush();
    end_admin(control, asked).await;
    tracing::info!("gateway stopped");
}

/// The config as it is in the file now, read and checked on a thread of its own: a large one takes a while, during which requests,
/// checks of targets and scrapes go on. It gives way to workers a little: if much, a reload takes a second where they leave nothing.
async fn read_aside(control: &Arc<Control>) -> Result<Config, ReloadError> {
    let (read, done) = oneshot::channel();
    let reader = control.clone();
    let reading = move || {
        give_way(NICE);
        let _ = read.send(reader.read_config());
    };
    match std::thread::Builder::new().name("config".into()).spawn(reading) {
        Ok(_) => done.await.map_err(|_| ReloadError::Stopping)?,
        Err(_) => control.read_config(),
    }
}

fn tell(outcome: &Outcome) {
    match outcome {
        Outcome::Upgraded(Successor { upgrade, .. }) => {
            let (pid, binary) = (upgrade.pid, upgrade.binary.display());
            tracing::info!(pid, %binary, "upgraded: another process serves");
            events::tell("upgrade", json!({ "ok": true, "pid": pid, "binary": binary.to_string() }));
        }
        Outcome::Failed(error) => {
            tracing::error!("not upgraded, this process goes on: {error}");
            events::tell("upgrade", json!({ "ok": false, "error": error.to_string() }));
        }
        Outcome::Stop { .. } => tracing::warn!("not upgraded: the gateway is to stop"),
    }
}

async fn stop(control: &Arc<Control>, requests: &mut UnboundedReceiver<Request>, now: bool) {
    manager::stopping();
    drain(control, requests, now).await;
    close_disks(control).await;
    control.keep_usages();
    control.kernel.stop();
    let _ = std::fs::remove_file(&control.ends.admin.0);
}

/// Everything that others see belongs to the other process; only connections are left here.
async fn leave_to(
    control: &Arc<Control>,
    requests: &mut UnboundedReceiver<Request>,
    mut successor: Successor,
) {
    control.silent.send_replace(true);
    close_disks(control).await;
    tokio::select! {
        () = drain(control, requests, false) => {}
        () = successor.keep_counting(control) => {}
    }
    successor.tell_counts(control).await;
}

/// Another process may have them now.
async fn close_disks(control: &Control) {
    let snapshot = control.snapshot.load_full();
    let _ = tokio::task::spawn_blocking(move || snapshot.close_disks()).await;
}

async fn end_admin(control: &Control, asked: Vec<JoinHandle<()>>) {
    control.silent.send_replace(true);
    let end = tokio::time::Instant::now() + LAST_ANSWERS;
    for task in asked {
        let _ = tokio::time::timeout_at(end, task).await;
    }
}

/// Lets what is under way finish, for as long as the config allows and nobody asks a second time.
async fn drain(control: &Arc<Control>, requests: &mut UnboundedReceiver<Request>, now: bool) {
    control.draining.store(true, Relaxed);
    control.stop_checks();
    control.close_listeners();
    let limit = if now { Duration::ZERO } else { control.snapshot.load().drain() };
    tracing::info!(?limit, "stopping: no new connections, those open may finish");
    control.workers.drain();
    let patience = tokio::time::sleep(limit);
    let ended = async {
        while !control.workers.ended() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let second = async {
        loop {
            match requests.recv().await {
                Some(Request::Stop { .. }) | None => return,
                Some(Request::Reload { reply, .. }) => drop(reply.send(Err(ReloadError::Stopping))),
                Some(Request::Upgrade { reply, .. }) => drop(reply.send(Err(UpgradeError::Stopping))),
                Some(Request::ReopenLogs) => control.access_log.reopen(),
            }
        }
    };
    let cut = tokio::select! {
        () = ended => false,
        () = patience => true,
        () = second => true,
    };
    if cut {
        tracing::warn!("connections still open are cut");
        control.workers.stop();
        let give_up = Instant::now() + Duration::from_secs(2);
        while !control.workers.ended() && Instant::now() < give_up {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}
