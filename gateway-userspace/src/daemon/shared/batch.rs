//! What is asked of the store in one exchange, key by key, and what is made of its answer.

use std::{collections::HashMap, mem};

use redis::{RedisError, Script, ScriptInvocation, aio::MultiplexedConnection};
use tokio::sync::oneshot;

use crate::limit::{Ask, Now, Reply, Shape, Store};

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
        let lines = mem::take(&mut self.lines).into_iter().zip(answers.chunks_exact(2));
        let mut owed = Vec::new();
        for (line, answer) in lines {
            if let [granted, used] = *answer {
                owed.extend(line.settle(store, granted, used));
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
                call.key(key).arg(interval_us).arg(depth_us).arg(0);
            }
            Shape::Window { amount, index, left_ms } => {
                // It is kept a little longer, for gateways whose clocks are behind.
                call.key(format!("{key}:{index}")).arg(0).arg(amount).arg(left_ms + 60_000);
            }
        }
        let first = self.waiting.first().map_or(0, |(cost, _)| *cost);
        call.arg(first).arg(cost).arg(spare).arg(i128::from(*spent) - i128::from(*back));
    }

    fn settle(self, store: &Store, granted: u64, used: u64) -> Option<Ask> {
        let Line { ask, waiting } = self;
        let now = Now::read();
        let total = ask.meter.total(used);
        let (mut left, mut refused, mut owed) = (granted, false, 0u64);
        for (cost, reply) in waiting {
            let wait_ns = ask.meter.wait_of(total, now, cost.max(1));
            let paid = if cost == 0 { wait_ns == 0 } else { cost <= left };
            if paid {
                left -= cost;
                let _ = reply.send(Reply::Paid);
            } else {
                refused = true;
                // It waits no longer, and was let in.
                if reply.send(Reply::Over { wait_ns: wait_ns.max(1) }).is_err() {
                    owed = owed.saturating_add(cost);
                }
            }
        }
        let total = if refused { ask.meter.held_off(total) } else { total };
        store.learn(&ask, left, total);
        (owed > 0).then(|| Ask { cost: 0, spare: 0, spent: owed, back: 0, ..ask })
    }
}

/// A key of a limit; those of windows have the window's number behind it.
pub fn key(name: &str, limit: &str, key: u128) -> String {
    format!("{name}:limit:{limit}:{key:032x}")
}
