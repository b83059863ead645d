//! A connection to a broker, and the few requests that are made of it. Their versions are those that brokers since Kafka
//! 2.5 know and 4.0 still does.

use std::{io, path::PathBuf, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};

use super::{
    batch::Number,
    scram,
    wire::{Malformed, Reader, Writer},
};
use crate::{
    config::model::{Kafka, TlsVersion, UpstreamTls},
    seal,
    tls::Connector,
};

/// For a connection to be there, and for an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// What the broker is told of how long its replicas may take.
const REPLICAS_MS: i32 = 8_000;
/// Bytes of an answer.
const ANSWER: usize = 4 << 20;

const PRODUCE: (i16, i16) = (0, 7);
const METADATA: (i16, i16) = (3, 1);
const SASL_HANDSHAKE: (i16, i16) = (17, 1);
const INIT_PRODUCER_ID: (i16, i16) = (22, 3);
const SASL_AUTHENTICATE: (i16, i16) = (36, 0);

#[derive(Debug, thiserror::Error)]
pub enum CallError {
    #[error("{0}: {1}")]
    Io(String, io::Error),
    #[error("{0}: no answer within {PATIENCE:?}")]
    Late(String),
    #[error("{0}: an answer that is none of Kafka's")]
    Malformed(String),
    #[error("{0}: {1}")]
    Code(String, Code),
    #[error("{0}: {1}")]
    Login(String, String),
}

/// An error of Kafka's (kafka.apache.org/protocol, "Error Codes").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Code(pub i16);

impl Code {
    pub const UNKNOWN_TOPIC: Code = Code(3);
    pub const NO_LEADER: Code = Code(5);
    pub const MESSAGE_TOO_LARGE: Code = Code(10);
    pub const INVALID_TOPIC: Code = Code(17);
    pub const BATCH_TOO_LARGE: Code = Code(18);
    pub const CLUSTER_AUTHORIZATION_FAILED: Code = Code(31);
    pub const INVALID_TIMESTAMP: Code = Code(32);
    pub const OUT_OF_ORDER: Code = Code(45);
    pub const DUPLICATE: Code = Code(46);
    pub const INVALID_EPOCH: Code = Code(47);
    pub const UNKNOWN_PRODUCER: Code = Code(59);
    pub const INVALID_RECORD: Code = Code(87);

    fn check(self) -> Result<(), Code> {
        if self.0 == 0 { Ok(()) } else { Err(self) }
    }
}

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let words = match self.0 {
            -1 => "the broker failed",
            3 => "there is no such topic",
            5 => "the partition has no leader now",
            6 => "another broker leads the partition now",
            7 => "its replicas took too long",
            10 | 18 => "the batch is larger than the broker takes (max.message.bytes)",
            17 => "that is no name for a topic",
            19 | 20 => "too few replicas are in sync",
            29 => "this user may not write to the topic",
            31 => "this user may not do that",
            33 => "the broker does not know this way to log in",
            35 => "the broker is too old",
            45 => "a batch before it is missing",
            47 | 59 => "the broker does not know us any more",
            58 => "the user or its password is wrong",
            87 => "the broker refuses a record",
            code => return write!(f, "error {code}"),
        };
        write!(f, "{words} (error {})", self.0)
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

pub struct Connection {
    /// `HOST:PORT`
    at: String,
    stream: Box<dyn Stream>,
    last: i32,
}

/// What a broker knows of a topic.
#[derive(Debug, PartialEq, Eq)]
pub struct Metadata {
    /// Numbers and places of brokers.
    brokers: Vec<(i32, String)>,
    error: Code,
    /// Numbers of partitions and of their leaders.
    partitions: Vec<(i32, i32)>,
}

