//! Request smuggling: hundreds of requests that two readers could take differently, each sent through the gateway to
//! servers that others wrote. S13.
//!
//! Of each payload holds: the gateway refuses it, and the server sees no request to its end; or it passes, and the
//! server sees exactly one, which is the one that is answered. Never does a server see the request inside. Afterwards
//! clients of their own are answered, over the upstream connections that were just used, with what they asked for.
//! `GATEWAY_SMUGGLE=text` runs only the payloads whose names contain the text, one after another, and tells of each.

mod backends;
mod chunks;
mod content_length;
mod controls;
mod corpus;
mod http2_framing;
mod http2_names;
mod lines;
mod semantics;
mod targets;
mod transfer_encoding;

use std::{
    io::Read,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use lab::{
    http2::{DATA, END_STREAM, GOAWAY, Http2, RST_STREAM},
    prelude::*,
};

use backends::{Account, Kind, Server};
use corpus::{Corpus, Expect, Form, Payload};

/// Payloads under way at once: most of them wait for a time limit of the gateway.
const LANES: usize = 12;
const PAUSE: Duration = Duration::from_millis(60);

struct Rig {
    gateway: Gateway,
    server: Server,
    net: Net,
    _turn: lab::lock::Turn,
}

fn rig(kind: Kind) -> Result<Rig> {
    let turn = shared()?;
    let net = Net::simple(1)?;
    let server = Server::start(kind, net.backend(1))?;
    // One worker: all clients share its upstream connections.
    let config = format!(
        "[gateway]\nworkers = 1\n\
         [listener.web]\nbind = \":80\"\nprotocols = [\"h1\", \"h2\"]\n\
         timeout = {{ header = \"400ms\", idle = \"300ms\", body = \"400ms\" }}\n\
         [route.all]\nto = \"pool\"\nupgrade = [\"websocket\"]\n[upstream.pool]\nto = [\"{}\"]\n",
        server.addr
    );
    let gateway = Gateway::start(&net, &config)?;
    Ok(Rig { gateway, server, net, _turn: turn })
}

/// What a client was told.
#[derive(Debug, Clone)]
struct Told {
    /// By servers: `METHOD PATH LENGTH`.
    seen: Vec<String>,
    text: String,
}

impl Rig {
    /// Sends a payload and reads until the gateway closes, or the stream ends.
    fn send(&self, payload: &Payload) -> Result<Told> {
        let node = self.net.client(1);
        match &payload.form {
            Form::Http1(pieces) => {
                let mut client = Client::connect(node, self.gateway.at4())?;
                for (i, piece) in pieces.iter().enumerate() {
                    if i > 0 {
                        std::thread::sleep(PAUSE);
                    }
                    // It may be refused, and closed, before all of it is sent.
                    let _ = client.send(piece);
                }
                let mut answer = Vec::new();
                let _ = client.stream.read_to_end(&mut answer);
                let text = String::from_utf8_lossy(&answer).into_owned();
                let seen = text.lines().filter_map(|line| line.strip_prefix("x-seen: "));
                Ok(Told { seen: seen.map(|seen| seen.trim_end().to_owned()).collect(), text })
            }
            Form::Http2(frames) => {
                let mut client = Http2::connect(node, self.gateway.at4())?;
                let _ = std::io::Write::write_all(&mut client.stream, frames);
                let mut body = Vec::new();
                while let Ok(Some(frame)) = client.frame() {
                    let ended = frame.stream == 1 && frame.flags & END_STREAM != 0;
                    if frame.kind == DATA {
                        body.extend(frame.payload);
                    }
                    if matches!(frame.kind, RST_STREAM | GOAWAY) || ended {
                        break;
                    }
                }
                let text = String::from_utf8_lossy(&body).into_owned();
                Ok(Told { seen: text.strip_prefix("seen=").map(str::to_owned).into_iter().collect(), text })
            }
        }
    }

    /// Another client, on the upstream connection that was used last: it must be told what it asked for.
    fn probe(&self, payload: &Payload) -> Result<()> {
        let mut client = Client::connect(self.net.client(1), self.gateway.at4())?;
        for turn in ["a", "b"] {
            let path = format!("/probe/{:04}-{turn}", payload.number);
            let answer = client.get(&path)?;
            let seen = answer.header("x-seen").unwrap_or_default().to_owned();
            ensure!(
                answer.status == 200 && seen.starts_with(&format!("GET {path}")),
                "a client asked for {path} and got {} {seen:?} {:?}",
                answer.status,
                answer.text()
            );
        }
        Ok(())
    }

    /// Sends all, some at a time; what clients were told, and complaints.
    fn send_all(&self, payloads: &[Payload], lanes: usize) -> (BTreeMap<usize, Told>, Vec<String>) {
        let next = AtomicUsize::new(0);
        let lane = || {
            let (mut told, mut complaints) = (Vec::new(), Vec::new());
            while let Some(payload) = payloads.get(next.fetch_add(1, Relaxed)) {
                match self.send(payload) {
                    Ok(answer) => told.push((payload.number, answer)),
                    Err(error) => complaints.push(format!("{}: {error:#}", payload.name)),
                }
                if let Err(error) = self.probe(payload) {
                    complaints.push(format!("after {}: {error:#}", payload.name));
                }
            }
            (told, complaints)
        };
        std::thread::scope(|scope| {
            let lanes: Vec<_> = (0..lanes).map(|_| scope.spawn(lane)).collect();
            let mut all = (BTreeMap::new(), Vec::new());
            for lane in lanes {
                let (told, complaints) = lane.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                all.0.extend(told);
                all.1.extend(complaints);
            }
            all
        })
    }
}

/// An error that the server made of it, or its silence.
fn by_server(text: &str) -> bool {
    ["\r\nvia: ", "\"upstream_", "<html>"].iter().any(|mark| text.contains(mark))
}

/// What is wrong with how a payload ended, if anything.
fn judge(payload: &Payload, told: &Told, account: &Account) -> Option<String> {
    let (path, smuggled) = payload.paths();
    let own = |seen: &&backends::Seen| seen.path.contains(&path) && !seen.path.starts_with(&smuggled);
    let seen = account.seen.iter().filter(own).count();
    let through = account.seen.iter().filter(|seen| seen.path.starts_with(&smuggled)).count();
    let wrong = if through > 0 {
        "the smuggled request got through"
    } else if told.seen.iter().any(|seen| !seen.contains(&path) && !seen.contains(" * ")) {
        "the client got an answer to something else"
    } else if told.seen.len() > 1 || seen > 1 {
        "more than one request"
    } else if seen == 1 && told.seen.is_empty() && payload.expect != Expect::Unknown {
        "refused, and yet seen to its end"
    } else if told.seen.is_empty() && by_server(&told.text) && payload.expect != Expect::Unknown {
        "the server takes it for no request"
    } else if payload.expect == Expect::Refused && !told.seen.is_empty() {
        "not refused"
    } else if payload.expect == Expect::Passed && told.seen.is_empty() {
        "refused"
    } else {
        return None;
    };
    let answer: String = told.text.chars().take(160).collect();
    Some(format!("{} (number {}): {wrong}; {answer:?}", payload.name, payload.number))
}

fn run(kind: Kind) -> Result<()> {
    lab_test!();
    if let Some(why) = kind.missing() {
        lab::skip(&format!("smuggling past {kind:?}"), &why);
        return Ok(());
    }
    let only = std::env::var("GATEWAY_SMUGGLE").ok();
    let mut payloads = Corpus::all().0;
    payloads.retain(|payload| only.as_ref().is_none_or(|only| payload.name.contains(only.as_str())));
    let rig = rig(kind)?;
    let lanes = if only.is_some() { 1 } else { LANES };
    let (told, mut complaints) = rig.send_all(&payloads, lanes);
    let probes =
        |account: &Account| account.seen.iter().filter(|seen| seen.path.starts_with("/probe/")).count();
    eventually("the last requests are in the server's log", || {
        Ok(probes(&rig.server.account()) >= 2 * told.len())
    })?;
    let account = rig.server.account();
    // A request is sent again if the kept connection that it went to was closed.
    let unknown = 2 * payloads.iter().filter(|payload| payload.expect == Expect::Unknown).count();
    if account.bad.len() > unknown {
        complaints.push(format!("servers got what is no request: {:#?}", account.bad));
    }
    for payload in &payloads {
        if let Some(told) = told.get(&payload.number) {
            if only.is_some() {
                println!("{}: {:?} {:?}", payload.name, told.seen, told.text.lines().next());
            }
            complaints.extend(judge(payload, told, &account));
        }
    }
    ensure!(complaints.is_empty(), "{} of {}:\n{}", complaints.len(), payloads.len(), complaints.join("\n"));
    ensure!(!rig.gateway.stderr().iter().any(|line| line.contains("panicked")), "the gateway panicked");
    Ok(())
}

// S13
#[test]
fn nginx_sees_one_request_or_none() -> Result<()> {
    run(Kind::Nginx)
}

// S13
#[test]
fn node_sees_one_request_or_none() -> Result<()> {
    run(Kind::Node)
}

// S13
#[test]
fn python_sees_one_request_or_none() -> Result<()> {
    run(Kind::Python)
}

#[test]
fn the_corpus_has_hundreds_of_payloads_with_names_of_their_own() {
    let payloads = Corpus::all().0;
    let names: BTreeSet<&str> = payloads.iter().map(|payload| payload.name.as_str()).collect();
    assert_eq!(names.len(), payloads.len());
    assert!(payloads.len() >= 250, "{}", payloads.len());
}
