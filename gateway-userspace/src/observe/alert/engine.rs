//! All alerts of the config in force, what they are at, and what operators say of them.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{
    measure::{History, Measured, Sample},
    message::{Notice, REMIND_ALERTMANAGER, rfc3339, sentence},
    state::{Change, State, Time},
    tell::Teller,
};
use crate::{
    config::model::{AlertKind, AlertRule, Config, NotifyFormat, NotifyRule},
    observe::events,
    seal::{FileError, Vault},
};

const PURPOSE: &str = "alerts";

/// Lives as long as the process; a reload changes its rules and keeps what goes on.
#[derive(Debug, Default)]
pub struct Alerts(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    rules: BTreeMap<String, AlertRule>,
    tellers: BTreeMap<String, Teller>,
    history: History,
    kept: Kept,
    measured: BTreeMap<String, Measured>,
    /// By alert and teller: when it was last told that it fires.
    told: BTreeMap<(String, String), Time>,
    file: PathBuf,
    vault: Arc<Vault>,
    loaded: bool,
    unsaved: bool,
}

/// What survives a restart.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Kept {
    states: BTreeMap<String, State>,
    silences: BTreeMap<String, Silence>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Silence {
    pub by: String,
    pub why: Option<String>,
    /// Seconds since 1970.
    pub until: Time,
}

/// An alert as the admin API shows it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Row {
    pub alert: String,
    /// "quiet", "pending" or "firing"
    pub state: String,
    pub severity: String,
    pub since: Option<String>,
    pub text: Option<String>,
    pub silence: Option<Silence>,
    pub notify: Vec<String>,
}

