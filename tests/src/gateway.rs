//! The real binary in its namespace: started from a config, asked through its CLI, metrics and log, stopped or killed.

use std::{
    net::SocketAddr,
    os::{fd::OwnedFd, unix::net::UnixDatagram},
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    cleanup,
    http::{self, Client},
    metrics::Metrics,
    net::{Namespace, Net, VIP4, VIP6},
    process::{Lines, Orphan, Process},
    sys::ChildSetup,
    tools,
    wait::{eventually, within},
};

/// The listener of most tests.
pub const PORT: u16 = 80;
const METRICS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9180);
/// A debug build beside other tests, on two cores.
const START: Duration = Duration::from_secs(20);

/// How to start a gateway, other than by its config.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Instead of `run CONFIG`.
    pub arguments: Option<Vec<String>>,
    /// Pinned to this CPU.
    pub cpu: Option<usize>,
    /// Its log is not shown when it is over.
    pub quiet: bool,
    /// With these capabilities only (bit numbers).
    pub capabilities: Option<&'static [u32]>,
    /// Instead of the one that was built.
    pub binary: Option<PathBuf>,
    /// Environment variables.
    pub variables: Vec<(String, String)>,
    /// Listening sockets that it finds open, with their names, as a service manager passes them.
    pub activated: Vec<(String, Arc<OwnedFd>)>,
}

/// A gateway, running or not.
#[derive(Debug)]
pub struct Gateway {
    namespace: Namespace,
    front: String,
    dir: TempDir,
    pin: PathBuf,
    options: Options,
    process: Option<Process>,
    /// Those that have taken its place, one after the other.
    successors: Vec<Orphan>,
    /// What it has told the service manager.
    told: Told,
    stderr: Lines,
    /// From exec to its word that it is ready.
    pub took: Duration,
}

/// What a command of the CLI printed, and its exit code.
#[derive(Debug, Clone)]
pub struct Cli {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Cli {
    pub fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.stdout).with_context(|| format!("not JSON: {self:?}"))
    }

    /// Fails unless the exit code is 0.
    pub fn ok(self) -> Result<Cli> {
        ensure!(self.code == 0, "{self:?}");
        Ok(self)
    }
}

impl Gateway {
    /// Starts with a config and waits until it is ready. What every config needs is added, see [`Gateway::write`].
    pub fn start(net: &Net, config: &str) -> Result<Gateway> {
        Gateway::start_with(net, config, Options::default())
    }

    pub fn start_with(net: &Net, config: &str, options: Options) -> Result<Gateway> {
        let mut gateway = Gateway::prepare(net, config, options)?;
        gateway.run()?;
        Ok(gateway)
    }

    /// A listener on port 80 and one route to these backends.
    pub fn simple(net: &Net, backends: &[crate::backend::Backend]) -> Result<Gateway> {
        Gateway::start(net, &simple_config(backends))
    }

    /// Writes the config and starts nothing.
    pub fn prepare(net: &Net, config: &str, options: Options) -> Result<Gateway> {
        let pin = Path::new(cleanup::BPFFS).join(cleanup::unique_name());
        cleanup::note_directory(&pin);
        let gateway = Gateway {
            namespace: net.gateway.clone(),
            front: net.front_interfaces(),
            dir: cleanup::scratch()?,
            pin,
            options,
            process: None,
            successors: Vec::new(),
            told: Told::default(),
            stderr: Lines::default(),
            took: Duration::ZERO,
        };
        gateway.write(config)?;
        Ok(gateway)
    }

    /// Writes the config for the next start or reload. Tables that it does not have are added: the admin socket, the
    /// access log, what is kept and the pins in places of this gateway's own, and XDP in native mode towards clients and attackers.
    /// In a `[kernel]` table of its own the missing `interfaces`, `mode` and `pin` are added.
    pub fn write(&self, config: &str) -> Result<()> {
        std::fs::write(self.config(), self.complete(config)).context("cannot write the config")
    }

