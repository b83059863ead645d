//! `[cert.NAME]`, `[listener.NAME] tls` and `[upstream.NAME] tls`.

use std::collections::BTreeMap;

use super::{distinct, file};
use crate::config::{
    error::{Problem, ProblemKind, Problems, did_you_mean},
    model::{Alpn, Cert, ClientAuth, HostPattern, Secret, Tls, TlsVersion, UpstreamTls},
    node::{Fields, Value},
    units::{Place, quote},
};

pub(super) fn certs(root: &Fields, problems: &mut Problems) -> BTreeMap<String, Cert> {
    root.named("cert")
        .iter()
        .filter_map(|(name, fields)| Some((name.clone(), cert(name, fields, problems)?)))
        .collect()
}

fn cert(name: &str, fields: &Fields, problems: &mut Problems) -> Option<Cert> {
    fields.node("chain")?;
    fields.node("key")?;
    let key = secret(&format!("cert.{name}.key"), &fields.table("key"), problems)?;
    Some(Cert { at: fields.at.clone().into(), chain: file(fields, "chain"), key, issued: None })
}

pub(super) fn secret(path: &str, fields: &Fields, problems: &mut Problems) -> Option<Secret> {
    let (env, credential) = (fields.get("env"), fields.get("credential"));
    match (fields.node("file"), env, credential) {
        (Some(_), None, None) => Some(Secret::File(file(fields, "file"))),
        (None, Some(variable), None) => Some(Secret::Env(variable)),
        (None, None, Some(name)) => Some(Secret::Credential(name)),
        _ => {
            // What is missed may be there, but wrong.
            if !fields.broken {
                let message = format!("`{path}` must have exactly one of `file`, `env` and `credential`");
                let problem = Problem::new(ProblemKind::Conflict, &fields.at, message);
                problems.push(problem.hint("for example: { file = \"path/to/key.pem\" }".to_owned()));
            }
            None
        }
    }
}

/// `tls` of the listener at `fields`.
pub(super) fn tls(
    listener: &str,
    fields: &Fields,
    root: &Fields,
    (http1, http2): (bool, bool),
    problems: &mut Problems,
) -> Option<Tls> {
    let spoken = [http2.then_some(Alpn::Http2), http1.then_some(Alpn::Http1)].into_iter().flatten().collect();
    terminated(&format!("listener.{listener}"), fields, root, spoken, problems)
}

/// `tls` of the service at `fields`. Nothing is offered by ALPN unless the config says so: what the targets speak is not
/// known.
pub(super) fn of_service(name: &str, fields: &Fields, root: &Fields, problems: &mut Problems) -> Option<Tls> {
    let any = vec![Alpn::Http2, Alpn::Http1];
    let tls = terminated(&format!("service.{name}"), fields, root, any, problems)?;
    no_listener(&format!("service.{name}"), &tls, fields, problems);
    Some(if tls.alpn_auto { Tls { alpn: Vec::new(), ..tls } } else { tls })
}

/// What only listeners may have, which know what hosts they are for.
pub(super) fn no_listener(owner: &str, tls: &Tls, fields: &Fields, problems: &mut Problems) {
    let fields = fields.table("tls");
    let mut conflict = |key: &str, what: &str, hint: &str| {
        let message = format!("`{owner}.tls.{key}`{what} is of listeners");
        problems.push(Problem::new(ProblemKind::Conflict, &fields.place(key), message).hint(hint.to_owned()));
    };
    if tls.auto {
        conflict("cert", ": \"auto\"", "name a [cert.NAME]");
    }
    if fields.node("clients").is_some() {
        conflict("clients", "", "write client_ca, client_crl and client");
    }
}

/// `tls` of whatever it is at `fields`, which speaks `spoken`.
pub(super) fn terminated(
    owner: &str,
    fields: &Fields,
    root: &Fields,
    spoken: Vec<Alpn>,
    problems: &mut Problems,
) -> Option<Tls> {
    fields.node("tls")?;
    let tls = fields.table("tls");
    // "auto" is a word, and `None` here.
    let listed: Vec<Option<String>> = tls.get("cert")?;
    let say = |name: &Option<String>| format!("cert {}", quote(name.as_deref().unwrap_or("auto")));
    let listed = distinct(&tls, "cert", listed, problems, say);
    let auto = listed.contains(&None);
    known(owner, &tls, root, problems);
    let alpn_auto = matches!(tls.node("alpn").map(|node| &node.value), None | Some(Value::Word(_)));
    Some(Tls {
        certs: listed.into_iter().flatten().collect(),
        auto,
        min: min(&tls),
        alpn: if alpn_auto { spoken } else { alpn(owner, &tls, &spoken, problems) },
        alpn_auto,
        client: client(owner, &tls, problems),
        clients: clients(owner, &tls, problems),
        ticket_rotation: tls.or_default("ticket_rotation"),
    })
}

