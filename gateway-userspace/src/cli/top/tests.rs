//! What is drawn, as text, and what keys do.

use ratatui::{
    Terminal,
    backend::TestBackend,
    crossterm::event::{KeyCode, KeyEvent, KeyModifiers},
};
use serde_json::json;

use super::{app::*, rates::Rates, view, *};
use crate::{admin::stats::*, observe::stats::BOUNDS_US};

fn stats(second: u64) -> Stats {
    let route = |name: &str, requests: u64, bad: u64, bucket: usize| {
        let mut buckets = vec![0; BOUNDS_US.len() + 1];
        buckets[bucket] = requests;
        RouteRow {
            listener: "web".into(),
            route: name.into(),
            version: String::new(),
            requests,
            codes: [(200, requests - bad), (503, bad)].into(),
            errors: [("no_healthy_target".to_owned(), bad)].into(),
            bytes_in: requests * 10,
            bytes_out: requests * 2_000,
            duration: Latency { buckets, sum_us: requests * 700 },
        }
    };
    let target = |addr: &str, state: &str, requests: u64| TargetRow {
        addr: addr.into(),
        state: state.into(),
        active: 3,
        requests,
        errors: 0,
    };
    let packets = |action: &str, reason: &str, packets: u64| KernelRow {
        interface: "eth0".into(),
        action: action.into(),
        reason: reason.into(),
        packets,
        bytes: packets * 60,
    };
    Stats {
        name: "edge-1".into(),
        state: "running".into(),
        generation: 7,
        uptime: 3_661.0 + second as f64,
        listeners: [("web".into(), ListenerRow { connections: 42, accepted: 100, active_requests: 5 })]
            .into(),
        routes: vec![
            route("items", second * 1500, second * 15, 3),
            route("carts", second * 20, second * 2, 8),
            route("-", 0, 0, 0),
        ],
        upstreams: [(
            "items-v1".to_owned(),
            UpstreamRow {
                duration: Latency::default(),
                targets: vec![
                    target("10.0.0.11:8080", "up", second * 800),
                    target("10.0.0.12:8080", "down", second * 720),
                ],
            },
        )]
        .into(),
        caches: [(
            "pages".to_owned(),
            CacheRow {
                results: [
                    ("hit".to_owned(), second * 900),
                    ("miss".to_owned(), second * 80),
                    ("coalesced".to_owned(), second * 20),
                    ("bypass".to_owned(), second),
                ]
                .into(),
                bytes: 48_000_000,
                memory: 64_000_000,
                entries: 12_345,
                evicted: 7,
                disk: 2_500_000_000,
            },
        )]
        .into(),
        limits: [
            (
                "per-key".to_owned(),
                LimitRow {
                    decisions: [("allow".to_owned(), second * 700), ("deny".to_owned(), second * 40)].into(),
                    rate: 100.0,
                },
            ),
            ("soft".to_owned(), LimitRow { decisions: [("soft".to_owned(), second * 3)].into(), rate: 5.0 }),
        ]
        .into(),
        kernel: vec![packets("pass", "ok", second * 9_000), packets("drop", "banned", second * 25_000)],
        kernel_summary: "XDP native on eth0; steering on".into(),
        bans: 1,
        workers: vec![second as f64 * 0.5, second as f64 * 0.25],
        process: Process {
            pid: 1,
            cpu_seconds: second as f64 * 0.8,
            resident_bytes: 50_000_000,
            open_fds: 60,
        },
        ..Stats::default()
    }
}

fn look(second: u64) -> Look {
    Look {
        stats: stats(second),
        rates: Rates::between(&stats(second - 1), &stats(second), 1.0),
        sources: vec![
            json!({ "source": "198.51.100.7", "dropped": 120_000, "drops_per_second": 25_000.0, "packets_left": 0,
                    "service": null }),
            json!({ "source": "192.0.2.9", "dropped": 12, "drops_per_second": 0.5, "packets_left": 40,
                    "service": "dns" }),
        ],
        keys: vec![
            json!({ "limit": "per-key", "key": "consumer acme", "refused": 4_000, "left": 0, "of": 100 }),
            json!({ "limit": "per-key", "key": "\u{1b}evil", "refused": 3, "left": 7, "of": 100 }),
            json!({ "limit": "soft", "key": "another's", "refused": 9, "left": 7, "of": 100 }),
        ],
        bans: vec![json!({ "cidr": "198.51.100.7/32", "left_seconds": 61, "why": "flood" })],
    }
}

