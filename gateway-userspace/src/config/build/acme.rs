//! `[acme]`, and the certificates that it stands for.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::PathBuf,
};

use super::file;
use crate::config::{
    error::{Problem, ProblemKind, Problems},
    include::absolute,
    model::{Acme, AcmeChallenge, Cert, HostPattern, Listener, Route, Secret},
    node::Fields,
    units::Place,
};

pub(super) fn acme(root: &Fields) -> Option<Acme> {
    root.node("acme")?;
    let fields = root.table("acme");
    Some(Acme {
        at: fields.at.clone().into(),
        email: fields.get("email"),
        directory: fields.or_default("directory"),
        challenge: match fields.or_default("challenge") {
            "http-01" => AcmeChallenge::Http01,
            _ => AcmeChallenge::TlsAlpn01,
        },
        names: fields.or_default("names"),
        storage: match fields.node("storage") {
            Some(_) => file(&fields, "storage"),
            None => absolute(&fields.or_default::<PathBuf>("storage")),
        },
        ca: fields.node("ca").map(|_| file(&fields, "ca")),
    })
}

/// Gives every listener with `cert = "auto"` a certificate for each name.
pub(super) fn issue(
    acme: Option<&Acme>,
    root: &Fields,
    routes: &BTreeMap<String, Route>,
    listeners: &mut BTreeMap<String, Listener>,
    certs: &mut BTreeMap<String, Cert>,
    problems: &mut Problems,
) {
    let mut tell = |at: &Place, message: String, hint: &str| {
        if !root.broken {
            problems.push(Problem::new(ProblemKind::Conflict, at, message).hint(hint.to_owned()));
        }
    };
    if let Some(acme) = acme
        && acme.challenge == AcmeChallenge::Http01
        && listeners.values().all(|listener| listener.tls.is_some())
    {
        let message = "`acme.challenge` \"http-01\" needs a listener without tls".to_owned();
        tell(&acme.at, message, "add [listener.http] with bind = \":80\" and redirect = \"https\"");
    }
    for (name, listener) in listeners {
        let Some(tls) = listener.tls.as_mut().filter(|tls| tls.auto) else { continue };
        let Some(acme) = acme else {
            let message = format!("`listener.{name}.tls.cert` is \"auto\", but there is no [acme]");
            tell(&listener.at, message, "add [acme] with email = \"…\", or name a [cert.NAME]");
            continue;
        };
        let names = names(acme, routes);
        if names.is_empty() {
            let message = format!("`listener.{name}.tls.cert` is \"auto\", but no route has a host name");
            tell(&listener.at, message, "give routes a `host`, or list names in acme.names");
        }
        for host in names {
            let cert = format!("{}{host}", Cert::ISSUED);
            certs.entry(cert.clone()).or_insert_with(|| issued(acme, &host));
            tls.certs.push(cert);
        }
    }
}

/// Exact names that an authority on the internet could know.
fn names(acme: &Acme, routes: &BTreeMap<String, Route>) -> BTreeSet<String> {
    let hosts = routes.values().flat_map(Route::all_hosts).chain(&acme.names);
    let exact = hosts.filter_map(|host| match host {
        HostPattern::Exact(name) => Some(name.clone()),
        HostPattern::Wildcard(_) => None,
    });
    exact.filter(|name| name.contains('.') && name.parse::<IpAddr>().is_err()).collect()
}

/// Certificate and key are in one file, so that both change at once.
fn issued(acme: &Acme, host: &str) -> Cert {
    let path = acme.storage.join(format!("{host}.pem"));
    Cert { at: acme.at.clone(), chain: path.clone(), key: Secret::File(path), issued: Some(host.to_owned()) }
}
