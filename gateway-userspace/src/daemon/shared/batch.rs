//! What is asked of the store in one exchange, key by key, and what is made of its answer.

use std::{collections::HashMap, mem};

use redis::{RedisError, Script, ScriptInvocation, aio::MultiplexedConnection};
use tokio::sync::oneshot;

use crate::limit::{Ask, Now, Reply, Said, Shape, Store};

/// Keys in one exchange.
const MOST: usize = 512;

#[derive(Default)]
pub struct Batch {
    lines: Vec<Line>,
    by_key: HashMap<u128, usize>,
    /// Somebody waits for it.
    pub urgent: bool,
}

/// All that is asked for one key.
struct Line {
    ask: Ask,
    waiting: Vec<(u64, oneshot::Sender<Reply>)>,
}

impl Batch {
    pub fn is_full(&self) -> bool {
        self.lines.len() >= MOST
    }

    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    pub fn add(&mut self, mut ask: Ask) {
        let waiting = ask.reply.take().map(|reply| (ask.cost, reply));
        self.urgent |= waiting.is_some();
        match self.by_key.get(&ask.owner.key).and_then(|at| self.lines.get_mut(*at)) {
            Some(line) => {
                line.ask.cost = line.ask.cost.saturating_add(ask.cost);
                line.ask.spent = line.ask.spent.saturating_add(ask.spent);
                // The same lease.
                line.ask.spare = line.ask.spare.max(ask.spare);
                line.ask.back = line.ask.back.max(ask.back);
                line.waiting.extend(waiting);
            }
            None => {
                self.by_key.insert(ask.owner.key, self.lines.len());
                self.lines.push(Line { ask, waiting: waiting.into_iter().collect() });
            }
        }
    }

    /// One exchange.
    ///
    /// # Errors
    /// The store is not there, or will not.
    pub async fn exchange(
        &self,
        name: &str,
        script: &Script,
        connection: &mut MultiplexedConnection,
    ) -> Result<Vec<u64>, RedisError> {
        let now = Now::read();
        let mut call = script.prepare_invoke();
        for line in &self.lines {
            line.write(name, now, &mut call);
        }
        call.invoke_async(connection).await
    }

    /// Grants what was granted. What was decided without waiting any longer, and was not granted, is still to be told.
    pub fn settle(&mut self, store: &Store, answers: &[u64]) -> Vec<Ask> {
        let lines = mem::take(&mut self.lines).into_iter().zip(answers.chunks_exact(4));
        let mut owed = Vec::new();
        for (line, answer) in lines {
            if let [granted, used, wait_us, next_us] = *answer {
                let [wait_ns, next_ns] = [wait_us, next_us].map(|us| us.saturating_mul(1000));
                let used = line.ask.meter.total(used);
                owed.extend(line.settle(store, Said { granted, used, wait_ns, next_ns }));
            }
        }
        owed
    }
}

impl Line {
    fn write(&self, name: &str, now: Now, call: &mut ScriptInvocation<'_>) {
        let Ask { limit, owner, meter, cost, spare, spent, back, .. } = &self.ask;
        let key = key(name, &limit.name, owner.key);
        match meter.shape(now) {
            Shape::Bucket { interval_us, depth_us } => {
                call.key(key).arg("bucket").arg(interval_us).arg(depth_us).arg(0);
            }
            Shape::Window { amount, index, left_ms } => {
                // It is kept a little longer, for gateways whose clocks are behind.
                call.key(format!("{key}:{index}")).arg("window").arg(0).arg(amount).arg(left_ms + 60_000);
            }
            // Of another span it is another key.
            Shape::Sliding { amount, part_us } => {
                call.key(format!("{key}:s{part_us}")).arg("sliding").arg(part_us).arg(amount).arg(0);
            }
        }
        let first = self.waiting.first().map_or(0, |(cost, _)| *cost);
        call.arg(first).arg(cost).arg(spare).arg(i128::from(*spent) - i128::from(*back));
    }

    fn settle(self, store: &Store, said: Said) -> Option<Ask> {
        let Line { ask, waiting } = self;
        let now = Now::read();
        let mut left = said.granted;
        let mut answer = |cost: u64| {
            let wait_ns = ask.meter.wait_of(&said, now, cost.max(1));
            let paid = if cost == 0 { wait_ns == 0 } else { cost <= left };
            left -= if paid { cost } else { 0 };
            if paid { Reply::Paid } else { Reply::Over { wait_ns: wait_ns.max(1) } }
        };
        let answers: Vec<_> = waiting.into_iter().map(|(cost, reply)| (cost, reply, answer(cost))).collect();
        let refused = answers.iter().any(|(.., answer)| *answer != Reply::Paid);
        let used = if refused { ask.meter.held_off(said.used) } else { said.used };
        // Before anybody goes on: answers tell what is left.
        store.learn(&ask, Said { granted: left, used, ..said });
        let mut owed = 0u64;
        for (cost, reply, answer) in answers {
            // It waits no longer, and was let in.
            if reply.send(answer).is_err() && answer != Reply::Paid {
                owed = owed.saturating_add(cost);
            }
        }
        (owed > 0).then(|| Ask { cost: 0, spare: 0, spent: owed, back: 0, ..ask })
    }
}

/// A key of a limit; those of windows have more behind it.
pub fn key(name: &str, limit: &str, key: u128) -> String {
    format!("{name}:limit:{limit}:{key:032x}")
}
