//! D(t): memory dirtied in windows of several lengths, computed from a dirty trace.

use super::{DirtyTrace, PAGE_BYTES};
use crate::{DirtyRate, DirtyRateMethod, DirtyWindow};

/// Window lengths in seconds; those longer than the trace are left out.
const LENGTHS: [f64; 9] = [0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0];

impl DirtyTrace {
    /// Memory dirtied in windows of several lengths, the mean over all whole windows of the trace.
    pub fn dirty_windows(&self) -> Vec<DirtyWindow> {
        let ticks = self.tick_microseconds.len();
        let tick_seconds = self.seconds() / ticks.max(1) as f64;
        let in_window = |length: f64| (length / tick_seconds).round() as usize;
        let lengths: Vec<(f64, usize)> = LENGTHS
            .iter()
            .map(|length| (*length, in_window(*length)))
            .filter(|(_, window)| (1..=ticks).contains(window))
            .collect();
        let mut dirtied = vec![0.0; lengths.len()];
        for (page, weight) in self.weights().iter().enumerate() {
            let begin = page * ticks;
            let changed: Vec<usize> =
                self.changes.ones_between(begin, begin + ticks).map(|at| at - begin).collect();
            for (sum, (_, window)) in dirtied.iter_mut().zip(&lengths) {
                *sum += weight * windows_with_one(&changed, *window, ticks / window) as f64;
            }
        }
        let mean = |sum: f64, window: usize| sum / (ticks / window) as f64 * PAGE_BYTES as f64;
        dirtied
            .iter()
            .zip(&lengths)
            .map(|(sum, (length, window))| DirtyWindow {
                window_seconds: *length,
                dirtied_bytes: mean(*sum, *window).round() as u64,
            })
            .collect()
    }

    /// Dirty rate per second, the mean over all whole seconds; over the longest window where the trace is shorter.
    pub fn dirty_rate(&self) -> DirtyRate {
        let windows = self.dirty_windows();
        let second = windows.iter().rev().find(|seen| seen.window_seconds <= 1.0);
        let (window_seconds, dirtied_bytes) =
            second.map_or((self.seconds(), 0), |seen| (seen.window_seconds, seen.dirtied_bytes));
        DirtyRate {
            rate_bytes_per_second: (dirtied_bytes as f64 / window_seconds).round() as u64,
            window_seconds,
            method: DirtyRateMethod::Trace,
        }
    }
}

/// Number of windows, among the first `windows` of `window` ticks each, that contain one of the rising `changed` ticks.
fn windows_with_one(changed: &[usize], window: usize, windows: usize) -> usize {
    let numbers = changed.iter().map(|tick| tick / window).filter(|number| *number < windows);
    let mut last = None;
    numbers.filter(|number| last.replace(*number) != Some(*number)).count()
}
