//! Work that several collections share: connections, logins, turns of measurement, and what was seen of a VM a moment ago.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use vmgate_facts::{Cause, Fact, Facts, Unknown, Uri};
use vmgate_libvirt::{Hypervisor, LibvirtError};
use vmgate_reach::{Slot, Slots};

use super::{CollectRequest, transport::Transport};

/// Shared work of a collection; by default it shares nothing.
#[derive(Debug, Clone, Default)]
pub struct SharedWork {
    /// Open connection to the source.
    source: Option<Hypervisor>,
    /// Connection to the destination, or the reason for which there is none.
    destination: Option<Result<Hypervisor, Unknown>>,
    /// Turns of measurement at the source.
    turns: Turns,
    /// Facts of the same VM from a moment ago, for another destination: its guest is not asked and nothing is measured again.
    seen: Option<Arc<Facts>>,
}

/// A host with its ways open: one login for its probe and the connection to its libvirt, for any number of collections.
#[derive(Debug, Clone)]
pub struct OpenHost {
    /// URI of the host.
    pub uri: Uri,
    /// Connection to its libvirt.
    pub libvirt: Result<Hypervisor, LibvirtError>,
    /// Way to its probe.
    pub probe: Transport,
}

impl OpenHost {
    /// Opens both ways, of which `probe` is one.
    pub fn open(uri: &Uri, probe: Transport, timeout: Duration) -> Self {
        Self { uri: uri.clone(), libvirt: probe.open_libvirt(uri, timeout), probe }
    }
}

impl CollectRequest {
    /// The request over open hosts, with their turns of measurement, and with what was seen of its VM before.
    #[must_use]
    pub fn over(
        self,
        (source, destination): (&OpenHost, &OpenHost),
        turns: &Turns,
        seen: Option<Arc<Facts>>,
    ) -> Self {
        let shared = SharedWork {
            source: source.libvirt.as_ref().ok().cloned(),
            destination: Some(destination.libvirt.clone().map_err(Unknown::from)),
            turns: turns.clone(),
            seen,
        };
        Self {
            from: source.uri.clone(),
            to: Some(destination.uri.clone()),
            source_probe: source.probe.clone(),
            destination_probe: destination.probe.clone(),
            shared,
            ..self
        }
    }

    pub(super) fn open_source(&self) -> Result<Hypervisor, LibvirtError> {
        let open = || self.source_probe.open_libvirt(&self.from, self.timeout);
        self.shared.source.clone().map_or_else(open, Ok)
    }

    /// Way to open the destination, for a thread of its own.
    pub(super) fn destination_opener(
        &self,
    ) -> impl FnOnce(&Uri) -> Result<Hypervisor, Unknown> + Send + 'static {
        let (opened, timeout) = (self.shared.destination.clone(), self.timeout);
        let way = self.destination_probe.clone();
        move |uri| opened.unwrap_or_else(|| Ok(way.open_libvirt(uri, timeout)?))
    }

    pub(super) fn turns(&self) -> Turns {
        self.shared.turns.clone()
    }

    pub(super) fn seen(&self) -> Option<&Facts> {
        self.shared.seen.as_deref()
    }
}

/// Turns of measurement on one host: one VM at a time, and none after the budget of time.
#[derive(Debug, Clone)]
pub struct Turns {
    turn: Arc<Slots>,
    /// End of the budget, and its length.
    until: Option<(Instant, Duration)>,
}

impl Default for Turns {
    fn default() -> Self {
        Self { turn: Slots::new(1), until: None }
    }
}

impl Turns {
    /// Turns that begin within this time from now.
    pub fn within(budget: Duration) -> Self {
        Self { until: Instant::now().checked_add(budget).map(|end| (end, budget)), ..Self::default() }
    }

    /// Waits for the turn. The error is the reason for which nothing more is measured.
    pub(super) fn take(&self) -> Result<Slot, Unknown> {
        let turn = self.turn.take();
        match self.until {
            Some((end, budget)) if Instant::now() >= end => Err(Unknown::new(
                Cause::NotCollected,
                format!(
                    "the time for measurements ({} s) was over before the turn of this VM: give more with --budget SECONDS, or \
                     check this VM alone",
                    budget.as_secs()
                ),
            )),
            _ => Ok(turn),
        }
    }
}

/// Takes over what was measured of the VM and learnt from its guest a moment ago, with its provenance.
pub(super) fn take_over(seen: &Facts, facts: &mut Facts) {
    facts.guest = seen.guest.clone();
    if let (Fact::Known(vm), Fact::Known(before)) = (&mut facts.vm, &seen.vm) {
        vm.dirty_rate = before.dirty_rate.clone();
        vm.dirty_windows = before.dirty_windows.clone();
        vm.dirty_trace = before.dirty_trace.clone();
    }
    let is_taken =
        |path: &str| path == "guest" || path.starts_with("guest.") || path.starts_with("vm.dirty_");
    facts.provenance.retain(|path, _| !is_taken(path));
    let taken = seen.provenance.iter().filter(|(path, _)| is_taken(path));
    facts.provenance.extend(taken.map(|(path, note)| (path.clone(), note.clone())));
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn one_vm_is_measured_at_a_time_and_none_after_the_budget() {
        let turns = Turns::within(Duration::from_mins(10));
        let (inside, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let turn = turns.take().unwrap();
                    most.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    std::thread::sleep(Duration::from_millis(5));
                    inside.fetch_sub(1, Ordering::SeqCst);
                    drop(turn);
                });
            }
        });
        assert_eq!(most.into_inner(), 1);
        let over = Turns::within(Duration::ZERO);
        let why = over.take().map(drop).unwrap_err();
        assert!(why.reason.contains("--budget"), "{}", why.reason);
    }
}
