//! Tokens: S3. Every attack has a name here.

use std::time::{SystemTime, UNIX_EPOCH};

use lab::{
    certs::Authority,
    issuer::{Issuer, SigningKey, encode, hs256},
};

use super::*;

const ISSUER: &str = "https://id.test/";
const SECRET: &str = "0123456789abcdef0123456789abcdef";

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn claims() -> Value {
    json!({ "iss": ISSUER, "aud": "api", "sub": "user-7", "azp": "acme", "exp": now() + 300, "scope": "items:read mail", "org": "north" })
}

fn with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[name] = value;
    claims
}

/// A gateway whose issuer is at localhost:8443 in its namespace, once it is started.
struct Site {
    rig: Rig,
    authority: Authority,
    _files: tempfile::TempDir,
}

impl Site {
    fn new() -> Result<Site> {
        let (authority, files) = (Authority::new()?, lab::cleanup::scratch()?);
        let (ca, secret) = (files.path().join("ca.pem"), files.path().join("secret"));
        std::fs::write(&ca, &authority.pem)?;
        std::fs::write(&secret, SECRET)?;
        std::fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
        let rig = rig(&format!(
            r#"
[auth.jwt]
type = "jwt"
issuer = "{ISSUER}"
audience = ["api", "other"]
jwks = "https://localhost:8443/keys"
ca = "{}"
refresh = "1s"
consumer = "claim:azp"
algorithms = ["ES256", "RS256", "PS256", "EdDSA"]
[auth.shared]
type = "jwt"
issuer = "{ISSUER}"
audience = "api"
secret = {{ file = "{}" }}
known = true
typ = "at+jwt"
from = ["cookie:session", "query:token"]
[consumer.acme]
tier = "gold"
grant = ["items:write"]
[consumer.user-7]
[route.items]
path = "/echo/items/*"
to = "app"
auth = "jwt"
allow = {{ GET = ["items:read"], PUT = ["all", "items:write", "tier:gold"], POST = ["claim:org=south", "scope:items:write"] }}
rewrite.set = {{ x-consumer = "${{consumer.id}}", x-org = "${{claim.org}}", x-sub = "${{claim.sub}}" }}
[route.shared]
path = "/echo/shared"
to = "app"
auth = "shared"
rewrite.set = {{ x-consumer = "${{consumer.id}}" }}
"#,
            ca.display(),
            secret.display()
        ))?;
        Ok(Site { rig, authority, _files: files })
    }

    fn issuer(&self, keys: &[&SigningKey]) -> Result<Issuer> {
        let shown = self.authority.issue(&["localhost"])?;
        Issuer::start(&self.rig.net.gateway, "127.0.0.1:8443".parse()?, &shown, keys)
    }

    fn get(&self, token: &str) -> Result<Response> {
        ask(&self.rig, "GET /echo/items/1", &format!("authorization: Bearer {token}\r\n"))
    }

    fn is_refused(&self, result: &str, token: &str) -> Result<()> {
        let before = counted(&self.rig, "jwt", result)?;
        let answer = self.get(token)?;
        answer.refused(401, "unauthorized").with_context(|| format!("{result}: {token}"))?;
        let challenge = answer.header("www-authenticate").unwrap_or_default();
        ensure!(challenge == "Bearer realm=\"gateway\", error=\"invalid_token\"", "{challenge}");
        ensure!(counted(&self.rig, "jwt", result)? == before + 1.0, "not {result}: {token}");
        Ok(())
    }
}