fn min(tls: &Fields) -> TlsVersion {
    match tls.or_default("min") {
        "1.3" => TlsVersion::V13,
        _ => TlsVersion::V12,
    }
}

/// `tls` of the upstream at `fields`, which has it.
pub(super) fn upstream(fields: &Fields) -> UpstreamTls {
    let tls = fields.table("tls");
    UpstreamTls {
        sni: tls.get("sni"),
        ca: tls.node("ca").map(|_| file(&tls, "ca")),
        cert: tls.get("cert"),
        verify: tls.or_default("verify"),
        min: min(&tls),
    }
}

/// Certificates that upstreams name must be there; `verify = false` leaves nothing for `ca` to say.
pub(super) fn upstreams(declared: &BTreeMap<String, Fields>, root: &Fields, problems: &mut Problems) {
    for (name, fields) in declared.iter().filter(|(_, fields)| fields.node("tls").is_some()) {
        let tls = fields.table("tls");
        if let Some(Value::Text(cert)) = tls.node("cert").map(|node| &node.value) {
            exists(&format!("upstream.{name}.tls.cert"), cert, &tls.place("cert"), root, problems);
        }
        if tls.node("ca").is_some() && !tls.or_default::<bool>("verify") {
            let message =
                format!("`upstream.{name}.tls`: with verify = false nothing is checked against `ca`");
            let problem = Problem::new(ProblemKind::Conflict, &tls.place("ca"), message);
            problems.push(problem.hint("drop one of them".to_owned()));
        }
    }
}

/// A list of its own; what it offers must be spoken.
fn alpn(owner: &str, tls: &Fields, spoken: &[Alpn], problems: &mut Problems) -> Vec<Alpn> {
    let words: Vec<&str> = tls.get("alpn").unwrap_or_default();
    let offered: Vec<Alpn> =
        words.iter().map(|word| if *word == "h2" { Alpn::Http2 } else { Alpn::Http1 }).collect();
    if let Some(silent) = offered.iter().find(|alpn| !spoken.contains(alpn)) {
        let message =
            format!("`{owner}.tls.alpn` offers {}, which `protocols` does not have", quote(silent.name()));
        let problem = Problem::new(ProblemKind::Conflict, &tls.place("alpn"), message);
        problems.push(problem.hint("add it to `protocols`, or write alpn = \"auto\"".to_owned()));
    }
    offered
}

/// Every certificate that is named must be there.
fn known(owner: &str, tls: &Fields, root: &Fields, problems: &mut Problems) {
    let Some(Value::List(nodes)) = tls.node("cert").map(|node| &node.value) else { return };
    for node in nodes {
        let Value::Text(name) = &node.value else { continue };
        exists(&format!("{owner}.tls.cert"), name, &node.at, root, problems);
    }
}

fn exists(path: &str, name: &str, at: &Place, root: &Fields, problems: &mut Problems) {
    let declared = root.named("cert");
    if !declared.contains_key(name) && !root.broken {
        let message = format!("`{path}`: there is no certificate {}", quote(name));
        let hint = did_you_mean(name, declared.keys().map(String::as_str), quote)
            .unwrap_or_else(|| format!("add [cert.{name}] with chain and key"));
        problems.push(Problem::new(ProblemKind::Undefined, at, message).hint(hint));
    }
}

fn clients(owner: &str, tls: &Fields, problems: &mut Problems) -> Vec<(HostPattern, ClientAuth)> {
    let mut all = Vec::new();
    for (name, node) in tls.map("clients") {
        let Value::Table(fields) = &node.value else { continue };
        let client = client(&format!("{owner}.tls.clients.{}", quote(&name)), fields, problems);
        all.extend(client.map(|client| (HostPattern::named(name), client)));
    }
    all
}

fn client(owner: &str, tls: &Fields, problems: &mut Problems) -> Option<ClientAuth> {
    let wanted: Option<&str> = tls.get("client");
    if tls.node("client_ca").is_none() {
        let lone = [("client", wanted.is_some()), ("client_crl", tls.node("client_crl").is_some())];
        for (key, _) in lone.iter().filter(|(_, there)| *there && !tls.broken) {
            let message = format!("`{owner}.tls.{key}` needs `client_ca`");
            let problem = Problem::new(ProblemKind::Conflict, &tls.place(key), message);
            problems
                .push(problem.hint(
                    "name the file of the authorities that clients' certificates come from".to_owned(),
                ));
        }
        return None;
    }
    Some(ClientAuth {
        ca: file(tls, "client_ca"),
        crl: tls.node("client_crl").map(|_| file(tls, "client_crl")),
        required: wanted != Some("request"),
    })
}
