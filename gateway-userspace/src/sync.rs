//! Locks, and threads that others hand something to.

pub use std::sync::{Mutex, MutexGuard};
use std::{
    sync::{
        PoisonError,
        mpsc::{Receiver, RecvTimeoutError, TryRecvError},
    },
    time::Duration,
};

/// Also after a panic elsewhere: what these guard is whole at every moment.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Has this thread alone give way to others by so much (setpriority(2), which is of a thread on Linux). Refused, it gives less.
pub fn give_way(by: i32) {
    let _ = rustix::process::nice(by);
}

/// How long messages wait while more of them come.
const PACE: Duration = Duration::from_millis(10);

/// The end of a queue whose reader is not woken for each message: to wake it costs more than a message, on both sides. It is
/// for the first one; while others follow, it looks a hundred times a second.
#[derive(Debug)]
pub struct Paced<M> {
    messages: Receiver<M>,
    /// Some came since it last slept.
    came: bool,
}

impl<M> Paced<M> {
    pub fn new(messages: Receiver<M>) -> Self {
        Paced { messages, came: false }
    }

    /// As [`Receiver::recv_timeout`].
    pub fn recv_timeout(&mut self, patience: Duration) -> Result<M, RecvTimeoutError> {
        loop {
            match self.messages.try_recv() {
                Ok(message) => {
                    self.came = true;
                    return Ok(message);
                }
                Err(TryRecvError::Disconnected) => return Err(RecvTimeoutError::Disconnected),
                Err(TryRecvError::Empty) if std::mem::take(&mut self.came) => {
                    std::thread::sleep(PACE.min(patience));
                }
                Err(TryRecvError::Empty) => {
                    let message = self.messages.recv_timeout(patience);
                    self.came = message.is_ok();
                    return message;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{sync::mpsc::sync_channel, time::Instant};

    #[test]
    fn messages_come_in_their_order_and_then_the_end() {
        let (sender, messages) = sync_channel(4);
        let mut messages = Paced::new(messages);
        assert_eq!(messages.recv_timeout(Duration::from_millis(1)), Err(RecvTimeoutError::Timeout));
        let writer = std::thread::spawn(move || (0..100).for_each(|n| sender.send(n).unwrap()));
        let began = Instant::now();
        for n in 0..100 {
            assert_eq!(messages.recv_timeout(Duration::from_secs(5)), Ok(n));
        }
        writer.join().unwrap();
        assert_eq!(messages.recv_timeout(Duration::from_secs(5)), Err(RecvTimeoutError::Disconnected));
        assert!(began.elapsed() < Duration::from_secs(5), "its pace is too slow");
    }
}
