//! Every order in which workers can meet at one fetch (loom): nobody waits for what has been said, one asks at a time, and
//! nobody is left behind when that one goes away.

use std::{
    future::poll_fn,
    sync::Arc,
    task::{Context, Waker},
};

use bytes::Bytes;
use loom::{future::block_on, thread};

use super::{entry, freshness, vary};
use crate::observe::Why;
use fill::{Fills, Follower, Lead, Outcome, Reader, Role};

/// As [`crate::sync`], but of a kind that is tried in all orders.
mod sync {
    use std::sync::PoisonError;

    pub use loom::sync::{Mutex, MutexGuard};

    pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
        mutex.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[path = "fill.rs"]
#[allow(
    dead_code,
    clippy::duplicate_mod,
    reason = "the same code with other locks, not all of it asked for here"
)]
mod fill;

const FAILED: Why = Why::UpstreamReset;

/// All orders in which a thread is interrupted at most three times at a place of its own choosing; all of all would take
/// minutes.
fn model(run: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(run);
}

fn key() -> Arc<[u8]> {
    b"k"[..].into()
}

fn begin(fills: &Arc<Fills>) -> Role {
    fills.begin(&key(), None, false)
}

fn follow(fill: Arc<fill::Fill>) -> Outcome {
    let follower = Follower::new(fill);
    block_on(poll_fn(|cx| follower.poll(cx)))
}

/// All pieces, and why there are no more.
fn read(reader: &Reader) -> (Vec<u8>, Option<Why>) {
    let mut all = Vec::new();
    loop {
        match block_on(poll_fn(|cx| reader.poll(cx))) {
            Some(Ok(piece)) => all.extend_from_slice(&piece),
            Some(Err(why)) => return (all, Some(why)),
            None => return (all, None),
        }
    }
}

/// Asks until somebody has asked the upstream; how often that was us.
fn ask(fills: &Arc<Fills>, lead: impl FnOnce(Lead)) -> bool {
    loop {
        match begin(fills) {
            Role::Lead(leads) => {
                lead(leads);
                return true;
            }
            Role::Follow(fill) => match follow(fill) {
                Outcome::Abandoned => {}
                Outcome::Failed(why) => {
                    assert_eq!(why, FAILED);
                    return false;
                }
                other => panic!("{other:?}"),
            },
        }
    }
}

#[test]
fn who_follows_hears_of_the_end_whenever_it_comes() {
    model(|| {
        let fills = Arc::new(Fills::default());
        let Role::Lead(mut lead) = begin(&fills) else { panic!("there is nobody to follow") };
        let followers: Vec<_> = (0..2)
            .map(|_| {
                let fills = fills.clone();
                thread::spawn(move || ask(&fills, |mut lead| lead.over(Outcome::Failed(FAILED))))
            })
            .collect();
        lead.over(Outcome::Failed(FAILED));
        for follower in followers {
            follower.join().unwrap();
        }
        assert!(matches!(begin(&fills), Role::Lead(_)), "it is over");
    });
}

#[test]
fn one_of_those_who_followed_goes_on_for_a_leader_that_went_away() {
    model(|| {
        let fills = Arc::new(Fills::default());
        let Role::Lead(lead) = begin(&fills) else { panic!("there is nobody to follow") };
        let other = {
            let fills = fills.clone();
            thread::spawn(move || ask(&fills, |mut lead| lead.over(Outcome::Failed(FAILED))))
        };
        drop(lead);
        let ours = ask(&fills, |mut lead| lead.over(Outcome::Failed(FAILED)));
        let theirs = other.join().unwrap();
        assert!(ours || theirs);
    });
}

#[test]
fn readers_get_all_of_a_body_that_grows() {
    model(|| {
        let fill = lead(&Arc::new(Fills::default())).fill.clone();
        let reader = Reader::new(fill.clone()).unwrap();
        let other = thread::spawn(move || read(&reader));
        fill.push(Bytes::from_static(b"a"));
        fill.push(Bytes::from_static(b"b"));
        fill.end(None);
        assert_eq!(other.join().unwrap(), (b"ab".to_vec(), None));
    });
}

#[test]
fn a_body_too_large_to_keep_waits_for_its_reader_and_no_longer() {
    for goes_away in [false, true] {
        model(move || {
            let fill = lead(&Arc::new(Fills::default())).fill.clone();
            let reader = Reader::new(fill.clone()).unwrap();
            let other = thread::spawn(move || {
                if goes_away {
                    let _ = reader.poll(&mut Context::from_waker(Waker::noop()));
                    return Vec::new();
                }
                read(&reader).0
            });
            fill.overflow();
            for piece in [b"a", b"b"] {
                if !block_on(poll_fn(|cx| fill.poll_room(0, cx))) {
                    break;
                }
                fill.push(Bytes::from_static(piece));
            }
            fill.end_if_open(FAILED);
            assert_eq!(other.join().unwrap(), if goes_away { b"".to_vec() } else { b"ab".to_vec() });
        });
    }
}

#[test]
fn after_a_purge_nobody_follows_who_asked_before_it() {
    model(|| {
        let fills = Arc::new(Fills::default());
        let before = lead(&fills);
        let purge = {
            let (fills, old) = (fills.clone(), before.fill.clone());
            thread::spawn(move || {
                fills.forget(|_, _| true);
                assert!(!matches!(begin(&fills), Role::Follow(fill) if Arc::ptr_eq(&fill, &old)));
            })
        };
        drop(before);
        purge.join().unwrap();
    });
}

fn lead(fills: &Arc<Fills>) -> Lead {
    match begin(fills) {
        Role::Lead(lead) => lead,
        Role::Follow(_) => panic!("there is nobody to follow"),
    }
}
