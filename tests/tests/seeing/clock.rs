//! The wall clock is set, back and forth, under a gateway that serves.

use std::{io::Write as _, path::Path, time::SystemTime};

use lab::{gateway::Options, prelude::*};

use super::traces::{attribute, collector, spans};

/// Another wall clock for a process that it is loaded into: as many seconds off as the file says.
const SHIM: &str = r#"
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
static volatile long *off;
__attribute__((constructor)) static void start(void) {
    int file = open(getenv("CLOCK_OFF"), O_RDONLY);
    void *page = mmap(0, sizeof(long), PROT_READ, MAP_SHARED, file, 0);
    if (page == MAP_FAILED) abort();
    off = page;
}
int clock_gettime(clockid_t clock, struct timespec *at) {
    long result = syscall(SYS_clock_gettime, clock, at);
    if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE) && off) at->tv_sec += *off;
    return (int)result;
}
int gettimeofday(struct timeval *restrict at, void *restrict zone) {
    (void)zone;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    at->tv_sec = now.tv_sec;
    at->tv_usec = now.tv_nsec / 1000;
    return 0;
}
time_t time(time_t *at) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at) *at = now.tv_sec;
    return now.tv_sec;
}
"#;

/// The mapping stays: the file is written over, never anew.
fn set(file: &Path, seconds: i64) -> Result<()> {
    let mut file = std::fs::OpenOptions::new().create(true).truncate(false).write(true).open(file)?;
    Ok(file.write_all(&seconds.to_ne_bytes())?)
}

/// Seconds since 1970 of a line's `ts`, by the real date(1).
fn seconds(net: &Net, ts: &str) -> Result<i64> {
    Ok(net.gateway.output("date", &["-u", "-d", ts, "+%s"])?.trim().parse()?)
}

// M4, M6, R1, C2
#[test]
fn a_clock_that_is_set_back_and_forth_changes_no_duration_no_limit_and_no_alert() -> Result<()> {
    lab_test!();
    let turn = shared()?;
    let net = Net::simple(1)?;
    let backends = lab::backend::start_all(&net)?;
    let dir = tempfile::tempdir()?;
    let (source, library, off) =
        (dir.path().join("shim.c"), dir.path().join("shim.so"), dir.path().join("off"));
    std::fs::write(&source, SHIM)?;
    let made = std::process::Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"])
        .args([&library, &source])
        .output()
        .context("cannot run cc")?;
    ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    set(&off, 0)?;
    let variable = |name: &str, path: &Path| (name.to_owned(), path.display().to_string());
    let variables = vec![variable("LD_PRELOAD", &library), variable("CLOCK_OFF", &off)];
    let config = format!(
        "[gateway]\nworkers = 1\n[listener.web]\nbind = \":80\"\n[cache.c]\nmemory = \"16MiB\"\n\
         [limit.some]\nrate = \"5/s\"\nburst = 5\n\
         [route.all]\nto = {to}\n[route.some]\npath = \"/status/200\"\nto = {to}\nlimit = [\"some\"]\n\
         [route.made]\npath = \"/made/*\"\nto = {to}\ncache = \"c\"\n\
         [alert.errors]\nwhen = \"errors\"\nabove = \"1%\"\nover = \"1h\"\nleast = 1\nfor = \"1h\"\n\
         [tracing]\notlp = \"http://127.0.0.1:4318\"\nshare = \"100%\"\n",
        to = lab::backend::targets(&backends)
    );
    let gateway = Gateway::start_with(&net, &config, Options { variables, ..Default::default() })?;
    let rig = Rig::of(gateway, backends, net, turn);
    let _collector = collector(&rig, 0)?;
    let made = |n: u32| rig.ask(&format!("GET /made/{n}"), "a", "x-answer: cache-control: max-age=60\r\n");
    let alert = || -> Result<Value> {
        Ok(rig.gateway.cli(&["alert", "list", "-o", "json"])?.json()?[0]["state"].clone())
    };
    for (nth, offset) in [0i64, -3600, 86_400, -86_400].into_iter().enumerate() {
        set(&off, offset)?;
        // Workers look at it once a second.
        std::thread::sleep(Duration::from_millis(1300));
        let slow = rig.ask("GET /slow-header?ms=200", "a", "")?;
        assert_eq!(slow.status, 200);
        let line = rig.gateway.log_of(&slow)?;
        let at = seconds(&rig.net, line["ts"].as_str().context("no ts")?)?;
        let real = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs() as i64;
        assert!((at - real - offset).abs() <= 4, "{offset}: {line}");
        let took = line["us"].as_u64().context("no us")?;
        assert!((200_000..5_000_000).contains(&took), "{offset}: {line}");
        assert!(line["us_self"].as_u64().is_some_and(|us| us < 5_000_000), "{offset}: {line}");
        // A limit neither stands still nor gives more than it has.
        let statuses =
            (0..20).map(|_| Ok(rig.ask("GET /status/200", "a", "")?.status)).collect::<Result<Vec<_>>>()?;
        let passed = statuses.iter().filter(|status| **status == 200).count();
        assert!((5..=15).contains(&passed), "{offset}: {statuses:?}");
        assert!(statuses.iter().all(|status| matches!(status, 200 | 429)), "{offset}: {statuses:?}");
        // What is stored while the clock is like this is used while it is.
        let n = nth as u32;
        assert_eq!(
            (made(n)?.status, made(n)?.header("cache-status").map(|told| told.contains("hit"))),
            (200, Some(true))
        );
        for old in 0..n {
            let answer = made(old)?;
            let age = answer.header("age").map_or(0, |age| age.parse().unwrap_or(u64::MAX));
            assert!(answer.status == 200 && age <= 60, "{offset}: {answer:?}");
        }
        // An alert that has to last an hour does not fire for a step of hours.
        (0..3).try_for_each(|_| rig.ask("GET /status/503", "a", "").map(drop))?;
        std::thread::sleep(Duration::from_millis(1100));
        assert_eq!(alert()?, "pending", "{offset}");
    }
    // As long as they took, whatever the clock said meanwhile.
    let took = rig.gateway.metrics()?.sum("http_request_duration_seconds_sum", &[]);
    assert!((0.8..20.0).contains(&took), "{took}");
    eventually("spans are told", || {
        let slow = |span: &&Value| attribute(span, "url.path").as_deref() == Some("/slow-header");
        Ok(spans(&rig).iter().filter(slow).count() == 4)
    })?;
    for span in spans(&rig) {
        let time = |key: &str| span[key].as_str().and_then(|n| n.parse::<i128>().ok()).unwrap_or(-1);
        let took = time("endTimeUnixNano") - time("startTimeUnixNano");
        assert!((0..5_000_000_000).contains(&took), "{span}");
    }
    Ok(())
}
