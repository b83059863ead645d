//! Nanoseconds that it takes to find out who calls: an API key, a token that was seen before, a token that was not beside its
//! bare signature check. The minimum of 15 rounds.
//!
//! `cargo bench -p gateway-userspace --bench auth`. Fails above the goals: 300 ns, 1500 ns, 1.3 times.
#![allow(clippy::unwrap_used, reason = "a bench that fails may panic")]

use std::{
    hint::black_box,
    path::Path,
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, ParsedPublicKey,
    },
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use gateway::{
    auth::{Answered, Asking, Auths, Elsewhere, Gate, Memory},
    config::{self, units::Moment},
    observe::stats::Registry,
};
use http::request;

const ROUNDS: usize = 15;
const NOW: u64 = 1_800_000_000;

struct Nobody;

impl Elsewhere for Nobody {
    fn ask<'a>(
        &'a self,
        _: &'a str,
        _: request::Parts,
        _: Duration,
    ) -> Pin<Box<dyn Future<Output = Option<Answered>> + 'a>> {
        Box::pin(std::future::ready(None))
    }
}

fn head(name: &str, value: &str) -> request::Parts {
    let request = http::Request::get("/items/1").header("host", "a.test").header("accept", "*/*");
    request.header(name, value).body(()).unwrap().into_parts().0
}

/// All of these are let in without waiting.
fn admit(gate: &Gate, head: &request::Parts, memory: &Memory) {
    let now = Moment { seconds: NOW };
    let asking = Asking { head, now, worker: 0, memory, marks: None, has_body: false, elsewhere: &Nobody };
    let future = pin!(gate.admit(&asking));
    match future.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => drop(black_box(result.unwrap())),
        Poll::Pending => panic!("it waits"),
    }
}

fn least(times: usize, mut once: impl FnMut(usize)) -> f64 {
    let mut round = || {
        let start = Instant::now();
        (0..times).for_each(&mut once);
        start.elapsed().as_nanos() as f64 / times as f64
    };
    (0..ROUNDS).map(|_| round()).fold(f64::INFINITY, f64::min)
}

fn main() {
    let dir = tempfile::tempdir().unwrap();
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let point = pair.public_key().as_ref();
    let jwks = format!(
        r#"{{"keys":[{{"kty":"EC","crv":"P-256","kid":"k","x":"{}","y":"{}"}}]}}"#,
        encode(&point[1..33]),
        encode(&point[33..])
    );
    let file = dir.path().join("jwks.json");
    std::fs::write(&file, jwks).unwrap();
    let keys: String = (0..1000)
        .map(|n| {
            format!(
                "[consumer.c{n}]\nkeys = [{{ id = \"k\", hash = \"blake3:{}\" }}]\n",
                blake3::hash(key(n).as_bytes()).to_hex()
            )
        })
        .collect();
    let text = format!(
        "[listener.web]\nbind = \":80\"\n[auth.key]\ntype = \"api-key\"\n[auth.jwt]\ntype = \"jwt\"\nissuer = \"i\"\naudience = \"a\"\n\
         jwks = \"{}\"\n[route.key]\npath = \"/key\"\nto = [\"10.0.0.1:1\"]\nauth = \"key\"\n[route.jwt]\nto = [\"10.0.0.1:1\"]\nauth = \"jwt\"\n{keys}",
        file.display()
    );
    let config = config::parse(&text, Path::new("bench.toml")).unwrap();
    let auths = Auths::load(&config, &std::sync::Arc::default(), None, &Registry::new(1)).unwrap();
    let gate = |route: &str| auths.gate(&config.routes[route]).unwrap();
    let memory = Memory::default();

    let heads: Vec<_> = (0..1000).map(|n| head("x-api-key", &key(n))).collect();
    let gate_key = gate("key");
    let api_key = least(20_000, |n| admit(&gate_key, &heads[n * 7919 % heads.len()], &memory));

    let token = |n: usize| {
        let claims = format!(
            r#"{{"iss":"i","aud":"a","sub":"user-{n}","exp":{},"iat":{NOW},"scope":"items:read items:write","name":"Somebody With A Name","email":"somebody@example.com"}}"#,
            NOW + 600
        );
        let signed =
            format!("{}.{}", encode(br#"{"alg":"ES256","kid":"k","typ":"JWT"}"#), encode(claims.as_bytes()));
        let signature = pair.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", encode(signature.as_ref()))
    };
    let gate_jwt = gate("jwt");
    let seen = head("authorization", &format!("Bearer {}", token(0)));
    let cached = least(20_000, |_| admit(&gate_jwt, &seen, &memory));

    // Each is seen once: what is remembered is thrown away with its memory.
    let tokens: Vec<String> = (0..200).map(token).collect();
    let heads: Vec<_> =
        tokens.iter().map(|token| head("authorization", &format!("Bearer {token}"))).collect();
    let mut fresh = Memory::default();
    let first = least(heads.len(), |n| {
        if n == 0 {
            fresh = Memory::default();
        }
        admit(&gate_jwt, &heads[n], &fresh);
    });
    let parsed: Vec<(&[u8], Vec<u8>)> = tokens
        .iter()
        .map(|token| token.rsplit_once('.').unwrap())
        .map(|(signed, signature)| (signed.as_bytes(), URL_SAFE_NO_PAD.decode(signature).unwrap()))
        .collect();
    let public = ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).unwrap();
    let bare = least(parsed.len(), |n| {
        let (signed, signature) = &parsed[n];
        assert!(public.verify_sig(black_box(signed), signature).is_ok());
    });

    println!("API key of 1000:      {api_key:>8.0} ns");
    println!("token, seen before:   {cached:>8.0} ns   ({} bytes)", tokens[0].len());
    println!(
        "token ES256, first:   {first:>8.0} ns   {:.2} x the signature alone, {bare:.0} ns",
        first / bare
    );
    if api_key > 300.0 || cached > 1500.0 || first > 1.3 * bare {
        println!("above the goals: 300 ns, 1500 ns, 1.3 x");
        std::process::exit(1);
    }
}

fn key(n: usize) -> String {
    format!("gw_{n:043}")
}
