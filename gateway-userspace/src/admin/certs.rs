//! Certificates as they are in use.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Json,
    extract::{Path, State},
};
use serde::{Deserialize, Serialize};

use super::problem::Problem;
use crate::{
    config::model::Secret,
    daemon::Control,
    observe::rfc3339,
    tls::{self, Cert, Facts},
};

#[derive(Debug, Serialize, Deserialize)]
pub struct CertStatus {
    #[serde(flatten)]
    pub facts: Facts,
    /// "valid", "not yet valid", "expired", "awaited" (from an ACME authority)
    pub state: String,
    /// RFC 3339.
    pub expires: String,
    pub chain: String,
    /// Where the key is; never the key.
    pub key: String,
    pub listeners: Vec<String>,
    /// Why what is in the files now is not in use.
    pub error: Option<String>,
}

impl CertStatus {
    pub fn good(&self) -> bool {
        self.state == "valid" && self.error.is_none()
    }
}

pub fn all(control: &Control) -> BTreeMap<String, CertStatus> {
    let snapshot = control.snapshot.load();
    let users = |name: &str| -> Vec<String> {
        let listeners = snapshot.config.listeners.iter();
        let uses = listeners.filter(|(_, listener)| {
            listener.tls.as_ref().is_some_and(|tls| tls.certs.iter().any(|cert| cert == name))
        });
        uses.map(|(listener, _)| listener.clone()).collect()
    };
    snapshot.tls.certs.iter().map(|(name, cert)| (name.clone(), describe(cert, users(name)))).collect()
}

fn describe(cert: &Cert, listeners: Vec<String>) -> CertStatus {
    let facts = cert.facts();
    let pending = facts.is_none();
    // What is known of one that has yet to come.
    let facts = facts
        .unwrap_or_else(|| Facts { names: cert.config.issued.iter().cloned().collect(), ..Facts::default() });
    let now = tls::now();
    let state = match () {
        () if pending => "awaited",
        () if facts.expired(now) => "expired",
        () if now < facts.not_before => "not yet valid",
        () => "valid",
    };
    CertStatus {
        state: state.into(),
        expires: if pending { String::new() } else { rfc3339(facts.not_after.try_into().unwrap_or(0)) },
        chain: cert.config.chain.display().to_string(),
        key: match &cert.config.key {
            Secret::File(path) => path.display().to_string(),
            Secret::Env(variable) => format!("${variable}"),
            Secret::Credential(name) => format!("credential {name}"),
        },
        listeners,
        error: cert.error(),
        facts,
    }
}

pub async fn list(State(control): State<Arc<Control>>) -> Json<BTreeMap<String, CertStatus>> {
    Json(all(&control))
}

pub async fn show(
    State(control): State<Arc<Control>>,
    Path(name): Path<String>,
) -> Result<Json<CertStatus>, Problem> {
    all(&control).remove(&name).map(Json).ok_or_else(|| Problem::not_found("certificate", &name))
}

/// Gets a certificate by ACME anew, or reads the files of another.
pub async fn renew(
    State(control): State<Arc<Control>>,
    Path(name): Path<String>,
) -> Result<Json<CertStatus>, Problem> {
    let snapshot = control.snapshot.load_full();
    let cert = snapshot.tls.certs.get(&name).ok_or_else(|| Problem::not_found("certificate", &name))?;
    match cert.config.issued {
        Some(_) => control.acme.renew(&name),
        None => snapshot.tls.refresh(),
    }
    show(State(control), Path(name)).await
}
