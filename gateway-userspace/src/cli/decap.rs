//! `gateway decap`

use clap::Args;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use super::{Error, Global, Outcome, exit, output};
use crate::{config::units::Prefix, kernel};

/// For the targets of L4 services with forward = "ipip" or "gue", beside what serves there. The service's address must
/// be one of the target's own, on its loopback for instance.
#[derive(Debug, Args)]
pub struct Decap {
    /// Interfaces where packets of gateways arrive
    #[arg(required = true)]
    interfaces: Vec<String>,
    /// The gateways: addresses or prefixes whose packets are taken out; others are left as they are
    #[arg(long, required = true, value_name = "CIDR")]
    from: Vec<Prefix>,
}

impl Decap {
    pub fn run(self, global: &Global) -> Outcome {
        let decap = kernel::Decap::start(&self.interfaces, &self.from)
            .map_err(|error| Error::Privilege(error.to_string()))?;
        let modes: Vec<_> =
            decap.modes.iter().map(|(name, mode)| json!({ "name": name, "mode": mode })).collect();
        if let Some(why) = &decap.whole_only {
            output::warn(global, &format!("packets that come in pieces are not taken out: {why}"));
        }
        output::print(
            global,
            &json!({ "interfaces": modes, "fragments": decap.whole_only.is_none() }),
            || {
                let lines =
                    decap.modes.iter().map(|(name, mode)| format!("{name}: taking packets out, {mode} mode"));
                lines.collect::<Vec<_>>().join("\n")
            },
        );
        wait().map_err(|error| Error::Other(format!("cannot wait for signals: {error}")))?;
        Ok(exit::OK)
    }
}

/// Until TERM or INT.
fn wait() -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (mut terminate, mut interrupt) =
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        Ok(())
    })
}
