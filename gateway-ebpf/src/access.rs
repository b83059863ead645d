//! Blocked, exempt and banned sources: two LPM tries for prefixes, a hash for single sources.

use aya_ebpf::maps::lpm_trie::Key;
use gateway_common::{
    maps::{Settings, access, flag, is_over},
    packet::Parsed,
    verdict::Reason,
};

use crate::maps;

/// The class of limits of the source. `Err`: the access list settles it, one way or the other.
#[inline(always)]
pub fn judge(settings: &Settings, parsed: &Parsed, now: u64) -> Result<u8, Reason> {
    let source = parsed.source;
    let rule = if source.is_v4() {
        if settings.flags & flag::ACCESS_V4 == 0 {
            return Ok(0);
        }
        maps::ACCESS_V4.get(Key::new(32, (source.lo as u32).to_be_bytes()))
    } else {
        if settings.flags & flag::ACCESS_V6 == 0 {
            return Ok(0);
        }
        maps::ACCESS_V6.get(Key::new(128, source.octets()))
    };
    let Some(rule) = rule else { return Ok(0) };
    match rule.action_at(now) {
        access::BLOCK => Err(Reason::Blocked),
        access::BAN => Err(Reason::Banned),
        access::EXEMPT => Err(Reason::Exempt),
        _ => Ok(rule.class),
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