// S3, S7
#[test]
fn a_token_names_a_consumer_and_what_it_may() -> Result<()> {
    lab_test!();
    let site = Site::new()?;
    let (es, rsa, ed) = (SigningKey::es256("es")?, SigningKey::rsa("rsa")?, SigningKey::ed25519("ed")?);
    let _issuer = site.issuer(&[&es, &rsa, &ed])?;
    eventually("the keys are there", || Ok(site.get(&es.token(&claims()))?.status == 200))?;
    let pss = rsa.token_with(&json!({ "alg": "PS256", "kid": "rsa" }), &claims());
    for token in [es.token(&claims()), rsa.token(&claims()), pss, ed.token(&claims())] {
        // The second time from memory.
        for _ in 0..2 {
            let answer = site.get(&token)?;
            assert_eq!(answer.status, 200, "{token}");
            assert!(seen(&answer, "authorization")?.is_empty());
            assert_eq!(seen(&answer, "x-consumer")?, ["acme"]);
            assert_eq!(
                (seen(&answer, "x-org")?, seen(&answer, "x-sub")?),
                (vec!["north".into()], vec!["user-7".into()])
            );
            assert_eq!(site.rig.gateway.log_of(&answer)?["consumer"], "acme");
        }
    }
    let method = |method: &str, claims: &Value| {
        let fields = format!("authorization: Bearer {}\r\ncontent-length: 0\r\n", es.token(claims));
        Ok::<_, anyhow::Error>(ask(&site.rig, &format!("{method} /echo/items/1"), &fields)?.status)
    };
    // The tier is the consumer's, the scope the token's.
    assert_eq!(method("PUT", &claims())?, 200);
    assert_eq!(method("PUT", &with("azp", json!("somebody")))?, 403);
    assert_eq!(method("GET", &with("azp", json!("somebody")))?, 200);
    assert_eq!(method("GET", &with("scope", json!("mail")))?, 403);
    assert_eq!(method("GET", &with("scope", json!(["items:read"])))?, 200);
    assert_eq!(method("POST", &claims())?, 403);
    assert_eq!(method("POST", &with("org", json!(["south", "north"])))?, 200);
    // A consumer's grant is no scope.
    assert_eq!(method("POST", &with("scope", json!("items:write")))?, 200);
    // What a token says cannot add fields, and what no field can have is left out.
    let odd = site.get(&es.token(&with("org", json!("a\r\nx-evil: 1"))))?;
    assert_eq!((seen(&odd, "x-org")?, seen(&odd, "x-evil")?), (vec![String::new()], vec![]));
    Ok(())
}

// S3: RFC 8725
#[test]
fn tokens_that_are_expired_for_others_or_by_others_are_refused() -> Result<()> {
    lab_test!();
    let site = Site::new()?;
    let (key, stranger) = (SigningKey::es256("es")?, SigningKey::es256("es")?);
    let issuer = site.issuer(&[&key])?;
    eventually("the keys are there", || Ok(site.get(&key.token(&claims()))?.status == 200))?;
    site.is_refused("expired", &key.token(&with("exp", json!(now() - 31))))?;
    assert_eq!(site.get(&key.token(&with("exp", json!(now() - 20))))?.status, 200, "within the skew");
    site.is_refused("early", &key.token(&with("nbf", json!(now() + 60))))?;
    site.is_refused("early", &key.token(&with("iat", json!(now() + 60))))?;
    site.is_refused("claims", &key.token(&with("exp", Value::Null)))?;
    site.is_refused("claims", &key.token(&with("aud", json!("web"))))?;
    site.is_refused("claims", &key.token(&with("aud", json!(["web", "apis"]))))?;
    site.is_refused("claims", &key.token(&with("iss", json!("https://id.test"))))?;
    site.is_refused("claims", &key.token(&with("azp", Value::Null)))?;
    site.is_refused("signature", &stranger.token(&claims()))?;
    let token = key.token(&claims());
    site.is_refused("malformed", &token[..token.len() - 1])?;
    site.is_refused("malformed", &format!("{token}.{token}"))?;
    site.is_refused("malformed", "x")?;
    // A claim that was changed after it was signed.
    let parts: Vec<&str> = token.split('.').collect();
    site.is_refused(
        "signature",
        &format!("{}.{}.{}", parts[0], encode(with("azp", json!("root")).to_string()), parts[2]),
    )?;
    // Two credentials at once: which counts is for nobody to choose.
    let twice = format!("authorization: Bearer {token}\r\nauthorization: Bearer {token}\r\n");
    ask(&site.rig, "GET /echo/items/1", &twice)?.refused(401, "unauthorized")?;
    let missing = ask(&site.rig, "GET /echo/items/1", "")?;
    missing.refused(401, "unauthorized")?;
    assert_eq!(missing.header("www-authenticate"), Some("Bearer realm=\"gateway\""));
    // Names that nobody knows do not make the gateway ask the issuer each time.
    let asked = issuer.asked();
    let began = Instant::now();
    for n in 0..30 {
        assert_eq!(site.get(&SigningKey::es256(&format!("k{n}"))?.token(&claims()))?.status, 401);
    }
    let usual = began.elapsed().as_secs() as usize + 2;
    assert!(issuer.asked() <= asked + usual, "{} fetches", issuer.asked() - asked);
    Ok(())
}

