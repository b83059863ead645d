//! `gateway doctor`

use clap::Args;

use super::{
    Global, Outcome, exit,
    output::{self, GREEN, RED, YELLOW},
};
use crate::kernel::{self, CheckState};

#[derive(Debug, Args)]
pub struct Doctor {
    /// Interfaces to look at [default: all that are up]
    interfaces: Vec<String>,
    /// Also hand every BPF program to this kernel, attaching none; needs root
    #[arg(long)]
    load: bool,
}

impl Doctor {
    pub fn run(self, global: &Global) -> Outcome {
        let mut checks = kernel::doctor(&self.interfaces);
        if self.load {
            checks.extend(kernel::load_check());
        }
        let failed = checks.iter().any(|check| check.state == CheckState::Fail);
        output::print(global, &checks, || {
            let width = checks.iter().map(|check| check.name.len()).max().unwrap_or(0);
            let line = |check: &kernel::DoctorCheck| {
                let mark = match check.state {
                    CheckState::Ok => global.paint(GREEN, "ok  "),
                    CheckState::Warn => global.paint(YELLOW, "warn"),
                    CheckState::Fail => global.paint(RED, "FAIL"),
                };
                let cure = check.cure.as_ref().map_or(String::new(), |cure| format!("\n      {cure}"));
                format!("{mark}  {:width$}  {}{cure}", check.name, check.detail)
            };
            checks.iter().map(line).collect::<Vec<_>>().join("\n")
        });
        Ok(if failed { exit::PRIVILEGE } else { exit::OK })
    }
}