fn app() -> App {
    let mut app = App::default();
    (1..=5).for_each(|second| app.take(look(second)));
    app
}

fn drawn(app: &App) -> String {
    let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
    terminal.draw(|frame| view::draw(frame, app)).unwrap();
    let buffer = terminal.backend().buffer();
    let line = |y| (0..80).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
    (0..24).map(line).collect::<Vec<_>>().join("\n")
}

fn press(app: &mut App, keys: &str) -> Option<Ask> {
    let mut ask = None;
    for key in keys.chars() {
        let code = match key {
            '\n' => KeyCode::Enter,
            '\t' => KeyCode::Tab,
            '^' => KeyCode::Esc,
            other => KeyCode::Char(other),
        };
        ask = app.press(KeyEvent::new(code, KeyModifiers::NONE));
    }
    ask
}

/// The files are what was looked at and found right; `UPDATE_SNAPSHOTS=1` writes them anew.
fn same_as_file(name: &str, text: &str) {
    let path = format!("{}/src/cli/top/snapshots/{name}.txt", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        std::fs::write(&path, format!("{text}\n")).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap();
    assert_eq!(text, kept.trim_end_matches('\n'), "{name}: another picture than before");
}

#[test]
fn every_page_fits_80_by_24_and_looks_as_it_did() {
    let mut app = app();
    for (keys, name) in [
        ("1", "routes"),
        ("2", "upstreams"),
        ("3", "kernel"),
        ("4", "sources"),
        ("5", "caches"),
        ("6", "limits"),
        ("5\n", "cache"),
        ("^6\n", "limit"),
        ("^1\n", "route"),
        ("^4\n", "source"),
        ("^?", "help"),
    ] {
        press(&mut app, keys);
        same_as_file(name, &drawn(&app));
    }
}

#[test]
fn keys_sort_and_filter() {
    let mut app = app();
    let first = |app: &App| app.row().unwrap().key;
    assert_eq!(first(&app), "items");
    press(&mut app, "s");
    assert_eq!(first(&app), "carts", "by the share of errors");
    press(&mut app, "r");
    assert_eq!(first(&app), "-");
    press(&mut app, "/items\n");
    assert_eq!(app.table().rows.len(), 1);
    assert!(drawn(&app).contains("with \"items\""));
    press(&mut app, "^");
    assert_eq!(app.table().rows.len(), 3);
    press(&mut app, "jjjjj");
    assert_eq!(app.selected, 2);
}

#[test]
fn what_changes_something_asks_first() {
    let mut app = app();
    assert_eq!(press(&mut app, "4b"), None);
    assert!(drawn(&app).contains("Ban 198.51.100.7 in the kernel for 10 minutes? (y/n)"));
    assert_eq!(press(&mut app, "n"), None);
    assert_eq!(app.mode, Mode::List);
    assert_eq!(press(&mut app, "by"), Some(Ask::Ban { source: "198.51.100.7".into() }));
    assert_eq!(press(&mut app, "By"), Some(Ask::Unban { cidr: "198.51.100.7/32".into() }));
    assert_eq!(press(&mut app, "jB"), None);
    assert!(drawn(&app).contains("choose a banned source"));
    let drain = Ask::Target {
        name: "items-v1".into(),
        addr: "10.0.0.11:8080".into(),
        service: false,
        state: "drain",
    };
    assert_eq!(press(&mut app, "2dy"), Some(drain));
    assert_eq!(press(&mut app, "1d"), None);
    assert_eq!(press(&mut app, "q"), Some(Ask::Quit));
}

#[test]
fn a_small_or_a_hostile_screen_breaks_nothing() {
    let mut app = app();
    app.look.sources[0]["source"] = json!("\u{1b}[2J evil");
    press(&mut app, "4\n");
    for (width, height) in [(1, 1), (20, 5), (200, 60)] {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| view::draw(frame, &app)).unwrap();
    }
    press(&mut app, "^");
    assert!(!drawn(&app).contains('\u{1b}'));
}

#[test]
fn a_paused_picture_stands_still() {
    let mut app = app();
    press(&mut app, "p");
    let before = drawn(&app);
    app.look.stats.name = "edge-1".into();
    let mut later = look(6);
    later.stats.generation = 8;
    app.take(later);
    assert!(drawn(&app).contains("generation 7") && before.contains("generation 7"));
    press(&mut app, "p");
    app.take(look(7));
    assert!(!app.paused);
}