    pub fn complete(&self, config: &str) -> String {
        let mut text = config.to_owned();
        if !text.contains("[kernel]") {
            text.push_str("\n[kernel]\n");
        }
        let own = text.split("[kernel]").nth(1).unwrap_or("");
        let own = own.split("\n[").next().unwrap_or("").to_owned();
        let has = |key: &str| own.lines().any(|line| line.trim_start().starts_with(key));
        let mut kernel = String::from("[kernel]\n");
        for (key, value) in [
            ("interfaces", self.front.clone()),
            ("mode", "\"native\"".into()),
            ("pin", format!("\"{}\"", self.pin.display())),
        ] {
            if !has(key) {
                kernel.push_str(&format!("{key} = {value}\n"));
            }
        }
        text = text.replacen("[kernel]\n", &kernel, 1);
        if !text.contains("[admin]") {
            text.push_str(&format!("\n[admin]\nsocket = \"{}\"\n", self.socket().display()));
        }
        if !text.contains("[state]") {
            text.push_str(&format!("\n[state]\ndirectory = \"{}\"\n", self.file("state").display()));
        }
        if !text.contains("[access_log]") {
            text.push_str(&format!("\n[access_log]\nto = \"{}\"\n", self.log_path().display()));
        }
        text
    }

    /// Instead of `run CONFIG`, from the next start on.
    pub fn set_arguments(&mut self, arguments: &[&str]) {
        self.options.arguments = Some(arguments.iter().map(|&argument| argument.to_owned()).collect());
    }

    pub fn config(&self) -> PathBuf {
        self.dir.path().join("gateway.toml")
    }

