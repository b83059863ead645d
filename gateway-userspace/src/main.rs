//! The `gateway` binary: daemon and command line in one.

fn main() -> impl std::process::Termination {
    gateway::cli::main()
}
