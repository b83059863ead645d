//! What is wrong with the kernel half.

use super::{Found, Level, NEARLY};
use crate::{
    config::model::{Config, KernelMode, Steer},
    kernel::{Fill, KernelStatus},
};

const HALF: &str = "kernel half";
/// The share of a table's entries from where on it is as good as full.
const ALMOST_ALL: f64 = 0.95;
/// For so long something that others took away from the kernel half is worth a word.
const TAKEN_SECONDS: u64 = 60;

impl Found {
    pub(super) fn kernel(&mut self, config: &Config, status: &KernelStatus, drift: usize) {
        let of = || HALF.to_owned();
        let asked = config.kernel.mode != KernelMode::Off && !config.kernel.interfaces.is_empty();
        let off = asked && status.interfaces.iter().all(|interface| interface.mode == "off");
        let level = if off { Level::Fail } else { Level::Warn };
        for warning in &status.warnings {
            let cure = if asked { "`gateway doctor` tells what this host offers and lacks" } else { "" };
            self.add(level, of(), warning.clone(), cure);
        }
        if asked && status.interfaces.is_empty() && status.warnings.is_empty() {
            self.add(Level::Fail, of(), "XDP is on no interface", "`gateway doctor`; a restart tries anew");
        }
        if let Some(why) =
            status.steering.reason.as_ref().filter(|_| config.kernel.steer != Steer::Off && asked)
        {
            let what = format!("connections are not steered to workers by their source: {why}");
            self.add(
                Level::Warn,
                of(),
                what,
                "`gateway doctor`; the kernel spreads them over workers meanwhile",
            );
        }
        if drift > 0 {
            let what = format!("{drift} entries of the kernel's maps are not as the config says");
            self.add(Level::Fail, of(), what, "`gateway kernel verify` tells which, and puts them right");
        }
        for taken in status.taken.iter().filter(|taken| taken.seconds_ago < TAKEN_SECONDS) {
            let what = format!(
                "{} was taken away from outside {} seconds ago ({} times since the start), and put back",
                taken.what, taken.seconds_ago, taken.times
            );
            let cure = "look who does it (`bpftool link detach`, `ip link`, another XDP program, `rm` in the bpffs); to take \
                        gateway off an interface, leave it out of `kernel.interfaces`";
            self.add(Level::Fail, of(), what, cure);
        }
        if status.syn.attack {
            let what = "a SYN flood is under way: new connections have to prove themselves";
            self.add(
                Level::Warn,
                of(),
                what,
                "`gateway kernel sources` and `gateway top` (page 4) tell where it comes from",
            );
        }
    }

    pub(super) fn fill(&mut self, fill: &Fill) {
        let (Fill { map, entries, capacity }, share) = (fill, fill.share());
        if share < NEARLY {
            return;
        }
        let level = if share >= ALMOST_ALL { Level::Fail } else { Level::Warn };
        let what = format!("{map} is {:.0}% full: {entries} of {capacity} entries", share * 100.0);
        let cure = match *map {
            "BANS" => {
                "lift bans (`gateway ban list`), or ban prefixes in place of single sources: a full table takes no more"
            }
            "ACCESS_V4" | "ACCESS_V6" => "merge prefixes of `kernel.block` into larger ones",
            _ => "use fewer listeners, or fewer workers",
        };
        self.add(level, HALF.into(), what, cure);
    }
}
