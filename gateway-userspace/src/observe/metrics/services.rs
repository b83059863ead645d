//! L4 services. Those that the config no longer has leave no series behind.

use std::collections::BTreeMap;

use super::{
    kernel::Facts,
    page::{Family, Page},
};
use crate::{
    daemon::Control,
    kernel::{ServiceRow, TargetState},
    observe::Why,
    runtime::Snapshot,
    service::{Service, Target},
};

/// Each target of these services.
fn each(snapshot: &Snapshot, spliced: bool, mut see: impl FnMut(&str, &Service, &Target)) {
    for (name, service) in snapshot.services.iter().filter(|(_, of)| of.splice.is_some() == spliced) {
        for (target, _) in service.targets() {
            see(name, service, target);
        }
    }
}

fn up(of: &mut Family<'_, '_>, snapshot: &Snapshot, spliced: bool) {
    each(snapshot, spliced, |name, service, target| {
        let labels = [("service", name), ("target", &*target.name)];
        of.flag(&labels, service.state(target) == TargetState::Up);
    });
}

/// Those that the kernel half forwards.
pub fn kernel(control: &Control, kernel: &Facts, page: &mut Page<'_>) {
    let rows: BTreeMap<(&str, &str), &ServiceRow> =
        kernel.services.iter().map(|row| ((&*row.service, &*row.target), row)).collect();
    let snapshot = control.snapshot.load();
    let counted = |of: &mut Family<'_, '_>, value: fn(&ServiceRow) -> u64| {
        each(&snapshot, false, |name, _, target| {
            if let Some(row) = rows.get(&(name, &*target.name)) {
                of.count(&[("service", name), ("target", &*target.name)], value(row));
            }
        });
    };
    page.gauges("kernel_service_target_up", "1 while a target gets new connections", |of| {
        up(of, &snapshot, false);
    });
    page.counters("kernel_service_packets_total", "Packets forwarded to a target", |of| {
        counted(of, |row| row.packets);
    });
    page.counters("kernel_service_bytes_total", "Bytes forwarded to a target", |of| {
        counted(of, |row| row.bytes);
    });
    page.counters("kernel_service_connections_total", "Connections given to a target", |of| {
        counted(of, |row| row.connections);
    });
}

/// Those that go through userspace.
pub fn spliced(control: &Control, page: &mut Page<'_>) {
    let snapshot = control.snapshot.load();
    let through = |of: &mut Family<'_, '_>, value: fn(&Target) -> u64| {
        each(&snapshot, true, |name, _, target| {
            of.count(&[("service", name), ("target", &*target.name)], value(target));
        });
    };
    page.gauges("service_target_up", "1 while a target gets new connections", |of| up(of, &snapshot, true));
    let help = "Open connections through userspace to a target";
    page.gauges("service_active_connections", help, |of| through(of, |to| to.through.active().into()));
    page.counters("service_connections_total", "Connections through userspace to a target", |of| {
        through(of, |to| to.through.connections());
    });
    page.counters("service_bytes_total", "Bytes through userspace to and from a target", |of| {
        through(of, |to| to.through.bytes());
    });
    page.counters("service_errors_total", "Connections that were refused or cut, by reason", |of| {
        for (name, service) in &snapshot.services {
            let Some(splice) = &service.splice else { continue };
            for why in Why::ALL {
                let n = splice.stats.shards.sum(|shard| shard.errors(*why));
                if n > 0 {
                    of.count(&[("service", name), ("reason", why.name())], n);
                }
            }
        }
    });
}
