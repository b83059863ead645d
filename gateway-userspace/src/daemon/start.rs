//! From a config to a running gateway, and down again.

use std::{
    io,
    path::PathBuf,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Instant,
};

use arc_swap::ArcSwap;
use tokio::sync::mpsc;

use super::{
    acme, adapt,
    attend::attend,
    bans, certs,
    control::{Control, ReloadError},
    discover::Names,
    ends::{self, Ends},
    handover::Handed,
    inherited::Inherited,
    manager, privileges, services, shared,
    signals::Signals,
    takeover::Takeover,
    upkeep,
    workers::Workers,
};
use crate::{
    admin,
    auth::Auths,
    cache,
    cli::exit::{self, Exit},
    config::{self, ConfigErrors, model::Config},
    kernel::{KernelError, KernelPlane},
    net,
    observe::{access_log::AccessLog, events, process_log, stats::Registry},
    runtime::Snapshot,
    seal::Vault,
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
    privileges::hide_memory();
    net::raise_descriptors();
    // First of all: the descriptors that came with the start must not be taken for anything else.
    let mut before = match Takeover::begin() {
        Ok(before) => before,
        Err(error) => {
            eprintln!("cannot take the place of the process that started this one: {error}");
            return exit::FAILED;
        }
    };
    let Err(error) = start(options, &mut before, began) else { return exit::OK };
    if let Some(before) = &before {
        before.fail(&error.to_string());
    }
    match &error {
        // There is no log yet.
        StartError::Config(_) | StartError::Inherited(_) => eprintln!("{error}"),
        other => tracing::error!("{other}"),
    }
    error.exit_code()
}

fn start(options: Options, before: &mut Option<Takeover>, began: Instant) -> Result<(), StartError> {
    let inherited = match before {
        Some(before) => std::mem::take(&mut before.listeners),
        None => Inherited::from_manager().map_err(StartError::Inherited)?,
    };
    let config = options.load()?;
    let log_control = process_log::init(&config.gateway.log);
    let vault = Vault::load(&config, None)?;
    let tls = Tls::load(&config, &vault, None)?;
    let handed = match before {
        Some(before) => before.claim().map_err(StartError::Takeover)?,
        None => Handed::default(),
    };
    let kernel = KernelPlane::start(&config.kernel)?;
    kernel.inherit(handed.kernel.clone());
    privileges::keep_what_reloads_need();
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default())?;
    let parts = Parts { options, config, tls, log_control, kernel, inherited, handed };
    runtime.block_on(serve(parts, before, began))
}

/// What a gateway is made of.
struct Parts {
    options: Options,
    config: Config,
    tls: Tls,
    log_control: process_log::LogControl,
    kernel: KernelPlane,
    inherited: Inherited,
    handed: Handed,
}

