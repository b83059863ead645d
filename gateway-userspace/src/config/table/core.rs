//! The root, the process itself, the kernel half and what is seen from outside.

use std::time::Duration;

use super::{
    BUCKET_OR_RATE, BYTE_BUCKET_OR_RATE, Key, Kind, OFF, Section,
    acme::ACME,
    auth::{AUTH, CONSUMER},
    cache::CACHE,
    limit::{LIMIT, PENALTY, SHARED},
    listener::{CERT, LISTENER, SECRET, TLS},
    route::ROUTE,
    seconds,
    seeing::{ACCESS_LOG, ALERT, NOTIFY, TRACING},
    service::SERVICE,
    text::{ADDRESS, BYTE_RATE, FILE, FILES, INTERFACE, NAME, NAME_SERVER, PERCENT, PREFIX, RATE},
    traffic::UPSTREAM,
};

pub(crate) static ROOT: Section = Section {
    doc: "A config is one file, and the files it includes, which may be of other formats. At least one listener and one route, or one service, must be there.",
    keys: &[
        Key::new(
            "include",
            Kind::List { of: &Kind::Text(&FILES), min: 0, one: true },
            "Files to read as well, merged by name; `*` matches in the last part of a path. The same name in two files \
             is an error.",
        )
        .default("[]"),
        Key::new("gateway", Kind::Table(&GATEWAY), "The process itself."),
        Key::new("kernel", Kind::Table(&KERNEL), "The kernel half: XDP and steering."),
        Key::new("listener", Kind::Named(&LISTENER), "Where clients connect."),
        Key::new("cert", Kind::Named(&CERT), "Certificates."),
        Key::new("upstream", Kind::Named(&UPSTREAM), "Groups of targets that serve the same."),
        Key::new("route", Kind::Named(&ROUTE), "Which requests go to which upstream: the most specific match wins."),
        Key::new("shared", Kind::Table(&SHARED), "What several gateways share. Left out: nothing."),
        Key::new("penalty", Kind::Table(&PENALTY), "Bans of clients that misbehave. Left out: none."),
        Key::new("service", Kind::Named(&SERVICE), "L4 services: TCP and UDP, forwarded by the kernel half."),
        Key::new("access_log", Kind::Table(&ACCESS_LOG), "One line a request."),
        Key::new("metrics", Kind::Table(&METRICS), "Prometheus metrics, `/livez` and `/readyz`."),
        Key::new("admin", Kind::Table(&ADMIN), "The admin API."),
        Key::new("state", Kind::Table(&STATE), "What the gateway keeps, and what that is sealed with."),
        Key::new("acme", Kind::Table(&ACME), "Certificates by ACME."),
        Key::new("tracing", Kind::Table(&TRACING), "OpenTelemetry traces."),
        Key::new("limit", Kind::Named(&LIMIT), "Limits of requests, bytes, tokens."),
        Key::new("cache", Kind::Named(&CACHE), "Shared caches of responses."),
        Key::new("auth", Kind::Named(&AUTH), "Ways to tell who calls."),
        Key::new("consumer", Kind::Named(&CONSUMER), "Who may call."),
        Key::new("alert", Kind::Named(&ALERT), "What somebody is to be told of."),
        Key::new("notify", Kind::Named(&NOTIFY), "Who is told of alerts."),
    ],
};

