//! [`Control`]: what the admin API, the metrics and the signals act on.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant, SystemTime},
};

use arc_swap::ArcSwap;
use serde_json::json;
use tokio::sync::{Notify, mpsc, oneshot, watch};

use super::{
    acme,
    discover::Names,
    ends::Ends,
    inherited::Inherited,
    recent::Recent,
    shared::Outbox,
    start::{Options, Source},
    upgrade::{Upgrade, UpgradeError},
    workers::{Door, Sockets, Workers},
};
use crate::{
    auth::{Auths, Jwks},
    cache,
    config::{
        self, ConfigErrors,
        model::{Bind, Config, L4Protocol},
    },
    kernel::{Inheritance, KernelError, KernelPlane, SteerListener},
    net,
    observe::{
        access_log::{self, AccessLog},
        alert::Alerts,
        events,
        process_log::LogControl,
        stats::Registry,
    },
    runtime::Snapshot,
    seal::Vault,
    service,
    sync::lock,
    tls::{self, Tls},
    upstream::{Upstream, health::Checks},
};

/// What can be asked of the control thread.
pub enum Request {
    Reload {
        reach: Reach,
        reply: oneshot::Sender<Result<Reload, ReloadError>>,
    },
    /// Drain, or (`now`) not even that.
    Stop {
        now: bool,
    },
    ReopenLogs,
    /// Another process takes this one's place.
    Upgrade {
        /// `None`: this program's file, as it is now.
        binary: Option<PathBuf>,
        /// How long it may take until it serves.
        timeout: Option<Duration>,
        reply: oneshot::Sender<Result<Upgrade, UpgradeError>>,
    },
}

/// How much of the config is taken up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    Everything,
    /// The block lists' files, and nothing else that may have been edited meanwhile.
    BlockLists,
}

