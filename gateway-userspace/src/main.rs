//! The `gateway` binary: daemon and command line in one.

fn main() -> std::process::ExitCode {
    gateway::cli::main()
}
