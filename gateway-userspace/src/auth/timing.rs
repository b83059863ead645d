//! Checks of secrets tell nothing by the time that they take (CWE-208): a guess that is nearly right is refused no later
//! than one that is all wrong.

use std::{collections::BTreeMap, hint::black_box, path::Path, sync::Arc, time::Instant};

use super::{
    consumers::{Consumers, Found, hash},
    store::KeyStore,
};
use crate::{
    admin::same_text,
    config::{
        model::{self, ConsumerKey},
        units::{Moment, Place},
    },
};

/// As long as a secret may be where it matters: what is compared byte by byte shows.
const LENGTH: usize = 512;
const SAMPLES: usize = 4000;
/// Calls in one sample, whose time is long beside the clock's own.
const CALLS: usize = 8;
/// Other programs disturb a measurement; a leak is in all of them.
const TRIES: usize = 8;
/// Of two times that are the same.
const ALIKE: f64 = 0.03;

/// The time of a call with either guess, in ns: that which one in five stays below. In turn at random, so that what
/// disturbs them disturbs both.
fn times(call: &impl Fn(&[u8]), guesses: [&[u8]; 2]) -> [f64; 2] {
    let mut all = [Vec::with_capacity(SAMPLES), Vec::with_capacity(SAMPLES)];
    while all.iter().any(|samples| samples.len() < SAMPLES) {
        let which = fastrand::usize(..2);
        let began = Instant::now();
        for _ in 0..CALLS {
            call(black_box(guesses[which]));
        }
        all[which].push(began.elapsed().as_nanos() as f64 / CALLS as f64);
    }
    all.map(|mut samples| {
        samples.sort_by(f64::total_cmp);
        samples[samples.len() / 5]
    })
}

/// Whether the time tells how much of `secret` a guess got right.
fn tells(secret: &[u8], call: impl Fn(&[u8])) -> bool {
    let (mut near, mut far) = (secret.to_vec(), secret.to_vec());
    near[secret.len() - 1] ^= 1;
    far[0] ^= 1;
    !(0..TRIES).any(|_| {
        let [near, far] = times(&call, [&near, &far]);
        (near - far).abs() <= ALIKE * near.max(far)
    })
}

fn secret() -> Vec<u8> {
    (0..LENGTH).map(|_| fastrand::alphanumeric() as u8).collect()
}

#[test]
fn a_compare_byte_by_byte_would_be_found() {
    let secret = secret();
    let leaks = |guess: &[u8]| {
        black_box(guess.iter().zip(&secret).all(|(one, other)| black_box(one) == black_box(other)));
    };
    assert!(tells(&secret, leaks));
}

#[test]
fn a_token_that_is_nearly_right_is_refused_no_later() {
    let secret = secret();
    let text = String::from_utf8(secret.clone()).unwrap();
    let call = |guess: &[u8]| assert!(!same_text(&text, std::str::from_utf8(guess).unwrap()));
    assert!(!tells(&secret, call));
}

#[test]
fn an_api_key_that_is_nearly_right_is_refused_no_later() {
    let secret = secret();
    let consumer = model::Consumer {
        at: Place { file: Default::default(), line: 0, column: 0 }.into(),
        tier: None,
        grants: vec![],
        keys: vec![ConsumerKey { id: "a".into(), hash: hash(&secret), until: None }],
        passwords: vec![],
        certs: vec![],
        secrets: vec![],
    };
    let store = KeyStore::open(Path::new("none"), &Arc::default()).unwrap();
    let consumers = Consumers::new(&BTreeMap::from([("acme".to_owned(), consumer)]), Arc::new(store));
    assert!(matches!(consumers.of_key(&secret, Moment { seconds: 1 }), Found::Caller(_)));
    let call = |guess: &[u8]| assert_eq!(consumers.of_key(guess, Moment { seconds: 1 }), Found::Unknown);
    assert!(!tells(&secret, call));
}
