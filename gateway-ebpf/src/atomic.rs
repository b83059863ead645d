//! Compare-and-swap on words in maps. The target has it, Rust's atomics for the target do not offer it yet.

use core::arch::asm;

use gateway_common::bucket::Limit;

/// Writes `new` where `old` still stands: what stood there.
///
/// # Safety
/// `word` points to an aligned `u64` in a map's value.
#[inline(always)]
pub unsafe fn compare_exchange(word: *mut u64, old: u64, new: u64) -> u64 {
    let found;
    // SAFETY: the caller's promise; cmpxchg_64 (BPF ISA v3, Linux 5.12) takes and returns the old word in r0.
    unsafe {
        asm!(
            "r0 = cmpxchg_64({word} + 0, r0, {new})",
            word = in(reg) word,
            new = in(reg) new,
            inout("r0") old => found,
            options(nostack),
        );
    }
    found
}

/// Takes a token from the bucket at `word`; false: it was empty.
///
/// # Safety
/// `word` points to an aligned `u64` in a map's value.
#[inline(always)]
pub unsafe fn take(word: *mut u64, limit: &Limit, now: u64) -> bool {
    // SAFETY: the caller's promise.
    unsafe { take_cost(word, limit, limit.interval_ns, now) }
}

/// Takes what fills again in `cost_ns` from the bucket at `word`; false: there is not so much in it.
///
/// # Safety
/// `word` points to an aligned `u64` in a map's value.
#[inline(always)]
pub unsafe fn take_cost(word: *mut u64, limit: &Limit, cost_ns: u64, now: u64) -> bool {
    // SAFETY: the caller's promise. The kernel reads aligned words whole.
    let mut tat = unsafe { core::ptr::read_volatile(word) };
    // A failed exchange means that another CPU took a token meanwhile. Four in a row happen only in floods,
    // where a refusal is what all but a few packets get anyway.
    for _ in 0..4 {
        let Some(next) = limit.decide_cost(tat, now, cost_ns) else { return false };
        // SAFETY: the caller's promise.
        let found = unsafe { compare_exchange(word, tat, next) };
        if found == tat {
            return true;
        }
        tat = found;
    }
    false
}
