//! `gateway reload`, `gateway upgrade` and `gateway stop`

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use clap::Args;
use serde_json::{Value, json};

use super::{Error, Global, Outcome, client, config, exit, output};

#[derive(Debug, Args)]
pub struct Reload {
    /// Only show what would change
    #[arg(long)]
    dry_run: bool,
}

impl Reload {
    pub fn run(self, global: &Global) -> Outcome {
        if self.dry_run {
            let diff = client::get(global, "/v1/diff")?;
            output::print(global, &diff, || config::describe_diff(&diff));
            return Ok(exit::OK);
        }
        let done = client::post(global, "/v1/reload", None).map_err(|error| match error {
            // A bad config is a bad config, whoever finds it.
            Error::Refused(detail) if detail.starts_with("the config is bad") => Error::Usage(detail),
            other => other,
        })?;
        output::print(global, &done, || {
            format!("generation {}: {}", done["generation"], config::describe_diff(&done))
        });
        Ok(exit::OK)
    }
}

#[derive(Debug, Args)]
#[command(
    after_help = "The new process gets the listening sockets, the kernel half, overrides and counters; once it serves, \
                  the old one stops accepting, and ends when its connections have, within gateway.drain. If the new \
                  one does not come up, the old one goes on and says why (exit code 5). SIGUSR2 does the same."
)]
pub struct Upgrade {
    /// The new program [default: the running one's file, as it is now]
    binary: Option<PathBuf>,
    /// How long it may take until it serves, for example 2m
    #[arg(long, value_name = "DURATION", default_value = "30s")]
    timeout: String,
}

impl Upgrade {
    pub fn run(self, global: &Global) -> Outcome {
        let binary = self.binary.map(|binary| std::path::absolute(&binary)).transpose();
        let binary = binary.map_err(|error| Error::Usage(format!("BINARY: {error}")))?;
        let mut body = json!({ "timeout": self.timeout });
        if let Some(binary) = binary {
            body["binary"] = json!(binary);
        }
        let timeout = crate::config::units::parse_duration(&self.timeout);
        let timeout = timeout.map_err(|error| Error::Usage(format!("--timeout: {error}")))?;
        let done = client::post_within(global, "/v1/upgrade", body, timeout + Duration::from_secs(10))?;
        output::print(global, &done, || {
            format!("process {} serves, {} finishes its connections", done["pid"], done["draining"])
        });
        Ok(exit::OK)
    }
}

#[derive(Debug, Args)]
pub struct Stop {
    /// Cut open connections instead of letting them finish
    #[arg(long)]
    now: bool,
}

impl Stop {
    pub fn run(self, global: &Global) -> Outcome {
        let drain = client::get(global, "/v1/config")?["gateway"]["drain"].as_str().map(str::to_owned);
        let answer = client::post(global, if self.now { "/v1/stop?now=true" } else { "/v1/stop" }, None)?;
        wait(&answer, drain.as_deref())?;
        output::print(global, &json!({ "stopped": true, "pid": answer["pid"] }), || "stopped".into());
        Ok(exit::OK)
    }
}

/// Until the process is gone, which takes as long as its drain at the most.
fn wait(answer: &Value, drain: Option<&str>) -> Result<(), Error> {
    let drain = drain.and_then(|text| crate::config::units::parse_duration(text).ok()).unwrap_or_default();
    let deadline = Instant::now() + drain + Duration::from_secs(10);
    let process = format!("/proc/{}/stat", answer["pid"]);
    let running = || {
        // A zombie has stopped; only its parent has not noticed yet.
        std::fs::read_to_string(&process).is_ok_and(|stat| !stat.contains(") Z "))
    };
    while running() {
        if Instant::now() > deadline {
            return Err(Error::Other(format!(
                "process {} is still running after its drain time",
                answer["pid"]
            )));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
