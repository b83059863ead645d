//! What is not HTTP: packets, what proxies in front say, what Kafka's brokers answer.

use gateway_common::packet::{self, Parsed};

use crate::{observe::kafka, proxy_protocol};

/// A frame is judged alike each time, and one that is cut off is never read beyond its end.
pub fn packet(bytes: &[u8]) {
    for loopback in [false, true] {
        let (mut first, mut second) = (Parsed::default(), Parsed::default());
        let verdict = packet::parse(bytes, loopback, &mut first);
        assert_eq!(verdict, packet::parse(bytes, loopback, &mut second));
        assert_eq!(format!("{first:?}"), format!("{second:?}"));
        for end in 0..bytes.len().min(128) {
            let _ = packet::parse(&bytes[..end], loopback, &mut Parsed::default());
        }
    }
}

/// A header is whole at its end and not before.
pub fn proxy_protocol(bytes: &[u8]) {
    let Ok(Some((header, length))) = proxy_protocol::parse(bytes) else { return };
    assert!(length <= bytes.len());
    for end in (0..length).filter(|at| *at < 64 || length - at < 64) {
        assert_eq!(proxy_protocol::parse(&bytes[..end]), Ok(None), "read to {length}, and also to {end}");
    }
    assert_eq!(
        proxy_protocol::parse(&bytes[..length]),
        Ok(Some((header, length))),
        "what is behind changes it"
    );
}

/// What brokers answer: whatever it is, it is read or it is not.
pub fn kafka(bytes: &[u8]) {
    let read = || kafka::Reader(bytes);
    if let Ok(told) = kafka::Metadata::read(read()) {
        for partition in 0..told.partitions().min(16) {
            let _ = told.leader(partition as i32).map(str::len);
        }
    }
    let _ = (kafka::Produced::read(read()), kafka::sasl_mechanisms(read()));
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = kafka::challenge(text);
        if let Ok((brokers, topic)) = kafka::parse(text) {
            let again = format!("kafka://{}/{topic}", brokers.join(","));
            assert_eq!(kafka::parse(&again), Ok((brokers, topic)));
        }
    }
}
