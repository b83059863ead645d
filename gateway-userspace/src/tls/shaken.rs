//! A handshake that is over, for those who tell of it.

use std::time::Instant;

use rustls::{CommonState, HandshakeKind, ProtocolVersion};

/// When it was, and what was agreed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shaken {
    pub from: Instant,
    pub to: Instant,
    /// "1.3"
    pub version: &'static str,
    /// As IANA names it.
    pub cipher: Option<&'static str>,
    pub resumed: bool,
    /// By ALPN.
    pub http2: bool,
}

impl Shaken {
    /// It began at `from`, and is over now.
    pub fn now(from: Instant, with: &CommonState) -> Self {
        let version = match with.protocol_version() {
            Some(ProtocolVersion::TLSv1_2) => "1.2",
            _ => "1.3",
        };
        let cipher = with.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str()).map(iana);
        Shaken {
            from,
            to: Instant::now(),
            version,
            cipher,
            resumed: with.handshake_kind() == Some(HandshakeKind::Resumed),
            http2: with.alpn_protocol() == Some(b"h2"),
        }
    }
}

/// rustls has names of its own for the suites of TLS 1.3 (RFC 8446 appendix B.4).
fn iana(suite: &'static str) -> &'static str {
    match suite {
        "TLS13_AES_128_GCM_SHA256" => "TLS_AES_128_GCM_SHA256",
        "TLS13_AES_256_GCM_SHA384" => "TLS_AES_256_GCM_SHA384",
        "TLS13_CHACHA20_POLY1305_SHA256" => "TLS_CHACHA20_POLY1305_SHA256",
        other => other,
    }
}
