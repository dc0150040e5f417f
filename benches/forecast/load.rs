//! Other load of the machine: distinguishes a case on a busy machine from a bad forecast.
//!
//! Pressure counts every waiting task, builds at idle priority too. What a guest lost of its time is told by its QEMU's own threads.

use std::{fs, time::Instant};

use serde::{Deserialize, Serialize};

/// Share of its time that a guest may wait for a processor on a quiet machine.
pub(crate) const BUSY: f64 = 0.05;

/// Time that a process's threads waited for a processor so far, in seconds; none once it is gone.
pub(crate) fn waited_seconds(pid: u32) -> Option<f64> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    let waited = threads.flatten().filter_map(|thread| {
        let schedule = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        schedule.split_whitespace().nth(1)?.parse::<f64>().ok()
    });
    Some(waited.sum::<f64>() / 1e9)
}

/// Counters of the machine at a moment.
pub(crate) struct Load {
    at: Instant,
    stalled_seconds: f64,
    stolen_seconds: f64,
}

/// Load of the machine between two moments.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Pressure {
    /// Share of the time in which some task waited for a CPU (PSI, /proc/pressure/cpu).
    pub(crate) stalled_ratio: f64,
    /// CPU time that the hypervisor below gave to others, by time.
    pub(crate) stolen_ratio: f64,
}

impl Load {
    pub(crate) fn now() -> Self {
        let pressure = fs::read_to_string("/proc/pressure/cpu").unwrap_or_default();
        let total = pressure.split("total=").nth(1).and_then(|rest| rest.split_whitespace().next());
        let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
        let steal = stat.lines().next().and_then(|line| line.split_whitespace().nth(8));
        let number = |text: Option<&str>| text.and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0);
        Self {
            at: Instant::now(),
            stalled_seconds: number(total) / 1e6,
            stolen_seconds: number(steal) / 100.0,
        }
    }

    pub(crate) fn since(&self) -> Pressure {
        let now = Self::now();
        let seconds = (now.at - self.at).as_secs_f64().max(1e-3);
        Pressure {
            stalled_ratio: (now.stalled_seconds - self.stalled_seconds) / seconds,
            stolen_ratio: (now.stolen_seconds - self.stolen_seconds) / seconds,
        }
    }
}