/// What a reload did.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Reload {
    pub generation: u64,
    pub changes: Vec<config::Change>,
    /// Settings that differ from the running ones and need a restart.
    pub needs_restart: Vec<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    #[error("{0}")]
    Config(#[from] ConfigErrors),
    #[error("{door}: cannot listen on {bind}: {error}")]
    Bind { door: Door, bind: String, error: io::Error },
    #[error("access log: cannot write to it: {0}")]
    AccessLog(io::Error),
    #[error(transparent)]
    Kernel(#[from] KernelError),
    #[error("services are not served: {0}; kernel.required is true")]
    ServicesOff(String),
    #[error("this gateway was started with --listen and --to: there is no file to load again")]
    NoFile,
    #[error("an upgrade is under way")]
    Upgrading,
    #[error("the gateway is stopping")]
    Stopping,
}

/// What changes over the daemon's life besides the snapshot.
#[derive(Debug, Clone)]
pub struct State {
    pub reloads_ok: u64,
    pub reloads_failed: u64,
    pub last_success: SystemTime,
    /// The last reload's failure; gone with the next success.
    pub last_error: Option<String>,
}

pub struct Control {
    pub options: Options,
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    pub registry: Arc<Registry>,
    pub access_log: AccessLog,
    pub kernel: KernelPlane,
    pub workers: Workers,
    pub started: Instant,
    pub started_at: SystemTime,
    pub draining: AtomicBool,
    /// The first config is in force: listeners are open.
    pub serving: AtomicBool,
    pub requests: mpsc::UnboundedSender<Request>,
    /// Told when checks or operators change a service's target.
    pub services_changed: Arc<Notify>,
    /// Turns true when this process no longer serves the admin API and the metrics.
    pub silent: watch::Sender<bool>,
    state: Mutex<State>,
    log_control: LogControl,
    /// The sockets in use, kept for steering: the kernel's map wants all of them anew when listeners change.
    pub(super) sockets: Mutex<BTreeMap<Door, (Bind, Vec<std::net::TcpListener>)>>,
    /// What listeners find open already.
    inherited: Mutex<Inherited>,
    pub(super) ends: Ends,
    pub(super) handed_over: Mutex<Option<Inheritance>>,
    checks: Mutex<Checks>,
    /// Told when certificates' files change.
    pub cert_changes: tls::Changes,
    pub(super) cert_watch: Mutex<tls::Watch>,
    pub acme: acme::Wishes,
    /// What upstreams' names were found to be.
    pub names: Names,
    pub alerts: Alerts,
    /// For other gateways.
    pub(super) news: Outbox,
    pub(super) recent: Recent,
    /// What was in effect before, while workers or requests still use it.
    retired: Mutex<Vec<Arc<Snapshot>>>,
}

impl Control {
    #[allow(clippy::too_many_arguments)]
    pub fn new(
        options: Options,
        snapshot: Arc<ArcSwap<Snapshot>>,
        registry: Arc<Registry>,
        access_log: AccessLog,
        kernel: KernelPlane,
        workers: Workers,
        log_control: LogControl,
        requests: mpsc::UnboundedSender<Request>,
        inherited: Inherited,
        ends: Ends,
        names: Names,
    ) -> Self {
        let state =
            State { reloads_ok: 0, reloads_failed: 0, last_success: SystemTime::now(), last_error: None };
        Control {
            options,
            snapshot,
            registry,
            access_log,
            kernel,
            workers,
            started: Instant::now(),
            started_at: SystemTime::now(),
            draining: AtomicBool::new(false),
            serving: AtomicBool::new(false),
            requests,
            services_changed: Arc::default(),
            silent: watch::Sender::new(false),
            state: Mutex::new(state),
            log_control,
            sockets: Mutex::default(),
            inherited: Mutex::new(inherited),
            ends,
            handed_over: Mutex::default(),
            checks: Mutex::default(),
            cert_changes: tls::Changes::default(),
            cert_watch: Mutex::default(),
            acme: acme::Wishes::default(),
            names,
            alerts: Alerts::default(),
            news: Outbox::default(),
            recent: Recent::default(),
            retired: Mutex::default(),
        }
    }

    /// Puts another snapshot in effect. The one before is kept until nobody uses it: a worker that were the last to
    /// would spend milliseconds on freeing a large one.
    fn put(&self, fresh: &Arc<Snapshot>) {
        let old = self.snapshot.swap(fresh.clone());
        lock(&self.retired).push(old);
    }

    /// Those from before that nobody uses any more.
    pub(super) fn unused(&self) -> Vec<Arc<Snapshot>> {
        let is_unused = |old: &mut Arc<Snapshot>| Arc::strong_count(old) == 1;
        lock(&self.retired).extract_if(.., is_unused).collect()
    }

    pub fn state(&self) -> State {
        lock(&self.state).clone()
    }

    /// Those before this process took over.
    pub(super) fn count_reloads(&self, ok: u64, failed: u64) {
        let mut state = lock(&self.state);
        state.reloads_ok += ok;
        state.reloads_failed += failed;
    }

    pub fn ready(&self) -> bool {
        self.serving.load(Relaxed) && !self.draining.load(Relaxed)
    }

    /// The config file, if there is one.
    pub fn config_path(&self) -> Option<&Path> {
        match &self.options.source {
            Source::File(path) => Some(path),
            Source::Flags { .. } => None,
        }
    }

    /// Asks the control thread to reload and waits for the outcome.
    pub async fn ask_reload(&self, reach: Reach) -> Result<Reload, ReloadError> {
        let (reply, outcome) = oneshot::channel();
        self.requests.send(Request::Reload { reach, reply }).map_err(|_| ReloadError::Stopping)?;
        outcome.await.map_err(|_| ReloadError::Stopping)?
    }

    /// Asks the control thread for an upgrade and waits for the outcome.
    pub async fn ask_upgrade(
        &self,
        binary: Option<PathBuf>,
        timeout: Option<Duration>,
    ) -> Result<Upgrade, UpgradeError> {
        let (reply, outcome) = oneshot::channel();
        self.requests
            .send(Request::Upgrade { binary, timeout, reply })
            .map_err(|_| UpgradeError::Stopping)?;
        outcome.await.map_err(|_| UpgradeError::Stopping)?
    }

    /// The config as it is in the file now.
    pub fn read_config(&self) -> Result<Config, ReloadError> {
        self.config_path().ok_or(ReloadError::NoFile)?;
        Ok(self.options.load()?)
    }

    /// Takes up what was read of the file. All or nothing: whatever can fail is done before anything is changed.
    /// On the control thread only.
    pub fn reload(&self, read: Result<Config, ReloadError>, reach: Reach) -> Result<Reload, ReloadError> {
        let result = read.and_then(|read| match reach {
            Reach::Everything => self.apply(read),
            Reach::BlockLists => {
                let mut config = self.snapshot.load().config.clone();
                config.kernel.block = read.kernel.block;
                self.apply(config)
            }
        });
        let mut state = lock(&self.state);
        match &result {
            Ok(reload) => {
                state.reloads_ok += 1;
                state.last_success = SystemTime::now();
                state.last_error = None;
                let (generation, changes) = (reload.generation, reload.changes.len());
                events::tell("reload", json!({ "ok": true, "generation": generation, "changes": changes }));
                tracing::info!(
                    generation = reload.generation,
                    changes = reload.changes.len(),
                    "config reloaded"
                );
                for setting in &reload.needs_restart {
                    tracing::warn!(setting, "changed in the config, but takes effect only after a restart");
                }
            }
            Err(error) => {
                state.reloads_failed += 1;
                state.last_error = Some(error.to_string());
                events::tell("reload", json!({ "ok": false, "error": error.to_string() }));
                tracing::error!("config not reloaded, the old one stays: {error}");
            }
        }
        result
    }

    fn apply(&self, config: Config) -> Result<Reload, ReloadError> {
        let old = self.snapshot.load_full();
        let vault = Vault::load(&config, Some(&old.tls.vault))?;
        let tls = Tls::load(&config, &vault, Some(&old.tls))?;
        let auths = Arc::new(Auths::load(&config, &vault, Some(&old.auths), &self.registry)?);
        let disks = Arc::new(cache::disk::place::load(&config, &vault)?);
        let changes = config::diff(&old.config, &config);
        let needs_restart = config::needing_restart(&changes);
        let new_log = (old.config.access_log != config.access_log).then(|| config.access_log.clone());
        if let Some(log) = &new_log {
            access_log::check(log).map_err(ReloadError::AccessLog)?;
        }
        let opened = self.open_new_listeners(&config)?;
        self.kernel.sync(&config.kernel)?;
        let services = service::compile(&config.services, Some(&old.services), &self.registry);
        if let Err(error) = self.set_services(&config, &services) {
            if let Err(error) = self.kernel.sync(&old.config.kernel) {
                tracing::error!("the kernel half has settings of the config that was refused: {error}");
            }
            return Err(error);
        }

        // Nothing below can fail.
        if let Some(log) = new_log {
            self.access_log.configure(&log);
        }
        self.log_control.set_level(&config.gateway.log.level);
        self.alerts.configure(&config, &vault);
        let generation = old.generation + 1;
        let snapshot = Arc::new(Snapshot::compile(
            config,
            services,
            (tls, auths, disks),
            &self.names.answers(),
            generation,
            Some(&old),
            &self.registry,
        ));
        self.put(&snapshot);
        snapshot.take_over_caches(&old);
        old.retire_targets(&snapshot);
        self.start_checks(&snapshot);
        snapshot.tls.refresh();
        self.watch_certs(&snapshot);
        self.follow_issuers(&snapshot);
        self.acme.look();
        self.switch_listeners(&snapshot.config, opened);
        if snapshot.config.services != old.config.services {
            service::unreachable(&snapshot.config).iter().for_each(|warning| tracing::warn!("{warning}"));
        }
        Ok(Reload { generation, changes, needs_restart })
    }

    /// Names have other addresses: takes up new targets, and lets go of those that are gone. On the control thread only.
    pub(super) fn refresh_targets(&self) {
        let old = self.snapshot.load_full();
        let fresh = Arc::new(old.refresh(&self.names.answers(), &self.registry));
        self.put(&fresh);
        old.retire_targets(&fresh);
        for (name, upstream) in &fresh.upstreams {
            if old.upstreams.get(name).is_some_and(|old| !Arc::ptr_eq(old, upstream)) {
                let targets: Vec<_> = upstream.members.iter().map(|member| member.target.addr).collect();
                self.registry.forget_targets(name, &targets);
                tracing::info!(upstream = name, targets = targets.len(), "names have other addresses");
            }
        }
        // Not while it drains.
        if self.ready() {
            self.start_checks(&fresh);
        }
    }

    /// Has keys of issuers fetched that are new.
    pub(super) fn follow_issuers(&self, snapshot: &Snapshot) {
        for jwks in snapshot.auths.jwks().filter(|jwks| jwks.is_to_be_followed()) {
            tokio::task::spawn_local(Jwks::follow(Arc::downgrade(jwks)));
        }
    }

    /// Sockets for doors that are new or have moved.
    fn open_new_listeners(&self, config: &Config) -> Result<Vec<Opened>, ReloadError> {
        let (sockets, mut inherited) = (lock(&self.sockets), lock(&self.inherited));
        let mut opened = Vec::new();
        for (door, bind) in doors(config) {
            if sockets.get(&door).is_some_and(|(before, _)| *before == bind) {
                continue;
            }
            let workers = self.workers.count();
            let made = match &door {
                Door::Datagrams(..) => net::bind_datagrams(bind, workers).map(Sockets::Udp),
                Door::Listener(name) | Door::Service(name, _) => {
                    let open = inherited.take(name, bind);
                    let made = if open.is_empty() {
                        net::bind_all(bind, workers)
                    } else {
                        net::extend(open, workers)
                    };
                    made.map(Sockets::Tcp)
                }
            };
            let made = made.map_err(|error| ReloadError::Bind {
                door: door.clone(),
                bind: config::show_bind(bind),
                error,
            })?;
            opened.push((door, bind, made));
        }
        Ok(opened)
    }

    /// Starts what was opened, ends what is no longer named, and tells the kernel half where the sockets are.
    fn switch_listeners(&self, config: &Config, opened: Vec<Opened>) {
        let wanted: BTreeSet<Door> = doors(config).map(|(door, _)| door).collect();
        let mut sockets = lock(&self.sockets);
        let changed = !opened.is_empty() || sockets.keys().any(|door| !wanted.contains(door));
        sockets.retain(|door, _| {
            let keep = wanted.contains(door);
            if !keep {
                self.workers.close(door);
            }
            keep
        });
        for (door, bind, made) in opened {
            // Neither steered nor handed over are those of UDP.
            let kept = match &made {
                Sockets::Tcp(sockets) => sockets.as_slice(),
                Sockets::Udp(_) => &[],
            };
            let kept: io::Result<Vec<_>> = kept.iter().map(std::net::TcpListener::try_clone).collect();
            match kept {
                Ok(kept) => drop(sockets.insert(door.clone(), (bind, kept))),
                Err(error) => tracing::warn!(%door, %error, "its connections are not steered"),
            }
            self.workers.listen(&door, made);
        }
        if changed {
            self.steer(&sockets);
        }
    }

    pub(super) fn steer(&self, sockets: &BTreeMap<Door, (Bind, Vec<std::net::TcpListener>)>) {
        use std::os::fd::AsFd;
        let listeners: Vec<SteerListener<'_>> = sockets
            .values()
            .filter(|(_, sockets)| !sockets.is_empty())
            .map(|(bind, sockets)| SteerListener {
                bind: *bind,
                sockets: sockets.iter().map(|s| s.as_fd()).collect(),
            })
            .collect();
        if let Err(error) = self.kernel.steer(&listeners) {
            tracing::warn!(%error, "connections are not steered by client address");
        }
    }

    /// Opens the first config's listeners.
    pub fn open_listeners(&self) -> Result<(), ReloadError> {
        let snapshot = self.snapshot.load_full();
        let opened = self.open_new_listeners(&snapshot.config)?;
        self.switch_listeners(&snapshot.config, opened);
        for socket in std::mem::take(&mut *lock(&self.inherited)).left() {
            tracing::warn!(
                "the service manager's socket {socket} is closed: no listener has its name or address"
            );
        }
        Ok(())
    }

    /// Lets go of the sockets, so that the workers' are the last ones.
    pub fn close_listeners(&self) {
        lock(&self.sockets).clear();
    }

    /// On the control thread only.
    pub fn start_checks(&self, snapshot: &Snapshot) {
        let upstreams = snapshot.upstreams.values().flat_map(Upstream::checked);
        let services = snapshot.services.values().flat_map(|service| service.checked(&self.services_changed));
        *lock(&self.checks) = Checks::start(upstreams.chain(services));
    }

    pub fn stop_checks(&self) {
        *lock(&self.checks) = Checks::default();
    }
}

/// A door's new sockets, one a worker.
type Opened = (Door, Bind, Sockets);

/// Where clients come in.
fn doors(config: &Config) -> impl Iterator<Item = (Door, Bind)> + '_ {
    let listeners =
        config.listeners.iter().map(|(name, listener)| (Door::Listener(name.clone()), listener.bind));
    let services = config.services.iter().filter(|(_, service)| service.splice.is_some());
    let services = services.flat_map(|(name, service)| {
        let door = match service.protocol {
            L4Protocol::Tcp => Door::Service,
            L4Protocol::Udp => Door::Datagrams,
        };
        service.binds.iter().map(move |bind| (door(name.clone(), *bind), *bind))
    });
    listeners.chain(services)
}