static GATEWAY: Section = Section {
    doc: "The process itself.",
    keys: &[
        Key::new(
            "name",
            Kind::Text(&NAME),
            "This instance's name in logs and status. Default: the host name.",
        ),
        Key::new(
            "workers",
            Kind::Either(&[
                Kind::Choice { now: &[("auto", "one a core")], later: &[] },
                Kind::Int { min: 1, max: 1024 },
            ]),
            "Threads that serve, each with its own sockets and pools; \"auto\" is one a core.",
        )
        .default("\"auto\"")
        .restart(),
        Key::new(
            "drain",
            Kind::Duration { min: seconds(0), max: seconds(86_400) },
            "How long open connections may finish after stop.",
        )
        .default("\"30s\""),
        Key::new("log", Kind::Table(&LOG), "The process log, on stderr."),
        Key::new(
            "resolver",
            Kind::List { of: &Kind::Text(&NAME_SERVER), min: 0, one: true },
            "Name servers that upstreams' names are looked up at; without any, those of /etc/resolv.conf.",
        )
        .default("[]"),
        Key::new(
            "zone",
            Kind::Text(&NAME),
            "Where this gateway stands: it prefers targets of the same `zone`.",
        ),
        Key::new(
            "limit_keys",
            Kind::Int { min: 1024, max: 1 << 28 },
            "Keys of limits that have a quota of their own at once, 32 bytes each, rounded up to a power of two; only those              that used something of it count. More share quotas with others.",
        )
        .default("1_048_576")
        .restart(),
        Key::new(
            "limit_state",
            Kind::Either(&[OFF, Kind::Text(&FILE)]),
            "The file that keeps what is used of limits over restarts and upgrades. Default: \"limits.state\" beside \
             `admin.socket`; on a disk it outlasts a reboot too.",
        )
        .restart(),
    ],
};

static LOG: Section = Section {
    doc: "The process log, on stderr.",
    keys: &[
        Key::new(
            "level",
            Kind::Choice {
                now: &[("error", ""), ("warn", ""), ("info", ""), ("debug", ""), ("trace", "")],
                later: &[],
            },
            "The least important messages that are written.",
        )
        .default("\"info\""),
        Key::new(
            "format",
            Kind::Choice {
                now: &[("auto", "text on a terminal, else JSON"), ("text", ""), ("json", "")],
                later: &[],
            },
            "How they are written.",
        )
        .default("\"auto\"")
        .restart(),
    ],
};

static KERNEL: Section = Section {
    doc: "The kernel half. Without the privileges or the kernel for it the gateway still serves, and says so, unless \
          `required` is true.",
    keys: &[
        Key::new(
            "interfaces",
            Kind::List { of: &Kind::Text(&INTERFACE), min: 0, one: true },
            "Network interfaces that the XDP program is attached to; none: no XDP.",
        )
        .default("[]")
        .restart(),
        Key::new(
            "mode",
            Kind::Choice {
                now: &[
                    ("auto", "native, else generic, else off"),
                    ("native", "in the driver, or the start fails"),
                    ("generic", "in the network stack, or the start fails"),
                    ("off", "no XDP"),
                ],
                later: &["offload"],
            },
            "Where the XDP program runs.",
        )
        .default("\"auto\"")
        .restart(),
        Key::new(
            "steer",
            Kind::Choice {
                now: &[
                    ("ip-hash", "one worker a client address"),
                    ("off", "the kernel's SO_REUSEPORT spreading"),
                ],
                later: &[],
            },
            "Which worker gets a new connection.",
        )
        .default("\"ip-hash\""),
        Key::new("required", Kind::Bool, "Refuse to start (exit 3) when the kernel half cannot run.")
            .default("false"),
        Key::new("pin", Kind::Text(&FILE), "Where maps and links are pinned.")
            .default("\"/sys/fs/bpf/gateway\"")
            .restart(),
        Key::new(
            "limit",
            Kind::Table(&KERNEL_LIMIT),
            "Limits a source address, before the TCP stack sees the packet.",
        ),
        Key::new(
            "class",
            Kind::Named(&KERNEL_CLASS),
            "Other limits than `limit` for the sources of some prefixes; at most 15 classes.",
        ),
        Key::new("block", Kind::Table(&KERNEL_BLOCK), "Sources whose packets are dropped."),
        Key::new(
            "flows",
            Kind::Int { min: 1024, max: 1 << 24 },
            "Connections that L4 services can have at once, rounded up to a power of two.",
        )
        .default("262_144")
        .restart(),
        Key::new(
            "syn_cookies",
            Kind::Either(&[OFF, Kind::Table(&SYN_COOKIES)]),
            "Make clients prove their address before a connection costs anything; \"off\": never.",
        )
        .default("\"off\""),
        Key::new(
            "adapt",
            Kind::Either(&[OFF, Kind::Table(&ADAPT)]),
            "Lower all limits of the kernel half while this host has too much to do; \"off\": never.",
        )
        .default("\"off\""),
    ],
};

