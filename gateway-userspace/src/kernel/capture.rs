//! `gateway capture`: switching the kernel half's capture on and off, and reading what it leaves.

use std::time::{SystemTime, UNIX_EPOCH};

use gateway_common::{
    bucket::Limit,
    capture::{Captured, MOST_A_SECOND, SNAP, Wanted, name},
    maps::{Settings, flag},
    verdict::Reason,
};

use super::{error::KernelError, plane::Loaded, report::CapturedPacket, sys};

/// Which packets, and how much of them.
#[derive(Debug, Clone)]
pub struct CaptureSpec {
    /// Of the reasons' names; empty: all.
    pub reasons: Vec<String>,
    /// Of the actions' names; empty: all.
    pub actions: Vec<String>,
    /// Packets a second, all interfaces together.
    pub rate: u32,
    /// Bytes of each packet.
    pub snaplen: u32,
}

impl CaptureSpec {
    /// # Errors
    /// A sentence about the first thing that cannot be.
    pub fn check(&self) -> Result<(), String> {
        let known = |name: &String| Reason::ALL.iter().any(|reason| reason.name() == name);
        if let Some(unknown) = self.reasons.iter().find(|name| !known(name)) {
            let all: Vec<&str> = Reason::ALL.iter().map(|reason| reason.name()).collect();
            return Err(format!("there is no reason {unknown:?}; there are {}", all.join(", ")));
        }
        if self.mask() == 0 {
            return Err("no reason has this verdict".into());
        }
        if !(1..=SNAP as u32).contains(&self.snaplen) {
            return Err(format!("snaplen must be 1 to {SNAP}"));
        }
        if !(1..=MOST_A_SECOND).contains(&self.rate) {
            return Err(format!("rate must be 1/s to {MOST_A_SECOND}/s"));
        }
        Ok(())
    }

    fn mask(&self) -> u64 {
        let any_or = |list: &[String], name: &str| list.is_empty() || list.iter().any(|item| item == name);
        Reason::ALL
            .iter()
            .filter(|reason| any_or(&self.reasons, reason.name()))
            .filter(|reason| any_or(&self.actions, reason.action().name()))
            .fold(0, |mask, reason| mask | 1 << reason.id())
    }
}

impl Loaded {
    pub fn start_capture(&mut self, spec: &CaptureSpec) -> Result<(), KernelError> {
        if self.settings.flags & flag::CAPTURE != 0 {
            return Err(KernelError::CaptureRunning);
        }
        // Of an earlier capture.
        while self.maps.captured.next().is_some() {}
        let wanted = Wanted {
            reasons: spec.mask(),
            rate: Limit::per_second(f64::from(spec.rate), u64::from(spec.rate).div_ceil(10)),
            snaplen: spec.snaplen,
            ..Wanted::default()
        };
        self.maps.capture.set(0, wanted, 0).map_err(KernelError::map(name::WANTED))?;
        self.switch(Settings { flags: self.settings.flags | flag::CAPTURE, ..self.settings })
    }

    /// How many packets were wanted and not had.
    pub fn stop_capture(&mut self) -> u64 {
        let off = Settings { flags: self.settings.flags & !flag::CAPTURE, ..self.settings };
        if let Err(error) = self.switch(off) {
            tracing::warn!(%error, "kernel: the capture cannot be switched off");
        }
        self.maps.capture.get(&0, 0).map_or(0, |wanted| wanted.lost)
    }

    /// What has been captured since the last call.
    pub fn captured(&mut self) -> Vec<CapturedPacket> {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as u64;
        let offset = wall.saturating_sub(sys::monotonic_ns());
        let mut packets = Vec::new();
        let Self { maps, attached, .. } = self;
        while let Some(item) = maps.captured.next() {
            if item.len() < size_of::<Captured>() {
                continue;
            }
            // SAFETY: long enough, and any bytes are a valid `Captured`: it is made of integers only.
            let captured: Captured = unsafe { std::ptr::read_unaligned(item.as_ptr().cast()) };
            let Some(reason) = Reason::from_id(captured.reason as u8) else { continue };
            packets.push(CapturedPacket {
                time_ns: captured.time_ns + offset,
                interface: super::tell::name_of(attached, captured.ifindex),
                action: reason.action().name(),
                reason: reason.name(),
                length: captured.length,
                data: captured.data[..(captured.kept as usize).min(SNAP)].to_vec(),
            });
        }
        packets
    }
}
