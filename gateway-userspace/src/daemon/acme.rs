//! Getting certificates by ACME (RFC 8555), and renewing them before they expire.

use std::{
    collections::{BTreeSet, HashMap},
    io,
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use instant_acme::{
    Account, AccountCredentials, AuthorizationStatus, ChallengeType, Identifier, NewAccount, NewOrder, Order,
    OrderStatus, RetryPolicy,
};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use zeroize::Zeroizing;

use super::control::Control;
use crate::{
    config::model::{Acme, AcmeChallenge},
    seal::{FileError, Vault},
    sync::lock,
    tls::{
        Cert, Facts,
        acme::{Answering, ChallengeError, Challenges},
        now,
        store::Store,
    },
};

/// A whole order, with all that an authority takes its time for.
const PATIENCE: Duration = Duration::from_secs(180);
/// Between two looks at what is due, at most: clocks are set, and other gateways may renew.
const LOOK: Duration = Duration::from_secs(3600);
/// Another gateway is at work in the same store.
const ELSEWHERE: Duration = Duration::from_secs(10);
/// After failures, doubling each time: authorities count them too.
const FIRST_WAIT: Duration = Duration::from_secs(60);
const LONGEST_WAIT: Duration = Duration::from_secs(6 * 3600);

/// What the rest of the daemon says to this part.
#[derive(Debug, Default)]
pub struct Wishes {
    /// Renewed at once, whatever they say.
    renew: Mutex<BTreeSet<String>>,
    changed: Notify,
}

impl Wishes {
    /// The config has changed.
    pub fn look(&self) {
        self.changed.notify_one();
    }

    pub fn renew(&self, cert: &str) {
        lock(&self.renew).insert(cert.to_owned());
        self.changed.notify_one();
    }
}

#[derive(Debug, thiserror::Error)]
enum AcmeError {
    #[error(transparent)]
    Protocol(#[from] instant_acme::Error),
    #[error(transparent)]
    Challenge(#[from] ChallengeError),
    #[error(transparent)]
    Store(#[from] FileError),
    #[error("the account that is kept cannot be read: {0}; remove account.json to make a new one")]
    Account(serde_json::Error),
    #[error("the authority offers no {} challenge for it", .0.word())]
    NoChallenge(AcmeChallenge),
    #[error("the authority does not believe that it is ours")]
    Refused,
    #[error("the authority did not finish within {} s", PATIENCE.as_secs())]
    Timeout,
}

/// As it is kept.
#[derive(Serialize, Deserialize)]
struct Kept {
    directory: String,
    email: Option<String>,
    credentials: AccountCredentials,
}

#[derive(Default)]
struct Orders {
    /// Failures in a row, and when to try again; by certificate.
    failed: HashMap<String, (u32, Instant)>,
    /// What all files are sealed with.
    sealed: Option<Arc<Vault>>,
}

/// Gets and renews for as long as the daemon runs.
pub async fn follow(control: Arc<Control>) {
    let mut orders = Orders::default();
    loop {
        let wait = orders.attend(&control).await;
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = control.acme.changed.notified() => {}
        }
    }
}

impl Orders {
    /// Gets what is due. How long until something may be due again.
    async fn attend(&mut self, control: &Control) -> Duration {
        let snapshot = control.snapshot.load_full();
        let Some(acme) = &snapshot.config.acme else { return LOOK };
        if !self.seal(&acme.storage, &snapshot.tls.vault) {
            return ELSEWHERE;
        }
        let wanted = std::mem::take(&mut *lock(&control.acme.renew));
        let due: Vec<&Arc<Cert>> = snapshot
            .tls
            .certs
            .values()
            .filter(|cert| cert.config.issued.is_some())
            .filter(|cert| wanted.contains(&cert.name) || self.due(cert).is_zero())
            .collect();
        if !due.is_empty() {
            match Store::open(&acme.storage, &snapshot.tls.vault) {
                Ok(Some(store)) => {
                    // Another gateway may have been faster.
                    snapshot.tls.refresh();
                    for cert in due {
                        if wanted.contains(&cert.name) || self.due(cert).is_zero() {
                            self.get(control, &store, acme, cert).await;
                        }
                    }
                }
                Ok(None) => return ELSEWHERE,
                Err(error) => {
                    for cert in due {
                        let error = io::Error::from(error.kind());
                        self.failed(cert, &FileError::new(&acme.storage, error).into());
                    }
                }
            }
        }
        let certs = snapshot.tls.certs.values().filter(|cert| cert.config.issued.is_some());
        certs.map(|cert| self.due(cert)).min().unwrap_or(LOOK).clamp(Duration::from_secs(1), LOOK)
    }

    /// Seals what is there with the key in use. False: another gateway is at work there.
    fn seal(&mut self, storage: &Path, vault: &Arc<Vault>) -> bool {
        if self.sealed.as_ref().is_some_and(|sealed| Arc::ptr_eq(sealed, vault)) {
            return true;
        }
        if vault.sealer().is_some() && storage.exists() {
            let opened = Store::open(storage, vault).map_err(|error| FileError::new(storage, error));
            match opened.and_then(|store| store.map(|store| store.seal_anew()).transpose()) {
                Ok(None) => return false,
                Ok(Some(0)) => {}
                Ok(Some(files)) => tracing::info!(files, "what came by ACME is sealed with the key in use"),
                Err(error) => tracing::error!("what came by ACME is not sealed with the key in use: {error}"),
            }
        }
        self.sealed = Some(vault.clone());
        true
    }

    /// How long until it is to be got.
    fn due(&self, cert: &Cert) -> Duration {
        let renewal = cert.facts().map_or(Duration::ZERO, |facts| until_renewal(&facts, now()));
        let retry = self.failed.get(&cert.name).map(|(_, at)| at.saturating_duration_since(Instant::now()));
        renewal.max(retry.unwrap_or_default())
    }

    async fn get(&mut self, control: &Control, store: &Store<'_>, acme: &Acme, cert: &Cert) {
        let Some(host) = &cert.config.issued else { return };
        let challenges = &control.snapshot.load_full().tls.challenges;
        let ordered = tokio::time::timeout(PATIENCE, order(acme, store, challenges, host)).await;
        let kept = ordered.unwrap_or(Err(AcmeError::Timeout)).and_then(|(chain, key)| {
            Ok(store.keep_pair(&cert.config.chain, &chain, &Zeroizing::new(key))?)
        });
        match kept {
            Ok(()) => {
                self.failed.remove(&cert.name);
                control.snapshot.load_full().tls.refresh();
            }
            Err(error) => self.failed(cert, &error),
        }
    }

    fn failed(&mut self, cert: &Cert, error: &AcmeError) {
        let (failures, at) = self.failed.entry(cert.name.clone()).or_insert((0, Instant::now()));
        let wait = FIRST_WAIT.saturating_mul(1 << (*failures).min(12)).min(LONGEST_WAIT);
        *failures += 1;
        *at = Instant::now() + wait;
        cert.failed(format!("{error}; the next try is in {} s", wait.as_secs()));
    }
}

/// A certificate is renewed when two thirds of its time are over.
fn until_renewal(facts: &Facts, now: i64) -> Duration {
    let life = facts.not_after.saturating_sub(facts.not_before);
    let at = facts.not_before.saturating_add(life / 3 * 2);
    Duration::from_secs(at.saturating_sub(now).try_into().unwrap_or(0))
}

/// One certificate: its chain and its key, PEM.
async fn order(
    acme: &Acme,
    store: &Store<'_>,
    challenges: &Arc<Challenges>,
    host: &str,
) -> Result<(String, String), AcmeError> {
    let account = account(acme, store).await?;
    let name = [Identifier::Dns(host.to_owned())];
    let mut order = account.new_order(&NewOrder::new(&name)).await?;
    // They answer for as long as they are held.
    let _answers = answer(&mut order, acme.challenge, challenges, host).await?;
    let patience = RetryPolicy::new().timeout(PATIENCE);
    match order.poll_ready(&patience).await? {
        OrderStatus::Ready | OrderStatus::Valid => {}
        _ => return Err(AcmeError::Refused),
    }
    let key = order.finalize().await?;
    Ok((order.poll_certificate(&patience).await?, key))
}

/// The account that is kept, or a new one.
async fn account(acme: &Acme, store: &Store<'_>) -> Result<Account, AcmeError> {
    let builder = match &acme.ca {
        Some(ca) => Account::builder_with_root(ca)?,
        None => Account::builder()?,
    };
    if let Some(kept) = store.account()? {
        let kept: Kept = serde_json::from_slice(&kept.plain).map_err(AcmeError::Account)?;
        if kept.directory == acme.directory && kept.email == acme.email {
            return Ok(builder.from_credentials(kept.credentials).await?);
        }
    }
    let contact = acme.email.as_ref().map(|email| format!("mailto:{email}"));
    let contact: Vec<&str> = contact.iter().map(String::as_str).collect();
    let new = NewAccount { contact: &contact, terms_of_service_agreed: true, only_return_existing: false };
    let (account, credentials) = builder.create(&new, acme.directory.clone(), None).await?;
    let kept = Kept { directory: acme.directory.clone(), email: acme.email.clone(), credentials };
    let kept = Zeroizing::new(serde_json::to_vec(&kept).map_err(AcmeError::Account)?);
    store.keep_account(&kept)?;
    Ok(account)
}

async fn answer(
    order: &mut Order,
    kind: AcmeChallenge,
    challenges: &Arc<Challenges>,
    host: &str,
) -> Result<Vec<Answering>, AcmeError> {
    let wanted = match kind {
        AcmeChallenge::TlsAlpn01 => ChallengeType::TlsAlpn01,
        AcmeChallenge::Http01 => ChallengeType::Http01,
    };
    let mut answers = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        if authorization.status == AuthorizationStatus::Valid {
            continue;
        }
        let Some(mut challenge) = authorization.challenge(wanted.clone()) else {
            return Err(AcmeError::NoChallenge(kind));
        };
        let proof = challenge.key_authorization();
        answers.push(match kind {
            AcmeChallenge::TlsAlpn01 => challenges.answer_tls(host, proof.digest().as_ref())?,
            AcmeChallenge::Http01 => challenges.answer_http(&challenge.token, proof.as_str()),
        });
        challenge.set_ready().await?;
    }
    Ok(answers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_third_of_a_certificates_time_is_left_when_it_is_renewed() {
        let facts = |not_before, not_after| Facts { not_before, not_after, ..Facts::default() };
        let days = |n: i64| n * 86_400;
        assert_eq!(until_renewal(&facts(0, days(90)), 0), Duration::from_secs(60 * 86_400));
        assert_eq!(until_renewal(&facts(0, days(90)), days(59)), Duration::from_secs(86_400));
        assert_eq!(until_renewal(&facts(0, days(90)), days(60)), Duration::ZERO);
        assert_eq!(until_renewal(&facts(0, days(90)), days(1000)), Duration::ZERO);
        assert_eq!(until_renewal(&facts(i64::MIN, i64::MAX), 0), Duration::ZERO);
    }
}
