//! The lab's helper program: what has to run as a process of its own in a namespace.

use anyhow::{Context, Result, bail};
use lab::{backend_server, flood, sys};

const USAGE: &str = "gateway-lab backend NAME ADDR… | flood PLAN | xdp drop|pass INTERFACE (run by the tests, the demo and the bench)";

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["backend", name, binds @ ..] if !binds.is_empty() => {
            sys::raise_open_files()?;
            let binds: Result<Vec<_>, _> = binds.iter().map(|bind| bind.parse()).collect();
            backend_server::run(name, &binds.context("not an address")?)
        }
        ["flood", plan] => flood::run_plan(plan),
        ["xdp", "drop", interface] => flood::hold_bare(flood::Bare::Drop, interface),
        ["xdp", "pass", interface] => flood::hold_bare(flood::Bare::Pass, interface),
        ["xdp", "tx", interface] => flood::hold_bare(flood::Bare::Tx, interface),
        _ => bail!(USAGE),
    }
}