static ADAPT: Section = Section {
    doc: "When the kernel half's limits are lowered: a factor for all of them moves between `from` and 1.",
    keys: &[
        Key::new(
            "cpu",
            Kind::Text(&PERCENT),
            "The share of time in which something may wait for a CPU (`some` of /proc/pressure/cpu). Left out: \"80%\", \
             or with `p99`, `errors` or `queue`, it does not matter.",
        ),
        Key::new(
            "p99",
            Kind::Duration { min: Duration::from_millis(1), max: seconds(3600) },
            "The 99th percentile of the time until an answer of an upstream begins, of all together. Left out: it does not matter.",
        ),
        Key::new(
            "errors",
            Kind::Text(&PERCENT),
            "The share of requests that fail: 5xx, or no answer at all. Left out: it does not matter.",
        ),
        Key::new(
            "queue",
            Kind::Int { min: 1, max: 1_000_000 },
            "Requests that wait for a target with room. Left out: it does not matter.",
        ),
        Key::new("from", Kind::Text(&PERCENT), "The limits never fall below this share of them.")
            .default("\"10%\""),
    ],
};

static SYN_COOKIES: Section = Section {
    doc: "When new TCP connections must be confirmed by a SYN cookie.",
    keys: &[Key::new("above", Kind::Text(&RATE), "From so many SYNs on, of all sources together.").required()],
};

static KERNEL_LIMIT: Section = Section {
    doc: "Per source (an IPv4 address, or an IPv6 prefix of `ipv6_prefix` bits), in the kernel. Left out: not limited.",
    keys: &[
        Key::new("packets", BUCKET_OR_RATE, "Packets of any kind."),
        Key::new("new", BUCKET_OR_RATE, "New TCP connections (SYNs)."),
        Key::new("bytes", BYTE_BUCKET_OR_RATE, "Bytes of frames."),
        LIMIT_MODE,
        Key::new("exempt", PREFIXES, "Sources that are never limited and never banned.").default("[]"),
        Key::new(
            "ipv6_prefix",
            Kind::Int { min: 32, max: 64 },
            "Bits of an IPv6 source that share one bucket.",
        )
        .default("64"),
    ],
};

const LIMIT_MODE: Key = Key::new(
    "mode",
    Kind::Choice {
        now: &[("hard", "dropped"), ("soft", "passed and counted while there is no overload")],
        later: &[],
    },
    "What becomes of packets over the limit.",
)
.default("\"hard\"");

static KERNEL_CLASS: Section = Section {
    doc: "Limits for the sources of some prefixes, in place of those of `kernel.limit`; the longest prefix wins. What is \
          left out is not limited for them.",
    keys: &[
        Key::new("from", Kind::List { of: &Kind::Text(&PREFIX), min: 1, one: true }, "Whom it is for.")
            .required(),
        Key::new("packets", BUCKET_OR_RATE, "Packets of any kind."),
        Key::new("new", BUCKET_OR_RATE, "New TCP connections (SYNs)."),
        Key::new("bytes", BYTE_BUCKET_OR_RATE, "Bytes of frames."),
        LIMIT_MODE,
    ],
};

const PREFIXES: Kind = Kind::List { of: &Kind::Text(&PREFIX), min: 0, one: true };

pub(super) static BYTE_BUCKET: Section = Section {
    doc: "A token bucket of bytes; `bytes = \"10MiB/s\"` is short for `{ rate = \"10MiB/s\" }`.",
    keys: &[
        Key::new("rate", Kind::Text(&BYTE_RATE), "Bytes that come back.").required(),
        Key::new(
            "burst",
            Kind::Size { min: 2 << 10, max: 1 << 40 },
            "Bytes of a full bucket; a larger frame never passes. Default: one second of `rate`, at least 64KiB.",
        ),
    ],
};

