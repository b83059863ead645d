//! What others take away while the daemon runs: programs (`bpftool link detach`), and what is pinned. It is noticed within
//! a second, put back, and told.

use std::{collections::BTreeMap, fs, time::Instant};

use super::{
    attach::Attached, interfaces, object, pins::Pins, plane::Loaded, report::TakenStatus, steer, sys,
};

/// Why an interface is off whose program is gone.
pub const TAKEN: &str = "its program was taken off from outside";

/// What was taken: how often, and when last.
#[derive(Debug, Default)]
pub struct Taken(BTreeMap<String, (u64, Instant)>);

impl Taken {
    fn note(&mut self, what: String) {
        tracing::warn!(what, "kernel: taken away from outside; it is put back");
        self.0
            .entry(what)
            .and_modify(|(times, at)| (*times, *at) = (*times + 1, Instant::now()))
            .or_insert((1, Instant::now()));
    }

    pub fn rows(&self) -> Vec<TakenStatus> {
        let row = |(what, (times, at)): (&String, &(u64, Instant))| TakenStatus {
            what: what.clone(),
            times: *times,
            seconds_ago: at.elapsed().as_secs(),
        };
        self.0.iter().map(row).collect()
    }
}

impl Loaded {
    /// To be called every second, before interfaces that are off are attached to again.
    pub(super) fn look_after(&mut self) {
        if self.bench {
            return;
        }
        self.look_after_programs();
        self.look_after_steering();
        self.look_after_pins();
    }

    fn look_after_programs(&mut self) {
        let Some(ours) = self.xdp().ok().and_then(|xdp| Some(xdp.info().ok()?.id())) else { return };
        for at in 0..self.attached.len() {
            let Attached { name, ifindex, mode: Some(_), .. } = &self.attached[at] else { continue };
            // One that is gone as a whole is somebody else's business; so is one that cannot be asked.
            let gone = sys::ifindex(name) == Some(*ifindex)
                && interfaces::programs_on(*ifindex).is_ok_and(|programs| !programs.contains(&ours));
            if gone {
                self.taken.note(format!("the XDP program of {name}"));
                let off = Attached::off(name, TAKEN);
                std::mem::replace(&mut self.attached[at], off).detach(self.pins.as_ref());
            }
        }
    }

    fn look_after_steering(&mut self) {
        if self.steering.is_on() && steer::is_attached(&self.ebpf) == Some(false) {
            self.taken.note("steering".into());
            let put_back = self.steering.attach_again(&mut self.ebpf, self.pins.as_ref());
            self.steer_reason = put_back.err().map(|error| error.to_string());
        }
    }

    fn look_after_pins(&mut self) {
        let Some(pins) = &self.pins else { return };
        let maps = object::pinned().map(|map| (map, pins.map(map)));
        let maps: Vec<_> = maps.filter(|(_, path)| !path.exists()).collect();
        let links: Vec<usize> =
            (0..self.attached.len()).filter(|at| self.attached[*at].has_lost_pin(pins)).collect();
        let steer = self.steering.is_on() && !pins.steer_link().exists();
        if maps.is_empty() && links.is_empty() && !steer {
            return;
        }
        if self.pin_reason.is_none() {
            self.taken.note("what is pinned".into());
        }
        let put_back = fs::create_dir_all(pins.folder()).and_then(|()| {
            maps.iter().try_for_each(|(map, path)| match self.maps.fd(map) {
                Some(fd) => sys::pin(fd, path),
                None => Ok(()),
            })
        });
        if let Err(error) = put_back {
            let folder = pins.folder().display();
            self.pin_reason =
                Some(format!("what was pinned in {folder} is gone, and cannot be pinned again: {error}"));
            return;
        }
        self.pin_reason = None;
        for at in links {
            self.attached[at].pin_again(pins);
        }
        if steer {
            let put_back = self.steering.attach_again(&mut self.ebpf, Some(pins));
            self.steer_reason = put_back.err().map(|error| error.to_string());
        }
        // The lock was on the folder that is gone.
        if let Some(Err(error)) = self.pins.as_mut().map(Pins::lock) {
            self.pin_reason = Some(error.to_string());
        }
    }
}

/// For those who look at a folder of pins.
impl Attached {
    fn has_lost_pin(&self, pins: &Pins) -> bool {
        self.mode.is_some_and(|mode| self.has_link() && !pins.xdp_link(&self.name, mode).exists())
    }
}
