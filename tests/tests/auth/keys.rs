//! Keys that are made and taken away while the gateway runs, and how they are kept: S1, S17.

use std::os::unix::fs::PermissionsExt;

use super::*;

fn write_secret(rig: &Rig, name: &str, secret: &str) -> Result<()> {
    let path = rig.gateway.file(name);
    std::fs::write(&path, secret)?;
    Ok(std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?)
}

/// `state`: the keys of `[state]`.
fn config(rig: &Rig, state: &str) -> String {
    format!(
        r#"
[gateway]
workers = 4
[listener.web]
bind = ":80"
[upstream.app]
to = "{}"
[auth.key]
type = "api-key"
[consumer.acme]
tier = "gold"
keys = [{{ id = "k1", hash = "{}" }}]
[consumer.small]
[route.all]
to = "app"
auth = "key"
rewrite.set = {{ x-consumer = "${{consumer.id}}" }}
[state]
directory = "{}"
{state}
"#,
        rig.backends[0].addr,
        hash("configured"),
        rig.gateway.file("state").display(),
    )
}

fn rig_with_state() -> Result<Rig> {
    let mut rig = rig("[route.all]\nto = \"app\"\n")?;
    write_secret(&rig, "one.key", "the first secret, long enough\n")?;
    write_secret(&rig, "two.key", "the second secret, long enough\n")?;
    rig.gateway.write(&config(&rig, "key = { file = \"one.key\" }"))?;
    restart(&mut rig)?;
    Ok(rig)
}

fn restart(rig: &mut Rig) -> Result<()> {
    rig.gateway.stop()?;
    rig.gateway.run()
}

/// The status for a key, by each of many connections: those of all workers.
fn statuses(rig: &Rig, key: &str) -> Result<BTreeSet<u16>> {
    (0..16).map(|_| Ok(ask(rig, "GET /echo", &format!("x-api-key: {key}\r\n"))?.status)).collect()
}

fn make(rig: &Rig, arguments: &[&str]) -> Result<Value> {
    rig.gateway.cli(&[&["key", "new", "-o", "json"], arguments].concat())?.ok()?.json()
}

// S1
#[test]
fn a_key_is_in_force_once_it_is_made_and_no_more_once_it_is_revoked() -> Result<()> {
    lab_test!();
    let mut rig = rig_with_state()?;
    let key = rig.gateway.cli(&["key", "new", "acme"])?.ok()?.stdout.trim().to_owned();
    assert!(key.starts_with("gw_") && key.len() == 46, "{key}");
    assert_eq!(statuses(&rig, &key)?, BTreeSet::from([200]));
    assert_eq!(seen(&ask(&rig, "GET /echo", &format!("x-api-key: {key}\r\n"))?, "x-consumer")?, ["acme"]);
    let small = make(&rig, &["small", "ci", "--for", "2s"])?;
    let small = small["key"].as_str().context("no key")?.to_owned();
    assert_eq!(statuses(&rig, &small)?, BTreeSet::from([200]));
    // What is listed has no key and no hash in it.
    let listed = rig.gateway.cli(&["key", "list", "-o", "json"])?.ok()?;
    let ids = |name: &str| Ok::<_, anyhow::Error>(listed.json()?[name]["keys"].as_array().map(Vec::len));
    assert_eq!((ids("acme")?, ids("small")?), (Some(2), Some(1)));
    assert!(!listed.stdout.contains("blake3") && !listed.stdout.contains("gw_"), "{}", listed.stdout);
    assert!(rig.gateway.cli(&["key", "list"])?.ok()?.stdout.lines().all(|line| line.chars().count() <= 80));
    assert!(rig.gateway.cli(&["key", "new", "nobody"])?.code != 0);
    assert!(rig.gateway.cli(&["key", "new", "small", "ci"])?.stderr.contains("has a key ci already"));
    eventually("the key expires", || Ok(statuses(&rig, &small)? == BTreeSet::from([401])))?;
    // They outlive a reload, a kill and a restart.
    rig.gateway.cli(&["reload"])?.ok()?;
    assert_eq!(statuses(&rig, &key)?, BTreeSet::from([200]));
    rig.gateway.kill();
    rig.gateway.run()?;
    assert_eq!(
        (statuses(&rig, &key)?, statuses(&rig, &small)?),
        (BTreeSet::from([200]), BTreeSet::from([401]))
    );
    // Also one of the config's own can be taken away, and stays away.
    assert_eq!(statuses(&rig, "configured")?, BTreeSet::from([200]));
    let began = Instant::now();
    rig.gateway.cli(&["key", "revoke", "acme", "k1"])?.ok()?;
    rig.gateway.cli(&["key", "revoke", "acme", "key-1"])?.ok()?;
    assert_eq!(
        (statuses(&rig, "configured")?, statuses(&rig, &key)?),
        (BTreeSet::from([401]), BTreeSet::from([401]))
    );
    ensure!(began.elapsed() < Duration::from_secs(5));
    assert!(rig.gateway.cli(&["key", "revoke", "acme", "key-1"])?.code != 0);
    restart(&mut rig)?;
    assert_eq!(
        (statuses(&rig, "configured")?, statuses(&rig, &key)?),
        (BTreeSet::from([401]), BTreeSet::from([401]))
    );
    // Who did it is in the log, and no key is.
    let log = rig.gateway.stderr().join("\n");
    assert!(!log.contains(&key), "{log}");
    Ok(())
}

