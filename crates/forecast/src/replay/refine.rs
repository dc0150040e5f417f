//! Replayed pages: the pages of a trace's sample, those with content split into several.
//!
//! A sampled page stands for many of the guest's. Taken as one lump, they would all be dirty at the same moment, and whether the
//! rest of memory falls below QEMU's threshold would be decided by the size of a lump. They are written as often as the sampled
//! page, but at moments of their own: each part of a split page follows the same record with a lag. All are split alike, since past
//! the trace's end they may stand for each other. Zero pages are joined in return, so that the number to compute stays bounded.

use vmgate_facts::trace::DirtyTrace;

use super::guest::CLEAR_CHUNK_PAGES;

/// Number of replayed pages up to which pages are split, and the part of it for zero pages.
const MOST: usize = 8192;
const ZERO: usize = MOST / 8;
/// Most parts of a page.
const MOST_PARTS: usize = 64;
/// Longest lag, in ticks.
const LAG_TICKS: usize = 1;

/// One replayed page.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct ReplayedPage {
    /// Its page in the sample, or the first of those that it joins.
    pub(super) sampled: usize,
    /// Number of pages of the sample that it joins.
    pub(super) joined: usize,
    /// Number of the guest's pages that it stands for.
    pub(super) weight: f64,
    /// Ticks by which it is written later than the sampled page.
    pub(super) lag: usize,
}

/// The pages of a trace as they are, for one that was made of groups.
pub(super) fn as_they_are(trace: &DirtyTrace) -> Vec<ReplayedPage> {
    let page = |(sampled, weight)| ReplayedPage { sampled, joined: 1, weight, lag: 0 };
    trace.weights().into_iter().enumerate().map(page).collect()
}

/// Replayed pages of a trace, in the order of the guest's memory.
pub(super) fn replayed_pages(trace: &DirtyTrace) -> Vec<ReplayedPage> {
    let ticks = trace.tick_microseconds.len();
    let weights = trace.weights();
    let positions = trace.pages.as_slice();
    let mut is_zero: Vec<bool> = (0..weights.len()).map(|page| trace.zero.get(page)).collect();
    for change in trace.changes.ones_between(0, trace.changes.len()) {
        if let Some(is_zero) = is_zero.get_mut(change / ticks) {
            *is_zero = false;
        }
    }
    let zero = is_zero.iter().filter(|is_zero| **is_zero).count();
    let most_joined = zero.div_ceil(ZERO).max(1);
    let parts_each = (MOST - ZERO) / (weights.len() - zero).max(1);
    let chunk = |page: usize| positions.get(page).map(|position| position / CLEAR_CHUNK_PAGES);
    let mut pages: Vec<ReplayedPage> = Vec::new();
    let mut last_is_zero = false;
    for (sampled, (weight, is_zero)) in weights.iter().zip(&is_zero).enumerate() {
        let joins = last_is_zero;
        last_is_zero = *is_zero;
        if !is_zero {
            let parts = (*weight as usize).min(parts_each).clamp(1, MOST_PARTS);
            let part = |part| {
                let (weight, lag) = (weight / parts as f64, part % (LAG_TICKS + 1));
                ReplayedPage { sampled, joined: 1, weight, lag }
            };
            pages.extend((0..parts).map(part));
            continue;
        }
        match pages.last_mut() {
            Some(last) if joins && last.joined < most_joined && chunk(last.sampled) == chunk(sampled) => {
                last.weight += weight;
                last.joined += 1;
            }
            _ => pages.push(ReplayedPage { sampled, joined: 1, weight: *weight, lag: 0 }),
        }
    }
    pages
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::{guest::TracedGuest, tests::guest};

    #[test]
    fn pages_with_content_are_split_alike_and_the_memory_stays_the_same() {
        let mut trace = guest(256, 16, 100, |page, tick| {
            page.is_multiple_of(256) && (page as usize / 256 + tick).is_multiple_of(7)
        });
        (0..trace.pages.as_slice().len()).filter(|page| page % 16 > 3).for_each(|page| trace.zero.set(page));
        let pages = replayed_pages(&trace);
        let sum = |pages: &[ReplayedPage]| pages.iter().map(|page| page.weight).sum::<f64>();
        assert!((sum(&pages) - trace.weights().iter().sum::<f64>()).abs() < 1e-6);
        assert!(pages.len() <= MOST, "{}", pages.len());
        let (zero, others): (Vec<&ReplayedPage>, Vec<&ReplayedPage>) =
            pages.iter().partition(|page| trace.zero.get(page.sampled));
        assert!(others.iter().all(|page| (page.weight - 16.0 / 7.0).abs() < 1e-9), "{:?}", others.first());
        assert_eq!(zero.iter().map(|page| page.joined).sum::<usize>(), trace.zero.ones());
    }

    /// A guest of the same dirty rate, in lumps and in parts: the memory dirtied in a moment varies less.
    #[test]
    fn the_memory_dirtied_in_a_moment_hardly_varies() {
        let mut trace = guest(256, 16, 100, |page, tick| {
            page.is_multiple_of(256) && (page as usize / 256 * 37 + tick).is_multiple_of(13)
        });
        (0..trace.pages.as_slice().len()).filter(|page| page % 16 > 0).for_each(|page| trace.zero.set(page));
        let spread = |guest: &TracedGuest| {
            let dirtied = |at: u32| {
                let from = 0.5 + f64::from(at) * 0.031;
                let mut bits = vec![0_u64; guest.zero.len()];
                guest.dirtied(from, from + 0.02, 1, &guest.all, &mut bits);
                let is_dirty =
                    |page: usize| bits.get(page / 64).is_some_and(|word| word >> (page % 64) & 1 == 1);
                guest
                    .weights
                    .iter()
                    .enumerate()
                    .filter(|(page, _)| is_dirty(*page))
                    .map(|(_, weight)| weight)
                    .sum()
            };
            let seen: Vec<f64> = (0..60).map(dirtied).collect();
            let mean = seen.iter().sum::<f64>() / seen.len() as f64;
            let off = seen.iter().map(|one| (one - mean).powi(2)).sum::<f64>() / seen.len() as f64;
            off.sqrt() / mean
        };
        let (split, lumps) = (TracedGuest::new(&trace).unwrap(), TracedGuest::of_groups(&trace).unwrap());
        assert!(spread(&split) < 0.6 * spread(&lumps), "{} and {}", spread(&split), spread(&lumps));
    }
}
