//! Places that a limited number of threads may take at the same time.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// A number of places.
#[derive(Debug)]
pub struct Slots {
    free: Mutex<usize>,
    given_back: Condvar,
}

/// A place that was taken; given back when dropped, on whatever thread.
#[derive(Debug)]
pub struct Slot(Arc<Slots>);

impl Slots {
    /// So many places.
    pub fn new(count: usize) -> Arc<Self> {
        Arc::new(Self { free: Mutex::new(count), given_back: Condvar::new() })
    }

    /// Takes a place, and waits until there is one.
    pub fn take(self: &Arc<Self>) -> Slot {
        let free = self.given_back.wait_while(self.free(), |free| *free == 0);
        *free.unwrap_or_else(PoisonError::into_inner) -= 1;
        Slot(Arc::clone(self))
    }

    fn free(&self) -> MutexGuard<'_, usize> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        *self.0.free() += 1;
        self.0.given_back.notify_one();
    }
}
