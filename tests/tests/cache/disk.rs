//! The disk tier: C13.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::*;

/// Memory has room for next to nothing.
const SMALL: &str =
    "memory = \"1MiB\"\nmax_body = \"128KiB\"\ndisk = { path = \"disk\", size = \"16MiB\" }\n";

fn small(cache: &str, more: &str) -> Result<Rig> {
    Rig::start(1, |backends| config(&backends[0].addr.to_string(), cache, more))
}

fn config(app: &str, cache: &str, more: &str) -> String {
    format!(
        "[listener.web]\nbind = \":80\"\n[upstream.app]\nto = \"{app}\"\n\
         [cache.c]\n{SMALL}{cache}\n[route.all]\nto = \"app\"\ncache = \"c\"\n{more}"
    )
}

fn stats(rig: &Rig) -> Result<Value> {
    Ok(rig.gateway.cli(&["cache", "stats", "c", "-o", "json"])?.ok()?.json()?["c"].clone())
}

fn of_disk(rig: &Rig, what: &str) -> Result<u64> {
    stats(rig)?["disk"][what].as_u64().with_context(|| format!("no {what}"))
}

fn written(rig: &Rig, count: u64) -> Result<()> {
    eventually("all is written", || Ok(of_disk(rig, "written")? >= count))
}

fn ready(rig: &Rig) -> Result<()> {
    eventually("the tier is ready", || Ok(stats(rig)?["disk"]["state"] == json!("ready")))
}

fn restart(rig: &mut Rig) -> Result<()> {
    rig.gateway.stop()?;
    rig.gateway.run()?;
    ready(rig)
}

#[test]
fn what_is_stored_is_there_after_a_restart_and_goes_on_as_it_was() -> Result<()> {
    lab_test!();
    let mut rig = small("", "")?;
    let tagged = "cache-control: max-age=600|etag: \"v1\"|vary: accept-language";
    let german = ask(&rig, "GET /made/a", tagged, "accept-language: de\r\n")?;
    let english = ask(&rig, "GET /made/a", tagged, "accept-language: en\r\n")?;
    let short = get(&rig, "short", "cache-control: max-age=1|etag: \"v2\"")?;
    written(&rig, 3)?;
    restart(&mut rig)?;
    let before = asked(&rig)?;
    assert_eq!(stats(&rig)?["entries"], json!(0));
    let hit = ask(&rig, "GET /made/a", tagged, "accept-language: de\r\n")?;
    assert!(is_hit(&hit) && hit.body == german.body, "{hit:?}");
    assert_eq!(hit.header("x-serial"), german.header("x-serial"));
    assert!(hit.header("age").is_some());
    assert_eq!(rig.gateway.log_of(&hit)?["cache"], json!("hit"));
    let not = ask(&rig, "GET /made/a", tagged, "accept-language: en\r\nif-none-match: \"v1\"\r\n")?;
    assert_eq!(not.status, 304);
    let part = ask(&rig, "GET /made/a", tagged, "accept-language: en\r\nrange: bytes=0-3\r\n")?;
    assert_eq!((part.status, &part.body[..]), (206, &english.body[..4]));
    let head = ask(&rig, "HEAD /made/a", tagged, "accept-language: de\r\n")?;
    assert!(is_hit(&head));
    assert!(!is_hit(&ask(&rig, "GET /made/a", tagged, "accept-language: fr\r\n")?));
    assert_eq!(asked(&rig)?, before + 1);
    // What is stale is asked about.
    thread::sleep(Duration::from_millis(1100));
    let again = get(&rig, "short", "cache-control: max-age=1|etag: \"v2\"")?;
    assert_eq!((again.status, &again.body), (200, &short.body));
    assert_eq!(rig.gateway.log_of(&again)?["cache"], json!("revalidated"));
    let metrics = rig.gateway.metrics()?;
    let events = metrics.by("cache_disk_total", "event", &[("cache", "c")]);
    assert!(events["hit"] >= 3.0 && events["damaged"] == 0.0, "{events:?}");
    let tiers = metrics.by("cache_bytes", "tier", &[("cache", "c")]);
    assert!(tiers["disk"] > 0.0 && tiers["memory"] > 0.0, "{tiers:?}");
    let shown = rig.gateway.cli(&["cache", "stats", "c"])?.ok()?.stdout;
    assert!(shown.contains("disk state") && shown.lines().all(|line| line.len() <= 80), "{shown}");
    Ok(())
}

