//! `gateway capture`

use std::{
    io::{IsTerminal as _, Write},
    path::PathBuf,
};

use clap::{Args, ValueEnum};

use super::{Error, Global, Outcome, client, exit};
use crate::config::units;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Verdict {
    Drop,
    Pass,
    Any,
}

/// Packets that XDP handles never reach tcpdump: this shows them, each with the reason of its verdict as a comment.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  gateway capture --reason blocked --for 10s --write blocked.pcapng\n  \
                        gateway capture | tcpdump -n -r -\n\nOne capture runs at a time; packets over the rate \
                        are left out and counted in the gateway's log. A forwarded packet is shown as it leaves.")]
pub struct Capture {
    /// Packets with this verdict
    #[arg(long, value_enum, default_value_t = Verdict::Drop)]
    verdict: Verdict,
    /// Packets with this reason; may be given several times
    #[arg(long, value_name = "REASON")]
    reason: Vec<String>,
    /// Stop after so many packets
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// Stop after this time, for example 10s
    #[arg(long = "for", value_name = "DURATION")]
    duration: Option<String>,
    /// Write to this file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    write: Option<PathBuf>,
    /// Bytes of each packet, at most 2048
    #[arg(long, value_name = "BYTES", default_value_t = 128)]
    snaplen: u32,
    /// Packets a second at most
    #[arg(long, value_name = "RATE", default_value = "1000/s")]
    rate: String,
}

impl Capture {
    pub fn run(self, global: &Global) -> Outcome {
        let usage = |text: String| Error::Usage(text);
        let rate = self.rate.strip_suffix("/s").unwrap_or(&self.rate);
        let rate: u32 =
            rate.parse().map_err(|_| usage(format!("--rate {}: expected for example 1000/s", self.rate)))?;
        let mut path =
            format!("/v1/capture?rate={rate}&snaplen={}&reason={}", self.snaplen, self.reason.join(","));
        // A reason says its verdict.
        match self.verdict {
            Verdict::Drop if self.reason.is_empty() => path += "&verdict=drop",
            Verdict::Pass => path += "&verdict=pass,tx,forward",
            _ => {}
        }
        if let Some(count) = self.count {
            path += &format!("&count={count}");
        }
        if let Some(text) = &self.duration {
            let duration = units::parse_duration(text).map_err(|e| usage(format!("--for {text}: {e}")))?;
            path += &format!("&seconds={}", duration.as_secs_f64());
        }
        let cannot = |error: std::io::Error| Error::Other(format!("cannot write packets: {error}"));
        let mut out: Box<dyn Write> = match &self.write {
            Some(file) => Box::new(std::fs::File::create(file).map_err(cannot)?),
            None if std::io::stdout().is_terminal() => {
                return Err(usage(
                    "packets are not for a terminal: --write FILE, or `| tcpdump -n -r -`".into(),
                ));
            }
            None => Box::new(std::io::stdout()),
        };
        client::stream(global, &path, |bytes| out.write_all(bytes).and_then(|()| out.flush()).is_ok())?;
        Ok(exit::OK)
    }
}
