//! From a config to a running gateway, and down again.

use std::{
    io,
    path::PathBuf,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use tokio::sync::mpsc;

use super::{
    acme, certs,
    control::{Control, Reach, ReloadError, Request},
    services,
    signals::Signals,
    workers::Workers,
};
use crate::{
    admin,
    cli::exit::{self, Exit},
    config::{self, ConfigErrors, model::Config},
    kernel::KernelPlane,
    observe::{access_log::AccessLog, events, process_log, stats::Registry},
    runtime::Snapshot,
    service,
    tls::Tls,
};

/// Where the config comes from.
#[derive(Debug, Clone)]
pub enum Source {
    File(PathBuf),
    Flags { listen: Vec<String>, to: Vec<String> },
}

#[derive(Debug)]
pub struct Options {
    pub source: Source,
    /// Instead of the config's admin.socket.
    pub socket: Option<PathBuf>,
    /// Reload when a config file changes.
    pub watch: bool,
    /// 1: log at debug, 2: at trace, whatever the config says.
    pub verbose: u8,
}

impl Options {
    /// The config with what the command line says above it. A reload reads it by the same way, so the command line
    /// keeps its say.
    pub fn load(&self) -> Result<Config, ConfigErrors> {
        let mut config = match &self.source {
            Source::File(path) => config::load(path)?,
            Source::Flags { listen, to } => config::from_flags(listen, to)?,
        };
        if let Some(socket) = &self.socket {
            config.admin.socket = socket.clone();
        }
        match self.verbose {
            0 => {}
            1 => config.gateway.log.level = "debug".into(),
            _ => config.gateway.log.level = "trace".into(),
        }
        Ok(config)
    }
}

/// Runs until told to stop.
pub fn run(options: Options) -> Exit {
    let began = Instant::now();
    let config = match options.load() {
        Ok(config) => config,
        Err(errors) => {
            eprintln!("{errors}");
            return exit::USAGE;
        }
    };
    let log_control = process_log::init(&config.gateway.log);
    let tls = match Tls::load(&config, None) {
        Ok(tls) => tls,
        Err(errors) => {
            eprintln!("{errors}");
            return exit::USAGE;
        }
    };
    let kernel = match KernelPlane::start(&config.kernel) {
        Ok(kernel) => kernel,
        Err(error) => {
            tracing::error!("{error}");
            return exit::PRIVILEGE;
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default());
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "cannot start the control thread's runtime");
            return exit::FAILED;
        }
    };
    match runtime.block_on(serve(options, config, tls, log_control, kernel, began)) {
        Ok(()) => exit::OK,
        Err(error) => {
            tracing::error!("{error}");
            error.exit_code()
        }
    }
}

