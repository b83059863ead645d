//! `gateway top`

mod app;
mod history;
mod rates;
mod tables;
mod view;

#[cfg(test)]
mod tests;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
        mpsc::{Receiver, TryRecvError, channel},
    },
    time::{Duration, Instant},
};

use clap::Args;
use http::Method;
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use serde_json::{Value, json};

use self::{
    app::{App, Ask, Page},
    rates::{Rates, quantile},
};
use super::{
    Error, Global, Outcome, client, exit,
    output::{self, table},
};
use crate::{admin::stats::Stats, config::units::parse_duration};

/// Sources that are asked for.
const SOURCES: usize = 50;

#[derive(Debug, Args)]
#[command(
    after_help = "In the live view `?` shows the keys. Rates are those of the last interval; latencies come from \
                        histograms, so they are exact to a bucket."
)]
pub struct Top {
    /// Print one look and end, for scripts; `-o json` does too
    #[arg(long)]
    once: bool,
    /// Time between two looks
    #[arg(long, value_name = "DURATION", default_value = "1s")]
    interval: String,
}

/// What is shown: two looks at the counters, and what happened between them.
#[derive(Debug, Default, Clone)]
pub struct Look {
    pub stats: Stats,
    pub rates: Rates,
    /// Of the kernel half: those that were refused most, while somebody looks at them.
    pub sources: Vec<Value>,
    pub bans: Vec<Value>,
    /// Keys of L7 limits that were refused most, while somebody looks at them.
    pub keys: Vec<Value>,
}

impl Top {
    pub fn run(self, global: &Global) -> Outcome {
        let interval = parse_duration(&self.interval)
            .map_err(|error| Error::Usage(format!("--interval {}: {error}", self.interval)))?;
        let interval = interval.clamp(Duration::from_millis(100), Duration::from_secs(3600));
        let mut looker = Looker::new(global)?;
        looker.wanted.all();
        if self.once || global.json() {
            std::thread::sleep(interval);
            let look = looker.look()?;
            output::print(global, &to_json(&look), || describe(&look));
            return Ok(exit::OK);
        }
        live(global, looker, interval)
    }
}

/// Looks at the counters again and again.
struct Looker<'a> {
    global: &'a Global,
    before: Stats,
    at: Instant,
    wanted: Arc<Wanted>,
    /// Sources of the kernel half, and until when they are shown.
    sources: Option<(Instant, Vec<Value>)>,
}

/// The gateway reads a table to its end for sources, or two: they are asked for this often at most, and so seldom that it takes
/// no more than a hundredth of the time.
const SOURCES_FOR: Duration = Duration::from_secs(5);

/// What is asked for only while somebody looks at it: the gateway has to look through many for it.
#[derive(Debug, Default)]
struct Wanted {
    /// Keys of limits.
    keys: AtomicBool,
    /// Sources of the kernel half.
    sources: AtomicBool,
}

impl Wanted {
    fn all(&self) {
        self.keys.store(true, Relaxed);
        self.sources.store(true, Relaxed);
    }

    fn by(&self, page: Page) {
        self.keys.store(page == Page::Limits, Relaxed);
        self.sources.store(page == Page::Sources, Relaxed);
    }
}

impl<'a> Looker<'a> {
    fn new(global: &'a Global) -> Result<Self, Error> {
        let before = stats(global)?;
        Ok(Looker { global, before, at: Instant::now(), wanted: Arc::default(), sources: None })
    }

    fn look(&mut self) -> Result<Look, Error> {
        let list = |path: &str| -> Result<Vec<Value>, Error> {
            Ok(client::get(self.global, path)?.as_array().cloned().unwrap_or_default())
        };
        let (now, at) = (stats(self.global)?, Instant::now());
        let rates = Rates::between(&self.before, &now, (at - self.at).as_secs_f64());
        let asked = |wanted: bool, path: &str| if wanted { list(path) } else { Ok(Vec::new()) };
        let shown = self.wanted.sources.load(Relaxed);
        self.sources.take_if(|(until, _)| !shown || at >= *until);
        if shown && self.sources.is_none() {
            let sources = list(&format!("/v1/kernel/sources?top={SOURCES}"))?;
            self.sources = Some((at + SOURCES_FOR.max(at.elapsed() * 100), sources));
        }
        let sources = self.sources.as_ref().map(|(_, sources)| sources.clone()).unwrap_or_default();
        let bans = asked(shown, "/v1/bans")?;
        let keys = self.wanted.keys.load(Relaxed) && !now.limits.is_empty();
        let keys = asked(keys, &format!("/v1/limit-keys?top={SOURCES}"))?;
        (self.before, self.at) = (now.clone(), at);
        Ok(Look { stats: now, rates, sources, bans, keys })
    }
}