/// What can go wrong before a gateway runs.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    #[error(transparent)]
    Kernel(#[from] KernelError),
    #[error("socket activation: {0}")]
    Inherited(io::Error),
    #[error("cannot take over from the old process: {0}")]
    Takeover(io::Error),
    #[error(transparent)]
    Listener(#[from] ReloadError),
    #[error("access log: cannot write to {target}: {error}")]
    AccessLog { target: String, error: io::Error },
    #[error("metrics: cannot listen on {addr}: {error}")]
    Metrics { addr: std::net::SocketAddr, error: io::Error },
    #[error("admin.http: cannot listen on {addr}: {error}")]
    AdminHttp { addr: std::net::SocketAddr, error: io::Error },
    #[error("admin.http.token: {0}")]
    Token(admin::TokenError),
    #[error("admin API: {0}")]
    Admin(admin::SocketError),
    #[error("cannot start: {0}")]
    Other(#[from] io::Error),
}

impl StartError {
    fn exit_code(&self) -> Exit {
        match self {
            StartError::Config(_) => return exit::USAGE,
            StartError::Kernel(_)
            | StartError::Listener(ReloadError::Kernel(_) | ReloadError::ServicesOff(_)) => {
                return exit::PRIVILEGE;
            }
            _ => {}
        }
        let denied = match self {
            StartError::Listener(ReloadError::Bind { error, .. })
            | StartError::AdminHttp { error, .. }
            | StartError::Metrics { error, .. } => error.kind() == io::ErrorKind::PermissionDenied,
            _ => false,
        };
        if denied { exit::PRIVILEGE } else { exit::FAILED }
    }
}

async fn serve(parts: Parts, before: &mut Option<Takeover>, began: Instant) -> Result<(), StartError> {
    let Parts { options, config, tls, log_control, kernel, inherited, handed } = parts;
    let signals = Signals::register()?;
    let ends = Ends::open(&config, before.as_mut())?;
    let (admin_listener, metrics_listener) = (ends.admin()?, ends::listener(&ends.metrics)?);
    let http_listener = ends::listener(&ends.http)?;
    let gate = config.admin.http.as_ref().map(admin::Gate::open).transpose().map_err(StartError::Token)?;
    let access_log = AccessLog::start(&config.access_log)
        .map_err(|error| StartError::AccessLog { target: config.access_log.to.show(), error })?;
    events::write_to(&access_log);
    let count = worker_count(&config);
    let registry = Arc::new(Registry::new(count));
    let auths = Arc::new(Auths::load(&config, &tls.vault, None, &registry)?);
    let disks = Arc::new(cache::disk::place::load(&config, &tls.vault)?);
    let services = service::compile(&config.services, None, &registry);
    let names = Names::new(handed.names.clone());
    let first = Snapshot::compile(
        config,
        services,
        (tls, auths, disks),
        &names.answers(),
        handed.generation + 1,
        None,
        &registry,
    );
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
        inherited,
        ends,
        names,
    ));
    let over = || {
        let mut silent = control.silent.subscribe();
        async move { drop(silent.wait_for(|over| *over).await) }
    };
    let mut asked = Vec::new();
    let health = |listener| tokio::spawn(admin::serve_metrics(listener, control.clone(), over()));
    // An earlier process answers for as long as this one is not ready.
    let metrics_later = match before {
        Some(_) => metrics_listener,
        None => {
            asked.extend(metrics_listener.map(health));
            None
        }
    };
    let first = control.snapshot.load_full();
    control.follow_names(&first.config);
    control.first_answers(&first.config).await;
    control.recall(&handed);
    if before.is_none() {
        control.load_usages();
    }
    let first = control.snapshot.load_full();
    control.set_services(&first.config, &first.services)?;
    control.open_listeners()?;
    control.start_checks(&first);
    control.watch_certs(&first);
    control.alerts.configure(&first.config, &first.tls.vault);
    control.follow_issuers(&first);
    drop(first);
    control.serving.store(true, Relaxed);
    asked.push(tokio::spawn(admin::serve(admin_listener, control.clone(), over())));
    asked.extend(metrics_later.map(health));
    if let (Some(listener), Some(gate)) = (http_listener, gate) {
        asked.push(tokio::spawn(admin::serve_http(listener, gate, control.clone(), over())));
    }
    tokio::task::spawn_local(upkeep::every_second(control.clone()));
    tokio::task::spawn_local(upkeep::tick_upstreams(control.clone()));
    control.snapshot.load().limit_store.set_kernel(control.kernel.view());
    let offences = control.snapshot.load().limit_store.offences();
    tokio::task::spawn_local(bans::follow(control.clone(), offences));
    tokio::task::spawn_local(adapt::follow(control.clone()));
    tokio::task::spawn_local(shared::follow(control.clone()));
    tokio::task::spawn_local(services::follow(control.clone()));
    tokio::task::spawn_local(services::verify(control.clone()));
    tokio::task::spawn_local(certs::follow(control.clone()));
    tokio::task::spawn_local(acme::follow(control.clone()));
    tokio::task::spawn_local(crate::kernel_log::forward(control.clone()));
    tokio::task::spawn_local(upkeep::watch(control.clone(), control.options.watch));
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
    if let Some(before) = before.take() {
        before.ready();
        before.follow(control.registry.clone())?;
    }
    manager::ready();
    tokio::task::spawn_local(manager::watchdog());
    crate::kernel::sys::trim_heap();
    attend(&control, received, asked).await;
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
    let most: u64 = config.listeners.values().map(|listener| u64::from(listener.max.connections)).sum();
    if let Some(descriptors) = net::most_descriptors().filter(|descriptors| *descriptors < most) {
        tracing::info!(
            "listeners may have {most} connections, but the process only {descriptors} file descriptors: raise its \
             limit (LimitNOFILE= of a unit, ulimit -Hn), or lower max.connections"
        );
    }
    service::unreachable(config).iter().for_each(|warning| tracing::warn!("{warning}"));
}

fn worker_count(config: &Config) -> usize {
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    config.gateway.workers.map_or_else(cores, usize::from).max(1)
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
