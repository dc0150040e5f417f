//! The right of a runner to act, which it loses when it cannot say that it is at work.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

/// Seconds since this machine started, those that it slept included: a clock that nobody sets.
pub fn uptime_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/uptime").unwrap_or_default();
    text.split(' ').next().and_then(|seconds| seconds.parse().ok()).unwrap_or(0.0)
}

/// The lease of this runner.
#[derive(Debug)]
pub struct Lease {
    seconds: f64,
    /// Uptime before the last beat that was written, milliseconds.
    renewed: AtomicU64,
    /// Set when it is lost: whatever this runner has under way is aborted.
    lost: Arc<AtomicBool>,
}

impl Lease {
    /// A lease that begins now. `lost` is set when it is over.
    pub fn new(seconds: f64, lost: Arc<AtomicBool>) -> Self {
        let lease = Self { seconds, renewed: AtomicU64::new(0), lost };
        lease.renew(uptime_seconds());
        lease
    }

    /// A beat was written that began at this uptime.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // an uptime
    pub fn renew(&self, began_seconds: f64) {
        self.renewed.store((began_seconds * 1000.0) as u64, Ordering::SeqCst);
    }

    /// Whether the runner may act: half of the lease at most has passed, so that it has stopped before others count it out.
    #[allow(clippy::cast_precision_loss)] // an uptime
    pub fn holds(&self) -> bool {
        let since = uptime_seconds() - self.renewed.load(Ordering::SeqCst) as f64 / 1000.0;
        if since > self.seconds / 2.0 {
            self.lose();
        }
        !self.lost.load(Ordering::SeqCst)
    }

    /// The runner may act no more.
    pub fn lose(&self) {
        self.lost.store(true, Ordering::SeqCst);
    }
}
