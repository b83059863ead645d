//! Listeners and their certificates.

use super::{
    Key, Kind, Need, Section, TIMEOUT,
    limit::QUOTA,
    match_text::FIELD_NAME,
    seconds,
    text::{ADDRESS, CREDENTIAL, FILE, NAME, PREFIX, SNI_NAME, VARIABLE},
};

pub(super) static LISTENER: Section = Section {
    doc: "Where clients connect.",
    keys: &[
        Key::new(
            "bind",
            Kind::Text(&ADDRESS),
            "Address and port. \":80\" is every IPv4 and IPv6 address of the host, \"0.0.0.0:80\" every IPv4 one.",
        )
        .required(),
        Key::new("max", Kind::Table(&LISTENER_MAX), "Limits."),
        Key::new("timeout", Kind::Table(&LISTENER_TIMEOUT), "Time limits."),
        Key::new(
            "protocols",
            Kind::List {
                of: &Kind::Choice {
                    now: &[("h1", "HTTP/1.1"), ("h2", "HTTP/2; in clear by prior knowledge")],
                    later: &["h3"],
                },
                min: 1,
                one: true,
            },
            "HTTP versions. Default: both with TLS, \"h1\" in clear.",
        ),
        Key::new("tls", Kind::Table(&TLS), "TLS. Left out: in clear."),
        Key::new(
            "redirect",
            Kind::Choice {
                now: &[("https", "to the same host and path, on the port of the listener with TLS")],
                later: &[],
            },
            "Answer every request with a redirect: 301 to GET and HEAD, 308 to others. No route is asked.",
        ),
        Key::new(
            "hsts",
            Kind::Either(&[Kind::Duration { min: seconds(0), max: seconds(10 * 365 * 86_400) }, Kind::Table(&HSTS)]),
            "Tell clients to come by TLS only from now on (Strict-Transport-Security, RFC 6797): for how long.",
        ),
        Key::new(
            "proxy_protocol",
            Kind::Table(&PROXY_PROTOCOL),
            "Take the client's address from the PROXY protocol, versions 1 and 2, before TLS and HTTP. Left out: nobody is believed.",
        ),
        Key::new(
            "real_ip",
            Kind::Table(&REAL_IP),
            "Take the client's address from a header of proxies in front. Left out: nobody is believed.",
        ),
    ],
};

static PROXY_PROTOCOL: Section = Section {
    doc: "The PROXY protocol from proxies in front (HAProxy's proxy-protocol.txt).",
    keys: &[Key { need: Need::Required, ..FROM }],
};

/// Also of a service.
const PREFIXES: Kind = Kind::List { of: &Kind::Text(&PREFIX), min: 1, one: true };
pub(super) const FROM: Key = Key::new(
    "from",
    PREFIXES,
    "Who sends a PROXY header, and must: their connections are refused without. Others are served without, and not believed.",
);

static REAL_IP: Section = Section {
    doc: "The client's address from a header, of connections that come from trusted proxies; others are not believed. \
          See [operations.md](operations.md#behind-another-proxy).",
    keys: &[
        Key::new(
            "from",
            Kind::List { of: &Kind::Text(&PREFIX), min: 1, one: true },
            "Trusted proxies. The client is the right-most address of the header that is none of theirs.",
        )
        .required(),
        Key::new(
            "header",
            Kind::Text(&FIELD_NAME),
            "\"x-forwarded-for\", \"forwarded\" (RFC 7239), or one that holds a single address, such as \"cf-connecting-ip\".",
        )
        .default("\"x-forwarded-for\""),
    ],
};

static LISTENER_MAX: Section = Section {
    doc: "Limits of a listener.",
    keys: &[
        Key::new(
            "connections",
            Kind::Int { min: 1, max: 10_000_000 },
            "Open client connections over all workers.",
        )
        .default("100_000"),
        Key::new(
            "connections_per_source",
            Kind::Int { min: 1, max: 10_000_000 },
            "Of these, open ones of one address (IPv6: /64) over all workers; the rest are reset at once. Not of trusted \
             proxies, nor of `kernel.limit.exempt`. Left out: no limit.",
        ),
        Key::new(
            "handshakes_per_source",
            Kind::Text(&QUOTA),
            "TLS handshakes of one address (IPv6: /64) in so long: \"20/s\". Beyond it a connection is reset before anything is \
             read of it. Exceptions as for connections. Left out: no limit.",
        ),
        Key::new(
            "header",
            Kind::Size { min: 8 << 10, max: 1 << 20 },
            "A request's head. By HTTP/1.1 it has 100 fields at most.",
        )
        .default("\"32KiB\""),
        Key::new(
            "body",
            Kind::Either(&[
                Kind::Choice { now: &[("unlimited", "no limit")], later: &[] },
                Kind::Size { min: 0, max: 1 << 50 },
            ]),
            "A request's body; \"unlimited\": no limit.",
        )
        .default("\"10MiB\""),
        Key::new("streams", Kind::Int { min: 1, max: 65_535 }, "Concurrent streams of an HTTP/2 connection.")
            .default("128"),
    ],
};

