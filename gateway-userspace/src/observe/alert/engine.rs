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
    measure::{History, Measured, RouteSample, Routes, Sample},
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
/// Seconds by which a clock that runs well does not go wrong between two looks.
const STEP: f64 = 2.0;

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
    /// The clocks at the last look: the one that only goes on, and the wall clock.
    clocks: Option<(f64, Time)>,
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

    /// What rules measure of routes: of one, or of all together. The history has no more than that, however many there are.
    pub fn routes(&self) -> Routes {
        let of_routes = |rule: &&AlertRule| matches!(rule.kind, AlertKind::Errors | AlertKind::Latency);
        self.lock()
            .rules
            .values()
            .filter(of_routes)
            .map(|rule| (rule.of.clone(), RouteSample::default()))
            .collect()
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
        self.follow_clock(sample.at, now);
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

    /// Where the wall clock was set, all times move along: nothing lasts longer, or shorter, for it.
    fn follow_clock(&mut self, at: f64, now: Time) {
        let step = self.clocks.map_or(0.0, |(before, then)| (now - then) - (at - before));
        self.clocks = Some((at, now));
        if step.abs() < STEP {
            return;
        }
        tracing::info!(seconds = step, "the clock was set; alerts last as they did");
        self.kept.states.values_mut().for_each(|state| state.shift(step));
        self.kept.silences.values_mut().for_each(|silence| silence.until += step);
        self.told.values_mut().for_each(|told| *told += step);
        self.unsaved = true;
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
    fn a_clock_that_is_set_lets_an_alert_last_as_long_as_it_would_have() {
        let dir = tempfile::tempdir().unwrap();
        let minute = Duration::from_secs(60);
        let rule = AlertRule { lasts: minute, resolve_after: minute, ..rule(AlertKind::ConfigRefused, 0.5) };
        for step in [86_400.0, -86_400.0] {
            let alerts = alerts(&dir.path().join("none"), rule.clone());
            let look = |at: f64, off: f64, refused: bool| {
                alerts.look(Sample { at, refused, ..Sample::default() }, 1e6 + at + off);
                alerts.rows()[0].state.clone()
            };
            assert_eq!(look(0.0, 0.0, true), "pending");
            assert_eq!(look(30.0, step, true), "pending", "{step}");
            assert_eq!(look(59.0, step, true), "pending", "{step}");
            assert_eq!(look(60.0, step, true), "firing", "{step}");
            assert_eq!(look(61.0, step, false), "firing", "{step}");
            assert_eq!(look(120.0, 0.0, false), "firing", "{step} and back");
            assert_eq!(look(121.0, 0.0, false), "quiet", "{step} and back");
        }
    }

    #[test]
    fn what_is_damaged_on_disk_begins_anew() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("alerts.json");
        std::fs::write(&file, "{\"states\": 3").unwrap();
        assert_eq!(look(&alerts(&file, rule(AlertKind::ConfigRefused, 0.5)), 1.0, false), "quiet");
    }

    /// Takes webhooks, and hands on what is posted.
    async fn webhook() -> (String, tokio::sync::mpsc::UnboundedReceiver<serde_json::Value>) {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let (sender, posted) = tokio::sync::mpsc::unbounded_channel();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut text = Vec::new();
                let body = loop {
                    stream.read_buf(&mut text).await.unwrap();
                    let head = text.windows(4).position(|end| end == b"\r\n\r\n");
                    if let Some(body) = head.and_then(|end| serde_json::from_slice(&text[end + 4..]).ok()) {
                        break body;
                    }
                };
                sender.send(body).unwrap();
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
            }
        });
        (url, posted)
    }

    /// Hours of a gateway with ten requests a second.
    struct Simulated {
        alerts: Alerts,
        /// When it began, by the wall clock.
        base: Time,
        second: u64,
        requests: u64,
        errors: u64,
    }

    impl Simulated {
        /// So many seconds with so many errors in a hundred requests.
        fn go_on(&mut self, seconds: u64, percent: u64) {
            for _ in 0..seconds {
                self.second += 1;
                self.requests += 100;
                self.errors += percent;
                let route = super::super::measure::RouteSample {
                    requests: self.requests,
                    errors: self.errors,
                    ..Default::default()
                };
                let at = self.second as f64;
                let routes = [(None, route)].into();
                self.alerts.look(Sample { at, routes, ..Sample::default() }, self.base + at);
            }
        }

        fn state(&self) -> String {
            self.alerts.rows()[0].state.clone()
        }
    }

    type Posted = tokio::sync::mpsc::UnboundedReceiver<serde_json::Value>;

    /// State and text of the one alert that is told next.
    async fn next(posted: &mut Posted) -> (String, String) {
        let told = tokio::time::timeout(Duration::from_secs(20), posted.recv()).await.unwrap().unwrap();
        let alert = &told["alerts"][0];
        assert_eq!(
            (&alert["alert"], told["alerts"].as_array().unwrap().len()),
            (&json!("errors"), 1),
            "{told}"
        );
        (alert["state"].as_str().unwrap().to_owned(), alert["text"].as_str().unwrap().to_owned())
    }

    async fn nothing(posted: &mut Posted) {
        tokio::time::sleep(Duration::from_millis(900)).await;
        assert!(posted.try_recv().is_err(), "nobody is told");
    }

    #[tokio::test]
    async fn whoever_is_told_hears_of_its_beginning_its_lasting_and_its_end() {
        let (url, mut posted) = webhook().await;
        let (minute, hours) = (Duration::from_secs(60), 4 * 3600);
        let alerts = Alerts::default();
        {
            let mut inner = alerts.lock();
            let rule = AlertRule {
                clear: 0.02,
                lasts: minute,
                resolve_after: 2 * minute,
                repeat: Duration::from_secs(hours),
                notify: vec!["ops".into()],
                ..rule(AlertKind::Errors, 0.05)
            };
            inner.rules = [("errors".to_owned(), rule)].into();
            let webhook = crate::config::model::Webhook::Plain(url);
            let ops = NotifyRule { webhook, format: NotifyFormat::Json };
            inner.tellers = [("ops".to_owned(), Teller::start("ops", ops, "here"))].into();
        }
        let mut life = Simulated { alerts, base: now(), second: 0, requests: 0, errors: 0 };
        life.go_on(300, 1);
        assert_eq!(life.state(), "quiet");
        // Ten percent: over five of a minute after 27 s, and told another minute later.
        life.go_on(26, 10);
        assert_eq!(life.state(), "quiet");
        life.go_on(60, 10);
        assert_eq!(life.state(), "pending");
        life.go_on(2, 10);
        assert_eq!(life.state(), "firing");
        let (state, text) = next(&mut posted).await;
        assert!(state == "firing" && text.contains("of requests"), "{state} {text}");
        // It lasts: told again after `repeat`, and not before.
        life.go_on(hours - 10, 10);
        nothing(&mut posted).await;
        life.go_on(10, 10);
        assert_eq!(next(&mut posted).await.0, "firing");
        // Between the thresholds it stays.
        life.go_on(1800, 4);
        assert_eq!(life.state(), "firing");
        // Good, but not for long enough; then for long enough.
        life.go_on(140, 1);
        life.go_on(30, 10);
        life.go_on(150, 1);
        assert_eq!(life.state(), "firing");
        nothing(&mut posted).await;
        life.go_on(60, 1);
        assert_eq!(life.state(), "quiet");
        assert_eq!(next(&mut posted).await.0, "resolved");
        // Silenced: it fires and is over without a word.
        life.alerts.silence("errors", Duration::from_secs(3 * hours), "root".into(), None).unwrap();
        life.go_on(200, 10);
        assert_eq!(life.state(), "firing");
        life.go_on(400, 0);
        assert_eq!(life.state(), "quiet");
        nothing(&mut posted).await;
        // It fires on when the silence ends: then it is told.
        life.go_on(3 * hours, 10);
        assert_eq!(next(&mut posted).await.0, "firing");
        life.go_on(400, 0);
        assert_eq!(next(&mut posted).await.0, "resolved");
        nothing(&mut posted).await;
    }
}
