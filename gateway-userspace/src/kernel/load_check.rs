//! `gateway doctor --load`: hands every program of the object to this kernel's verifier, attaching none.

use aya::programs::{Program, ProgramError};

use super::{
    error::chain,
    object,
    report::{CheckState, DoctorCheck},
};

/// One check a program, whatever programs the object has.
pub fn load_check() -> Vec<DoctorCheck> {
    // Programs name maps by descriptor: those must stay open. Their size is all the same to the verifier.
    let (mut ebpf, _maps) = match object::load(None, 1024) {
        Ok(loaded) => loaded,
        Err(error) => return vec![check("maps", Err(error.to_string()))],
    };
    let mut checks: Vec<DoctorCheck> =
        ebpf.programs_mut().map(|(name, program)| check(name, load(program))).collect();
    checks.sort_by(|a, b| a.name.cmp(&b.name));
    checks
}

/// What the kernel says of a program it has taken.
fn load(program: &mut Program) -> Result<String, String> {
    let loaded = match program {
        Program::Xdp(program) => program.load().and_then(|()| program.info()),
        Program::SkLookup(program) => program.load().and_then(|()| program.info()),
        Program::SchedClassifier(program) => program.load().and_then(|()| program.info()),
        Program::SkReuseport(program) => program.load().and_then(|()| program.info()),
        Program::SockOps(program) => program.load().and_then(|()| program.info()),
        Program::SkMsg(program) => program.load().and_then(|()| program.info()),
        other => return Err(format!("programs of type {:?} are not known here", other.prog_type())),
    };
    match loaded {
        Ok(info) => Ok(match info.verified_instruction_count() {
            Some(count) => format!("loaded; the verifier looked at {count} instructions"),
            None => "loaded".to_owned(),
        }),
        Err(error) => Err(refusal(&error)),
    }
}

/// The verifier's last lines say what it did not like.
fn refusal(error: &ProgramError) -> String {
    const LINES: usize = 12;
    let text = chain(error);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}

fn check(name: &str, result: Result<String, String>) -> DoctorCheck {
    let (state, detail, cure) = match result {
        Ok(detail) => (CheckState::Ok, detail, None),
        Err(why) => (
            CheckState::Fail,
            why,
            Some("please report it with the output of `gateway doctor --load -o json`".to_owned()),
        ),
    };
    DoctorCheck { name: format!("program {name}"), state, detail, cure }
}