static LISTENER_TIMEOUT: Section = Section {
    doc: "Time limits of a listener.",
    keys: &[
        Key::new("header", TIMEOUT, "From the first byte of a request to the end of its head.")
            .default("\"10s\""),
        Key::new("idle", TIMEOUT, "Between two requests on a connection.").default("\"75s\""),
        Key::new("body", TIMEOUT, "Between two reads of a request's body, and two writes of a response.")
            .default("\"30s\""),
    ],
};

/// What of client certificates.
const CLIENT: Kind = Kind::Choice {
    now: &[
        ("require", "no connection without a good certificate"),
        ("request", "a certificate that is shown must be good"),
    ],
    later: &[],
};

pub(super) static TLS: Section = Section {
    doc: "TLS 1.3 and 1.2 with forward secrecy. Session tickets are encrypted with keys that change.",
    keys: &[
        Key::new(
            "cert",
            Kind::List {
                of: &Kind::Either(&[
                    Kind::Choice { now: &[("auto", "those that `[acme]` gets")], later: &[] },
                    Kind::Text(&NAME),
                ]),
                min: 1,
                one: true,
            },
            "Names of `[cert.NAME]`. Which one a client gets is decided by the host name it asks for (SNI) and the \
             names in the certificates, `*.example.com` among them; the first one where none fits or none is asked for.",
        )
        .required(),
        Key::new("min", Kind::Choice { now: &[("1.2", ""), ("1.3", "")], later: &[] }, "The oldest version.")
            .default("\"1.2\""),
        Key::new(
            "alpn",
            Kind::Either(&[
                Kind::Choice { now: &[("auto", "what `protocols` says, the newest first")], later: &[] },
                Kind::List {
                    of: &Kind::Choice { now: &[("h2", ""), ("http/1.1", "")], later: &["h3"] },
                    min: 1,
                    one: false,
                },
            ]),
            "What is offered by ALPN, the preferred one first. Each must be among `protocols`.",
        )
        .default("\"auto\""),
        Key::new(
            "client_ca",
            Kind::Text(&FILE),
            "Authorities of client certificates, PEM; relative to the config file. Watched, as `client_crl` is.",
        ),
        Key::new(
            "client_crl",
            Kind::Text(&FILE),
            "Client certificates that count no more: a revocation list (RFC 5280 section 5) of each authority between a \
             client and `client_ca`, PEM; relative to the config file. None is let in by a list that has expired. A \
             change of the file also ends all session tickets; connections go on.",
        ),
        Key::new(
            "client",
            CLIENT,
            "Client certificates; needs `client_ca`. Default: \"require\" where `client_ca` is there.",
        ),
        Key::new(
            "clients",
            Kind::Map { key: &SNI_NAME, of: &Kind::Table(&TLS_CLIENTS) },
            "Client certificates of those who ask for these host names (SNI), in place of the three above; of listeners. The longest name that fits \
             counts. A request for a host with other rules than those of its connection's handshake is refused (421 `misdirected`).",
        ),
        Key::new(
            "ticket_rotation",
            Kind::Duration { min: seconds(1), max: seconds(21_600) },
            "How long new session tickets are encrypted with one key. Tickets are good for that long, and never for more \
             than twice that.",
        )
        .default("\"6h\""),
    ],
};

static TLS_CLIENTS: Section = Section {
    doc: "Client certificates of those who ask for a host name.",
    keys: &[
        Key::new("client_ca", Kind::Text(&FILE), "As of the listener.").required(),
        Key::new("client_crl", Kind::Text(&FILE), "As of the listener."),
        Key::new("client", CLIENT, "As of the listener.").default("\"require\""),
    ],
};

static HSTS: Section = Section {
    doc: "Strict-Transport-Security; `hsts = \"365d\"` is short for `{ max_age = \"365d\" }`.",
    keys: &[
        Key::new(
            "max_age",
            Kind::Duration { min: seconds(0), max: seconds(10 * 365 * 86_400) },
            "For how long.",
        )
        .required(),
        Key::new("subdomains", Kind::Bool, "For every name under the host as well.").default("false"),
        Key::new("preload", Kind::Bool, "Browsers may ship with it.").default("false"),
    ],
};

pub(super) static CERT: Section = Section {
    doc: "A certificate and its key. Both files are watched: a good new pair is used from the next handshake on, a bad \
          one is refused and the old one stays.",
    keys: &[
        Key::new(
            "chain",
            Kind::Text(&FILE),
            "The certificate and those between it and its authority, PEM; relative to the config file.",
        )
        .required(),
        Key::new("key", Kind::Table(&SECRET), "Its private key, PEM: PKCS #8, PKCS #1 or SEC 1.").required(),
    ],
};

pub(super) static SECRET: Section = Section {
    doc: "Where a secret is; exactly one of these.",
    keys: &[
        Key::new("file", Kind::Text(&FILE), "In a file; relative to the config file."),
        Key::new("env", Kind::Text(&VARIABLE), "In an environment variable."),
        Key::new(
            "credential",
            Kind::Text(&CREDENTIAL),
            "In a systemd credential (a file in $CREDENTIALS_DIRECTORY).",
        ),
    ],
};
