//! The command line: one file a subcommand. Each parses, asks the running gateway (or the library), and prints.

mod alert;
mod ban;
mod cache;
mod capture;
mod cert;
mod client;
mod config;
mod decap;
mod doctor;
pub mod exit;
mod explain;
mod kernel;
mod key;
mod lifecycle;
mod limit;
mod observe;
mod output;
mod places;
mod route;
mod run;
mod service;
mod status;
mod target;
mod top;
mod upstream;
mod why;

use std::path::PathBuf;

use clap::{Args, CommandFactory, Parser, Subcommand};

use exit::Exit;
use output::{Color, Format};

/// An eBPF-accelerated L4/L7 load balancer and API gateway.
#[derive(Debug, Parser)]
#[command(name = "gateway", version, max_term_width = 100, propagate_version = false)]
#[command(
    after_help = "Exit codes: 0 ok; 1 differs or unhealthy; 2 bad usage or config; 3 missing privilege or \
                        kernel feature; 4 no running gateway reachable; 5 refused by the running gateway; 70 panic."
)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Options of every subcommand.
#[derive(Debug, Args)]
pub struct Global {
    /// The running gateway's admin socket [default: /run/gateway/admin.sock]
    #[arg(long, global = true, env = "GATEWAY_SOCKET", value_name = "PATH")]
    socket: Option<PathBuf>,
    /// How to print what is read
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Text)]
    output: Format,
    /// When to colour
    #[arg(long, global = true, value_enum, default_value_t = Color::Auto)]
    color: Color,
    /// Print nothing but errors
    #[arg(short, long, global = true)]
    quiet: bool,
    /// Log more (`run`; once: debug, twice: trace), or show more (`explain`)
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
}

impl Global {
    fn socket(&self) -> PathBuf {
        self.socket.clone().unwrap_or_else(|| places::SOCKET.into())
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway in the foreground
    Run(run::Run),
    /// Show all problems of a config, without starting anything
    Check(config::Check),
    /// Load the config file again; the old config stays if the new one is bad
    Reload(lifecycle::Reload),
    /// Show what a reload would change; exits 1 if anything
    Diff(config::Diff),
    /// Stop: no new connections, and those open may finish
    Stop(lifecycle::Stop),
    /// Replace the running program by another without refusing a connection
    Upgrade(lifecycle::Upgrade),
    /// Show listeners, the kernel half, upstreams; exits 1 if something is wrong
    Status(status::Status),
    /// Show live what happens: rates, latencies, targets, limited sources
    Top(top::Top),
    /// Show routes
    #[command(subcommand)]
    Route(route::Route),
    /// Show upstreams and their targets
    #[command(subcommand)]
    Upstream(upstream::Upstream),
    /// Show L4 services and their targets
    #[command(subcommand)]
    Service(service::Service),
    /// Show caches, take out what they keep
    #[command(subcommand)]
    Cache(cache::Cache),
    /// Show certificates
    #[command(subcommand)]
    Cert(cert::Cert),
    /// Drain a target, take it down or up, or change its weight, while the gateway runs
    #[command(subcommand)]
    Target(target::Target),
    /// Show alerts, or silence one
    #[command(subcommand)]
    Alert(alert::Alert),
    /// Show bans, ban an address or prefix in the kernel or at L7, or end a ban
    #[command(subcommand)]
    Ban(ban::Ban),
    /// API keys of consumers
    #[command(subcommand)]
    Key(key::Key),
    /// Show limits, of L7 and of the kernel half, and who uses them up
    #[command(subcommand)]
    Limit(limit::Limit),
    /// Show what happens: drops, bans, targets, reloads
    Observe(observe::Observe),
    /// Write packets with their verdicts as pcapng
    Capture(capture::Capture),
    /// Tell why a request was refused, failed or was slow, by its id; or what is held against an address
    Why(why::Why),
    /// Tell what would become of a request or a packet, and why, without sending one
    Explain(explain::Explain),
    /// Show, verify or detach the kernel half
    #[command(subcommand)]
    Kernel(kernel::Kernel),
    /// On a target of an L4 service: take packets out of the packets that a gateway put them in
    Decap(decap::Decap),
    /// Check what this host offers: kernel, privileges, BPF
    Doctor(doctor::Doctor),
    /// Show a config with its defaults, its schema or its reference, or convert it
    #[command(subcommand)]
    Config(config::Config),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write the manual pages, one a subcommand, into a directory
    Man {
        /// The directory; it is made if it is not there
        directory: PathBuf,
    },
    /// Print the version and what it was built from
    Version,
}

/// What a subcommand can fail with; each has its exit code.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0}")]
    Usage(String),
    #[error(transparent)]
    Config(#[from] crate::config::ConfigErrors),
    #[error("{0}")]
    Privilege(String),
    #[error(
        "no gateway is running on {socket}: {error}\n  hint: start one with `gateway run`, or name its socket with --socket"
    )]
    NotRunning { socket: String, error: String },
    #[error("refused by the running gateway: {0}")]
    Refused(String),
    #[error("{0}")]
    Other(String),
}

