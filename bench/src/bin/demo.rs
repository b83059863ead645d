//! `cargo xtask demo`.

use anyhow::Result;
use clap::Parser;

/// Shows gateway under a flood.
#[derive(Debug, Parser)]
struct Arguments {
    /// Leave it running until Ctrl-C, and print addresses and commands to try
    #[arg(long)]
    hold: bool,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if let Some(why) = lab::unavailable() {
        anyhow::bail!(why);
    }
    bench::demo::run(arguments.hold)
}
