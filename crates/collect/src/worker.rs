//! Work that goes on beside other work, and the time at which it was done.

use std::{
    thread::{self, JoinHandle},
    time::Instant,
};

use jiff::{SignedDuration, Timestamp};

use vmgate_facts::{Cause, Unknown};

/// The operator's clock through the collection: its begin is given, and it goes on from there.
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
}

/// What was found, and when.
#[derive(Debug, Clone)]
pub(super) struct Found<T> {
    pub(super) value: Result<T, Unknown>,
    pub(super) at: Timestamp,
}

/// Work on a thread of its own. Every piece of work has a time limit of its own, so joining ends.
pub(super) struct Worker<T> {
    thread: Result<JoinHandle<Found<T>>, Unknown>,
    clock: Clock,
}

impl<T: Send + 'static> Worker<T> {
    pub(super) fn start(clock: Clock, work: impl FnOnce() -> Result<T, Unknown> + Send + 'static) -> Self {
        let thread = thread::Builder::new()
            .name("collect".into())
            .spawn(move || {
                let value = work();
                Found { value, at: clock.now() }
            })
            .map_err(|error| {
                Unknown::new(Cause::NotCollected, format!("no thread to collect it on: {error}"))
            });
        Self { thread, clock }
    }

    /// Waits for the end. Work that panicked found nothing that can be trusted.
    pub(super) fn join(self) -> Found<T> {
        let broken = |why| Found { value: Err(why), at: self.clock.now() };
        match self.thread {
            Ok(thread) => thread.join().unwrap_or_else(|_| {
                broken(Unknown::new(Cause::Malformed, "vmgate could not cope with the answer"))
            }),
            Err(why) => broken(why),
        }
    }
}
