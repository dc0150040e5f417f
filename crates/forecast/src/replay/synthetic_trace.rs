//! Synthetic dirty trace, made from D(t), the memory dirtied in windows of several lengths, where no real trace exists.
//!
//! The windows are explained by groups of pages, each written at random at one rate: D(t) = Σ Nₖ (1 − e^(−λₖ t)),
//! fitted by non-negative least squares. The groups are then written as a trace, so that one replay serves both.
//! Unknown positions are spread: groups lie anywhere in RAM.

use vmgate_facts::{
    DirtyWindow,
    trace::{Bits, DirtyTrace, PAGE_BYTES, Positions, Stratum, TraceCost, TraceEnd, TraceSchema},
};

use super::random::Random;

/// Group of pages written at random, all at the same average rate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PageGroup {
    /// Number of pages in the group.
    pub pages: f64,
    /// Writes to one page per second.
    pub rate: f64,
}

const PAGES: u32 = 4096;
const TICK_SECONDS: f64 = 0.1;
const TICKS: usize = 300;
/// Number of sweeps, enough to separate rates this close.
const SWEEPS: u32 = 40_000;
/// Possible rates of a group: three per decade.
const RATES: [f64; 13] = [0.003, 0.0065, 0.014, 0.03, 0.065, 0.14, 0.3, 0.65, 1.4, 3.0, 6.5, 14.0, 30.0];

/// Fits groups of pages that explain the windows, with at most as many pages as the RAM has.
pub fn fit_page_groups(windows: &[DirtyWindow], ram_bytes: u64) -> Vec<PageGroup> {
    let most = (ram_bytes / PAGE_BYTES) as f64;
    let seen: Vec<(f64, f64)> = windows
        .iter()
        .map(|seen| (seen.window_seconds, seen.dirtied_bytes as f64 / PAGE_BYTES as f64))
        .collect();
    let mut groups = RATES.map(|rate| (PageGroup { pages: 0.0, rate }, parts(rate, &seen)));
    // Coordinate descent: each group in turn takes the residual of the others, and never less than nothing. Residuals
    // are relative to the window's own figure, or the longest window alone would count.
    let mut left = vec![1.0; seen.len()];
    for _ in 0..SWEEPS {
        for (group, parts) in &mut groups {
            let up: f64 = parts.iter().zip(&left).map(|(part, left)| part * left).sum();
            let down: f64 = parts.iter().map(|part| part * part).sum();
            let taken = if down > 0.0 { (up / down).max(-group.pages) } else { 0.0 };
            left.iter_mut().zip(parts).for_each(|(left, part)| *left -= taken * *part);
            group.pages += taken;
        }
    }
    let groups = groups.map(|(group, _)| group);
    let sum: f64 = groups.iter().map(|group| group.pages).sum();
    let scale = if sum > most { most / sum } else { 1.0 };
    let scaled = groups.into_iter().map(|group| PageGroup { pages: group.pages * scale, ..group });
    scaled.filter(|group| group.pages > 0.5).collect()
}

/// Contribution of one page with this rate to each window, relative to the measured figure.
fn parts(rate: f64, seen: &[(f64, f64)]) -> Vec<f64> {
    seen.iter().map(|(window, pages)| share(rate, *window) / pages.max(1.0)).collect()
}

fn share(rate: f64, window: f64) -> f64 {
    -libm::expm1(-rate * window)
}

/// Creates the trace of a guest with these groups, of whose other pages the share `zero_ratio` is zero.
pub fn from_page_groups(groups: &[PageGroup], ram_bytes: u64, zero_ratio: f64, seed: u64) -> DirtyTrace {
    let ram_pages = (ram_bytes / PAGE_BYTES).max(1);
    let sampled = u32::try_from(ram_pages).unwrap_or(PAGES).min(PAGES);
    let positions = (0..u64::from(sampled)).map(|at| at * ram_pages / u64::from(sampled)).collect();
    let mut random = Random::new(seed);
    let mut changes = Bits::clear(sampled as usize * TICKS);
    let mut zero = Bits::clear(sampled as usize);
    for page in 0..sampled as usize {
        match group_of(groups, ram_pages as f64, random.unit()) {
            Some(rate) => {
                let chance = share(rate, TICK_SECONDS);
                (0..TICKS)
                    .filter(|_| random.unit() < chance)
                    .for_each(|tick| changes.set(page * TICKS + tick));
            }
            None if random.unit() < zero_ratio => zero.set(page),
            None => {}
        }
    }
    DirtyTrace {
        schema: TraceSchema::V1,
        ram_bytes: ram_pages * PAGE_BYTES,
        strata: vec![Stratum { pages: ram_pages, sampled }],
        pages: Positions::new(positions),
        tick_microseconds: vec![100_000; TICKS].into(),
        changes,
        zero,
        absent_ratio: 0.0,
        swapped_ratio: 0.0,
        deltas: None,
        compressed_ratio: None,
        vcpu_busy_ratio: None,
        cost: TraceCost::default(),
        ended: TraceEnd::Complete,
    }
}

/// Rate of the group of a page drawn at random; `None` for a page that nothing writes.
fn group_of(groups: &[PageGroup], ram_pages: f64, drawn: f64) -> Option<f64> {
    let mut below = 0.0;
    groups.iter().find_map(|group| {
        below += group.pages / ram_pages;
        (drawn < below).then_some(group.rate)
    })
}