/// What can go wrong between a good config and a running gateway.
#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error(transparent)]
    Listener(#[from] ReloadError),
    #[error("access log: cannot write to {target}: {error}")]
    AccessLog { target: String, error: io::Error },
    #[error("metrics: cannot listen on {addr}: {error}")]
    Metrics { addr: std::net::SocketAddr, error: io::Error },
    #[error("admin API: {0}")]
    Admin(admin::SocketError),
    #[error("cannot start: {0}")]
    Other(#[from] io::Error),
}

impl StartError {
    fn exit_code(&self) -> Exit {
        if let StartError::Listener(ReloadError::Kernel(_) | ReloadError::ServicesOff(_)) = self {
            return exit::PRIVILEGE;
        }
        let denied = match self {
            StartError::Listener(ReloadError::Bind { error, .. }) | StartError::Metrics { error, .. } => {
                error.kind() == io::ErrorKind::PermissionDenied
            }
            _ => false,
        };
        if denied { exit::PRIVILEGE } else { exit::FAILED }
    }
}

async fn serve(
    options: Options,
    config: Config,
    tls: Tls,
    log_control: process_log::LogControl,
    kernel: KernelPlane,
    began: Instant,
) -> Result<(), StartError> {
    let signals = Signals::register()?;
    let admin_listener = admin::bind(&config.admin.socket).map_err(StartError::Admin)?;
    let metrics_listener = match config.metrics.bind {
        Some(addr) => Some(
            tokio::net::TcpListener::bind(addr).await.map_err(|error| StartError::Metrics { addr, error })?,
        ),
        None => None,
    };
    let access_log = AccessLog::start(&config.access_log.to)
        .map_err(|error| StartError::AccessLog { target: format!("{:?}", config.access_log.to), error })?;
    let count = worker_count(&config);
    let registry = Arc::new(Registry::new(count));
    let services = service::compile(&config.services, None);
    let first = Snapshot::compile(config, services, tls, 1, None, &registry);
    let snapshot = Arc::new(ArcSwap::from_pointee(first));
    let workers = Workers::start(count, &snapshot, &access_log)?;
    warn(&snapshot.load().config);
    let (requests, received) = mpsc::unbounded_channel();
    tokio::task::spawn_local(signals.forward(requests.clone()));
    let control = Arc::new(Control::new(
        options,
        snapshot,
        registry,
        access_log,
        kernel,
        workers,
        log_control,
        requests,
    ));
    let first = control.snapshot.load_full();
    control.set_services(&first.config, &first.services)?;
    control.open_listeners()?;
    control.start_checks(&first);
    control.watch_certs(&first);
    drop(first);
    let _admin = admin::serve(admin_listener, control.clone());
    if let Some(listener) = metrics_listener {
        tokio::spawn(admin::serve_metrics(listener, control.clone()));
    }
    tokio::task::spawn_local(upkeep(control.clone()));
    tokio::task::spawn_local(tick_upstreams(control.clone()));
    tokio::task::spawn_local(services::follow(control.clone()));
    tokio::task::spawn_local(services::verify(control.clone()));
    tokio::task::spawn_local(certs::follow(control.clone()));
    tokio::task::spawn_local(acme::follow(control.clone()));
    tokio::task::spawn_local(crate::kernel_log::forward(control.clone()));
    tokio::task::spawn_local(watch(control.clone(), control.options.watch));
    let config = &control.snapshot.load().config;
    let listening: Vec<String> =
        config.listeners.values().map(|listener| config::show_bind(listener.bind)).collect();
    tracing::info!(
        workers = count,
        listening = listening.join(" "),
        kernel = control.kernel.status().summary(),
        took = ?began.elapsed(),
        "gateway {} is up", env!("CARGO_PKG_VERSION")
    );
    let _ = sd_notify::notify(false, &[sd_notify::NotifyState::Ready]);
    crate::kernel::sys::trim_heap();
    attend(&control, received).await;
    Ok(())
}

/// Settings that are right and do nothing, or cannot work on this host.
fn warn(config: &Config) {
    let kernel = &config.kernel;
    let limit = &kernel.limit;
    let wanted = limit.packets.is_some()
        || limit.new.is_some()
        || limit.bytes.is_some()
        || !kernel.classes.is_empty()
        || !kernel.block.prefixes.is_empty();
    if wanted && kernel.interfaces.is_empty() {
        tracing::warn!(
            "kernel.limit, kernel.class and kernel.block do nothing: kernel.interfaces names no interface"
        );
    }
    service::unreachable(config).iter().for_each(|warning| tracing::warn!("{warning}"));
}

fn worker_count(config: &Config) -> usize {
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    config.gateway.workers.map_or_else(cores, usize::from).max(1)
}

/// Does what is asked until it is to stop, and then stops.
async fn attend(control: &Arc<Control>, mut requests: mpsc::UnboundedReceiver<Request>) {
    let mut now = false;
    while let Some(request) = requests.recv().await {
        match request {
            Request::Reload { reach, reply } => {
                let _ = sd_notify::notify(false, &[sd_notify::NotifyState::Reloading]);
                let _ = reply.send(control.reload(reach));
                let _ = sd_notify::notify(false, &[sd_notify::NotifyState::Ready]);
            }
            Request::ReopenLogs => control.access_log.reopen(),
            Request::Stop { now: at_once } => {
                now = at_once;
                break;
            }
        }
    }
    drain(control, &mut requests, now).await;
    control.kernel.stop();
    control.access_log.flush();
    let socket = control.snapshot.load().config.admin.socket.clone();
    let _ = std::fs::remove_file(socket);
    tracing::info!("gateway stopped");
}

/// Lets what is under way finish, for as long as the config allows and nobody asks a second time.
async fn drain(control: &Arc<Control>, requests: &mut mpsc::UnboundedReceiver<Request>, now: bool) {
    let _ = sd_notify::notify(false, &[sd_notify::NotifyState::Stopping]);
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

/// Once a second: expired bans and overrides, and a sign of life for a watching service manager.
async fn upkeep(control: Arc<Control>) {
    let mut every = tokio::time::interval(Duration::from_secs(1));
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        for cidr in control.kernel.tick() {
            events::tell("ban_over", serde_json::json!({ "cidr": cidr }));
        }
        control.expire_overrides();
        let _ = sd_notify::notify(false, &[sd_notify::NotifyState::Watchdog]);
    }
}

/// What time alone changes in upstreams: ejections that are over, targets that start slowly.
async fn tick_upstreams(control: Arc<Control>) {
    let mut every = tokio::time::interval(Duration::from_millis(100));
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        control.snapshot.load().upstreams.values().for_each(|upstream| upstream.tick());
    }
}

/// Takes up changed files once they have been left alone for a moment: block lists always, the whole config with
/// `--watch`. The outcomes are logged.
async fn watch(control: Arc<Control>, whole: bool) {
    let files = |control: &Control| {
        let snapshot = control.snapshot.load();
        let config = &snapshot.config;
        stamps(if whole { &config.files } else { &config.kernel.block.files })
    };
    let mut seen = files(&control);
    loop {
        tokio::time::sleep(Duration::from_millis(500)).await;
        if files(&control) == seen {
            continue;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        let _ = control.ask_reload(if whole { Reach::Everything } else { Reach::BlockLists }).await;
        seen = files(&control);
    }
}

/// What tells whether a file was written or replaced.
fn stamps(files: &[PathBuf]) -> Vec<Option<(std::time::SystemTime, u64)>> {
    let stamp = |path: &PathBuf| {
        let meta = std::fs::metadata(path).ok()?;
        Some((meta.modified().ok()?, meta.len()))
    };
    files.iter().map(stamp).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_command_line_says_holds_however_often_the_config_is_loaded() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("gateway.toml");
        std::fs::write(&file, "[listener.web]\nbind = \":8080\"\n[route.all]\nto = [\"127.0.0.1:3000\"]\n")
            .unwrap();
        let socket = dir.path().join("other.sock");
        let options =
            Options { source: Source::File(file), socket: Some(socket.clone()), watch: false, verbose: 1 };
        let (first, again) = (options.load().unwrap(), options.load().unwrap());
        assert_eq!((&first.admin.socket, first.gateway.log.level.as_str()), (&socket, "debug"));
        assert!(config::diff(&first, &again).is_empty());
    }
}