// S3: CVE-2015-9235 and its kin
#[test]
fn a_token_cannot_say_how_or_with_what_it_is_checked() -> Result<()> {
    lab_test!();
    let site = Site::new()?;
    let (es, rsa, own) = (SigningKey::es256("es")?, SigningKey::rsa("rsa")?, SigningKey::es256("own")?);
    let _issuer = site.issuer(&[&es, &rsa])?;
    eventually("the keys are there", || Ok(site.get(&es.token(&claims()))?.status == 200))?;
    let body = encode(claims().to_string());
    // alg none, in any case, with and without a signature.
    for none in ["none", "None", "NONE", "nOnE", ""] {
        let header = encode(json!({ "alg": none, "kid": "es" }).to_string());
        for signature in ["", "x", "AAAA"] {
            site.is_refused("malformed", &format!("{header}.{body}.{signature}"))?;
        }
    }
    // Key confusion: a public key as the secret of HS256.
    for key in [&es, &rsa] {
        let header = json!({ "alg": "HS256", "kid": key.kid });
        for secret in [key.public_bytes(), key.jwk().to_string().into_bytes()] {
            site.is_refused("signature", &hs256(&secret, &header, &claims()))?;
        }
    }
    // One key's name with another's algorithm.
    site.is_refused("unknown", &es.token_with(&json!({ "alg": "ES256", "kid": "rsa" }), &claims()))?;
    site.is_refused("signature", &es.token_with(&json!({ "alg": "ES384", "kid": "es" }), &claims()))?;
    // A key that comes with the token, or that it points to.
    for extra in [
        json!({ "jwk": own.jwk() }),
        json!({ "jku": "https://localhost:8443/evil" }),
        json!({ "x5u": "https://evil.test/" }),
        json!({ "x5c": ["MIIB"] }),
    ] {
        let mut header = json!({ "alg": "ES256", "kid": "es" });
        if let (Some(header), Some(extra)) = (header.as_object_mut(), extra.as_object()) {
            header.extend(extra.clone());
        }
        site.is_refused("signature", &own.token_with(&header, &claims()))?;
    }
    // Names of keys that mean something elsewhere.
    for kid in ["../../../../dev/null", "es' OR 1=1 --", "es\u{0}", "|id", ""] {
        let answer = site.get(&own.token_with(&json!({ "alg": "ES256", "kid": kid }), &claims()))?;
        answer.refused(401, "unauthorized")?;
    }
    // What must be understood, and is not.
    let header = json!({ "alg": "ES256", "kid": "es", "crit": ["b64"], "b64": false });
    site.is_refused("malformed", &es.token_with(&header, &claims()))?;
    // Two values for one field (RFC 8725 section 2.5 has what comes of that).
    let twice = encode(r#"{"alg":"ES256","kid":"es","alg":"none"}"#);
    site.is_refused("malformed", &format!("{twice}.{body}.AAAA"))?;
    // An empty signature of zeros (CVE-2022-21449).
    let zeros = encode([0; 64]);
    let header = encode(json!({ "alg": "ES256", "kid": "es" }).to_string());
    site.is_refused("signature", &format!("{header}.{body}.{zeros}"))?;
    // Too large to look at, though truly signed, and deeper than any claim.
    site.is_refused("malformed", &es.token(&with("pad", json!("x".repeat(8000)))))?;
    let deep = format!("{}{}", "[".repeat(2000), "]".repeat(2000));
    site.is_refused("signature", &format!("{header}.{}.{zeros}", encode(deep)))?;
    // An encrypted one (RFC 7516) has five parts.
    site.is_refused("malformed", &format!("{header}.{body}.{zeros}.{body}.{zeros}"))?;
    assert_eq!(site.get(&es.token(&claims()))?.status, 200);
    Ok(())
}

// S3
#[test]
fn keys_are_rotated_and_outlive_the_issuer_s_absence() -> Result<()> {
    lab_test!();
    let site = Site::new()?;
    let (old, new) = (SigningKey::es256("old")?, SigningKey::es256("new")?);
    // Nobody to ask yet: that is not the client's fault.
    let answer = site.get(&old.token(&claims()))?;
    answer.refused(503, "auth_unavailable")?;
    let issuer = site.issuer(&[&old])?;
    let (first, second) = (old.token(&claims()), new.token(&claims()));
    within(Duration::from_secs(20), "the keys are there", || {
        Ok((site.get(&first)?.status == 200).then_some(()))
    })?;
    assert_eq!(site.get(&second)?.status, 401);
    // Its own refresh finds the new key, and forgets what the old one signed, also what was checked before.
    issuer.publish(&[&old, &new]);
    within(Duration::from_secs(10), "the new key", || Ok((site.get(&second)?.status == 200).then_some(())))?;
    assert_eq!(site.get(&first)?.status, 200);
    issuer.publish(&[&new]);
    within(Duration::from_secs(10), "the old key is gone", || {
        Ok((site.get(&first)?.status == 401).then_some(()))
    })?;
    assert_eq!(site.get(&second)?.status, 200);
    // The issuer is away: what is known stays so, also for tokens that were not seen before, and over a reload.
    drop(issuer);
    site.rig.gateway.says("keys of an issuer cannot be fetched: the last ones stay in use")?;
    assert_eq!(site.get(&new.token(&with("jti", json!("other"))))?.status, 200);
    site.rig.gateway.cli(&["reload"])?.ok()?;
    assert_eq!(site.get(&new.token(&with("jti", json!("another"))))?.status, 200);
    // Somebody else in its place is not believed.
    let impostor = Authority::new()?.issue(&["localhost"])?;
    let _other = Issuer::start(&site.rig.net.gateway, "127.0.0.1:8443".parse()?, &impostor, &[&old])?;
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!((site.get(&first)?.status, site.get(&second)?.status), (401, 200));
    Ok(())
}

// S3
#[test]
fn a_shared_secret_is_for_its_algorithms_kind_of_token_and_known_consumers() -> Result<()> {
    lab_test!();
    let site = Site::new()?;
    let header = json!({ "alg": "HS256", "typ": "at+JWT" });
    let get = |token: &str| ask(&site.rig, "GET /echo/shared", &format!("cookie: a=b; session={token}\r\n"));
    let good = hs256(SECRET.as_bytes(), &header, &claims());
    let answer = get(&good)?;
    assert_eq!((answer.status, seen(&answer, "x-consumer")?), (200, vec!["user-7".into()]));
    assert_eq!(seen(&answer, "cookie")?, ["a=b"]);
    let answer = ask(&site.rig, &format!("GET /echo/shared?token={good}&a=b"), "")?;
    assert_eq!((answer.status, answer.json()?["target"].clone()), (200, json!("/echo/shared?a=b")));
    assert_eq!(site.rig.gateway.log_of(&answer)?["query"], "a=b");
    for wrong in [
        hs256(b"another secret of thirty-two byte", &header, &claims()),
        hs256(SECRET.as_bytes(), &json!({ "alg": "HS256", "typ": "JWT" }), &claims()),
        hs256(SECRET.as_bytes(), &json!({ "alg": "HS256" }), &claims()),
        hs256(SECRET.as_bytes(), &json!({ "alg": "HS512", "typ": "at+jwt" }), &claims()),
        hs256(SECRET.as_bytes(), &header, &with("sub", json!("user-8"))),
    ] {
        get(&wrong)?.refused(401, "unauthorized")?;
    }
    // A secret that others can read is none.
    let secret = site._files.path().join("secret");
    std::fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
    let refused = site.rig.gateway.cli(&["reload"])?;
    assert!(refused.code != 0 && refused.stderr.contains("can be read by others"), "{refused:?}");
    assert!(
        !refused.stderr.contains(SECRET)
            && !site.rig.gateway.cli(&["config", "show"])?.stdout.contains(SECRET)
    );
    assert_eq!(get(&good)?.status, 200);
    Ok(())
}