#[test]
fn purges_and_changes_reach_the_disk_and_hold_after_a_restart() -> Result<()> {
    lab_test!();
    for key in ["", "key = [\"host\", \"path\", \"query\", \"header:x-k\"]"] {
        let mut rig = small(key, "")?;
        let tagged = "cache-control: max-age=600|surrogate-key: t";
        let paths = ["key?x=1", "p/1", "p/2", "tag", "changed", "kept"];
        for path in paths {
            get(&rig, path, if path == "tag" { tagged } else { FRESH })?;
        }
        written(&rig, 6)?;
        restart(&mut rig)?;
        for what in [["--key", "http://a.test/made/key?x=1"], ["--prefix", "/made/p/"], ["--tag", "t"]] {
            rig.gateway.cli(&[&["cache", "purge", "c"], &what[..]].concat())?.ok()?;
        }
        ask(&rig, "POST /made/changed", "", "content-length: 0\r\n")?;
        // In force at once, and noted within a second.
        assert!(!is_hit(&ask(&rig, "GET /made/tag", "cache-control: no-store", "")?));
        thread::sleep(Duration::from_millis(1500));
        rig.gateway.kill();
        rig.gateway.run()?;
        ready(&rig)?;
        for path in paths {
            let hit = is_hit(&ask(&rig, &format!("GET /made/{path}"), "cache-control: no-store", "")?);
            assert_eq!(hit, path == "kept", "{path} {key}");
        }
        rig.gateway.cli(&["cache", "purge", "c", "--all"])?.ok()?;
        restart(&mut rig)?;
        assert_eq!((of_disk(&rig, "entries")?, is_hit(&get(&rig, "kept", FRESH)?)), (0, false));
    }
    Ok(())
}

/// Asks for noise until the gateway is gone, or `until`; how many answers were good, and how many came from the cache.
fn load(rig: &Rig, seed: u64, until: std::time::Instant, hits: &AtomicU64) -> Result<u64> {
    let mut client = rig.client()?;
    let (mut state, mut good) = (seed, 0);
    while std::time::Instant::now() < until {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let (key, size) = ((state >> 33) % 400, 100 + (state >> 40) % 60_000);
        let fields = format!("x-answer: {FRESH}\r\nx-hash: 1\r\nx-size: {size}\r\n");
        // It may be killed at any time.
        if client.send(made(&format!("noise-{key}"), &fields)).is_err() {
            break;
        }
        let Ok(answer) = client.response_to("GET") else { break };
        let hash = answer.header("x-hash").context("no hash")?;
        ensure!(blake3::hash(&answer.body).to_hex().as_str() == hash, "a bad byte: {answer:?}");
        hits.fetch_add(u64::from(is_hit(&answer)), Relaxed);
        good += 1;
    }
    Ok(good)
}

fn crowd_load(rig: &Rig, seed: u64, limit: Duration) -> Result<(u64, u64)> {
    let (hits, until) = (AtomicU64::new(0), std::time::Instant::now() + limit);
    let good = thread::scope(|scope| {
        let hits = &hits;
        let threads: Vec<_> = (0..4).map(|n| scope.spawn(move || load(rig, seed + n, until, hits))).collect();
        threads.into_iter().map(|thread| thread.join().expect("it ends")).sum::<Result<u64>>()
    })?;
    Ok((good, hits.into_inner()))
}

#[test]
fn killed_while_it_writes_it_never_serves_a_bad_byte() -> Result<()> {
    lab_test!();
    let mut rig = small("", "")?;
    let mut from_disk = 0;
    for round in 0..4u64 {
        let (good, _) = thread::scope(|scope| {
            scope.spawn(|| {
                thread::sleep(Duration::from_millis(1200 + round * 170));
                rig.gateway.signal(libc::SIGKILL)
            });
            crowd_load(&rig, round * 10, Duration::from_secs(20))
        })?;
        assert!(good > 0);
        rig.gateway.kill();
        rig.gateway.run()?;
        ready(&rig)?;
        let before = of_disk(&rig, "hits")?;
        let (good, hits) = crowd_load(&rig, round * 10, Duration::from_millis(1500))?;
        assert!(good > 0 && hits > 0, "{good} {hits}");
        from_disk += of_disk(&rig, "hits")? - before;
        assert!(of_disk(&rig, "bytes")? <= 16 << 20);
    }
    assert!(from_disk > 0);
    let files = std::fs::read_dir(rig.gateway.file("disk/c"))?;
    let bytes: u64 = files.map(|file| Ok(file?.metadata()?.len())).sum::<Result<u64>>()?;
    assert!(bytes > 1 << 20 && bytes <= 16 << 20, "{bytes}");
    Ok(())
}