    /// Beside the config, for what it refers to.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn socket(&self) -> PathBuf {
        self.file("admin.sock")
    }

    pub fn pin(&self) -> &Path {
        &self.pin
    }

    fn log_path(&self) -> PathBuf {
        self.file("access.log")
    }

    /// Starts the process and waits until it says that it is ready.
    pub fn run(&mut self) -> Result<()> {
        let notify = self.file("notify.sock");
        // One of an earlier start.
        let _ = std::fs::remove_file(&notify);
        self.told = Told::listen(&notify)?;
        let began = Instant::now();
        self.successors.clear();
        self.spawn(&notify)?;
        while !self.told.has("READY=1") {
            std::thread::sleep(Duration::from_millis(1));
            if let Some(status) = self.process.as_mut().and_then(Process::ended) {
                // What it wrote may still be on its way through the pipe.
                std::thread::sleep(Duration::from_millis(20));
                bail!("gateway ended while starting, {status}:\n{}", self.stderr().join("\n"));
            }
            ensure!(began.elapsed() < START, "gateway is not ready:\n{}", self.stderr().join("\n"));
        }
        self.took = began.elapsed();
        Ok(())
    }

    /// What it and its successors have told the service manager so far.
    pub fn told(&self) -> Vec<String> {
        self.told.all()
    }

    /// Waits until it (or a successor) has told the service manager something: the whole message.
    pub fn tells(&self, text: &str) -> Result<String> {
        within(Duration::from_secs(5), &format!("it tells {text}"), || {
            Ok(self.told().into_iter().find(|message| message.contains(text)))
        })
    }

    /// `gateway upgrade ARGUMENTS -o json`; if that succeeds, the new process is the gateway from now on.
    pub fn upgrade(&mut self, arguments: &[&str]) -> Result<Cli> {
        let done = self.cli(&[&["upgrade", "-o", "json"], arguments].concat())?;
        if done.code == 0 {
            let pid = done.json()?["pid"].as_u64().context("no pid")?;
            self.succeeded_by(u32::try_from(pid)?);
        }
        Ok(done)
    }

    /// Another process is the gateway from now on.
    pub fn succeeded_by(&mut self, pid: u32) {
        self.successors.push(Orphan::adopt(pid));
    }

    /// Waits for the end of the process before the last upgrade.
    pub fn predecessor_ends(&mut self, limit: Duration) -> Result<ExitStatus> {
        match &mut self.successors[..] {
            [.., before, _] => before.wait(limit),
            _ => self.process.as_mut().context("not started")?.wait(limit),
        }
    }

    fn spawn(&mut self, notify: &Path) -> Result<()> {
        // Those that take its place are its children, and outlive it.
        crate::sys::adopt_orphans()?;
        let binary = self.options.binary.clone().map_or_else(tools::gateway, Ok)?;
        let mut command = if self.options.activated.is_empty() {
            self.namespace.command(binary)?
        } else {
            self.activated(&binary)?
        };
        command.envs(self.options.variables.iter().cloned());
        match &self.options.arguments {
            Some(arguments) => command.args(arguments),
            None => command.arg("run").arg(self.config()),
        };
        command.on_cpu(self.options.cpu);
        if let Some(capabilities) = self.options.capabilities {
            command.with_only_capabilities(capabilities);
        }
        command.env("NOTIFY_SOCKET", notify).current_dir(self.dir.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = Process::start(command)?;
        process.child.stdout.take().map(Lines::collect);
        self.stderr = process.child.stderr.take().map(Lines::collect).unwrap_or_default();
        self.process = Some(process);
        Ok(())
    }

    /// As a service manager does it: only the process itself knows its id.
    fn activated(&self, binary: &Path) -> Result<Command> {
        let (names, sockets): (Vec<_>, Vec<_>) = self.options.activated.iter().cloned().unzip();
        let mut command = self.namespace.command("sh")?;
        command.args(["-c", "export LISTEN_PID=$$; exec \"$@\"", "sh"]).arg(binary);
        command.env("LISTEN_FDS", sockets.len().to_string()).env("LISTEN_FDNAMES", names.join(":"));
        let sockets: std::io::Result<Vec<OwnedFd>> =
            sockets.iter().map(|socket| socket.try_clone()).collect();
        command.with_descriptors(sockets?);
        Ok(command)
    }

    /// Starts it where it is not to become ready; returns its exit status and what it wrote.
    pub fn run_to_end(&mut self) -> Result<(ExitStatus, String)> {
        self.spawn(&self.file("no-notify.sock"))?;
        let status = self.process.as_mut().context("not started")?.wait(START)?;
        eventually("all of what it wrote", || Ok(self.stderr.are_all()))?;
        Ok((status, self.stderr().join("\n")))
    }

    pub fn pid(&self) -> u32 {
        let first = self.process.as_ref().map_or(0, Process::id);
        self.successors.last().map_or(first, Orphan::id)
    }

    pub fn signal(&self, signal: libc::c_int) -> Result<()> {
        match self.successors.last() {
            Some(last) => Ok(last.signal(signal)?),
            None => Ok(self.process.as_ref().context("not running")?.signal(signal)?),
        }
    }

    /// Waits for it to end by itself.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        match self.successors.last_mut() {
            Some(last) => last.wait(limit),
            None => self.process.as_mut().context("not running")?.wait(limit),
        }
    }

    pub fn running(&mut self) -> bool {
        match self.successors.last_mut() {
            Some(last) => last.ended().is_none(),
            None => self.process.as_mut().is_some_and(|process| process.ended().is_none()),
        }
    }

    /// SIGTERM, and its exit status.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        self.signal(libc::SIGTERM)?;
        self.wait(Duration::from_secs(40))
    }

    /// SIGKILL, to its predecessors too.
    pub fn kill(&mut self) {
        if let Some(process) = &mut self.process {
            process.kill();
        }
        self.successors.iter_mut().for_each(Orphan::kill);
    }

    /// Lines of its own log so far.
    pub fn stderr(&self) -> Vec<String> {
        self.stderr.all()
    }

    /// Waits until its own log says something.
    pub fn says(&self, text: &str) -> Result<()> {
        eventually(&format!("the log says {text:?}"), || Ok(self.stderr.contain(text)))
    }

    pub fn at4(&self) -> SocketAddr {
        SocketAddr::from((VIP4, PORT))
    }

    pub fn at6(&self) -> SocketAddr {
        SocketAddr::from((VIP6, PORT))
    }

    /// Runs `gateway ARGUMENTS` against this one's socket.
    pub fn cli(&self, arguments: &[&str]) -> Result<Cli> {
        let mut command = self.cli_command()?;
        command.args(arguments).stdin(Stdio::null());
        let output = command.output()?;
        Ok(Cli {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    pub fn cli_command(&self) -> Result<Command> {
        let mut command = self.namespace.command(tools::gateway()?)?;
        command.arg("--socket").arg(self.socket()).current_dir(self.dir.path());
        Ok(command)
    }

    /// `gateway status -o json`, whatever its exit code.
    pub fn status(&self) -> Result<Value> {
        self.cli(&["status", "-o", "json"])?.json()
    }

    /// GET on the metrics port.
    pub fn ops(&self, path: &str) -> Result<http::Response> {
        let stream = self.namespace.run(|| std::net::TcpStream::connect_timeout(&METRICS, START))?;
        Client::over(stream.context("no metrics port")?)?.get(path)
    }

    pub fn metrics(&self) -> Result<Metrics> {
        Ok(Metrics::parse(&self.ops("/metrics")?.text()))
    }

    /// The access log so far, line by line.
    pub fn log(&self) -> Result<Vec<Value>> {
        let text = std::fs::read_to_string(self.log_path()).unwrap_or_default();
        text.lines()
            .map(|line| serde_json::from_str(line).with_context(|| format!("not JSON: {line}")))
            .collect()
    }

    /// Waits for a line of the access log.
    pub fn log_line(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        within(Duration::from_secs(5), &format!("a log line: {what}"), || {
            Ok(self.log()?.into_iter().find(|line| wanted(line)))
        })
    }

    /// The line of a request id.
    pub fn log_of(&self, response: &http::Response) -> Result<Value> {
        let id = response.header("x-request-id").context("no x-request-id")?.to_owned();
        self.log_line(&id, |line| line["id"] == id.as_str())
    }

    /// The line of the first request for a path.
    pub fn log_of_path(&self, path: &str) -> Result<Value> {
        self.log_line(path, |line| line["path"] == path)
    }
}

/// What is told to a service manager (sd_notify(3)), read as it comes.
#[derive(Debug, Clone, Default)]
struct Told(Arc<Mutex<Vec<String>>>);

impl Told {
    fn listen(at: &Path) -> Result<Told> {
        let socket = UnixDatagram::bind(at)?;
        socket.set_read_timeout(Some(Duration::from_millis(200)))?;
        let told = Told::default();
        let into = Arc::downgrade(&told.0);
        std::thread::spawn(move || {
            let mut buffer = [0; 1024];
            while let Some(into) = into.upgrade() {
                if let Ok(n) = socket.recv(&mut buffer) {
                    let text = String::from_utf8_lossy(buffer.get(..n).unwrap_or(&[])).into_owned();
                    into.lock().unwrap_or_else(PoisonError::into_inner).push(text);
                }
            }
        });
        Ok(told)
    }

    fn all(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn has(&self, text: &str) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().any(|message| message.contains(text))
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.kill();
        // A test harness shows this for a failed test only.
        let shown = if self.options.quiet { Vec::new() } else { self.stderr() };
        for line in shown {
            eprintln!("gateway: {line}");
        }
        cleanup::remove_directory(&self.pin);
    }
}

/// A listener on port 80 and one route to these backends.
pub fn simple_config(backends: &[crate::backend::Backend]) -> String {
    let to = crate::backend::targets(backends);
    format!("[listener.web]\nbind = \":{PORT}\"\n\n[route.all]\nto = {to}\n")
}
