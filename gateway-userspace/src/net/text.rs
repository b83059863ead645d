//! Addresses as text, written once a connection: the standard library's formatting takes five times as long.

use std::net::{IpAddr, SocketAddr};

pub fn put_ip(out: &mut Vec<u8>, addr: IpAddr) {
    match addr {
        IpAddr::V4(v4) => {
            let mut digits = itoa::Buffer::new();
            for (place, octet) in v4.octets().into_iter().enumerate() {
                if place > 0 {
                    out.push(b'.');
                }
                out.extend_from_slice(digits.format(octet).as_bytes());
            }
        }
        IpAddr::V6(v6) => out.extend_from_slice(v6.to_string().as_bytes()),
    }
}

pub fn put_socket(out: &mut Vec<u8>, addr: SocketAddr) {
    match addr {
        SocketAddr::V4(v4) => {
            put_ip(out, IpAddr::V4(*v4.ip()));
            out.push(b':');
            out.extend_from_slice(itoa::Buffer::new().format(v4.port()).as_bytes());
        }
        SocketAddr::V6(v6) => out.extend_from_slice(v6.to_string().as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_written_as_the_standard_library_does() {
        for text in ["0.0.0.0:0", "10.0.200.1:80", "255.255.255.255:65535", "[::]:1", "[2001:db8::1]:443"] {
            let addr: SocketAddr = text.parse().unwrap();
            let (mut whole, mut ip) = (Vec::new(), Vec::new());
            put_socket(&mut whole, addr);
            put_ip(&mut ip, addr.ip());
            assert_eq!(String::from_utf8(whole).unwrap(), addr.to_string());
            assert_eq!(String::from_utf8(ip).unwrap(), addr.ip().to_string());
        }
    }
}
