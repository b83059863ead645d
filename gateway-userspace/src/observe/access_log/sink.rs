//! Where lines go.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    net::{SocketAddr, UdpSocket},
    os::unix::net::{UnixDatagram, UnixStream},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use super::{LineCounts, otlp};
use crate::{
    config::model::{AccessLog, LogRotate, LogTarget},
    observe::kafka,
};

/// How long a reader may let us wait before lines are given up.
const PATIENCE: Duration = Duration::from_secs(1);
/// How soon a reader that is gone is looked for again.
const AGAIN: Duration = Duration::from_millis(500);
const JOURNAL: &str = "/run/systemd/journal/socket";
const DEV_LOG: &str = "/dev/log";

pub enum Sink {
    Off,
    Stdout,
    Stderr,
    File(Rotated),
    /// Its reader may be gone, and come back.
    Socket(Socket),
    Otlp(otlp::Exporter),
    Kafka(kafka::Exporter),
}

impl Sink {
    /// `counts`: for what only turns out later.
    pub fn open(config: &AccessLog, counts: &Arc<LineCounts>) -> io::Result<Sink> {
        Ok(match &config.to {
            LogTarget::Off => Sink::Off,
            LogTarget::Stdout => Sink::Stdout,
            LogTarget::Stderr => Sink::Stderr,
            LogTarget::File(path) => Sink::File(Rotated::open(path, config.rotate.clone())?),
            LogTarget::Unix(path) => Sink::Socket(Socket::new(Address::Unix(path.clone()))),
            LogTarget::Journald => Sink::Socket(Socket::new(Address::Journal)),
            LogTarget::Syslog(server) => Sink::Socket(Socket::new(Address::Syslog(*server))),
            LogTarget::Otlp(collector) => Sink::Otlp(otlp::Exporter::new(collector, counts)),
            LogTarget::Kafka(kafka) => Sink::Kafka(kafka::Exporter::new(kafka, counts)),
        })
    }

    /// Whether it goes on as it is: what waits in it stays before what comes.
    pub fn goes_on(&self, config: &AccessLog) -> bool {
        match (self, &config.to) {
            (Sink::Otlp(exporter), LogTarget::Otlp(collector)) => exporter.is_of(collector),
            (Sink::Kafka(exporter), LogTarget::Kafka(kafka)) => exporter.is_of(kafka),
            _ => false,
        }
    }

    /// Writes so many lines; returns how many of them could not be. `None`: the sink counts them when it knows.
    pub fn write(&mut self, bytes: &[u8], lines: u64) -> Option<u64> {
        let whole = |result: io::Result<()>| if result.is_ok() { 0 } else { lines };
        Some(match self {
            Sink::Off => 0,
            Sink::Stdout => {
                let mut out = io::stdout().lock();
                whole(out.write_all(bytes).and_then(|()| out.flush()))
            }
            Sink::Stderr => whole(io::stderr().lock().write_all(bytes)),
            Sink::File(file) => whole(file.write(bytes)),
            Sink::Socket(socket) => socket.write(bytes, lines),
            Sink::Otlp(exporter) => {
                exporter.write(bytes, lines);
                return None;
            }
            Sink::Kafka(exporter) => {
                exporter.write(bytes, lines);
                return None;
            }
        })
    }

    /// Waits for what is on its way, for two seconds at most.
    pub fn flush(&self) {
        match self {
            Sink::Otlp(exporter) => exporter.flush(),
            Sink::Kafka(exporter) => exporter.flush(),
            _ => {}
        }
    }
}

/// A file that is renamed when it has grown large.
pub struct Rotated {
    path: PathBuf,
    file: File,
    size: u64,
    rotate: Option<LogRotate>,
    /// From which size on: `rotate.size`, or more after a rotation that failed.
    at: u64,
}