pub fn now() -> Time {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

impl Alerts {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes up the rules of a config, on the control thread.
    pub fn configure(&self, config: &Config, vault: &Arc<Vault>) {
        let mut inner = self.lock();
        let inner = &mut *inner;
        let instance = &config.gateway.name;
        inner.file = config.state.directory.join("alerts.json");
        // Sealed anew with the next change.
        inner.unsaved |= inner.loaded && !Arc::ptr_eq(&inner.vault, vault);
        inner.vault = vault.clone();
        if !inner.loaded && !config.alerts.is_empty() {
            inner.loaded = true;
            (inner.kept, inner.unsaved) = load(&inner.file, vault);
        }
        inner.rules = config.alerts.clone();
        inner.tellers.retain(|name, teller| config.notify.get(name) == Some(&teller.rule));
        for (name, rule) in &config.notify {
            let fresh = |rule: &NotifyRule| Teller::start(name, rule.clone(), instance);
            inner.tellers.entry(name.clone()).or_insert_with(|| fresh(rule));
        }
        let Inner { kept, rules, measured, told, .. } = inner;
        kept.states.retain(|name, _| rules.contains_key(name));
        kept.silences.retain(|name, _| rules.contains_key(name));
        measured.retain(|name, _| rules.contains_key(name));
        told.retain(|(name, _), _| rules.contains_key(name));
    }

    /// Whether anything is to be looked at.
    pub fn any(&self) -> bool {
        !self.lock().rules.is_empty()
    }

    /// Looks once, at a time of the wall clock.
    pub fn look(&self, sample: Sample, now: Time) {
        self.lock().look(sample, now);
    }

    pub fn rows(&self) -> Vec<Row> {
        let inner = self.lock();
        let row = |(name, rule): (&String, &AlertRule)| {
            let state = inner.kept.states.get(name).copied().unwrap_or_default();
            let measured = inner.measured.get(name);
            Row {
                alert: name.clone(),
                state: state.word().into(),
                severity: rule.severity.clone(),
                since: state.since().map(rfc3339),
                text: measured.map(|m| sentence(rule, m.value, m.of.as_deref())),
                silence: inner.kept.silences.get(name).cloned(),
                notify: rule.notify.clone(),
            }
        };
        inner.rules.iter().map(row).collect()
    }

    /// `None`: there is no such alert.
    pub fn silence(&self, name: &str, lasts: Duration, by: String, why: Option<String>) -> Option<Silence> {
        let mut inner = self.lock();
        inner.rules.contains_key(name).then_some(())?;
        let silence = Silence { by, why, until: now() + lasts.as_secs_f64() };
        inner.kept.silences.insert(name.to_owned(), silence.clone());
        inner.unsaved = true;
        inner.save();
        Some(silence)
    }

    /// Whether there was one.
    pub fn unsilence(&self, name: &str) -> bool {
        let mut inner = self.lock();
        let was = inner.kept.silences.remove(name).is_some();
        inner.unsaved |= was;
        inner.save();
        was
    }

    /// By who is told: messages that were taken, and attempts that failed.
    pub fn told(&self) -> Vec<(String, (u64, u64))> {
        self.lock().tellers.iter().map(|(name, teller)| (name.clone(), teller.counts())).collect()
    }
}

impl Inner {
    fn look(&mut self, sample: Sample, now: Time) {
        let window = self.rules.values().map(|rule| rule.window.as_secs_f64()).fold(1.0, f64::max);
        self.history.push(sample, window);
        let rules = std::mem::take(&mut self.rules);
        for (name, rule) in &rules {
            let measured = self.history.measure(rule);
            let value = measured.as_ref().map(|measured| measured.value);
            let (bad, clear) =
                (value.is_some_and(|v| rule.is_bad(v)), value.is_none_or(|v| rule.is_clear(v)));
            let state = self.kept.states.entry(name.clone()).or_default();
            let before = *state;
            let change = state.step(now, bad, clear, rule.lasts, rule.resolve_after);
            let after = *state;
            self.unsaved |= before != after;
            if let Some(measured) = measured {
                self.measured.insert(name.clone(), measured);
            }
            self.act(name, rule, (change, before, after), now);
        }
        self.rules = rules;
        let silences = self.kept.silences.len();
        self.kept.silences.retain(|_, silence| silence.until > now);
        self.unsaved |= self.kept.silences.len() != silences;
        self.save();
    }

    fn act(
        &mut self,
        name: &str,
        rule: &AlertRule,
        (change, before, after): (Option<Change>, State, State),
        now: Time,
    ) {
        let measured = self.measured.get(name);
        let (value, of) = measured.map_or((0.0, None), |m| (m.value, m.of.clone()));
        let text = sentence(rule, value, of.as_deref());
        // A heartbeat is no news.
        if let Some(change) = change.filter(|_| rule.kind != AlertKind::DeadMan) {
            let state = if change == Change::Fired { "firing" } else { "resolved" };
            events::tell(
                "alert",
                json!({ "alert": name, "state": state, "severity": rule.severity, "text": text }),
            );
            match change {
                Change::Fired => tracing::warn!(alert = name, text, "firing"),
                Change::Resolved => tracing::info!(alert = name, text, "resolved"),
            }
        }
        let silenced = self.kept.silences.get(name).is_some_and(|silence| silence.until > now);
        for to in &rule.notify {
            let Some(teller) = self.tellers.get(to) else { continue };
            let key = (name.to_owned(), to.clone());
            let repeat = match teller.rule.format {
                NotifyFormat::Alertmanager => rule.repeat.min(REMIND_ALERTMANAGER),
                _ => rule.repeat,
            };
            let due = |told: &Time| now - told >= repeat.as_secs_f64() || *told > now;
            let firing = after.firing() && !silenced && self.told.get(&key).is_none_or(due);
            // Whoever heard of no beginning hears of no end.
            let ended = change == Some(Change::Resolved) && (self.told.remove(&key).is_some() || !silenced);
            if !firing && !ended {
                continue;
            }
            if firing {
                self.told.insert(key, now);
            }
            teller.tell(Notice {
                alert: name.to_owned(),
                firing,
                severity: rule.severity.clone(),
                text: text.clone(),
                of: of.clone(),
                since: after.since().or(before.since()).unwrap_or(now),
                until: ended.then_some(now),
            });
        }
    }

    fn save(&mut self) {
        if !std::mem::take(&mut self.unsaved) {
            return;
        }
        let write = || -> Result<(), FileError> {
            let failed = |error: serde_json::Error| FileError::new(&self.file, std::io::Error::from(error));
            self.vault.write(&self.file, PURPOSE, &serde_json::to_vec(&self.kept).map_err(failed)?)
        };
        if let Err(error) = write() {
            tracing::debug!("the state of alerts is not kept: {error}");
        }
    }
}

/// What is not there or not understood begins anew. Also whether it is to be written otherwise now.
fn load(file: &Path, vault: &Vault) -> (Kept, bool) {
    match vault.read(file, PURPOSE) {
        Ok(Some(kept)) => (serde_json::from_slice(&kept.plain).unwrap_or_default(), kept.outdated),
        Ok(None) => Default::default(),
        Err(error) => {
            tracing::error!("what was known of alerts is forgotten: {error}");
            Default::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::measure::tests::rule, *};

    fn alerts(file: &std::path::Path, rule: AlertRule) -> Alerts {
        let alerts = Alerts::default();
        let mut inner = alerts.lock();
        inner.file = file.to_owned();
        (inner.kept, _) = load(file, &Vault::default());
        inner.rules = [("refused".to_owned(), rule)].into();
        drop(inner);
        alerts
    }

    fn look(alerts: &Alerts, at: Time, refused: bool) -> String {
        alerts.look(Sample { at, refused, ..Sample::default() }, at);
        alerts.rows()[0].state.clone()
    }

    #[test]
    fn an_alert_goes_on_after_a_restart_where_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("alerts.json");
        let minute = Duration::from_secs(60);
        let rule = || AlertRule { lasts: minute, ..rule(AlertKind::ConfigRefused, 0.5) };
        let first = alerts(&file, rule());
        assert_eq!(look(&first, 100.0, true), "pending");
        first.silence("refused", minute, "root".into(), None).unwrap();
        drop(first);
        let second = alerts(&file, rule());
        assert_eq!(look(&second, 130.0, true), "pending");
        assert_eq!(look(&second, 160.0, true), "firing");
        assert_eq!(second.rows()[0].silence.as_ref().unwrap().by, "root");
        assert_eq!(second.rows()[0].since.as_deref(), Some("1970-01-01T00:01:40Z"));
        assert_eq!(look(&second, 161.0, false), "quiet");
        assert!(second.unsilence("refused") && !second.unsilence("refused"));
        assert_eq!(second.silence("other", minute, "root".into(), None), None);
    }

    #[test]
    fn what_is_damaged_on_disk_begins_anew() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("alerts.json");
        std::fs::write(&file, "{\"states\": 3").unwrap();
        assert_eq!(look(&alerts(&file, rule(AlertKind::ConfigRefused, 0.5)), 1.0, false), "quiet");
    }
}
