//! What the kernel tells of this network namespace's interfaces: /sys/class/net may show another one's.

use std::{
    ffi::CStr,
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
};

use aya::programs::loaded_programs;

/// What libxdp's dispatcher is called.
const DISPATCHER: &str = "xdp_dispatcher";

/// Names of all interfaces that are up.
pub fn up() -> Vec<String> {
    let mut names = Vec::new();
    // SAFETY: the list ends with an index of zero and is given back once; its names are C strings.
    unsafe {
        let list = libc::if_nameindex();
        let mut next = list;
        while !next.is_null() && (*next).if_index != 0 {
            if let Ok(name) = CStr::from_ptr((*next).if_name).to_str()
                && link((*next).if_index).is_ok_and(|link| link.up)
            {
                names.push(name.to_owned());
            }
            next = next.add(1);
        }
        if !list.is_null() {
            libc::if_freenameindex(list);
        }
    }
    names.sort();
    names
}

/// The driver's name, as `ethtool -i` shows it.
pub fn driver(name: &str) -> Option<String> {
    const ETHTOOL_GDRVINFO: u32 = 3;
    const SIOCETHTOOL: libc::Ioctl = 0x8946;
    /// `struct ethtool_drvinfo`.
    #[repr(C)]
    struct Info {
        command: u32,
        driver: [u8; 32],
        rest: [u8; 160],
    }
    let socket = socket(libc::AF_INET, libc::SOCK_DGRAM, 0).ok()?;
    let mut info = Info { command: ETHTOOL_GDRVINFO, driver: [0; 32], rest: [0; 160] };
    if name.len() >= libc::IFNAMSIZ {
        return None;
    }
    // SAFETY: all-zero is a valid ifreq; the name fits with its end; the kernel writes no more than `Info` has.
    let done = unsafe {
        let mut request: libc::ifreq = std::mem::zeroed();
        for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *to = from as libc::c_char;
        }
        request.ifr_ifru.ifru_data = (&raw mut info).cast();
        libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut request)
    };
    let driver = info.driver.split(|&byte| byte == 0).next().unwrap_or_default();
    (done == 0 && !driver.is_empty()).then(|| String::from_utf8_lossy(driver).into_owned())
}

/// An XDP program on an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OnInterface {
    pub id: u32,
    /// Empty where we may not look.
    pub name: String,
}

impl OnInterface {
    /// Its name and number, and what to do about it where we know.
    pub fn describe(&self) -> String {
        let name = if self.name.is_empty() { "unnamed" } else { &self.name };
        format!("{name:?}, id {}", self.id)
    }

    /// How to make room for us on an interface.
    pub fn cure(&self, interface: &str) -> String {
        match self.name.as_str() {
            DISPATCHER => format!(
                "it is libxdp's dispatcher, which gateway does not join: `xdp-loader unload {interface} --all` \
                 takes its programs off"
            ),
            "xdp_gateway" => {
                "it is another gateway's: stop that one, or `gateway kernel detach --pin` its folder"
                    .to_owned()
            }
            _ => format!("`ip link set dev {interface} xdp off`, or end the program that attached it"),
        }
    }
}

/// The program on an interface, whoever attached it.
pub fn program_on(ifindex: u32) -> Option<OnInterface> {
    let id = link(ifindex).ok()?.programs.first().copied()?;
    let info = loaded_programs().flatten().find(|info| info.id() == id);
    let name = info.and_then(|info| info.name_as_str().map(str::to_owned)).unwrap_or_default();
    Some(OnInterface { id, name })
}

/// The numbers of the programs on an interface.
///
/// # Errors
/// It cannot be asked.
pub fn programs_on(ifindex: u32) -> io::Result<Vec<u32>> {
    Ok(link(ifindex)?.programs)
}

#[derive(Default)]
struct Link {
    up: bool,
    programs: Vec<u32>,
}

