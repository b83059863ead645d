//! `gateway doctor`

use clap::Args;

use super::{
    Error, Global, Outcome, client, exit,
    output::{self, GREEN, RED, YELLOW},
    status,
};
use crate::{
    admin::Level,
    kernel::{self, CheckState, DoctorCheck},
};

#[derive(Debug, Args)]
#[command(
    after_help = "Of the host: what the kernel half needs. Of the gateway that runs, if one does: what is wrong with it, and \
                        what to do. Exit codes: 3 the host lacks something, 1 the gateway is not well, 0 else."
)]
pub struct Doctor {
    /// Interfaces to look at [default: all that are up]
    interfaces: Vec<String>,
    /// Also hand every BPF program to this kernel, attaching none; needs root
    #[arg(long)]
    load: bool,
}

impl Doctor {
    pub fn run(self, global: &Global) -> Outcome {
        let mut host = kernel::doctor(&self.interfaces);
        if self.load {
            host.extend(kernel::load_check());
        }
        let running = running(global)?;
        let failed = |checks: &[DoctorCheck]| checks.iter().any(|check| check.state == CheckState::Fail);
        let code = match (failed(&host), failed(&running)) {
            (true, _) => exit::PRIVILEGE,
            (false, true) => exit::FAILED,
            (false, false) => exit::OK,
        };
        let checks = [host, running].concat();
        output::print(global, &checks, || {
            let width = checks.iter().map(|check| check.name.len()).max().unwrap_or(0);
            checks.iter().map(|check| line(global, check, width)).collect::<Vec<_>>().join("\n")
        });
        Ok(code)
    }
}

fn line(global: &Global, check: &DoctorCheck, width: usize) -> String {
    let mark = match check.state {
        CheckState::Ok => global.paint(GREEN, "ok  "),
        CheckState::Warn => global.paint(YELLOW, "warn"),
        CheckState::Fail => global.paint(RED, "FAIL"),
    };
    let detail = output::wrapped(&check.detail, width + 8);
    let cure = check.cure.as_ref().filter(|cure| !cure.is_empty());
    let cure = cure.map_or(String::new(), |cure| format!("\n      {}", output::wrapped(cure, 6)));
    format!("{mark}  {:width$}  {detail}{cure}", check.name)
}

/// What is wrong with the gateway that runs here, if one does.
fn running(global: &Global) -> Result<Vec<DoctorCheck>, Error> {
    let check = |name: &str, state, detail: String, cure: &str| DoctorCheck {
        name: name.to_owned(),
        state,
        detail,
        cure: (!cure.is_empty()).then(|| cure.to_owned()),
    };
    let status = match client::get(global, "/v1/status") {
        Ok(status) => status,
        Err(Error::NotRunning { socket, .. }) => {
            return Ok(vec![check("gateway", CheckState::Ok, format!("none answers on {socket}"), "")]);
        }
        Err(error @ Error::Privilege(_)) => {
            let cure = "run it as root, or as a member of the group that the admin socket belongs to";
            return Ok(vec![check("gateway", CheckState::Warn, error.to_string(), cure)]);
        }
        Err(error) => return Err(error),
    };
    let status = status::of(status)?;
    if status.troubles.is_empty() {
        let detail = format!("{} runs (pid {}), and nothing is wrong with it", status.name, status.pid);
        return Ok(vec![check("gateway", CheckState::Ok, detail, "")]);
    }
    let each = status.troubles.iter().map(|trouble| {
        let state = if trouble.level == Level::Fail { CheckState::Fail } else { CheckState::Warn };
        check(&trouble.of, state, trouble.what.clone(), &trouble.cure)
    });
    Ok(each.collect())
}
