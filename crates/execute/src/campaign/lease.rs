//! Lease of a runner: its permission to act, which it loses if it cannot write its heartbeat.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use rustix::time::{ClockId, clock_gettime};

/// Uptime of this machine in seconds, with the time it was suspended (CLOCK_BOOTTIME): a clock that nobody sets, and that
/// cannot fail to be read, so that a lease always ends.
#[allow(clippy::cast_precision_loss, reason = "an uptime")]
pub fn uptime_seconds() -> f64 {
    let now = clock_gettime(ClockId::Boottime);
    now.tv_sec as f64 + now.tv_nsec as f64 / 1e9
}

/// Lease of this runner.
#[derive(Debug)]
pub struct Lease {
    seconds: f64,
    /// Uptime before the last written heartbeat, in milliseconds.
    renewed: AtomicU64,
    /// Set when the lease is lost: all moves of this runner are aborted.
    lost: Arc<AtomicBool>,
}

impl Lease {
    /// A lease that begins now. `lost` is set when the lease ends.
    pub fn new(seconds: f64, lost: Arc<AtomicBool>) -> Self {
        let lease = Self { seconds, renewed: AtomicU64::new(0), lost };
        lease.renew(uptime_seconds());
        lease
    }

    /// Renews the lease: a heartbeat was written, and the write began at this uptime.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // an uptime
    pub fn renew(&self, began_seconds: f64) {
        self.renewed.store((began_seconds * 1000.0) as u64, Ordering::SeqCst);
    }

    /// True if the runner may act: at most half of the lease has passed, so that it has stopped before others expel it.
    #[allow(clippy::cast_precision_loss)] // an uptime
    pub fn holds(&self) -> bool {
        let since = uptime_seconds() - self.renewed.load(Ordering::SeqCst) as f64 / 1000.0;
        if since > self.seconds / 2.0 {
            self.lose();
        }
        !self.lost.load(Ordering::SeqCst)
    }

    /// Ends the lease: the runner may not act any more.
    pub fn lose(&self) {
        self.lost.store(true, Ordering::SeqCst);
    }
}
