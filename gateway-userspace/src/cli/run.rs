//! `gateway run`

use std::path::PathBuf;

use clap::Args;

use super::{Global, Outcome};
use crate::daemon::{self, Options, Source};

#[derive(Debug, Args)]
#[command(
    after_help = "Signals: TERM and INT drain and stop, a second one at once; HUP reloads the config; \
                        USR1 opens the logs anew; USR2 upgrades in place.\n\nThe smallest gateway: gateway run --listen :8080 --to 127.0.0.1:3000"
)]
pub struct Run {
    /// The config file [default: /etc/gateway/gateway.toml]
    config: Option<PathBuf>,
    /// Reload when a file of the config changes
    #[arg(long)]
    watch: bool,
    /// Instead of a config: listen here, for example :8080
    #[arg(long, value_name = "ADDR", requires = "to", conflicts_with = "config")]
    listen: Vec<String>,
    /// Instead of a config: balance over these, for example 127.0.0.1:3000
    #[arg(long, value_name = "ADDR", requires = "listen", conflicts_with = "config")]
    to: Vec<String>,
}

impl Run {
    pub fn run(self, global: &Global) -> Outcome {
        let source = if self.listen.is_empty() {
            Source::File(self.config.unwrap_or_else(|| super::places::CONFIG.into()))
        } else {
            Source::Flags { listen: self.listen, to: self.to }
        };
        Ok(daemon::run(Options {
            source,
            socket: global.socket.clone(),
            watch: self.watch,
            verbose: global.verbose,
        }))
    }
}
