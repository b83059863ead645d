//! Blocked, exempt and banned sources: two LPM tries for prefixes, a hash for single sources.

use aya_ebpf::maps::lpm_trie::Key;
use gateway_common::{
    maps::{Settings, access, flag, is_over},
    packet::Parsed,
    verdict::Reason,
};

use crate::maps;

/// `Err`: the access list settles it, one way or the other.
#[inline(always)]
pub fn judge(settings: &Settings, parsed: &Parsed, now: u64) -> Result<(), Reason> {
    let source = parsed.source;
    let rule = if source.is_v4() {
        if settings.flags & flag::ACCESS_V4 == 0 {
            return Ok(());
        }
        maps::ACCESS_V4.get(Key::new(32, (source.lo as u32).to_be_bytes()))
    } else {
        if settings.flags & flag::ACCESS_V6 == 0 {
            return Ok(());
        }
        maps::ACCESS_V6.get(Key::new(128, source.octets()))
    };
    match rule.map(|rule| rule.action_at(now)) {
        Some(access::BLOCK) => Err(Reason::Blocked),
        Some(access::BAN) => Err(Reason::Banned),
        Some(access::EXEMPT) => Err(Reason::Exempt),
        _ => Ok(()),
    }
}

/// `Err`: the source is banned now. Bans end by themselves; userspace only sweeps what is left of them.
#[inline(always)]
pub fn banned(settings: &Settings, key: u64, now: u64) -> Result<(), Reason> {
    if settings.flags & flag::BANS == 0 {
        return Ok(());
    }
    // SAFETY: at worst a ban that is being replaced is read half old, half new, for one packet.
    match unsafe { maps::BANS.get(key) } {
        Some(ban) if !is_over(ban.until_ns, now) => Err(Reason::Banned),
        _ => Ok(()),
    }
}
