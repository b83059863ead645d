//! Attaching `xdp_gateway` to interfaces: native, else generic, else off, and always knowing why.

use std::fs;

use aya::programs::{
    ProgramError, Xdp, XdpMode,
    links::{FdLink, PinnedLink},
    xdp::XdpLink,
};

use super::{
    error::{KernelError, chain, errno},
    interfaces,
    pins::{LeftLink, LinkMode, Pins},
    report::InterfaceStatus,
    sys,
};
use crate::config::model::KernelMode;

/// Why an interface of the config is off that does not exist: `follow` looks out for it.
pub const NOT_THERE: &str = "there is no such interface; it is attached to when it comes";

/// An interface of the config and how it went.
pub struct Attached {
    pub name: String,
    pub ifindex: u32,
    /// None: off.
    pub mode: Option<LinkMode>,
    pub reason: Option<String>,
    /// Ends when it is closed, unless it is also pinned.
    link: Option<FdLink>,
}

impl Attached {
    pub fn off(name: &str, why: &str) -> Self {
        Self { name: name.to_owned(), ifindex: 0, mode: None, reason: Some(why.to_owned()), link: None }
    }

    pub fn status(&self) -> InterfaceStatus {
        InterfaceStatus {
            name: self.name.clone(),
            ifindex: self.ifindex,
            mode: self.mode.map_or("off", LinkMode::name),
            reason: self.reason.clone(),
        }
    }

    pub fn has_link(&self) -> bool {
        self.link.is_some()
    }

    /// After what was pinned is gone. Where that fails the link goes with it, and the interface is attached to anew.
    pub fn pin_again(&mut self, pins: &Pins) {
        let (Some(mode), Some(link)) = (self.mode, self.link.take()) else { return };
        if let Ok(pinned) = link.pin(pins.xdp_link(&self.name, mode)) {
            self.link = Some(pinned.into());
        }
    }

    /// Takes the program off the interface.
    pub fn detach(self, pins: Option<&Pins>) {
        if let (Some(pins), Some(mode)) = (pins, self.mode) {
            let _ = fs::remove_file(pins.xdp_link(&self.name, mode));
        }
        drop(self.link);
    }
}

/// Attaches the loaded program to one interface, over the link an earlier run left there if its mode will do: the
/// kernel swaps the program in one step and no packet goes unseen.
///
/// # Errors
/// Only for what the config insists on: a mode by name, or an interface that is not there.
pub fn attach(
    xdp: &mut Xdp,
    name: &str,
    wanted: KernelMode,
    pins: Option<&Pins>,
    left: &[LeftLink],
) -> Result<Attached, KernelError> {
    let ifindex = sys::ifindex(name).ok_or_else(|| KernelError::NoInterface { name: name.to_owned() })?;
    let modes: &[LinkMode] = match wanted {
        KernelMode::Auto => &[LinkMode::Native, LinkMode::Generic],
        KernelMode::Native => &[LinkMode::Native],
        KernelMode::Generic => &[LinkMode::Generic],
        KernelMode::Off => &[],
    };
    for link in left.iter().filter(|link| link.interface == name) {
        // A generic link is not worth keeping where native may be had: try afresh.
        if modes.first() == Some(&link.mode)
            && let Some(adopted) = adopt(xdp, link, pins)
        {
            return Ok(Attached {
                name: name.to_owned(),
                ifindex,
                mode: Some(link.mode),
                reason: None,
                link: Some(adopted),
            });
        }
        let _ = fs::remove_file(&link.path);
    }
    let mut reasons = Vec::new();
    for &mode in modes {
        match attach_link(xdp, ifindex, name, mode, pins) {
            Ok((link, note)) => {
                reasons.extend(note);
                let reason = (!reasons.is_empty()).then(|| reasons.join("; "));
                return Ok(Attached {
                    name: name.to_owned(),
                    ifindex,
                    mode: Some(mode),
                    reason,
                    link: Some(link),
                });
            }
            Err(error) if is_busy(&error) => {
                let (other, cure) = busy_with(name, ifindex);
                if wanted != KernelMode::Auto {
                    return Err(KernelError::Busy { interface: name.to_owned(), other, cure });
                }
                reasons.push(format!("another XDP program is attached to {name} ({other}): {cure}"));
                break;
            }
            Err(error) => {
                let why = explain(mode, &error);
                if wanted != KernelMode::Auto {
                    return Err(KernelError::Mode { interface: name.to_owned(), mode: mode.name(), why });
                }
                reasons.push(format!("no {} mode: {why}", mode.name()));
            }
        }
    }
    let reason = if modes.is_empty() { "kernel.mode is off".to_owned() } else { reasons.join("; ") };
    Ok(Attached { name: name.to_owned(), ifindex, mode: None, reason: Some(reason), link: None })
}

