//! What the programs log, where they were built to (`GATEWAY_BPF_LOG=1 cargo build`): passed on to the process log.

use aya::Ebpf;
use aya_log::EbpfLogger;

/// Reads the programs' log lines.
pub struct ProgramLog(EbpfLogger<ToTracing>);

/// `None`: the programs were built without.
pub fn open(ebpf: &mut Ebpf) -> Option<ProgramLog> {
    EbpfLogger::init_with_logger(ebpf, ToTracing).ok().map(ProgramLog)
}

impl ProgramLog {
    /// Passes on what has come in.
    pub fn flush(&mut self) {
        self.0.flush();
    }
}

struct ToTracing;

impl log::Log for ToTracing {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        tracing::debug!("kernel program: {}", record.args());
    }

    fn flush(&self) {}
}