impl Rotated {
    fn open(path: &Path, rotate: Option<LogRotate>) -> io::Result<Rotated> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let size = file.metadata()?.len();
        let at = rotate.as_ref().map_or(u64::MAX, |rotate| rotate.size);
        Ok(Rotated { path: path.to_owned(), file, size, rotate, at })
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.size > 0 && self.size + bytes.len() as u64 > self.at {
            self.rotate();
        }
        match self.file.write_all(bytes) {
            Ok(()) => {
                self.size += bytes.len() as u64;
                Ok(())
            }
            Err(error) => {
                // A disk that is full takes half a line: the next one would be behind it.
                if let Ok(meta) = self.file.metadata()
                    && meta.is_file()
                    && meta.len() > self.size
                {
                    let _ = self.file.set_len(self.size);
                }
                Err(error)
            }
        }
    }

    fn rotate(&mut self) {
        let Some(rotate) = self.rotate.clone() else { return };
        let old = |n: u32| {
            let mut name = self.path.clone().into_os_string();
            name.push(format!(".{n}"));
            PathBuf::from(name)
        };
        for n in (1..rotate.files).rev() {
            // Not all of them are there at first.
            let _ = fs::rename(old(n), old(n + 1));
        }
        let fresh =
            fs::rename(&self.path, old(1)).and_then(|()| Rotated::open(&self.path, Some(rotate.clone())));
        match fresh {
            Ok(fresh) => *self = fresh,
            Err(error) => {
                self.at = self.size.saturating_add(rotate.size);
                tracing::error!(%error, path = %self.path.display(), "cannot rotate the access log; it grows on");
            }
        }
    }
}

enum Address {
    Unix(PathBuf),
    Journal,
    Syslog(Option<SocketAddr>),
}

enum Connected {
    Stream(UnixStream),
    Datagram(UnixDatagram),
    Udp(UdpSocket),
}

pub struct Socket {
    address: Address,
    connected: Option<Connected>,
    tried: Option<Instant>,
    /// Told of once, until it works again.
    failed: bool,
    pid: u32,
    host: String,
}

impl Socket {
    fn new(address: Address) -> Self {
        let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let host = host.trim().replace(|c: char| !c.is_ascii_graphic(), "-");
        let host = if host.is_empty() { "-".into() } else { host };
        Socket { address, connected: None, tried: None, failed: false, pid: std::process::id(), host }
    }

    fn write(&mut self, bytes: &[u8], lines: u64) -> u64 {
        if self.connected.is_none() && self.tried.is_none_or(|at| at.elapsed() >= AGAIN) {
            self.tried = Some(Instant::now());
            match self.connect() {
                Ok(connected) => self.connected = Some(connected),
                Err(error) => self.complain(&error),
            }
        }
        let Some(mut connected) = self.connected.take() else { return lines };
        let (failed, result) = match &mut connected {
            Connected::Stream(stream) => {
                let result = stream.write_all(bytes);
                (if result.is_ok() { 0 } else { lines }, result)
            }
            other => self.send_each(other, bytes, lines),
        };
        match result {
            Ok(()) => {
                self.connected = Some(connected);
                self.failed = false;
            }
            Err(error) => self.complain(&error),
        }
        failed
    }

