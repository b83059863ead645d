//! Bans: made and lifted by people and policies, ended by the kernel's own clock, swept up here.

use std::time::Duration;

use gateway_common::maps::{self as layout, BANS_CAPACITY, Settings, access, is_over};

use super::{
    error::KernelError,
    plane::Loaded,
    report::{Ban, BanBy},
    settings, sys,
    table::{self, Record},
};
use crate::config::units::Prefix;

impl Loaded {
    pub fn ban(
        &mut self,
        prefix: Prefix,
        duration: Option<Duration>,
        why: &str,
        by: BanBy,
    ) -> Result<Ban, KernelError> {
        let now = sys::monotonic_ns();
        self.allowed(prefix, duration, now)?;
        let until_ns = match duration {
            Some(duration) => {
                now.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)).max(1)
            }
            None => 0,
        };
        let record = Record { until_ns, since_ns: now, code: by as u8, why: why.to_owned() };
        let before = self.bans.insert(prefix, record.clone());
        if let Err(error) = self.place(prefix) {
            match before {
                Some(before) => self.bans.insert(prefix, before),
                None => self.bans.remove(&prefix),
            };
            return Err(error);
        }
        Ok(show(prefix, &record, now))
    }

    /// Why a ban may not be made.
    fn allowed(&self, prefix: Prefix, duration: Option<Duration>, now: u64) -> Result<(), KernelError> {
        let refused = |why: String| Err(KernelError::BanRefused { prefix, why });
        if prefix.len == 0 {
            return refused("that would be everybody".into());
        }
        match table::rule_around(&self.rules, prefix) {
            Some((rule, access::EXEMPT)) => return refused(format!("kernel.limit.exempt has {rule}")),
            Some((rule, access::BLOCK)) => return refused(format!("kernel.block has {rule} already")),
            _ => {}
        }
        if let Some((wider, ban)) = table::ban_around(&self.bans, prefix, now)
            && wider != prefix
        {
            let until = duration.map_or(u64::MAX, |d| now.saturating_add(d.as_nanos() as u64));
            if ban.until_ns == 0 || ban.until_ns >= until {
                return refused(format!("{wider} is banned already, and for longer"));
            }
        }
        let full = self.current.sources.len() >= BANS_CAPACITY as usize;
        if full && table::source_key(prefix, self.ipv6_prefix).is_some() {
            return refused(format!("{BANS_CAPACITY} sources are banned; ban prefixes, or for shorter"));
        }
        Ok(())
    }

    pub fn unban(&mut self, prefix: Prefix) -> Result<bool, KernelError> {
        let Some(record) = self.bans.remove(&prefix) else { return Ok(false) };
        if let Err(error) = self.place(prefix) {
            self.bans.insert(prefix, record);
            return Err(error);
        }
        Ok(true)
    }

    pub fn bans(&self) -> Vec<Ban> {
        let now = sys::monotonic_ns();
        let in_force = self.bans.iter().filter(|(_, record)| !is_over(record.until_ns, now));
        in_force.map(|(prefix, record)| show(*prefix, record, now)).collect()
    }

    pub fn ban_count(&self) -> usize {
        let now = sys::monotonic_ns();
        self.bans.values().filter(|record| !is_over(record.until_ns, now)).count()
    }

    /// Forgets bans that are over. The kernel stopped heeding them by itself.
    pub fn sweep(&mut self) {
        let now = sys::monotonic_ns();
        let over: Vec<Prefix> = self
            .bans
            .iter()
            .filter(|(_, record)| is_over(record.until_ns, now))
            .map(|(prefix, _)| *prefix)
            .collect();
        for prefix in over {
            self.bans.remove(&prefix);
            self.ended.push(prefix);
            if let Err(error) = self.place(prefix) {
                tracing::warn!(%error, "kernel: a ban that is over cannot be swept");
            }
        }
    }

    /// Brings the maps up to what is now remembered of `prefix`.
    fn place(&mut self, prefix: Prefix) -> Result<(), KernelError> {
        let now = sys::monotonic_ns();
        let Some(key) = table::source_key(prefix, self.ipv6_prefix) else {
            let desired = table::desired(&self.rules, &self.bans, self.ipv6_prefix, now);
            let settings = self.with_flags(&desired);
            return self.apply(desired, settings);
        };
        // One source is one entry: the rest of the tables need not be looked at.
        match self.bans.get(&prefix) {
            Some(record) => {
                let ban = layout::Ban {
                    until_ns: record.until_ns,
                    since_ns: record.since_ns,
                    code: record.code,
                    len: prefix.len,
                    _pad: [0; 6],
                };
                self.maps.bans.insert(key, ban, 0).map_err(KernelError::map(layout::name::BANS))?;
                self.current.sources.insert(key, ban);
            }
            None => {
                let _ = self.maps.bans.remove(&key);
                self.current.sources.remove(&key);
            }
        }
        let settings = self.with_flags(&self.current);
        if settings != self.settings { self.switch(settings) } else { Ok(()) }
    }

    fn with_flags(&self, desired: &table::Desired) -> Settings {
        use gateway_common::maps::flag;
        let tables = flag::ACCESS_V4 | flag::ACCESS_V6 | flag::BANS;
        let flags = settings::table_flags(desired.access.keys(), !desired.sources.is_empty());
        Settings { flags: self.settings.flags & !tables | flags, ..self.settings }
    }
}

fn show(cidr: Prefix, record: &Record, now: u64) -> Ban {
    let left = (record.until_ns != 0).then(|| record.until_ns.saturating_sub(now).div_ceil(1_000_000_000));
    Ban { cidr, left_seconds: left, why: record.why.clone(), by: BanBy::of(record.code) }
}
