//! Measurement of how a guest dirties memory: a page trace from the source host or, where that is not possible, QEMU's
//! page sampling in windows of several lengths, one after the other.
//!
//! Nothing else is ever asked of QEMU: its other modes kill a guest under emulation, or see nothing.

use std::{
    sync::mpsc::{RecvTimeoutError, channel},
    thread,
    time::Duration,
};

use vmgate_facts::{
    Cause, DirtyRate, DirtyRateMethod, DirtyWindow, Fact, Unknown, Vm, VmState, trace::DirtyTrace,
};
use vmgate_libvirt::Domain;
use vmgate_probe::{qemu::MONITOR, trace::TraceOptions};
use vmgate_reach::Slot;

use super::{guest, shared::Turns, transport::Transport, vm::FoundVm};

/// Longest window of page sampling, in seconds (virDomainStartDirtyRateCalc).
const LONGEST_WINDOW: u32 = 60;

/// Lengths and means of the measurement.
#[derive(Debug, Clone)]
pub(super) struct MeasurementPlan {
    /// Transport of the source's probe.
    pub(super) way: Transport,
    /// Length of the trace, in seconds; 0 for none.
    pub(super) trace_seconds: u32,
    /// Shortest window of page sampling, in seconds.
    pub(super) window_seconds: u32,
    /// Longest wait for an answer, beyond the measurement itself.
    pub(super) timeout: Duration,
}

/// Result of the measurement.
#[derive(Debug, Clone)]
pub(super) struct DirtyMeasurement {
    rate: Fact<DirtyRate>,
    windows: Fact<Vec<DirtyWindow>>,
    trace: Fact<DirtyTrace>,
    /// Collector and method, for provenance.
    pub(super) collector: &'static str,
    pub(super) method: String,
    /// Length of all windows together.
    pub(super) seconds: Option<f64>,
}

impl MeasurementPlan {
    /// Measures in this turn. Returns unknowns while a job runs on the VM.
    pub(super) fn measure(
        &self,
        domain: Option<&Domain>,
        vm: &MeasuredVm,
        (turn, turns): (Slot, &Turns),
    ) -> DirtyMeasurement {
        if let Some(why) = vm.not_possible() {
            return DirtyMeasurement::unknown(&why);
        }
        let (trace, turn) = self.trace_in_turn(vm, turn);
        match (trace, domain) {
            (Ok(trace), _) => DirtyMeasurement {
                rate: Fact::Known(trace.dirty_rate()),
                windows: Fact::Known(trace.dirty_windows()),
                seconds: Some(trace.seconds()),
                trace: Fact::Known(trace),
                collector: "host probe",
                method: self.way.method("trace"),
            },
            (Err(why), None) => DirtyMeasurement::unknown(&why),
            (Err(why), Some(domain)) => match turn.map_or_else(|| turns.take(), Ok) {
                Ok(_turn) => self.sampled(domain, why),
                Err(over) => DirtyMeasurement::unknown(&over),
            },
        }
    }

    /// Traces in this turn. It ends with the length of a trace, while the answer is still on its way: the next VM's question takes as
    /// long to the host. What is left of it comes back.
    fn trace_in_turn(&self, vm: &MeasuredVm, turn: Slot) -> (Result<DirtyTrace, Unknown>, Option<Slot>) {
        let (traced, ended) = channel::<()>();
        let length = Duration::from_secs(self.trace_seconds.into());
        thread::scope(|scope| {
            let turn = scope.spawn(move || match ended.recv_timeout(length) {
                Err(RecvTimeoutError::Timeout) => None,
                _ => Some(turn),
            });
            let trace = self.trace(vm);
            drop(traced);
            (trace, turn.join().unwrap_or_default())
        })
    }

    fn trace(&self, vm: &MeasuredVm) -> Result<DirtyTrace, Unknown> {
        if self.trace_seconds == 0 {
            return Err(Unknown::new(Cause::NotAllowed, "no memory trace was taken: --trace-seconds is 0"));
        }
        let Some(traced) = &vm.traced else {
            return Err(Unknown::new(Cause::NotCollected, "the VM's UUID is not known"));
        };
        let length = Duration::from_secs(self.trace_seconds.into());
        let trace = self.way.trace(traced, length, TraceOptions::default().core_ratio, self.timeout)?;
        trace.check().map_err(|error| Unknown::new(Cause::Malformed, error.to_string()))?;
        Ok(trace)
    }