// S17
#[test]
fn what_is_kept_is_sealed_rotated_and_refused_with_the_wrong_key() -> Result<()> {
    lab_test!();
    let mut rig = rig_with_state()?;
    let key = make(&rig, &["acme"])?["key"].as_str().context("no key")?.to_owned();
    rig.gateway.says("who=\"root\" method=POST path=\"/v1/consumers/acme/keys\" status=201")?;
    let sealed = rig.gateway.file("state/keys.sealed");
    let before = std::fs::read(&sealed)?;
    assert!(before.starts_with(b"GWSEAL") && !before.windows(4).any(|part| part == b"acme"));
    let mode = |path: &std::path::Path| {
        Ok::<_, anyhow::Error>(std::fs::metadata(path)?.permissions().mode() & 0o777)
    };
    assert_eq!((mode(&sealed)?, mode(&rig.gateway.file("state"))?), (0o600, 0o700));
    // Another key alone opens nothing: the reload is refused, and says why.
    rig.gateway.write(&config(&rig, "key = { file = \"two.key\" }"))?;
    let refused = rig.gateway.cli(&["reload"])?;
    assert!(refused.code != 0 && refused.stderr.contains("name the key before in `old_keys`"), "{refused:?}");
    assert_eq!(statuses(&rig, &key)?, BTreeSet::from([200]));
    // With the one before it is opened, and sealed anew.
    rig.gateway.write(&config(&rig, "key = { file = \"two.key\" }\nold_keys = { file = \"one.key\" }"))?;
    rig.gateway.cli(&["reload"])?.ok()?;
    assert_ne!(std::fs::read(&sealed)?, before);
    rig.gateway.write(&config(&rig, "key = { file = \"two.key\" }"))?;
    restart(&mut rig)?;
    assert_eq!(statuses(&rig, &key)?, BTreeSet::from([200]));
    // A key that others can read is none, nor is a file that somebody has changed.
    let open = rig.gateway.file("two.key");
    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o640))?;
    assert!(rig.gateway.cli(&["reload"])?.stderr.contains("can be read by others"));
    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o600))?;
    let mut changed = std::fs::read(&sealed)?;
    if let Some(last) = changed.last_mut() {
        *last ^= 1;
    }
    std::fs::write(&sealed, changed)?;
    rig.gateway.stop()?;
    let (status, said) = rig.gateway.run_to_end()?;
    assert!(!status.success() && said.contains("changed since it was sealed"), "{said}");
    Ok(())
}

// S17
#[test]
fn without_a_key_to_seal_with_nothing_is_kept() -> Result<()> {
    lab_test!();
    let mut rig = rig_with_state()?;
    rig.gateway.write(&config(&rig, ""))?;
    restart(&mut rig)?;
    let refused = rig.gateway.cli(&["key", "new", "acme"])?;
    assert!(refused.code != 0 && refused.stderr.contains("[state]"), "{refused:?}");
    assert!(!rig.gateway.file("state").exists());
    assert_eq!(statuses(&rig, "configured")?, BTreeSet::from([200]));
    Ok(())
}
