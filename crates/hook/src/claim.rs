//! The right to decide on a migration, which the decision and the end of its time race for: exactly one gets it.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

/// The right to decide on one migration. Whoever takes it answers libvirt and writes the one line of the log.
#[derive(Debug, Clone, Default)]
pub(super) struct Claim(Arc<AtomicBool>);

impl Claim {
    /// Takes the right; `false` if it is taken.
    pub(super) fn take(&self) -> bool {
        !self.0.swap(true, Ordering::SeqCst)
    }
}
