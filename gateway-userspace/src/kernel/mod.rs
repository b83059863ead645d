//! The kernel half as userspace sees it: [`KernelPlane`] loads the programs, attaches and pins them, keeps their
//! maps as the config says and tells what they count. The only module that imports aya.
//!
//! What outlives the daemon is pinned (see `pins`): after a crash the programs go on limiting and banning, and the
//! next start takes their maps and links over without a packet going unseen. Where the kernel half cannot run, a
//! plane that is off says why and the HTTP half serves alone.

mod attach;
mod bans;
mod capture;
mod clock;
mod counters;
mod decap;
mod doctor;
mod error;
mod explain;
mod follow;
mod handover;
mod interfaces;
mod load_check;
mod log;
pub mod object;
mod pieces;
mod pins;
mod plane;
mod report;
mod services;
mod settings;
mod sources;
mod start;
mod steer;
mod syn;
pub mod sys;
mod sysctls;
mod table;
mod taken;
mod tell;
mod verify;
mod view;

use std::{
    net::IpAddr,
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use plane::Loaded;

pub use capture::CaptureSpec;
pub use decap::Decap;
pub use doctor::doctor;
pub use error::KernelError;
pub use explain::{Explained, PacketSpec};
pub use handover::Inheritance;
pub use load_check::load_check;
pub use report::{
    Ban, BanBy, CapturedPacket, CheckState, ClockStatus, CounterRow, DetachReport, DoctorCheck, DropSample,
    Fill, InterfaceStatus, KernelStatus, MapRow, SourceRow, SteeringStatus, SynStatus, SyncReport,
    TakenStatus,
};
pub use services::{ServiceRow, ServiceSpec, TargetSpec, TargetState};
pub use steer::SteerListener;
pub use verify::{Difference, VerifyReport};
pub use view::{Connections, View};

use crate::config::{model, units::Prefix};

/// At most so many samples are handed out at once.
const SAMPLES: usize = 4096;

/// The kernel half. Calls may come from any thread; none takes longer than some milliseconds but `start` (a tenth
/// of a second) and a `sync` that changes ten thousands of prefixes.
pub struct KernelPlane {
    state: Mutex<State>,
    view: Arc<View>,
    /// Differences that the last verification left.
    drift: AtomicUsize,
}

/// See [`KernelPlane::runner`].
#[doc(hidden)]
pub struct Runner {
    program: &'static str,
    fd: OwnedFd,
}

impl Runner {
    /// Hands a packet (at least 14 bytes) to the program `repeat` times: the last return value and the mean time.
    ///
    /// # Errors
    /// The kernel refuses the packet.
    pub fn run(&self, packet: &[u8], repeat: u32) -> Result<(u32, Duration), KernelError> {
        self.run_at(0, packet, repeat)
    }

    /// Likewise, as if the packet (of an XDP program) came in at an interface.
    ///
    /// # Errors
    /// The kernel refuses the packet.
    pub fn run_at(&self, ifindex: u32, packet: &[u8], repeat: u32) -> Result<(u32, Duration), KernelError> {
        sys::test_run(self.fd.as_fd(), packet, repeat, ifindex)
            .map_err(|error| KernelError::Load { program: self.program, why: error.to_string() })
    }

    /// Hands a packet to the program once, as if it came in at an interface (zero: the loopback): the return value, and
    /// the packet that the program left.
    ///
    /// # Errors
    /// The kernel refuses the packet.
    pub fn run_packet(&self, packet: &[u8], ifindex: u32) -> Result<(u32, Vec<u8>), KernelError> {
        sys::test_run_packet(self.fd.as_fd(), packet, ifindex)
            .map_err(|error| KernelError::Load { program: self.program, why: error.to_string() })
    }
}

enum State {
    On(Box<Loaded>),
    Off(Box<KernelStatus>),
}

impl KernelPlane {
    /// Loads the programs (Linux 5.18, tested from 6.1), takes over what an earlier run left, writes the config's
    /// tables and only then attaches.
    ///
    /// # Errors
    /// What the config insists on and cannot be had: exit code 3. Anything else gives a plane that is off.
    pub fn start(cfg: &model::Kernel) -> Result<Self, KernelError> {
        let state = match start::start(cfg, false) {
            Ok(Some(loaded)) => State::On(Box::new(loaded)),
            Ok(None) => State::Off(Box::new(tell::status_off(cfg, None))),
            Err(error) if cfg.required || error.is_insisted() => return Err(error),
            Err(error) => State::Off(Box::new(tell::status_off(cfg, Some(&error)))),
        };
        let plane = Self { state: Mutex::new(state), view: Arc::default(), drift: AtomicUsize::new(0) };
        plane.refresh_view();
        let status = plane.status();
        status.warnings.iter().for_each(|warning| tracing::warn!("kernel: {warning}"));
        tracing::debug!("kernel: {}", status.summary());
        Ok(plane)
    }

    /// For tests and benches: loads and fills everything, attaches to nothing, so that packets come from
    /// [`Self::runner`] only.
    ///
    /// # Errors
    /// Whatever keeps it from being loaded.
    #[doc(hidden)]
    pub fn start_detached(cfg: &model::Kernel) -> Result<Self, KernelError> {
        let off = || KernelError::Off { why: "the config asks for no part of it".into() };
        let loaded = start::start(cfg, true)?.ok_or_else(off)?;
        let state = Mutex::new(State::On(Box::new(loaded)));
        Ok(Self { state, view: Arc::default(), drift: AtomicUsize::new(0) })
    }

    /// One of the object's XDP programs, to be run by hand. It may be run by several threads at once.
    ///
    /// # Errors
    /// There is no such program, or the kernel refuses it.
    #[doc(hidden)]
    pub fn runner(&self, program: &'static str) -> Result<Runner, KernelError> {
        let off = Err(KernelError::Off { why: "nothing is loaded".into() });
        let fd = self.on(off, |loaded| loaded.program(program))?;
        Ok(Runner { program, fd })
    }

    /// For benches: makes the program `bench_wrap` run another on packets made from a template.
    ///
    /// # Errors
    /// There is no such program, or the kernel refuses it.
    #[doc(hidden)]
    pub fn wrap(&self, program: &'static str, wrap: gateway_common::maps::Wrap) -> Result<(), KernelError> {
        self.on(Ok(()), |loaded| loaded.wrap(program, wrap))
    }

    /// For tests: says that a port has a listener with this window scale.
    #[doc(hidden)]
    pub fn know_listener(&self, port: u16, scale: u8) {
        self.on((), |loaded| loaded.syn.know(&mut loaded.maps, port, scale));
    }

    /// What the program `probe_parse` read from its last packet: see `gateway-ebpf/src/probe.rs`.
    #[doc(hidden)]
    pub fn probed(&self) -> [u64; 8] {
        self.on([0; 8], |loaded| loaded.probed())
    }

    /// Steers connections to these sockets, which must be listening, from now on to these only.
    ///
    /// # Errors
    /// Connections go on being spread by the kernel's own SO_REUSEPORT hash.
    pub fn steer(&self, listeners: &[SteerListener<'_>]) -> Result<(), KernelError> {
        self.on(Ok(()), |loaded| loaded.steer(listeners))
    }

    /// Applies a config: limits, lists and interfaces, each by what differs. `mode` and `pin` need a restart.
    ///
    /// # Errors
    /// The maps are as they were.
    pub fn sync(&self, cfg: &model::Kernel) -> Result<SyncReport, KernelError> {
        let report = self.on(Ok(SyncReport::default()), |loaded| loaded.sync(cfg))?;
        self.refresh_view();
        Ok(report)
    }

    /// For workers.
    pub fn view(&self) -> Arc<View> {
        self.view.clone()
    }

    fn refresh_view(&self) {
        match &*self.lock() {
            State::On(loaded) => self.view.refresh(Some(loaded)),
            State::Off(_) => self.view.refresh(None),
        }
    }

    /// What [`Self::sync`] would change.
    ///
    /// # Errors
    /// Those that `sync` would give before it changes anything.
    pub fn plan(&self, cfg: &model::Kernel) -> Result<SyncReport, KernelError> {
        self.on(Ok(SyncReport::default()), |loaded| loaded.plan(cfg))
    }

    /// Makes the L4 services these and no others, and their targets as said. All or nothing; a service's table is
    /// replaced whole, and connections that its flow table knows stay where they are.
    ///
    /// # Errors
    /// The maps are as they were.
    pub fn set_services(&self, services: &[ServiceSpec<'_>]) -> Result<(), KernelError> {
        self.on(Ok(()), |loaded| loaded.set_services(services))
    }

    /// What each service's targets were sent.
    pub fn service_rows(&self) -> Vec<ServiceRow> {
        self.on(Vec::new(), |loaded| loaded.service_rows())
    }

    /// Multiplies the rates of all kernel limits by `factor` (0.01 to 1, 1 at start), in one write.
    ///
    /// What all rates are multiplied by now.
    pub fn load_factor(&self) -> f64 {
        self.on(1.0, |loaded| loaded.load_factor)
    }

    /// # Errors
    /// The map could not be written.
    pub fn set_load_factor(&self, factor: f64) -> Result<(), KernelError> {
        self.on(Ok(()), |loaded| loaded.set_load_factor(factor))?;
        self.refresh_view();
        Ok(())
    }

    /// Drops everything from `prefix`, for `duration` or until it is lifted. The ban ends by itself, daemon or not.
    /// A ban of the same prefix is replaced.
    ///
    /// # Errors
    /// [`KernelError::BanRefused`] for exempt prefixes, for what is blocked or banned already, and for everybody.
    pub fn ban(&self, prefix: Prefix, duration: Option<Duration>, why: &str) -> Result<Ban, KernelError> {
        self.ban_by(prefix, duration, why, BanBy::Operator)
    }

    /// As [`Self::ban`], made by somebody else than an operator.
    ///
    /// # Errors
    /// As [`Self::ban`].
    pub fn ban_by(
        &self,
        prefix: Prefix,
        duration: Option<Duration>,
        why: &str,
        by: BanBy,
    ) -> Result<Ban, KernelError> {
        match &mut *self.lock() {
            State::On(loaded) if loaded.filters() => loaded.ban(prefix, duration, why, by),
            State::On(_) => Err(KernelError::Off { why: "XDP is attached to no interface".into() }),
            State::Off(status) => {
                let why = status.warnings.first().cloned();
                Err(KernelError::Off {
                    why: why.unwrap_or_else(|| "the config asks for no part of it".into()),
                })
            }
        }
    }

    /// Lifts a ban; false: there was none on exactly this prefix.
    ///
    /// # Errors
    /// The map could not be written.
    pub fn unban(&self, prefix: Prefix) -> Result<bool, KernelError> {
        self.on(Ok(false), |loaded| loaded.unban(prefix))
    }

    /// Bans in force, by prefix.
    pub fn bans(&self) -> Vec<Ban> {
        self.on(Vec::new(), |loaded| loaded.bans())
    }

    /// How many bans are in force.
    pub fn ban_count(&self) -> usize {
        self.on(0, |loaded| loaded.ban_count())
    }

    pub fn status(&self) -> KernelStatus {
        match &*self.lock() {
            State::On(loaded) => loaded.status(),
            State::Off(status) => (**status).clone(),
        }
    }

    /// Packets by interface and reason. Each packet is in exactly one row.
    pub fn counters(&self) -> Vec<CounterRow> {
        self.on(Vec::new(), |loaded| loaded.counters())
    }

    /// All maps. Some are read to their ends for it.
    pub fn maps(&self) -> Vec<MapRow> {
        self.on(Vec::new(), |loaded| loaded.map_rows())
    }

    /// Those that can be filled up, which is known without a look at them.
    pub fn fills(&self) -> Vec<Fill> {
        self.on(Vec::new(), |loaded| loaded.used().fills().into())
    }

    /// The `top` sources that were refused most.
    pub fn sources(&self, top: usize) -> Vec<SourceRow> {
        self.on(Vec::new(), |loaded| loaded.sources(top))
    }

    /// A source's buckets; none: it has not sent anything lately.
    pub fn source(&self, source: IpAddr) -> Option<SourceRow> {
        self.on(None, |loaded| loaded.source(source))
    }

    /// Fills a source's buckets.
    ///
    /// # Errors
    /// The map could not be written.
    pub fn reset(&self, source: IpAddr) -> Result<(), KernelError> {
        self.on(Ok(()), |loaded| loaded.reset(source))
    }

    /// Dropped packets sampled since the last call.
    pub fn samples(&self) -> Vec<DropSample> {
        self.on(Vec::new(), |loaded| loaded.samples(SAMPLES))
    }

    /// Begins a capture; one at a time.
    ///
    /// # Errors
    /// Another one runs, or there is nothing to capture from.
    pub fn start_capture(&self, spec: &CaptureSpec) -> Result<(), KernelError> {
        let off = Err(KernelError::Off { why: "XDP is attached to no interface".into() });
        self.on(off, |loaded| loaded.start_capture(spec))
    }

    /// What was captured since the last call.
    pub fn captured(&self) -> Vec<CapturedPacket> {
        self.on(Vec::new(), Loaded::captured)
    }

    /// Ends a capture: how many packets were wanted and not had.
    pub fn stop_capture(&self) -> u64 {
        self.on(0, Loaded::stop_capture)
    }

    /// Reads all maps back and compares them with what this config, the services of the last
    /// [`Self::set_services`] and the bans in force make of them. `repair`: writes what differs.
    ///
    /// # Errors
    /// The kernel half is off, or a map can be neither read nor written.
    pub fn verify(&self, cfg: &model::Kernel, repair: bool) -> Result<VerifyReport, KernelError> {
        let off = || Err(KernelError::Off { why: "nothing is loaded".into() });
        let mut report = self.on(off(), |loaded| loaded.verify(cfg, repair))?;
        if repair && report.total > 0 {
            let left = self.on(off(), |loaded| loaded.verify(cfg, false))?;
            report.repaired = report.total.saturating_sub(left.total);
        }
        self.drift.store(report.total - report.repaired, Relaxed);
        Ok(report)
    }

    /// What the loaded programs would do with a packet, with the tables as they are now and without changing them.
    ///
    /// # Errors
    /// The packet cannot be, or the kernel half cannot be asked.
    pub fn explain(&self, packet: &PacketSpec) -> Result<Explained, KernelError> {
        let off = Err(KernelError::Off { why: "nothing is loaded".into() });
        self.on(off, |loaded| loaded.explain(packet))
    }

    /// Differences that the last verification found and did not repair.
    pub fn drift(&self) -> usize {
        self.drift.load(Relaxed)
    }

    /// To be called every second: sweeps bans that are over, follows interfaces that come and go, keeps the clock
    /// right. Returns the bans that have run out.
    pub fn tick(&self) -> Vec<Prefix> {
        self.on(Vec::new(), Loaded::tick)
    }

    /// Detaches the programs. Maps stay pinned, so bans and buckets outlive a restart.
    pub fn stop(&self) {
        let mut state = self.lock();
        if let State::On(loaded) = &mut *state {
            loaded.detach();
        }
    }

    fn on<T>(&self, off: T, on: impl FnOnce(&mut Loaded) -> T) -> T {
        match &mut *self.lock() {
            State::On(loaded) => on(loaded),
            State::Off(_) => off,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves maps that are still what the kernel sees: go on with them.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Removes pinned programs and maps, with no daemon's help; bans and buckets are forgotten.
///
/// # Errors
/// Something is pinned that this user may not remove.
pub fn detach(pin: &Path) -> Result<DetachReport, KernelError> {
    pins::detach(pin)
}
