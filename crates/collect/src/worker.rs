//! Worker threads for parallel collection, whose results carry the time at which they were complete.

use std::{
    thread::{self, JoinHandle},
    time::Instant,
};

use jiff::{SignedDuration, Timestamp};
use vmgate_facts::{Cause, Unknown};

/// The operator's clock during the collection: starts at a given time and goes on monotonically.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    begin: Timestamp,
    start: Instant,
}

impl Clock {
    pub(super) fn starting_at(begin: Timestamp) -> Self {
        Self { begin, start: Instant::now() }
    }

    pub(super) fn now(self) -> Timestamp {
        let elapsed = SignedDuration::try_from(self.start.elapsed()).unwrap_or(SignedDuration::ZERO);
        self.begin.checked_add(elapsed).unwrap_or(self.begin)
    }

    /// Time by this clock of something that the machine's clock dated, perhaps before the collection began.
    pub(super) fn at(self, machine_time: Timestamp) -> Timestamp {
        let ago = Timestamp::now().duration_since(machine_time);
        self.now().checked_sub(ago).unwrap_or(self.begin)
    }
}

/// Result of some work, and the time at which it was complete.
#[derive(Debug, Clone)]
pub(super) struct TimedResult<T> {
    pub(super) value: Result<T, Unknown>,
    pub(super) at: Timestamp,
}

/// Work on a thread of its own. Every piece of work has its own time limit, so joining ends.
pub(super) struct Worker<T> {
    thread: Result<JoinHandle<TimedResult<T>>, Unknown>,
    clock: Clock,
}

impl<T: Send + 'static> Worker<T> {
    pub(super) fn start(clock: Clock, work: impl FnOnce() -> Result<T, Unknown> + Send + 'static) -> Self {
        let thread = thread::Builder::new()
            .name("collect".into())
            .spawn(move || {
                let value = work();
                TimedResult { value, at: clock.now() }
            })
            .map_err(|error| {
                Unknown::new(
                    Cause::NotCollected,
                    format!("vmgate could not start a thread to collect this fact: {error}"),
                )
            });
        Self { thread, clock }
    }

    /// Waits for the end. The result of work that panicked is unknown.
    pub(super) fn join(self) -> TimedResult<T> {
        let broken = |why| TimedResult { value: Err(why), at: self.clock.now() };
        match self.thread {
            Ok(thread) => thread.join().unwrap_or_else(|_| {
                broken(Unknown::new(
                    Cause::Malformed,
                    "vmgate panicked while it read this answer: please report this defect",
                ))
            }),
            Err(why) => broken(why),
        }
    }
}