/// Asks by rtnetlink for one interface.
fn link(ifindex: u32) -> io::Result<Link> {
    const HEADER: usize = 16;
    const BODY: usize = 16;
    const IFLA_XDP: u16 = 43;
    /// `IFLA_XDP_PROG_ID` and those of a mode.
    const PROGRAM_IDS: [u16; 4] = [4, 5, 6, 7];
    let socket = socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_ROUTE)?;
    let mut request = [0u8; HEADER + BODY];
    request[..4].copy_from_slice(&((HEADER + BODY) as u32).to_ne_bytes());
    request[4..6].copy_from_slice(&libc::RTM_GETLINK.to_ne_bytes());
    request[6..8].copy_from_slice(&(libc::NLM_F_REQUEST as u16).to_ne_bytes());
    request[HEADER + 4..HEADER + 8].copy_from_slice(&ifindex.to_ne_bytes());
    // SAFETY: a buffer and its length; a datagram to the kernel is taken or refused at once.
    let sent = unsafe { libc::send(socket.as_raw_fd(), request.as_ptr().cast(), request.len(), 0) };
    if sent < 0 {
        return Err(io::Error::last_os_error());
    }
    let mut answer = vec![0u8; 32 << 10];
    // SAFETY: the kernel has answered before `send` returned; it writes at most the buffer's length.
    let got = unsafe {
        libc::recv(socket.as_raw_fd(), answer.as_mut_ptr().cast(), answer.len(), libc::MSG_DONTWAIT)
    };
    let answer = &answer[..usize::try_from(got).map_err(|_| io::Error::last_os_error())?];
    if answer.len() < HEADER + BODY || answer[4..6] != libc::RTM_NEWLINK.to_ne_bytes() {
        return Err(io::ErrorKind::NotFound.into());
    }
    let flags = u32_at(answer, HEADER + 8);
    let mut link = Link { up: flags & libc::IFF_UP as u32 != 0, programs: Vec::new() };
    for (_, xdp) in attributes(&answer[HEADER + BODY..]).filter(|(kind, _)| *kind == IFLA_XDP) {
        let ids = attributes(xdp).filter(|(kind, value)| PROGRAM_IDS.contains(kind) && value.len() >= 4);
        link.programs.extend(ids.map(|(_, value)| u32_at(value, 0)).filter(|id| *id != 0));
    }
    Ok(link)
}

fn socket(family: i32, kind: i32, protocol: i32) -> io::Result<OwnedFd> {
    // SAFETY: numbers only; a new descriptor is ours alone.
    unsafe {
        match libc::socket(family, kind | libc::SOCK_CLOEXEC, protocol) {
            -1 => Err(io::Error::last_os_error()),
            fd => Ok(OwnedFd::from_raw_fd(fd)),
        }
    }
}

/// Netlink attributes: length and kind, two bytes each, then the value, padded to four.
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    const NESTED: u16 = 0xc000;
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes([*bytes.first()?, *bytes.get(1)?]));
        let kind = u16::from_ne_bytes([*bytes.get(2)?, *bytes.get(3)?]) & !NESTED;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    if let Some(found) = bytes.get(at..at + 4) {
        word.copy_from_slice(found);
    }
    u32::from_ne_bytes(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_is_a_link_without_a_program_and_there_is_no_link_of_a_high_number() {
        let lo = crate::kernel::sys::ifindex("lo").unwrap();
        assert!(link(lo).is_ok_and(|link| link.programs.is_empty()));
        assert!(link(u32::MAX >> 2).is_err());
        assert_eq!(program_on(lo), None);
    }

    #[test]
    fn attributes_end_where_the_bytes_do() {
        let two = [6, 0, 1, 0, 7, 8, 0, 0, 8, 0, 43, 0x80, 1, 0, 0, 0, 9];
        let found: Vec<_> = attributes(&two).collect();
        assert_eq!(found, [(1, &[7, 8][..]), (43, &[1, 0, 0, 0][..])]);
        assert_eq!(attributes(&[0; 8]).count(), 0);
    }
}
