//! Names and passwords: S2.

use argon2::{
    Algorithm, Argon2, Params, PasswordHasher, Version,
    password_hash::{PasswordHash, SaltString},
};
use base64::{Engine, engine::general_purpose::STANDARD};

use super::*;

/// Cheap, so that the test measures nothing but the gateway.
fn argon2id(password: &str) -> Result<String> {
    let params = Params::new(64, 1, 1, None).map_err(|error| anyhow::anyhow!("{error}"))?;
    let salt = SaltString::encode_b64(b"saltsaltsalt").map_err(|error| anyhow::anyhow!("{error}"))?;
    let hasher = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    let hash: PasswordHash<'_> =
        hasher.hash_password(password.as_bytes(), &salt).map_err(|error| anyhow::anyhow!("{error}"))?;
    Ok(hash.to_string())
}

fn credentials(user: &str, password: &str) -> String {
    format!("authorization: Basic {}\r\n", STANDARD.encode(format!("{user}:{password}")))
}

// S2: RFC 7617
#[test]
fn a_name_and_its_password_are_let_in_and_nobody_else() -> Result<()> {
    lab_test!();
    let rig = rig(&format!(
        r#"
[auth.login]
type = "basic"
realm = "the shop"
[consumer.ann]
password = ["{}", "{}"]
[consumer.bob]
password = "{}"
[consumer.none]
[route.all]
to = "app"
auth = "login"
rewrite.set = {{ x-consumer = "${{consumer.id}}" }}
[route.ann]
path = "/echo/ann"
to = "app"
auth = "login"
allow = "consumer:ann"
"#,
        argon2id("old")?,
        argon2id("new:with colon")?,
        argon2id("bobs")?
    ))?;
    for (user, password) in [("ann", "old"), ("ann", "new:with colon"), ("bob", "bobs"), ("bob", "bobs")] {
        let answer = ask(&rig, "GET /echo/a", &credentials(user, password))?;
        assert_eq!((answer.status, seen(&answer, "x-consumer")?), (200, vec![user.to_owned()]));
        assert!(seen(&answer, "authorization")?.is_empty());
    }
    for (result, fields) in [
        ("missing", String::new()),
        ("missing", "authorization: Bearer x\r\n".into()),
        ("unknown", credentials("ann", "bobs")),
        ("unknown", credentials("ann", "")),
        ("unknown", credentials("Ann", "old")),
        ("unknown", credentials("nobody", "old")),
        ("unknown", credentials("none", "")),
        ("malformed", credentials("", "old")),
        ("malformed", "authorization: Basic YW5u\r\n".into()),
        ("malformed", "authorization: Basic %%%\r\n".into()),
        ("malformed", "authorization: Basic\r\nauthorization: Basic\r\n".into()),
        ("malformed", format!("authorization: Basic {}\r\n", STANDARD.encode("a:".repeat(1000)))),
    ] {
        let before = counted(&rig, "login", result)?;
        let answer = ask(&rig, "GET /echo/a", &fields)?;
        answer.refused(401, "unauthorized")?;
        assert_eq!(answer.header("www-authenticate"), Some("Basic realm=\"the shop\", charset=\"UTF-8\""));
        assert_eq!(counted(&rig, "login", result)?, before + 1.0, "{result} {fields}");
    }
    assert_eq!(ask(&rig, "GET /echo/ann", &credentials("ann", "old"))?.status, 200);
    ask(&rig, "GET /echo/ann", &credentials("bob", "bobs"))?.refused(403, "forbidden")
}
