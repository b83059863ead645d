//! What the process may beyond any other, given up as soon as it is not needed any more.
//!
//! The kernel half is attached with what the process was started with. From then on the control thread, and those that it
//! starts, keep what a reload or an upgrade may need; workers, which read what clients send, keep nothing.

use rustix::{
    process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit},
    thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities, set_no_new_privs},
};

/// For other interfaces, other listeners; and for root the files of others: certificates, keys, logs.
const KEPT: CapabilitySet = CapabilitySet::BPF
    .union(CapabilitySet::NET_ADMIN)
    .union(CapabilitySet::PERFMON)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::DAC_OVERRIDE);

/// Secrets are in memory: no core dumps, and no other process of this user may look (prctl(2)).
pub fn hide_memory() {
    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        eprintln!("core dumps cannot be turned off: {error}");
    }
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    if let Err(error) = setrlimit(Resource::Core, none) {
        eprintln!("core dumps cannot be bounded: {error}");
    }
}

/// Once the kernel half is attached: of this thread, and those that it starts.
pub fn keep_what_reloads_need() {
    shrink("after the start", |permitted| {
        // Where CAP_SYS_ADMIN stands for the two that are about BPF.
        let stands_in = !permitted.contains(CapabilitySet::BPF.union(CapabilitySet::PERFMON));
        if stands_in { KEPT.union(CapabilitySet::SYS_ADMIN) } else { KEPT }
    });
}

/// Of a thread that serves clients. What it could start has none either.
pub fn keep_nothing() {
    shrink("of a worker", |_| CapabilitySet::empty());
    if let Err(error) = set_no_new_privs(true) {
        tracing::warn!("a worker may get new privileges: {error}");
    }
}

/// Ambient ones go with those that are permitted.
fn shrink(when: &str, keep: impl FnOnce(CapabilitySet) -> CapabilitySet) {
    let shrunk = capabilities(None).and_then(|now| {
        let keep = keep(now.permitted);
        let CapabilitySets { effective, permitted, inheritable } = now;
        set_capabilities(
            None,
            CapabilitySets {
                effective: effective & keep,
                permitted: permitted & keep,
                inheritable: inheritable & keep,
            },
        )
    });
    if let Err(error) = shrunk {
        tracing::warn!("capabilities {when} cannot be given up: {error}");
    }
}