impl Metadata {
    pub fn read(mut answer: Reader<'_>) -> Result<Self, Malformed> {
        let brokers = answer.each(|broker| {
            let (number, host, port) = (broker.i32()?, broker.text()?.ok_or(Malformed)?, broker.i32()?);
            broker.text()?;
            let port = u16::try_from(port).map_err(|_| Malformed)?;
            let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
            Ok((number, format!("{host}:{port}")))
        })?;
        answer.i32()?;
        let mut topics = answer.each(|topic| {
            let error = Code(topic.i16()?);
            topic.text()?;
            topic.take(1)?;
            let partitions = topic.each(|partition| {
                partition.i16()?;
                let numbers = (partition.i32()?, partition.i32()?);
                partition.each(Reader::i32)?;
                partition.each(Reader::i32)?;
                Ok(numbers)
            })?;
            Ok((error, partitions))
        })?;
        let (error, partitions) = topics.pop().unwrap_or((Code::UNKNOWN_TOPIC, Vec::new()));
        Ok(Metadata { brokers, error, partitions })
    }

    pub fn error(&self) -> Result<(), Code> {
        self.error.check()
    }

    pub fn partitions(&self) -> usize {
        self.partitions.len()
    }

    /// Where the leader of a partition is. `None`: it has none.
    pub fn leader(&self, partition: i32) -> Option<&str> {
        let (_, leader) = self.partitions.iter().find(|(number, _)| *number == partition)?;
        self.brokers.iter().find(|(number, _)| number == leader).map(|(_, at)| at.as_str())
    }
}

/// What became of a batch.
#[derive(Debug, PartialEq, Eq)]
pub struct Produced(Code);

impl Produced {
    pub fn read(mut answer: Reader<'_>) -> Result<Self, Malformed> {
        let topics = answer.each(|topic| {
            topic.text()?;
            topic.each(|partition| {
                partition.i32()?;
                let error = Code(partition.i16()?);
                partition.i64()?;
                partition.i64()?;
                partition.i64()?;
                Ok(error)
            })
        })?;
        topics.into_iter().flatten().next().map(Produced).ok_or(Malformed)
    }
}

impl Connection {
    /// Connects and logs in.
    pub async fn open(at: &str, config: &Kafka) -> Result<Connection, CallError> {
        let opening = async {
            let stream = connect(at, config).await.map_err(|error| CallError::Io(at.into(), error))?;
            let mut connection = Connection { at: at.into(), stream, last: 0 };
            if let (Some(user), Some(password)) = (&config.user, &config.password) {
                let password = seal::read(password).map_err(|error| connection.login(&error.to_string()))?;
                connection.log_in(user, &password, config.tls).await?;
            }
            Ok(connection)
        };
        tokio::time::timeout(PATIENCE, opening).await.map_err(|_| CallError::Late(at.into()))?
    }

    pub fn at(&self) -> &str {
        &self.at
    }

    pub async fn metadata(&mut self, topic: &str) -> Result<Metadata, CallError> {
        let mut body = Writer::default();
        body.i32(1).text(topic);
        let answer = self.ask(METADATA, &body.0).await?;
        self.read(&answer, Metadata::read)
    }

    /// A number for a producer, and its epoch.
    pub async fn new_producer(&mut self) -> Result<(i64, i16), CallError> {
        let mut body = Writer::default();
        // No transaction, whose time would be this; no number yet. Of "flexible" version: with tags, of which there are none.
        body.i8(0).i8(0).i32(i32::MAX).i64(-1).i16(-1).i8(0);
        let answer = self.ask(INIT_PRODUCER_ID, &body.0).await?;
        let (code, producer, epoch) = self.read(&answer, |mut answer| {
            answer.take(1)?;
            answer.i32()?;
            Ok((Code(answer.i16()?), answer.i64()?, answer.i16()?))
        })?;
        code.check().map_err(|code| CallError::Code(self.at.clone(), code))?;
        Ok((producer, epoch))
    }

    /// Sends a batch; its end is when all replicas have it.
    pub async fn produce(
        &mut self,
        topic: &str,
        partition: i32,
        batch: &[u8],
    ) -> Result<Result<(), Code>, CallError> {
        let mut body = Writer(Vec::with_capacity(batch.len() + 512));
        // No transaction, all replicas.
        body.i16(-1).i16(-1).i32(REPLICAS_MS);
        body.i32(1).text(topic).i32(1).i32(partition).bytes(batch);
        let answer = self.ask(PRODUCE, &body.0).await?;
        Ok(self.read(&answer, Produced::read)?.0.check())
    }