    /// A datagram a line. After one that nobody takes the rest is given up, so that a reader that hangs costs one wait.
    fn send_each(&self, to: &Connected, bytes: &[u8], lines: u64) -> (u64, io::Result<()>) {
        let (mut sent, mut too_long) = (0, 0);
        for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let message = self.message(line);
            let result = match to {
                Connected::Datagram(socket) => socket.send(&message),
                Connected::Udp(socket) => socket.send(&message),
                Connected::Stream(_) => Ok(0),
            };
            match result {
                Ok(_) => sent += 1,
                Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) => too_long += 1,
                // What an earlier datagram met: nobody is there now, and perhaps later.
                Err(error)
                    if matches!(to, Connected::Udp(_))
                        && error.kind() == io::ErrorKind::ConnectionRefused =>
                {
                    too_long += 1;
                }
                Err(error) => return (lines - sent, Err(error)),
            }
        }
        (too_long, Ok(()))
    }

    fn message(&self, line: &[u8]) -> Vec<u8> {
        // Facility local0, severity informational.
        let head = match &self.address {
            Address::Unix(_) => String::new(),
            Address::Journal => "PRIORITY=6\nSYSLOG_IDENTIFIER=gateway\nMESSAGE=".into(),
            Address::Syslog(None) => format!("<134>gateway[{}]: ", self.pid),
            // RFC 5424 section 6; the time is the collector's, as the line has its own.
            Address::Syslog(Some(_)) => format!("<134>1 - {} gateway {} access - ", self.host, self.pid),
        };
        let tail: &[u8] = if matches!(self.address, Address::Journal) { b"\n" } else { b"" };
        [head.as_bytes(), line, tail].concat()
    }

    fn connect(&self) -> io::Result<Connected> {
        let datagram = |path: &Path| -> io::Result<Connected> {
            let socket = UnixDatagram::unbound()?;
            socket.set_write_timeout(Some(PATIENCE))?;
            socket.connect(path)?;
            Ok(Connected::Datagram(socket))
        };
        match &self.address {
            Address::Journal => datagram(Path::new(JOURNAL)),
            Address::Syslog(None) => datagram(Path::new(DEV_LOG)),
            Address::Syslog(Some(server)) => {
                let any: SocketAddr = if server.is_ipv4() {
                    ([0, 0, 0, 0], 0).into()
                } else {
                    (std::net::Ipv6Addr::UNSPECIFIED, 0).into()
                };
                let socket = UdpSocket::bind(any)?;
                socket.connect(server)?;
                Ok(Connected::Udp(socket))
            }
            Address::Unix(path) => match UnixStream::connect(path) {
                Ok(stream) => {
                    stream.set_write_timeout(Some(PATIENCE))?;
                    Ok(Connected::Stream(stream))
                }
                Err(error) if error.raw_os_error() == Some(libc::EPROTOTYPE) => datagram(path),
                Err(error) => Err(error),
            },
        }
    }

    fn complain(&mut self, error: &io::Error) {
        if !std::mem::replace(&mut self.failed, true) {
            tracing::warn!(%error, "nobody takes the access log's lines; trying on");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn file(dir: &Path, rotate: Option<LogRotate>) -> Rotated {
        Rotated::open(&dir.join("log"), rotate).unwrap()
    }

    #[test]
    fn a_file_is_rotated_by_size_and_so_many_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = file(dir.path(), Some(LogRotate { size: 10, files: 2 }));
        for text in ["aaaaaaaa\n", "bbbbbbbb\n", "cccccccc\n", "dddddddd\n"] {
            log.write(text.as_bytes()).unwrap();
        }
        let read = |name: &str| fs::read_to_string(dir.path().join(name)).ok();
        assert_eq!(read("log").as_deref(), Some("dddddddd\n"));
        assert_eq!(read("log.1").as_deref(), Some("cccccccc\n"));
        assert_eq!(read("log.2").as_deref(), Some("bbbbbbbb\n"));
        assert_eq!(read("log.3"), None);
    }

    #[test]
    fn a_stream_is_found_again_after_its_reader_was_gone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log.sock");
        let mut socket = Socket::new(Address::Unix(path.clone()));
        assert_eq!(socket.write(b"a\n", 1), 1);
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        std::thread::sleep(AGAIN);
        assert_eq!(socket.write(b"b\nc\n", 2), 0);
        let mut text = [0; 4];
        let (mut reader, _) = listener.accept().unwrap();
        reader.read_exact(&mut text).unwrap();
        assert_eq!(&text, b"b\nc\n");
        drop((reader, listener));
        assert_eq!(socket.write(b"d\n", 1), 1);
    }

    #[test]
    fn a_datagram_has_one_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log.sock");
        let reader = UnixDatagram::bind(&path).unwrap();
        let mut socket = Socket::new(Address::Unix(path));
        assert_eq!(socket.write(b"a\nbb\n", 2), 0);
        let mut text = [0; 10];
        assert_eq!((reader.recv(&mut text).unwrap(), reader.recv(&mut text).unwrap()), (1, 2));
    }
}
