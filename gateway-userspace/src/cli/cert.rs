//! `gateway cert`

use std::collections::BTreeMap;

use clap::Subcommand;

use super::{
    Error, Global, Outcome, client, exit,
    output::{self, table},
};
use crate::admin::CertStatus;

#[derive(Debug, Subcommand)]
pub enum Cert {
    /// Every certificate, when it expires, who uses it
    List,
    /// One certificate
    Show {
        /// Its name
        name: String,
    },
    /// Get one by ACME anew, or read the files of another again
    Renew {
        /// Its name, as `cert list` has it
        name: String,
    },
}

impl Cert {
    pub fn run(self, global: &Global) -> Outcome {
        let value = match &self {
            Cert::List => client::get(global, "/v1/certs")?,
            Cert::Show { name } => {
                let one = client::get(global, &format!("/v1/certs/{name}"))?;
                serde_json::json!({ name: one })
            }
            Cert::Renew { name } => {
                let one = client::post(global, &format!("/v1/certs/{name}/renew"), None)?;
                serde_json::json!({ name: one })
            }
        };
        let certs: BTreeMap<String, CertStatus> = serde_json::from_value(value.clone())
            .map_err(|error| Error::Other(format!("the gateway speaks another version: {error}")))?;
        output::print(global, &value, || match self {
            Cert::List => list(global, &certs),
            Cert::Show { .. } | Cert::Renew { .. } => {
                certs.iter().map(|(name, cert)| show(name, cert)).collect()
            }
        });
        Ok(exit::OK)
    }
}

pub fn list(global: &Global, certs: &BTreeMap<String, CertStatus>) -> String {
    let rows = certs.iter().map(|(name, cert)| {
        vec![
            name.clone(),
            cert.facts.names.first().cloned().unwrap_or_default(),
            cert.expires.get(..10).unwrap_or_default().to_owned(),
            cert.listeners.join(" "),
            cert.state.clone(),
        ]
    });
    let errors = certs.iter().filter_map(|(name, cert)| Some((name, cert.error.as_ref()?)));
    let errors: String = errors.map(|(name, error)| format!("{name}: {error}\n")).collect();
    let header = ["CERT", "NAME", "EXPIRES", "LISTENERS", "STATE"];
    format!("{}{errors}", output::color_states(global, &table(&header, rows)))
}

fn show(name: &str, cert: &CertStatus) -> String {
    let mut lines = vec![
        ("cert", name.to_owned()),
        ("names", cert.facts.names.join(" ")),
        ("subject", cert.facts.subject.clone()),
        ("issuer", cert.facts.issuer.clone()),
        ("serial", cert.facts.serial.clone()),
        ("expires", cert.expires.clone()),
        ("state", cert.state.clone()),
        ("chain", cert.chain.clone()),
        ("key", cert.key.clone()),
        ("listeners", cert.listeners.join(" ")),
    ];
    lines.extend(cert.error.clone().map(|error| ("error", error)));
    lines.into_iter().map(|(what, value)| format!("{what:<10} {value}\n")).collect()
}
