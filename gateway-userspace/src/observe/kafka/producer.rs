//! Whose batches they are: which broker takes them, and as which of ours.

use std::time::{SystemTime, UNIX_EPOCH};

use super::{
    batch::{Lines, Number, encode, partition_of},
    connection::{CallError, Code, Connection, UNNUMBERED},
};
use crate::config::model::Kafka;

#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// It may be taken another time.
    #[error("{0}")]
    Again(CallError),
    /// It never is.
    #[error("{0}")]
    Refused(CallError),
}

pub struct Producer {
    config: Kafka,
    /// To the partition's leader.
    leader: Option<Connection>,
    partition: i32,
    number: Option<Number>,
    /// Told of once.
    unnumbered: bool,
}

impl Producer {
    pub fn new(config: Kafka) -> Self {
        Producer { config, leader: None, partition: 0, number: None, unnumbered: false }
    }

    /// Sends lines as the next batch. After an error the same ones are to be sent again: then, whatever became of them, they
    /// are there once.
    pub async fn send(&mut self, lines: &[Lines]) -> Result<(), SendError> {
        let sent = self.try_send(lines).await;
        if sent.is_err() {
            // Whoever leads the partition is asked for anew.
            self.leader = None;
        }
        sent
    }

    async fn try_send(&mut self, lines: &[Lines]) -> Result<(), SendError> {
        let mut leader = match self.leader.take() {
            Some(leader) => leader,
            None => self.find_leader().await.map_err(SendError::Again)?,
        };
        let number = match self.number {
            Some(number) => number,
            None => self.number_from(&mut leader).await.map_err(SendError::Again)?,
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = now.as_millis().try_into().unwrap_or(i64::MAX);
        let (count, batch) = encode(lines, self.config.name.as_bytes(), number, now);
        let answer = leader.produce(&self.config.topic, self.partition, &batch).await;
        match answer.map_err(SendError::Again)? {
            Ok(()) | Err(Code::DUPLICATE) => {}
            Err(code) => {
                if code.has_forgotten() {
                    self.number = None;
                }
                let error = CallError::Code(leader.at().to_owned(), code);
                return Err(if code.lasts() { SendError::Refused(error) } else { SendError::Again(error) });
            }
        }
        if number != UNNUMBERED {
            // They begin again from 0.
            let first = (i64::from(number.first) + i64::from(count)) % (i64::from(i32::MAX) + 1);
            self.number = Some(Number { first: i32::try_from(first).unwrap_or(0), ..number });
        }
        self.leader = Some(leader);
        Ok(())
    }

    /// Asks one broker after the other who leads our partition.
    async fn find_leader(&mut self) -> Result<Connection, CallError> {
        let mut failed = None;
        for at in self.config.brokers.clone() {
            match self.find_leader_by(&at).await {
                Ok(leader) => return Ok(leader),
                Err(error) => failed = Some(error),
            }
        }
        Err(failed.unwrap_or_else(|| CallError::Late("no broker".into())))
    }

    async fn find_leader_by(&mut self, at: &str) -> Result<Connection, CallError> {
        let mut broker = Connection::open(at, &self.config).await?;
        let told = broker.metadata(&self.config.topic).await?;
        let failed = |code| CallError::Code(at.to_owned(), code);
        told.error().map_err(failed)?;
        let partition = partition_of(self.config.name.as_bytes(), told.partitions());
        let partition = i32::try_from(partition).unwrap_or(0);
        let leader = told.leader(partition).ok_or(Code::NO_LEADER).map_err(failed)?;
        if partition != self.partition {
            // Batches are counted by partition.
            self.partition = partition;
            self.number = None;
        }
        if leader == at { Ok(broker) } else { Connection::open(leader, &self.config).await }
    }

    async fn number_from(&mut self, broker: &mut Connection) -> Result<Number, CallError> {
        let number = match broker.new_producer().await {
            Ok((producer, epoch)) => Number { producer, epoch, first: 0 },
            Err(CallError::Code(_, Code::CLUSTER_AUTHORIZATION_FAILED)) => {
                if !std::mem::replace(&mut self.unnumbered, true) {
                    let user = self.config.user.as_deref().unwrap_or("-");
                    tracing::warn!(
                        user,
                        "Kafka lets this user not number its batches (IdempotentWrite): lines may be there twice"
                    );
                }
                UNNUMBERED
            }
            Err(error) => return Err(error),
        };
        self.number = Some(number);
        Ok(number)
    }
}