pub(super) static BUCKET: Section = Section {
    doc: "A token bucket; `packets = \"20k/s\"` is short for `{ rate = \"20k/s\" }`.",
    keys: &[
        Key::new("rate", Kind::Text(&RATE), "Tokens that come back.").required(),
        Key::new(
            "burst",
            Kind::Int { min: 1, max: 1_000_000_000 },
            "Tokens of a full bucket. Default: one second of `rate`, at least 1.",
        ),
    ],
};

static KERNEL_BLOCK: Section = Section {
    doc: "Sources whose packets are dropped in the kernel.",
    keys: &[
        Key::new("cidrs", PREFIXES, "Blocked prefixes.").default("[]"),
        Key::new(
            "except",
            PREFIXES,
            "Holes in the blocked prefixes: the longest prefix wins. They are still limited.",
        )
        .default("[]"),
        Key::new(
            "files",
            Kind::List { of: &Kind::Text(&FILE), min: 0, one: true },
            "Files of blocked prefixes, one a line, `#` starts a comment; relative to the config file.",
        )
        .default("[]"),
    ],
};

static METRICS: Section = Section {
    doc: "Prometheus metrics, `/livez` and `/readyz`.",
    keys: &[
        Key::new(
            "bind",
            Kind::Either(&[OFF, Kind::Text(&ADDRESS)]),
            "Where they are served; \"off\": nowhere.",
        )
        .default("\"127.0.0.1:9180\"")
        .restart(),
        Key::new("consumer_label", Kind::OnlyFalse, "Label requests with their consumer.").default("false"),
    ],
};

static STATE: Section = Section {
    doc: "What the gateway keeps from one start to the next, and what that is sealed with (AES-256-GCM): what it keeps here, \
          what `[acme]` keeps, and bans. See [auth.md](auth.md#what-is-kept).",
    keys: &[
        Key::new("directory", Kind::Text(&FILE), "Where, made with mode 0700.")
            .default("\"/var/lib/gateway\""),
        Key::new(
            "key",
            Kind::Table(&SECRET),
            "What it is sealed with: at least 16 bytes that nobody can guess, such as `openssl rand -base64 32` prints. \
             Left out: files are not sealed, and no keys can be made by `gateway key`.",
        ),
        Key::new(
            "old_keys",
            Kind::List { of: &Kind::Table(&SECRET), min: 0, one: true },
            "Keys of before: what they sealed is sealed with `key` when the config is loaded.",
        )
        .default("[]"),
    ],
};

static ADMIN: Section = Section {
    doc: "The admin API, which the command line uses.",
    keys: &[
        Key::new("socket", Kind::Text(&FILE), "Its unix socket.")
            .default("\"/run/gateway/admin.sock\"")
            .restart(),
        Key::new(
            "audit",
            Kind::Text(&FILE),
            "A file, made with mode 0600, that every request to change something is written to, a line of JSON each: when, who, \
             what, and whether it was done. Left out: the process log has them only.",
        ),
        Key::new("http", Kind::Table(&ADMIN_HTTP), "The admin API and the dashboard over TCP.").restart(),
    ],
};

static ADMIN_HTTP: Section = Section {
    doc: "The admin API over TCP for whoever has the token, and a page in the browser. Beyond this host it is served by \
          TLS only.",
    keys: &[
        Key::new("bind", Kind::Text(&ADDRESS), "Where: \"127.0.0.1:9900\".").required(),
        Key::new(
            "token",
            Kind::Table(&SECRET),
            "What lets in: at least 16 characters, as `Authorization: Bearer TOKEN` or typed into the page. White space \
             around it does not count.",
        )
        .required(),
        Key::new("tls", Kind::Table(&TLS), "Serve it by TLS. Needed where others than this host can connect."),
        Key::new("dashboard", Kind::Bool, "The page; false: the API only.").default("true"),
    ],
};