#[test]
fn with_a_key_nothing_on_disk_can_be_read_and_without_it_nothing_is_used() -> Result<()> {
    lab_test!();
    let mut rig = small("", "")?;
    let plain = get(&rig, "in-clear", FRESH)?;
    written(&rig, 1)?;
    let text = std::fs::read_to_string(rig.gateway.config())?;
    let secret = |name: &str, secret: &str| -> Result<()> {
        use std::os::unix::fs::PermissionsExt;
        let path = rig.gateway.file(name);
        std::fs::write(&path, secret)?;
        Ok(std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?)
    };
    secret("key", "a secret of more than sixteen bytes")?;
    secret("other", "another secret, just as long as that")?;
    let with = |keys: &str| text.replace("[state]\n", &format!("[state]\n{keys}\n"));
    // A reload with a key: what is in clear goes.
    rig.gateway.write(&with("key = { file = \"key\" }"))?;
    rig.gateway.cli(&["reload"])?.ok()?;
    ready(&rig)?;
    eventually("what was in clear is gone", || Ok(of_disk(&rig, "entries")? == 0))?;
    let first = ask(&rig, "GET /made/secret-path", FRESH, "x-k: secret-field\r\n")?;
    written(&rig, 1)?;
    rig.gateway.stop()?;
    let files = std::fs::read_dir(rig.gateway.file("disk/c"))?;
    let files = files.map(|file| Ok(std::fs::read(file?.path())?)).collect::<Result<Vec<_>>>()?;
    let bytes = files.concat();
    for secret in ["secret-path", "a.test", "max-age", "x-serial", plain.text().trim(), "in-clear"] {
        assert!(!bytes.windows(secret.len()).any(|window| window == secret.as_bytes()), "{secret}");
    }
    rig.gateway.run()?;
    ready(&rig)?;
    assert_eq!(get(&rig, "secret-path", FRESH)?.body, first.body);
    assert_eq!(stats(&rig)?["disk"]["sealed"], json!(true));
    rig.gateway.stop()?;
    // Another key, or none, is said; what is there stays.
    for (key, word) in [("key = { file = \"other\" }", "old_keys"), ("", "no key")] {
        rig.gateway.write(&with(key))?;
        let (status, said) = rig.gateway.run_to_end()?;
        assert!(!status.success() && said.contains("cache.c.disk") && said.contains(word), "{said}");
    }
    rig.gateway.write(&with("key = { file = \"other\" }\nold_keys = [{ file = \"key\" }]"))?;
    rig.gateway.run()?;
    ready(&rig)?;
    assert_eq!(get(&rig, "secret-path", FRESH)?.body, first.body);
    Ok(())
}

#[test]
fn what_cannot_be_is_named_by_check() -> Result<()> {
    lab_test!();
    let rig = rig("", "")?;
    std::fs::write(rig.gateway.file("file"), "")?;
    let text = std::fs::read_to_string(rig.gateway.config())?;
    for (disk, word) in [
        ("{ path = \"file/cache\", size = \"64MiB\" }", "is in the way"),
        ("{ path = \"/proc/cache\", size = \"64MiB\" }", "cannot write to /proc"),
        ("{ path = \"disk\", size = \"60TiB\" }", "the whole file system"),
        ("{ path = \"disk\", size = \"8MiB\" }", "17MiB or more"),
        ("{ path = \"disk\" }", "disk.size"),
        ("{ path = \"disk\", size = \"64MiB\", compress = true }", "compress"),
    ] {
        let path = rig.gateway.file("bad.toml");
        std::fs::write(&path, text.replace("[cache.c]\n", &format!("[cache.c]\ndisk = {disk}\n")))?;
        let check = rig.gateway.cli(&["check", &path.display().to_string()])?;
        assert!(
            check.code != 0 && check.stderr.contains(word) && check.stderr.contains(":"),
            "{disk}: {check:?}"
        );
    }
    assert!(!rig.gateway.file("disk").exists(), "a check makes nothing");
    Ok(())
}

#[test]
fn the_next_process_goes_on_with_the_directory() -> Result<()> {
    lab_test!();
    let mut rig = small("", "")?;
    let first = get(&rig, "a", FRESH)?;
    written(&rig, 1)?;
    rig.gateway.upgrade(&[])?.ok()?;
    rig.gateway.predecessor_ends(Duration::from_secs(20))?;
    ready(&rig)?;
    assert_eq!(get(&rig, "a", FRESH)?.body, first.body);
    assert_eq!(of_disk(&rig, "hits")?, 1);
    // A reload keeps it, and a larger one too.
    let text = std::fs::read_to_string(rig.gateway.config())?;
    rig.gateway.write(&text.replace("size = \"16MiB\"", "size = \"32MiB\""))?;
    rig.gateway.cli(&["reload"])?.ok()?;
    assert_eq!((of_disk(&rig, "size")?, of_disk(&rig, "entries")?, of_disk(&rig, "hits")?), (32 << 20, 1, 1));
    // Another making of keys: what was stored answers nobody any more.
    let text = std::fs::read_to_string(rig.gateway.config())?;
    rig.gateway.write(&text.replace("[cache.c]\n", "[cache.c]\nkey = [\"path\"]\n"))?;
    rig.gateway.cli(&["reload"])?.ok()?;
    assert!(!is_hit(&get(&rig, "a", FRESH)?));
    Ok(())
}