    async fn log_in(&mut self, user: &str, password: &[u8], hidden: bool) -> Result<(), CallError> {
        let mut mechanism = "SCRAM-SHA-512";
        let known = self.offer(mechanism).await?;
        if let Some(known) = known {
            // A password in clear goes only where nobody else reads it.
            let ways = ["SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN"];
            let fits = |way: &&&str| known.iter().any(|name| name == **way) && (hidden || **way != "PLAIN");
            mechanism = ways.iter().find(fits).copied().ok_or_else(|| {
                self.login(&format!(
                    "the broker has no way to log in that is safe here: {}",
                    known.join(", ")
                ))
            })?;
            if self.offer(mechanism).await?.is_some() {
                return Err(self.login("the broker does not know the way to log in that it named"));
            }
        }
        let hash = match mechanism {
            "SCRAM-SHA-512" => scram::Hash::Sha512,
            "SCRAM-SHA-256" => scram::Hash::Sha256,
            _ => {
                let token = [b"\0", user.as_bytes(), b"\0", password].concat();
                return self.authenticate(&token).await.map(drop);
            }
        };
        let mut nonce = [0; 24];
        aws_lc_rs::rand::fill(&mut nonce).map_err(|_| self.login("no random numbers"))?;
        let nonce = URL_SAFE_NO_PAD.encode(nonce);
        let mut exchange = scram::Exchange::new(hash, user, nonce);
        let challenge = self.authenticate(exchange.first().as_bytes()).await?;
        let answer = exchange.last(&challenge, password);
        let answer = answer.ok_or_else(|| self.login("the broker does not speak SCRAM"))?;
        let proof = self.authenticate(answer.as_bytes()).await?;
        match exchange.is_proven(&proof) {
            true => Ok(()),
            false => Err(self.login("the broker does not know the password")),
        }
    }

    /// Proposes a way to log in. Those that the broker knows, if it is none of them.
    async fn offer(&mut self, mechanism: &str) -> Result<Option<Vec<String>>, CallError> {
        let mut body = Writer::default();
        body.text(mechanism);
        let answer = self.ask(SASL_HANDSHAKE, &body.0).await?;
        let (code, known) = self.read(&answer, sasl_mechanisms)?;
        Ok((code.0 != 0).then_some(known))
    }

    async fn authenticate(&mut self, token: &[u8]) -> Result<Vec<u8>, CallError> {
        let mut body = Writer::default();
        body.bytes(token);
        let answer = self.ask(SASL_AUTHENTICATE, &body.0).await?;
        let (code, told) = self.read(&answer, |mut answer| {
            let code = Code(answer.i16()?);
            answer.text()?;
            Ok((code, answer.bytes()?.to_vec()))
        })?;
        code.check().map_err(|code| CallError::Code(self.at.clone(), code))?;
        Ok(told)
    }

    fn login(&self, error: &str) -> CallError {
        CallError::Login(self.at.clone(), error.to_owned())
    }

    fn read<'a, T>(
        &self,
        answer: &'a [u8],
        read: impl FnOnce(Reader<'a>) -> Result<T, Malformed>,
    ) -> Result<T, CallError> {
        read(Reader(answer)).map_err(|_| CallError::Malformed(self.at.clone()))
    }