impl Error {
    fn exit_code(&self) -> Exit {
        match self {
            Error::Usage(_) | Error::Config(_) => exit::USAGE,
            Error::Privilege(_) => exit::PRIVILEGE,
            Error::NotRunning { .. } => exit::NOT_RUNNING,
            Error::Refused(_) => exit::REFUSED,
            Error::Other(_) => exit::FAILED,
        }
    }
}

type Outcome = Result<Exit, Error>;

/// Parses the arguments and does what they say.
pub fn main() -> Exit {
    let Cli { global, command } = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            // Help and version are no errors.
            return if error.use_stderr() { exit::USAGE } else { exit::OK };
        }
    };
    // A panic in the command itself; a worker's connections catch their own.
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| dispatch(&global, command))) {
        Ok(Ok(code)) => code,
        Ok(Err(error)) => {
            output::error(&global, &error);
            error.exit_code()
        }
        Err(_) => exit::PANIC,
    }
}

fn dispatch(global: &Global, command: Command) -> Outcome {
    match command {
        Command::Run(command) => command.run(global),
        Command::Check(command) => command.run(global),
        Command::Reload(command) => command.run(global),
        Command::Diff(command) => command.run(global),
        Command::Stop(command) => command.run(global),
        Command::Upgrade(command) => command.run(global),
        Command::Status(command) => command.run(global),
        Command::Top(command) => command.run(global),
        Command::Route(command) => command.run(global),
        Command::Upstream(command) => command.run(global),
        Command::Service(command) => command.run(global),
        Command::Cache(command) => command.run(global),
        Command::Cert(command) => command.run(global),
        Command::Target(command) => command.run(global),
        Command::Alert(command) => command.run(global),
        Command::Ban(command) => command.run(global),
        Command::Key(command) => command.run(global),
        Command::Limit(command) => command.run(global),
        Command::Observe(command) => command.run(global),
        Command::Capture(command) => command.run(global),
        Command::Why(command) => command.run(global),
        Command::Explain(command) => command.run(global),
        Command::Kernel(command) => command.run(global),
        Command::Decap(command) => command.run(global),
        Command::Doctor(command) => command.run(global),
        Command::Config(command) => command.run(global),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "gateway", &mut std::io::stdout());
            Ok(exit::OK)
        }
        Command::Man { directory } => {
            let written = std::fs::create_dir_all(&directory)
                .and_then(|()| clap_mangen::generate_to(Cli::command(), &directory));
            let wrong = |error| Error::Other(format!("cannot write into {}: {error}", directory.display()));
            written.map(|()| exit::OK).map_err(wrong)
        }
        Command::Version => {
            output::print(
                global,
                &serde_json::json!({
                    "version": env!("CARGO_PKG_VERSION"),
                    "commit": crate::COMMIT,
                }),
                || format!("gateway {} ({})", env!("CARGO_PKG_VERSION"), crate::COMMIT),
            );
            Ok(exit::OK)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
