//! Child processes that do not outlive the lab, and what they cost.

use std::{
    io::{self, BufRead, BufReader},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::{cleanup, sys};

/// A child that is killed on drop, on Ctrl-C, and when the thread that started it ends.
#[derive(Debug)]
pub struct Process {
    pub child: Child,
    name: String,
    ended: Option<ExitStatus>,
}

impl Process {
    pub fn start(mut command: Command) -> Result<Process> {
        let name = command.get_program().to_string_lossy().into_owned();
        let child = command.spawn().with_context(|| format!("cannot start {name}"))?;
        cleanup::note_process(child.id());
        Ok(Process { child, name, ended: None })
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: libc::c_int) -> io::Result<()> {
        if self.ended.is_some() { Ok(()) } else { sys::signal(self.id(), signal) }
    }

    /// Its exit status, if it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none()
            && let Ok(Some(status)) = self.child.try_wait()
        {
            cleanup::forget_process(self.id());
            self.ended = Some(status);
        }
        self.ended
    }

    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let end = Instant::now() + limit;
        while Instant::now() < end {
            if let Some(status) = self.ended() {
                return Ok(status);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        bail!("{} has not ended after {limit:?}", self.name)
    }

    /// Ends it and what it has started, such as an nginx's workers, which would live on.
    pub fn kill(&mut self) {
        let descendants = if self.ended.is_none() { descendants(self.id()) } else { Vec::new() };
        // It may have ended by itself, and so may they.
        let _ = self.signal(libc::SIGKILL);
        for pid in descendants {
            let _ = sys::signal(pid, libc::SIGKILL);
        }
        if self.ended.is_none() {
            let status = self.child.wait();
            cleanup::forget_process(self.id());
            self.ended = status.ok();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What a child of ours has started and left behind; ours to end.
#[derive(Debug)]
pub struct Orphan {
    pid: u32,
    ended: Option<ExitStatus>,
}

impl Orphan {
    /// [`sys::adopt_orphans`] must have been called before the process that started it ended.
    pub fn adopt(pid: u32) -> Orphan {
        cleanup::note_process(pid);
        Orphan { pid, ended: None }
    }

    pub fn id(&self) -> u32 {
        self.pid
    }

    pub fn signal(&self, signal: libc::c_int) -> io::Result<()> {
        if self.ended.is_some() { Ok(()) } else { sys::signal(self.pid, signal) }
    }

    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none()
            && let Ok(Some(status)) = sys::reap(self.pid)
        {
            cleanup::forget_process(self.pid);
            self.ended = Some(status);
        }
        self.ended
    }

    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let end = Instant::now() + limit;
        while Instant::now() < end {
            if let Some(status) = self.ended() {
                return Ok(status);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        bail!("process {} has not ended after {limit:?}", self.pid)
    }

    pub fn kill(&mut self) {
        // It may have ended by itself. Until its parent has, it cannot be waited for.
        let _ = self.signal(libc::SIGKILL);
        let _ = self.wait(Duration::from_secs(1));
    }
}

impl Drop for Orphan {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Everything that a child writes to a pipe, line by line as it comes.
#[derive(Debug, Clone, Default)]
pub struct Lines(Arc<Mutex<Vec<String>>>, Arc<AtomicBool>);

impl Lines {
    pub fn collect(pipe: impl io::Read + Send + 'static) -> Lines {
        let lines = Lines::default();
        let (into, over) = (lines.0.clone(), lines.1.clone());
        std::thread::spawn(move || {
            for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).into_owned();
                into.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            }
            over.store(true, Relaxed);
        });
        lines
    }

    /// Nothing more comes.
    pub fn are_all(&self) -> bool {
        self.1.load(Relaxed)
    }

    pub fn all(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn contain(&self, text: &str) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().any(|line| line.contains(text))
    }
}

/// CPU time, user and system, of a process and all its descendants, living and waited for.
pub fn cpu_time(pid: u32) -> Result<Duration> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name, in brackets, may contain anything.
    let (_, fields) = text.rsplit_once(')').context("no name in /proc/PID/stat")?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    // utime stime cutime cstime are fields 14 to 17 of proc(5), the first after the name being 3.
    let ticks = (11..15).filter_map(|i| fields.get(i)?.parse::<u64>().ok()).sum::<u64>();
    let mut time = Duration::from_secs_f64(ticks as f64 / sys::ticks_per_second());
    for child in children(pid) {
        // One that ends meanwhile is counted with its parent's waited-for children next time.
        time += cpu_time(child).unwrap_or_default();
    }
    Ok(time)
}

/// Resident memory of a process and its descendants, in bytes.
pub fn resident(pid: u32) -> Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib * 1024 + children(pid).into_iter().filter_map(|child| resident(child).ok()).sum::<u64>())
}

fn children(pid: u32) -> Vec<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    lists
        .flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
        .collect()
}

/// Children, their children, and so on.
pub(crate) fn descendants(pid: u32) -> Vec<u32> {
    let children = children(pid);
    let further = children.iter().flat_map(|&child| descendants(child)).collect::<Vec<_>>();
    [children, further].concat()
}

/// No input, and output that nobody reads.
pub fn quiet(command: &mut Command) -> &mut Command {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null())
}