    /// A request, and its answer without the header.
    async fn ask(&mut self, (kind, version): (i16, i16), body: &[u8]) -> Result<Vec<u8>, CallError> {
        self.last = self.last.wrapping_add(1);
        let mut head = Writer::default();
        head.i16(kind).i16(version).i32(self.last).text("gateway");
        let length = i32::try_from(head.0.len() + body.len()).unwrap_or(i32::MAX);
        let request = [&length.to_be_bytes(), head.0.as_slice(), body].concat();
        let number = self.last;
        let exchange = async {
            self.stream.write_all(&request).await?;
            self.stream.flush().await?;
            let length = self.stream.read_i32().await?;
            let length = usize::try_from(length).ok().filter(|length| (4..=ANSWER).contains(length));
            let length = length.ok_or_else(|| io::Error::other(Malformed))?;
            if self.stream.read_i32().await? != number {
                return Err(io::Error::other(Malformed));
            }
            let mut answer = vec![0; length - 4];
            self.stream.read_exact(&mut answer).await?;
            Ok(answer)
        };
        match tokio::time::timeout(PATIENCE, exchange).await {
            Ok(answer) => answer.map_err(|error| CallError::Io(self.at.clone(), error)),
            Err(_) => Err(CallError::Late(self.at.clone())),
        }
    }
}

/// The broker's verdict on a way to log in, and those that it knows.
pub fn sasl_mechanisms(mut answer: Reader<'_>) -> Result<(Code, Vec<String>), Malformed> {
    let code = Code(answer.i16()?);
    let known = answer.each(|name| Ok(name.text()?.ok_or(Malformed)?.to_owned()))?;
    Ok((code, known))
}

async fn connect(at: &str, config: &Kafka) -> io::Result<Box<dyn Stream>> {
    let stream = TcpStream::connect(at).await?;
    stream.set_nodelay(true)?;
    if !config.tls {
        return Ok(Box::new(stream));
    }
    let addr = stream.peer_addr()?;
    let name = at.rsplit_once(':').map_or(at, |(host, _)| host);
    let settings = tls_to(name.trim_matches(['[', ']']), config.ca.clone());
    let connector = Connector::new(&settings, None, None).map_err(io::Error::other)?;
    Ok(connector.connect(stream, addr, &[]).await?)
}

fn tls_to(name: &str, ca: Option<PathBuf>) -> UpstreamTls {
    UpstreamTls { sni: Some(name.to_owned()), ca, cert: None, verify: true, min: TlsVersion::V12 }
}

/// Whether a batch with this error is there already, or what to do of it.
impl Code {
    /// The same batch is refused for ever.
    pub fn lasts(self) -> bool {
        [
            Code::MESSAGE_TOO_LARGE,
            Code::INVALID_TOPIC,
            Code::BATCH_TOO_LARGE,
            Code::INVALID_TIMESTAMP,
            Code::INVALID_RECORD,
        ]
        .contains(&self)
    }

    /// The broker has lost count of us.
    pub fn has_forgotten(self) -> bool {
        [Code::OUT_OF_ORDER, Code::INVALID_EPOCH, Code::UNKNOWN_PRODUCER].contains(&self)
    }
}

/// A batch of nobody: it may be there twice.
pub const UNNUMBERED: Number = Number { producer: -1, epoch: -1, first: -1 };

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_broker_tells_of_a_topic() {
        let mut answer = Writer::default();
        answer.i32(2).i32(1).text("a.test").i32(9092).i16(-1).i32(2).text("::1").i32(9093).text("rack");
        answer.i32(1).i32(1).i16(0).text("logs").i8(0).i32(2);
        for (partition, leader) in [(0, 2), (1, 3)] {
            answer.i16(0).i32(partition).i32(leader).i32(1).i32(leader).i32(0);
        }
        let told = Metadata::read(Reader(&answer.0)).unwrap();
        assert_eq!((told.error(), told.partitions()), (Ok(()), 2));
        assert_eq!((told.leader(0), told.leader(1), told.leader(2)), (Some("[::1]:9093"), None, None));
        for end in 0..answer.0.len() {
            assert_eq!(Metadata::read(Reader(&answer.0[..end])), Err(Malformed), "{end}");
        }
    }

    #[test]
    fn errors_are_told_in_words() {
        assert_eq!(Code(3).to_string(), "there is no such topic (error 3)");
        assert_eq!(Code(99).to_string(), "error 99");
    }
}