fn adopt(xdp: &mut Xdp, left: &LeftLink, pins: Option<&Pins>) -> Option<FdLink> {
    let pinned = PinnedLink::from_pin(&left.path).ok()?;
    let link = XdpLink::try_from(FdLink::from(pinned)).ok()?;
    // Fails where the interface was made anew under its old name: the link is dead then.
    let id = xdp.attach_to_link(link).ok()?;
    let link = FdLink::try_from(xdp.take_link(id).ok()?).ok()?;
    let path = pins?.xdp_link(&left.interface, left.mode);
    if path != left.path {
        fs::rename(&left.path, &path).ok()?;
    }
    Some(link)
}

/// Attaches and pins. A link that cannot be pinned still holds while the daemon runs.
fn attach_link(
    xdp: &mut Xdp,
    ifindex: u32,
    name: &str,
    mode: LinkMode,
    pins: Option<&Pins>,
) -> Result<(FdLink, Option<String>), ProgramError> {
    let link = fresh_link(xdp, ifindex, mode)?;
    let Some(pins) = pins else { return Ok((link, None)) };
    let path = pins.xdp_link(name, mode);
    let _ = fs::remove_file(&path);
    match link.pin(&path) {
        Ok(pinned) => Ok((pinned.into(), None)),
        Err(error) => {
            // The failed call took the link with it.
            let note = format!("its link cannot be pinned ({}), so it ends with the daemon", chain(&error));
            Ok((fresh_link(xdp, ifindex, mode)?, Some(note)))
        }
    }
}

fn fresh_link(xdp: &mut Xdp, ifindex: u32, mode: LinkMode) -> Result<FdLink, ProgramError> {
    let flag = match mode {
        LinkMode::Native => XdpMode::Driver,
        LinkMode::Generic => XdpMode::Skb,
    };
    let id = xdp.attach_to_if_index(ifindex, flag)?;
    // Links exist since Linux 5.9, programs with frags, as ours is, only since 5.18.
    FdLink::try_from(xdp.take_link(id)?).map_err(|_| ProgramError::NotAttached)
}

/// Whose program is there, and how to make room.
fn busy_with(name: &str, ifindex: u32) -> (String, String) {
    match interfaces::program_on(ifindex) {
        Some(other) => (other.describe(), other.cure(name)),
        None => ("it went meanwhile".to_owned(), "try again".to_owned()),
    }
}

fn is_busy(error: &ProgramError) -> bool {
    matches!(errno(error), Some(libc::EBUSY | libc::EEXIST))
}

fn explain(mode: LinkMode, error: &ProgramError) -> String {
    match (mode, errno(error)) {
        (LinkMode::Native, Some(libc::EOPNOTSUPP)) => "its driver has none".to_owned(),
        (_, Some(libc::EPERM | libc::EACCES)) => "CAP_NET_ADMIN is missing".to_owned(),
        (_, Some(libc::ERANGE | libc::EINVAL)) => {
            format!("{} (is its MTU above the driver's limit?)", chain(error))
        }
        _ => chain(error),
    }
}
