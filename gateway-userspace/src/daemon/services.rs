//! Keeping the kernel half's services as config, checks and operators say.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{control::Control, control::ReloadError};
use crate::{
    config::model::Config,
    kernel::{Difference, KernelError, VerifyReport},
    service::{self, Services},
};

/// How long changes are gathered before the kernel half is told.
const GATHER: Duration = Duration::from_millis(10);
/// Between two attempts.
const RETRY: Duration = Duration::from_secs(1);
/// Between two verifications.
const VERIFY_EVERY: Duration = Duration::from_secs(60);
/// Differences that the log names.
const LOGGED: usize = 10;

impl Control {
    /// Why services of this config are not served: the kernel half is off.
    pub fn services_off(&self, config: &Config) -> Option<String> {
        let status = self.kernel.status();
        if config.services.values().all(|service| service.splice.is_some())
            || status.interfaces.iter().any(|interface| interface.mode != "off")
        {
            return None;
        }
        let told = status.interfaces.into_iter().find_map(|interface| interface.reason);
        let why = service::lacking(config).map(str::to_owned);
        Some(why.or(told).or_else(|| status.warnings.into_iter().next()).unwrap_or("XDP is off".into()))
    }

    /// Gives the kernel half the services of a config.
    ///
    /// # Errors
    /// It refuses them, or does not run and is required; then it has those it had.
    pub fn set_services(&self, config: &Config, services: &Services) -> Result<(), ReloadError> {
        if let Some(why) = self.services_off(config) {
            if config.kernel.required {
                return Err(ReloadError::ServicesOff(why));
            }
            tracing::warn!("services are not served: {why}");
        }
        Ok(self.kernel.set_services(&service::specs(services))?)
    }

    fn push_services(&self) -> Result<(), KernelError> {
        let services = &self.snapshot.load().services;
        services.values().for_each(|service| service.rebuild());
        self.kernel.set_services(&service::specs(services))
    }

    /// Compares the kernel half's maps with what the config, the targets' states and the bans make of them now. On the
    /// control thread, as reloads are: no config is half taken up meanwhile.
    ///
    /// # Errors
    /// The kernel half is off, or a map can be neither read nor written.
    pub fn verify_kernel(&self, repair: bool) -> Result<VerifyReport, KernelError> {
        self.push_services()?;
        let report = self.kernel.verify(&self.snapshot.load().config.kernel, repair)?;
        for difference in &report.differences[..report.differences.len().min(LOGGED)] {
            let Difference { map, key, is, should } = difference;
            tracing::warn!("kernel: {map} {key} is {is}, should be {should}");
        }
        if report.total > 0 {
            let (differences, repaired) = (report.total, report.repaired);
            tracing::warn!(differences, repaired, "kernel: the maps are not as the config says");
        }
        Ok(report)
    }

    /// Ends the operators' overrides whose time is over.
    pub fn expire_overrides(&self) {
        let now = Instant::now();
        let snapshot = self.snapshot.load();
        for upstream in snapshot.upstreams.values() {
            let over = upstream.members.iter().filter(|member| member.target.operator.expire(now));
            let over: Vec<&str> = over.map(|member| &*member.target.name).collect();
            if !over.is_empty() {
                upstream.rebuild();
                tracing::info!(upstream = %upstream.name, targets = over.join(" "), "override is over");
            }
        }
        for service in snapshot.services.values() {
            let over = service.targets().filter(|(target, _)| target.operator.expire(now));
            let over: Vec<&str> = over.map(|(target, _)| &*target.name).collect();
            if !over.is_empty() {
                self.services_changed.notify_one();
                tracing::info!(service = %service.name, targets = over.join(" "), "override is over");
            }
        }
    }
}

/// Verifies the kernel half's maps every minute, or less often where that would take a hundredth of a CPU's time.
pub async fn verify(control: Arc<Control>) {
    let mut pause = VERIFY_EVERY;
    loop {
        tokio::time::sleep(pause).await;
        match control.verify_kernel(false) {
            Ok(report) => pause = VERIFY_EVERY.max(report.took * 100),
            // Another process may be about to have it, and come to nothing.
            Err(KernelError::Off { .. }) if control.hands_over() => {}
            Err(KernelError::Off { .. }) => return,
            Err(error) => tracing::warn!("kernel: the maps cannot be verified: {error}"),
        }
    }
}

/// Tells the kernel half of targets that changed, for as long as the daemon runs. On the control thread.
pub async fn follow(control: Arc<Control>) {
    loop {
        control.services_changed.notified().await;
        tokio::time::sleep(GATHER).await;
        let mut failed = false;
        while let Err(error) = control.push_services() {
            if !failed {
                tracing::error!("services are as they were, trying again: {error}");
            }
            failed = true;
            tokio::time::sleep(RETRY).await;
        }
        if failed {
            tracing::info!("services are as they should be again");
        }
    }
}