    /// Measures by page sampling; `why` is the reason for which there is no trace. A single window says too little: see
    /// [`DirtyWindow`].
    fn sampled(&self, domain: &Domain, why: Unknown) -> DirtyMeasurement {
        let mut windows = Vec::new();
        for seconds in windows_within(self.window_seconds, self.trace_seconds) {
            match domain.dirty_rate(seconds) {
                Ok(sample) => windows.push(DirtyWindow {
                    window_seconds: f64::from(sample.window_seconds),
                    dirtied_bytes: sample.bytes_per_second.saturating_mul(sample.window_seconds.into()),
                }),
                Err(error) if windows.is_empty() => {
                    return DirtyMeasurement {
                        trace: Fact::Unknown(why),
                        ..DirtyMeasurement::unknown(&error.into())
                    };
                }
                // A job has started, or QEMU has gone: what was seen before holds.
                Err(_) => break,
            }
        }
        let rate = windows.first().map(|window| DirtyRate {
            rate_bytes_per_second: window.dirtied_bytes / u64::from(self.window_seconds.max(1)),
            window_seconds: window.window_seconds,
            method: DirtyRateMethod::PageSampling,
        });
        DirtyMeasurement {
            rate: rate
                .ok_or_else(|| Unknown::new(Cause::NotCollected, "page sampling measured no window"))
                .into(),
            seconds: Some(windows.iter().map(|window| window.window_seconds).sum()),
            windows: Fact::Known(windows),
            trace: Fact::Unknown(why),
            collector: "libvirt",
            method: "virDomainStartDirtyRateCalc, page sampling".to_owned(),
        }
    }
}

impl DirtyMeasurement {
    /// A result without figures, for this reason.
    pub(super) fn unknown(why: &Unknown) -> Self {
        Self {
            rate: Fact::Unknown(why.clone()),
            windows: Fact::Unknown(why.clone()),
            trace: Fact::Unknown(why.clone()),
            collector: "libvirt",
            method: "virDomainStartDirtyRateCalc, page sampling".to_owned(),
            seconds: None,
        }
    }

    /// The result of a worker, or unknowns with the reason for which there is none.
    pub(super) fn of(found: &Result<Self, Unknown>) -> Self {
        found.as_ref().map_or_else(Self::unknown, Self::clone)
    }

    /// Writes what was measured into the VM's facts.
    pub(super) fn into_vm(self, vm: Vm) -> Vm {
        Vm { dirty_rate: self.rate, dirty_windows: self.windows, dirty_trace: self.trace, ..vm }
    }
}

/// Facts of a VM that decide if it can be measured.
#[derive(Debug, Clone)]
pub(super) struct MeasuredVm {
    /// Name of the VM for a trace: its UUID, or its monitor.
    traced: Option<String>,
    state: VmState,
    job: Option<String>,
}

impl MeasuredVm {
    pub(super) fn of(vm: &FoundVm) -> Self {
        let monitor = vm.facts.marks.known().and_then(|marks| marks.monitor.clone());
        let by_monitor = monitor.map(|socket| format!("{MONITOR}{socket}"));
        let traced = by_monitor.or_else(|| Some(vm.uuid.as_ref()?.as_str().to_owned()));
        Self { traced, state: vm.state, job: vm.facts.job.known().cloned().flatten() }
    }

    fn not_possible(&self) -> Option<Unknown> {
        if self.state != VmState::Running {
            return Some(guest::not_running(self.state));
        }
        self.job.as_ref().map(|job| {
            Unknown::new(
                Cause::NotAllowed,
                format!("vmgate does not measure while a {job} job runs on the VM: check again after the job has ended"),
            )
        })
    }
}

/// Windows that double, at least two, and more for as long as all of them together take no longer than `most`.
fn windows_within(first: u32, most: u32) -> Vec<u32> {
    let first = first.clamp(1, LONGEST_WINDOW);
    let mut windows = vec![first];
    let mut next = first * 2;
    while next <= LONGEST_WINDOW && (windows.len() < 2 || windows.iter().sum::<u32>() + next <= most) {
        windows.push(next);
        next *= 2;
    }
    windows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_double_for_as_long_as_there_is_time() {
        assert_eq!(windows_within(1, 0), [1, 2]);
        assert_eq!(windows_within(1, 7), [1, 2, 4]);
        assert_eq!(windows_within(2, 30), [2, 4, 8, 16]);
        assert_eq!(windows_within(60, 30), [60]);
    }

    #[test]
    fn nothing_is_measured_of_a_vm_that_is_busy_or_stands_still() {
        let vm = MeasuredVm { traced: None, state: VmState::Running, job: None };
        assert_eq!(vm.not_possible(), None);
        let busy = MeasuredVm { job: Some("backup".into()), ..vm.clone() };
        assert!(busy.not_possible().unwrap().reason.contains("backup"));
        let paused = MeasuredVm { state: VmState::Paused, ..vm };
        assert_eq!(paused.not_possible().unwrap().cause, Cause::GuestNotRunning);
    }

    /// The modes that kill a guest, or see nothing, cannot be asked for: no file of the program names them.
    #[test]
    fn no_other_way_to_measure_is_ever_asked_of_qemu() {
        let forbidden =
            [["DIRTYRATE_MODE_", "DIRTY_BITMAP"], ["DIRTYRATE_MODE_", "DIRTY_RING"], ["calc-dirty-", "rate"]];
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let mut folders = vec![root.join("src"), root.join("crates")];
        let mut files = 0;
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                files += 1;
                let text = std::fs::read_to_string(&path).unwrap();
                let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
                for (line, words) in code.flat_map(|line| forbidden.iter().map(move |words| (line, words))) {
                    assert!(!line.contains(&words.concat()), "{}: {line}", path.display());
                }
            }
        }
        assert!(files > 300);
    }
}
