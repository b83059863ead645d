//! `[listener.NAME]`.

use std::{collections::BTreeMap, time::Duration};

use super::tls;
use crate::config::{
    error::{Problem, ProblemKind, Problems},
    model::{Bind, Hsts, Listener, ListenerMax, ListenerTimeout, ProxyProtocol, RealIp, RealIpHeader},
    node::{Fields, Value},
    units::{ByteSize, Prefixes},
};

const HTTPS: u16 = 443;

pub(super) fn listeners(root: &Fields, problems: &mut Problems) -> BTreeMap<String, Listener> {
    let https = https_port(root);
    root.named("listener")
        .iter()
        .filter_map(|(name, fields)| Some((name.clone(), listener(name, fields, root, https, problems)?)))
        .collect()
}

/// The port that browsers are sent to: 443 if anything listens there with TLS, or nothing does anywhere; else the
/// first listener with TLS.
fn https_port(root: &Fields) -> u16 {
    let ports: Vec<u16> = root
        .named("listener")
        .values()
        .filter(|fields| fields.node("tls").is_some())
        .filter_map(|fields| Some(fields.get::<Bind>("bind")?.port()))
        .collect();
    if ports.contains(&HTTPS) { HTTPS } else { ports.first().copied().unwrap_or(HTTPS) }
}

fn listener(
    name: &str,
    fields: &Fields,
    root: &Fields,
    https: u16,
    problems: &mut Problems,
) -> Option<Listener> {
    let max = fields.table("max");
    let timeout = fields.table("timeout");
    let tls = fields.node("tls").is_some();
    let protocols: Vec<&str> =
        fields.get("protocols").unwrap_or(if tls { vec!["h1", "h2"] } else { vec!["h1"] });
    let (http1, http2) = (protocols.contains(&"h1"), protocols.contains(&"h2"));
    for key in ["redirect", "hsts"] {
        let (wrong, why) = match key {
            "redirect" => (tls, "would send clients of TLS back to TLS"),
            _ => (!tls, "counts only over TLS (RFC 6797 section 7.2)"),
        };
        if wrong && fields.node(key).is_some() && !fields.broken {
            let message = format!("`listener.{name}.{key}` {why}");
            let problem = Problem::new(ProblemKind::Conflict, &fields.place(key), message);
            problems.push(problem.hint(format!("take `{key}` out, or put it into another listener")));
        }
    }
    if !tls && max.node("handshakes_per_source").is_some() && !fields.broken {
        let message =
            format!("`listener.{name}.max.handshakes_per_source` is of TLS, which there is none of");
        let problem = Problem::new(ProblemKind::Conflict, &max.place("handshakes_per_source"), message);
        problems.push(problem.hint("take it out, or add `tls`".to_owned()));
    }
    Some(Listener {
        at: fields.at.clone().into(),
        bind: fields.get("bind")?,
        max: ListenerMax {
            connections: max.or_default("connections"),
            connections_per_source: max.get("connections_per_source"),
            handshakes_per_source: max.get("handshakes_per_source"),
            header: usize::try_from(max.or_default::<ByteSize>("header").0).unwrap_or(usize::MAX),
            body: max.or_default::<Option<ByteSize>>("body").map(|size| size.0),
            streams: max.or_default("streams"),
        },
        timeout: ListenerTimeout {
            header: timeout.or_default("header"),
            idle: timeout.or_default("idle"),
            body: timeout.or_default("body"),
        },
        http1,
        http2,
        tls: tls::tls(name, fields, root, (http1, http2), problems),
        redirect: fields.get::<&str>("redirect").map(|_| https),
        hsts: hsts(fields),
        proxy_protocol: proxy_protocol(fields),
        real_ip: real_ip(fields),
    })
}

fn proxy_protocol(fields: &Fields) -> Option<ProxyProtocol> {
    fields.node("proxy_protocol")?;
    from(&fields.table("proxy_protocol"))
}

/// `{ from }`, also of a service.
pub(super) fn from(proxy: &Fields) -> Option<ProxyProtocol> {
    Some(ProxyProtocol { from: Prefixes::new(proxy.get("from")?) })
}

fn real_ip(fields: &Fields) -> Option<RealIp> {
    fields.node("real_ip")?;
    let real_ip = fields.table("real_ip");
    let header = match &*real_ip.or_default::<String>("header") {
        "x-forwarded-for" => RealIpHeader::XForwardedFor,
        "forwarded" => RealIpHeader::Forwarded,
        // That it is a name was checked when it was read.
        single => RealIpHeader::Single(single.parse().ok()?),
    };
    Some(RealIp { from: Prefixes::new(real_ip.get("from")?), header })
}

fn hsts(fields: &Fields) -> Option<Hsts> {
    match &fields.node("hsts")?.value {
        Value::Table(hsts) => Some(Hsts {
            max_age: hsts.get::<Duration>("max_age")?,
            subdomains: hsts.or_default("subdomains"),
            preload: hsts.or_default("preload"),
        }),
        Value::Duration(max_age) => Some(Hsts { max_age: *max_age, subdomains: false, preload: false }),
        _ => None,
    }
}