fn stats(global: &Global) -> Result<Stats, Error> {
    serde_json::from_value(client::get(global, "/v1/stats")?)
        .map_err(|error| Error::Other(format!("the gateway speaks another version: {error}")))
}

fn to_json(look: &Look) -> Value {
    json!({ "stats": look.stats, "rates": look.rates.to_json(), "sources": look.sources, "bans": look.bans, "keys": look.keys })
}

/// One look as text: the pages one below the other.
fn describe(look: &Look) -> String {
    let rates = &look.rates;
    let at = |share| tables::duration(quantile(&rates.duration, share));
    let mut out = format!(
        "{} {}, {} req/s, {} errors/s, p50 {} p95 {} p99 {}\n",
        look.stats.name,
        look.stats.state,
        tables::per_second(rates.requests),
        tables::per_second(rates.errors),
        at(0.5),
        at(0.95),
        at(0.99)
    );
    for (page, _) in Page::ALL {
        let mut of = tables::table(page, look);
        of.arrange("", if page == Page::Routes { 1 } else { 0 }, false);
        if !of.rows.is_empty() {
            let header: Vec<&str> = of.columns.iter().map(|column| column.title).collect();
            let rows = of.rows.into_iter().map(|row| row.cells.into_iter().map(|cell| cell.text).collect());
            out += &format!("\n{}\n", table(&header, rows));
        }
    }
    out
}

/// The terminal is left as it was, also by a panic.
fn live(global: &Global, mut looker: Looker<'_>, interval: Duration) -> Outcome {
    let (sender, looks) = channel();
    let wanted = looker.wanted.clone();
    let mut terminal = ratatui::try_init().map_err(|error| {
        Error::Other(format!("this is no terminal ({error})\n  hint: `gateway top --once` prints one look"))
    })?;
    let outcome = std::thread::scope(|threads| {
        // Asking takes a while at times; keys do not wait for it.
        threads.spawn(move || {
            // Something is there at once; rates come with the second look.
            let mut pause = Duration::from_millis(200);
            loop {
                std::thread::sleep(pause);
                pause = interval;
                if sender.send(looker.look().map_err(|error| error.to_string())).is_err() {
                    return;
                }
            }
        });
        show(global, &mut terminal, looks, &wanted)
    });
    ratatui::restore();
    outcome
}

fn show(
    global: &Global,
    terminal: &mut ratatui::DefaultTerminal,
    looks: Receiver<Result<Look, String>>,
    wanted: &Wanted,
) -> Outcome {
    let mut app = App::default();
    let broken = |error: std::io::Error| Error::Other(format!("cannot use the terminal: {error}"));
    loop {
        loop {
            match looks.try_recv() {
                Ok(Ok(look)) => app.take(look),
                Ok(Err(error)) => app.message = error.lines().next().map(str::to_owned),
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
            }
        }
        wanted.by(app.page);
        terminal.draw(|frame| view::draw(frame, &app)).map_err(broken)?;
        if !event::poll(Duration::from_millis(200)).map_err(broken)? {
            continue;
        }
        if let Event::Key(key) = event::read().map_err(broken)?
            && key.kind == KeyEventKind::Press
            && let Some(ask) = app.press(key)
        {
            if ask == Ask::Quit {
                return Ok(exit::OK);
            }
            app.message = Some(done(global, &ask));
        }
    }
}

/// Does what was asked for, and says what became of it.
fn done(global: &Global, ask: &Ask) -> String {
    let outcome = match ask {
        Ask::Ban { source } => {
            let body = json!({ "cidr": source, "for": "10m", "why": "gateway top" });
            client::post(global, "/v1/bans", Some(body)).map(|_| format!("{source} is banned for 10 minutes"))
        }
        Ask::Unban { cidr } => {
            client::delete(global, &format!("/v1/bans/{cidr}")).map(|_| format!("{cidr} is no longer banned"))
        }
        Ask::Target { name, addr, service, state } => {
            let kind = if *service { "services" } else { "upstreams" };
            let path = format!("/v1/{kind}/{name}/targets/{addr}");
            let body = json!({ "state": state }).to_string();
            client::send(global, Method::PATCH, &path, body)
                .map(|row| format!("{addr} of {name} is {}", row["state"].as_str().unwrap_or_default()))
        }
        Ask::Quit => Ok(String::new()),
    };
    outcome.unwrap_or_else(|error| error.to_string())
}
