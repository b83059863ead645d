//! The kernel half.

use serde_json::{Value, json};

use super::{by_name, share, some};
use crate::config::{
    model::{Adapt, Bucket, Kernel, KernelClass, KernelMode, LimitMode, Steer},
    units::{ByteSize, show_byte_rate, show_duration},
};

pub(super) fn kernel(kernel: &Kernel) -> Value {
    json!({
        "interfaces": kernel.interfaces,
        "mode": match kernel.mode {
            KernelMode::Auto => "auto",
            KernelMode::Native => "native",
            KernelMode::Generic => "generic",
            KernelMode::Off => "off",
        },
        "steer": match kernel.steer {
            Steer::IpHash => "ip-hash",
            Steer::Off => "off",
        },
        "required": kernel.required,
        "pin": kernel.pin.to_string_lossy(),
        "limit": some([
            ("packets", kernel.limit.packets.map(bucket)),
            ("new", kernel.limit.new.map(bucket)),
            ("bytes", kernel.limit.bytes.map(byte_bucket)),
            ("mode", Some(json!(mode(kernel.limit.mode)))),
            ("exempt", Some(json!(kernel.limit.exempt))),
            ("ipv6_prefix", Some(json!(kernel.limit.ipv6_prefix))),
        ]),
        "block": {
            "cidrs": kernel.block.cidrs,
            "except": kernel.block.except,
            "files": kernel.block.files.iter().map(|file| file.to_string_lossy()).collect::<Vec<_>>(),
        },
        "class": by_name(&kernel.classes, class),
        "flows": kernel.flows,
        "adapt": kernel.adapt.map_or(json!("off"), adapt),
        "syn_cookies": kernel.syn_cookies.map_or(json!("off"), |above| json!({ "above": above })),
    })
}

fn adapt(adapt: Adapt) -> Value {
    some([
        ("cpu", adapt.cpu.map(share)),
        ("p99", adapt.p99.map(|p99| json!(show_duration(p99)))),
        ("errors", adapt.errors.map(share)),
        ("queue", adapt.queue.map(|queue| json!(queue))),
        ("from", Some(share(adapt.from))),
    ])
}

fn mode(mode: LimitMode) -> &'static str {
    match mode {
        LimitMode::Hard => "hard",
        LimitMode::Soft => "soft",
    }
}

fn class(class: &KernelClass) -> Value {
    some([
        ("from", Some(json!(class.from))),
        ("packets", class.packets.map(bucket)),
        ("new", class.new.map(bucket)),
        ("bytes", class.bytes.map(byte_bucket)),
        ("mode", Some(json!(mode(class.mode)))),
    ])
}

pub(super) fn bucket(bucket: Bucket) -> Value {
    json!({ "rate": bucket.rate, "burst": bucket.burst })
}

pub(super) fn byte_bucket(bucket: Bucket) -> Value {
    json!({ "rate": show_byte_rate(bucket.rate), "burst": ByteSize(bucket.burst) })
}
