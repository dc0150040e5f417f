//! The guest as recorded in a dirty trace: returns the pages dirtied between two moments of guest time.
//!
//! The trace is stored by tick, so that the pages dirtied in an interval are the union of a few rows of bits. Guest
//! time continues past the end of the trace at its beginning, with other pages in place of those that changed once; it
//! runs slower while QEMU throttles the vCPUs.

use std::{ops::Range, sync::OnceLock};

use vmgate_facts::trace::{DirtyTrace, TraceError};

use super::{
    random::{mix, to_unit},
    refine::{self, ReplayedPage},
};

/// RAM that KVM's dirty log clears at a time, in pages: QEMU's x-clear-bitmap-shift, 1 GiB.
pub(super) const CLEAR_CHUNK_PAGES: u64 = 1 << 18;

/// Passes through the trace whose dirtied pages are kept, and the number from which on that is quicker.
const KNOWN_LAPS: usize = 256;
const FEW_LAPS: usize = 4;

/// Dirty trace prepared for many replays.
#[derive(Debug)]
pub(super) struct TracedGuest {
    /// Number of pages that each replayed page stands for.
    pub(super) weights: Vec<f64>,
    /// The replayed pages.
    pub(super) pages: Vec<ReplayedPage>,
    /// One bit for each replayed page: set for a zero page.
    pub(super) zero: Vec<u64>,
    changed: ChangedPages,
    /// The same by whole passes through the trace, for a migration that lasts for many.
    whole_laps: OnceLock<ChangedPages>,
    /// Pages that changed in one tick only. For each page seen once there is about one more that was not seen (Good
    /// 1953): past the trace's end others take their place, or a short trace would make the guest's working set too
    /// small.
    once: Vec<u64>,
    /// Words of bits whose pages may stand for each other past the trace's end: all that contain a page that is not zero, or in
    /// a trace made of groups those of one kind. And the set and the index of each word.
    exchanged: Vec<Vec<usize>>,
    place: Vec<Option<(usize, usize)>>,
    /// True for a trace made of groups, all of whose pages are exchanged past its end.
    synthetic: bool,
    /// End of each tick since the beginning of the trace, in seconds.
    ends: Vec<f64>,
    /// Expected writes to a page in a tick beyond the one that its bit records.
    again: Vec<f64>,
    /// The whole RAM as one range, and the ranges of sampled pages whose dirty log KVM clears together, one for each GiB.
    pub(super) all: SampledPages,
    pub(super) chunks: Vec<SampledPages>,
    /// RAM in GiB.
    pub(super) ram_gib: f64,
}

/// Range of sampled pages, as words of bits.
#[derive(Debug, Clone)]
pub(super) struct SampledPages {
    first_page: usize,
    first_word: usize,
    mask: Vec<u64>,
}

impl SampledPages {
    fn new(first_page: usize, pages: usize) -> Self {
        let first_word = first_page / 64;
        let last_word = (first_page + pages).div_ceil(64);
        let mut mask = vec![0_u64; last_word - first_word];
        for page in first_page..first_page + pages {
            if let Some(word) = mask.get_mut(page / 64 - first_word) {
                *word |= 1 << (page % 64);
            }
        }
        Self { first_page, first_word, mask }
    }

    /// The pages of one word of bits that lie in this range.
    pub(super) fn word(&self, at: usize) -> u64 {
        at.checked_sub(self.first_word).and_then(|at| self.mask.get(at)).copied().unwrap_or(0)
    }

    /// Adds the pages of this range to `bits`.
    pub(super) fn add_to(&self, bits: &mut [u64]) {
        bits.iter_mut().skip(self.first_word).zip(&self.mask).for_each(|(to, mask)| *to |= mask);
    }

    /// Adds the pages of `row` that lie in this range to `bits`.
    fn add(&self, row: &[u64], bits: &mut [u64]) {
        let words = bits.iter_mut().zip(row).skip(self.first_word).zip(&self.mask);
        words.for_each(|((to, word), mask)| *to |= word & mask);
    }

    fn words<'a>(&'a self, bits: &'a [u64]) -> impl Iterator<Item = (usize, u64)> + 'a {
        let words = bits.iter().enumerate().skip(self.first_word);
        words.zip(&self.mask).map(|((at, word), mask)| (at, word & mask))
    }
}

impl TracedGuest {
    /// A trace of a guest's own pages.
    pub(super) fn new(trace: &DirtyTrace) -> Result<Self, TraceError> {
        let one_set = |_: usize, _: &[f64], zero: u64| (zero != u64::MAX).then_some(0);
        trace.check()?;
        Ok(Self::exchanging(trace, refine::replayed_pages(trace), false, one_set))
    }

    /// A trace made of groups: words of pages of the same weight are of one kind.
    pub(super) fn of_groups(trace: &DirtyTrace) -> Result<Self, TraceError> {
        trace.check()?;
        let mut kinds: Vec<(u64, bool)> = Vec::new();
        let set_of = |_: usize, weights: &[f64], zero: u64| {
            let kind = (weights.first()?.to_bits(), zero != 0);
            let known = kinds.iter().position(|known| *known == kind);
            Some(known.unwrap_or_else(|| {
                kinds.push(kind);
                kinds.len() - 1
            }))
        };
        Ok(Self::exchanging(trace, refine::as_they_are(trace), true, set_of))
    }

    fn exchanging(
        trace: &DirtyTrace,
        replayed: Vec<ReplayedPage>,
        synthetic: bool,
        mut set_of: impl FnMut(usize, &[f64], u64) -> Option<usize>,
    ) -> Self {
        let words = replayed.len().div_ceil(64);
        let ticks = trace.tick_microseconds.len();
        let mut rows = vec![vec![0_u64; words]; ticks];
        let mut zero = vec![0_u64; words];
        let mut again = Vec::with_capacity(replayed.len());
        let mut once = vec![0_u64; words];
        let set = |bits: &mut [u64], page: usize| {
            if let Some(word) = bits.get_mut(page / 64) {
                *word |= 1 << (page % 64);
            }
        };
        for (page, replayed) in replayed.iter().enumerate() {
            let mut changed = 0_usize;
            let record = replayed.sampled * ticks;
            for tick in (0..ticks).filter(|tick| trace.changes.get(record + tick)) {
                if let Some(row) = rows.get_mut((tick + replayed.lag) % ticks) {
                    set(row, page);
                    changed += 1;
                }
            }
            if trace.zero.get(replayed.sampled) {
                set(&mut zero, page);
            }
            if changed == 1 {
                set(&mut once, page);
            }
            again.push(further_writes(changed, ticks));
        }
        let weights: Vec<f64> = replayed.iter().map(|page| page.weight).collect();
        let mut exchanged: Vec<Vec<usize>> = Vec::new();
        let mut place = vec![None; words];
        for (word, (zero, weights)) in zero.iter().zip(weights.chunks(64)).enumerate() {
            let Some(set) = set_of(word, weights, *zero) else { continue };
            exchanged.resize(exchanged.len().max(set + 1), Vec::new());
            if let (Some(words), Some(place)) = (exchanged.get_mut(set), place.get_mut(word)) {
                *place = Some((set, words.len()));
                words.push(word);
            }
        }
        let mut end = 0.0;
        let ends = trace.tick_microseconds.iter().map(|tick| {
            end += f64::from(*tick) / 1e6;
            end
        });
        let place_of = |page: &ReplayedPage| trace.pages.as_slice().get(page.sampled).copied().unwrap_or(0);
        let positions: Vec<u64> = replayed.iter().map(place_of).collect();
        Self {
            ends: ends.collect(),
            all: SampledPages::new(0, replayed.len()),
            chunks: chunks(&positions),
            weights,
            pages: replayed,
            ram_gib: trace.ram_bytes as f64 / (1_u64 << 30) as f64,
            exchanged,
            place,
            synthetic,
            zero,
            changed: ChangedPages::new(rows),
            whole_laps: OnceLock::new(),
            once,
            again,
        }
    }

    /// True if the trace saw a write to the page.
    pub(super) fn is_written(&self, page: usize) -> bool {
        self.again.get(page).is_some_and(|again| *again > 0.0)
    }

    /// Length of the trace in seconds.
    pub(super) fn seconds(&self) -> f64 {
        self.ends.last().copied().unwrap_or(0.0)
    }

    /// Number of the chunk of KVM's dirty log that the page lies in.
    pub(super) fn chunk_of(&self, page: usize) -> usize {
        self.chunks.partition_point(|chunk| chunk.first_page <= page).saturating_sub(1)
    }

    /// Adds to `dirty` the pages of `span` dirtied after `from` and up to `to`, in seconds of guest time.
    /// `seed` decides on pages whose tick lies only partly in that time; the same seed decides the same for each.
    pub(super) fn dirtied(&self, from: f64, to: f64, seed: u64, span: &SampledPages, dirty: &mut [u64]) {
        let length = self.seconds();
        let (first, last) = ((from / length) as u64, (to / length) as u64);
        let mut laps = first..last + 1;
        let whole = first as usize + 1..last as usize;
        if whole.len() >= FEW_LAPS && whole.end < KNOWN_LAPS {
            self.whole_laps().over(whole).for_each(|row| span.add(row, dirty));
            self.lap(first, (from, to), seed, span, dirty);
            laps = last..last + 1;
        }
        for lap in laps {
            self.lap(lap, (from, to), seed, span, dirty);
        }
    }

    /// The part of the interval that lies in one pass through the trace.
    fn lap(&self, lap: u64, (from, to): (f64, f64), seed: u64, span: &SampledPages, dirty: &mut [u64]) {
        let began = lap as f64 * self.seconds();
        let within = ((from - began).max(0.0), (to - began).min(self.seconds()));
        self.within(lap, within, seed ^ mix(lap), span, dirty);
    }

    /// Pages dirtied in each whole pass through the trace.
    fn whole_laps(&self) -> &ChangedPages {
        self.whole_laps.get_or_init(|| {
            let row = |lap| {
                let mut row = vec![0_u64; self.zero.len()];
                self.within(lap, (0.0, self.seconds()), 0, &self.all, &mut row);
                row
            };
            ChangedPages::new((0..KNOWN_LAPS as u64).map(row).collect())
        })
    }

    fn within(&self, lap: u64, (from, to): (f64, f64), seed: u64, span: &SampledPages, dirty: &mut [u64]) {
        let tick_at = |moment| self.ends.partition_point(|end| *end <= moment);
        let begin =
            |tick: usize| tick.checked_sub(1).and_then(|at| self.ends.get(at)).copied().unwrap_or(0.0);
        let (first, last) = (tick_at(from), tick_at(to));
        let whole = if begin(first) < from { first + 1 } else { first }..last;
        let lap = Lap::new(self, lap);
        if lap.is_first() {
            self.changed.over(whole.clone()).for_each(|row| span.add(row, dirty));
        } else {
            let mut exchanged = |row: &[u64]| {
                for (at, word) in self.words(row, &lap, span) {
                    if let Some(to) = dirty.get_mut(at) {
                        *to |= word;
                    }
                }
            };
            if span.mask.len() < self.zero.len() {
                self.changed.over(whole.clone()).for_each(&mut exchanged);
            } else {
                // The same words are exchanged in each of the rows.
                let mut union = vec![0_u64; self.zero.len()];
                self.changed.over(whole.clone()).for_each(|row| self.all.add(row, &mut union));
                exchanged(&union);
            }
        }
        for tick in (first..whole.start).chain(whole.end.max(whole.start)..=last) {
            let (Some(row), Some(end)) = (self.changed.at(tick), self.ends.get(tick)) else { continue };
            let (begin, length) = (begin(tick), end - begin(tick));
            let part = ((from - begin).max(0.0) / length, ((to - begin) / length).min(1.0));
            self.partly(self.words(row, &lap, span), part, mix(seed ^ tick as u64), dirty);
        }
    }

    /// Words of a row in `span` in a pass through the trace.
    fn words<'a>(
        &'a self,
        row: &'a [u64],
        lap: &'a Lap,
        span: &'a SampledPages,
    ) -> impl Iterator<Item = (usize, u64)> + 'a {
        let of_other = move |at: usize| {
            let from = lap.other(self, at)?;
            let row = *row.get(from)?;
            Some(if self.synthetic { row } else { row & self.once.get(from)? & !self.zero.get(at)? })
        };
        span.words(row).zip(&span.mask).map(move |((at, word), mask)| match self.once.get(at) {
            Some(_) if !lap.is_first() && self.synthetic => (at, of_other(at).unwrap_or(0) & mask),
            Some(once) if !lap.is_first() => (at, (word & !once | of_other(at).unwrap_or(0)) & mask),
            _ => (at, word),
        })
    }

    /// Adds pages of a tick that lies only partly in the interval: the known write lies anywhere in the tick, further
    /// ones may too.
    fn partly(
        &self,
        row: impl Iterator<Item = (usize, u64)>,
        (begin, end): (f64, f64),
        seed: u64,
        dirty: &mut [u64],
    ) {
        for (at, word) in row {
            let Some(to) = dirty.get_mut(at) else { return };
            let mut left = word & !*to;
            while left != 0 {
                let bit = left.trailing_zeros() as usize;
                left &= left - 1;
                let page = at * 64 + bit;
                let random = mix(seed ^ ((page as u64) << 20));
                let again = self.again.get(page).copied().unwrap_or(0.0);
                let known = to_unit(random);
                let further = again > 0.01 && to_unit(mix(random)) < -libm::expm1(-again * (end - begin));
                if (known >= begin && known < end) || further {
                    *to |= 1 << bit;
                }
            }
        }
    }
}

/// Pass through the trace: by how many words of its set each word's pages are exchanged; none in the first pass.
#[derive(Debug)]
struct Lap {
    by: Vec<usize>,
}

impl Lap {
    /// The `lap`-th pass, from 0.
    fn new(guest: &TracedGuest, lap: u64) -> Self {
        let sets = guest.exchanged.iter().filter(|_| lap > 0);
        Self { by: sets.map(|words| mix(lap) as usize % words.len().max(1)).collect() }
    }

    fn is_first(&self) -> bool {
        self.by.is_empty()
    }

    /// Word whose pages stand for those of this one.
    fn other(&self, guest: &TracedGuest, at: usize) -> Option<usize> {
        let (set, index) = guest.place.get(at).copied().flatten()?;
        let words = guest.exchanged.get(set)?;
        let other = index + self.by.get(set)?;
        words.get(if other < words.len() { other } else { other - words.len() }).copied()
    }
}

/// Changed pages as a segment tree: a row of words for each tick, above them the union of each two rows, and so on, so
/// that the pages changed in any number of ticks are the union of a few rows.
#[derive(Debug)]
struct ChangedPages {
    tree: Vec<Vec<u64>>,
    ticks: usize,
}

impl ChangedPages {
    fn new(rows: Vec<Vec<u64>>) -> Self {
        let ticks = rows.len();
        let mut tree = vec![Vec::new(); ticks];
        tree.extend(rows);
        for node in (1..ticks).rev() {
            let both = tree.get(2 * node).zip(tree.get(2 * node + 1));
            let union =
                both.map(|(one, other)| one.iter().zip(other).map(|(one, other)| one | other).collect());
            if let Some((node, union)) = tree.get_mut(node).zip(union) {
                *node = union;
            }
        }
        Self { tree, ticks }
    }

    /// Row of one tick.
    fn at(&self, tick: usize) -> Option<&[u64]> {
        self.tree.get(self.ticks + tick).map(Vec::as_slice)
    }

    /// Rows whose union is the set of pages changed in these ticks.
    fn over(&self, ticks: Range<usize>) -> impl Iterator<Item = &[u64]> {
        let (mut first, mut end) = (self.ticks + ticks.start, self.ticks + ticks.end);
        let level = move || {
            let (from, to) = (first, end);
            (first, end) = (first.div_ceil(2), end / 2);
            (from < to).then(|| [(from % 2 == 1).then_some(from), (to % 2 == 1).then_some(to - 1)])
        };
        let nodes = std::iter::from_fn(level).flatten().flatten();
        nodes.filter_map(|node| self.tree.get(node)).map(Vec::as_slice)
    }
}

/// Expected number of further writes in a tick with a change, for a page that changed in `changed` of `ticks` ticks and
/// is written at random.
fn further_writes(changed: usize, ticks: usize) -> f64 {
    let probability = (changed as f64 / ticks as f64).min(1.0 - 0.5 / ticks as f64);
    if probability <= 0.0 {
        return 0.0;
    }
    -libm::log1p(-probability) / probability - 1.0
}

fn chunks(positions: &[u64]) -> Vec<SampledPages> {
    let mut first = 0;
    let by_chunk = positions.chunk_by(|a, b| a / CLEAR_CHUNK_PAGES == b / CLEAR_CHUNK_PAGES);
    let spans = by_chunk.map(|chunk| {
        let span = SampledPages::new(first, chunk.len());
        first += chunk.len();
        span
    });
    spans.collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_changed_in_some_ticks_is_the_union_of_their_rows(
            rows in prop::collection::vec(prop::collection::vec(any::<u64>(), 3), 1..40),
            cuts in (0_usize..40, 0_usize..40),
        ) {
            let (first, end) = (cuts.0.min(cuts.1).min(rows.len()), cuts.0.max(cuts.1).min(rows.len()));
            let union = |rows: &mut dyn Iterator<Item = &[u64]>| {
                rows.fold(vec![0; 3], |sum, row| sum.iter().zip(row).map(|(one, other)| one | other).collect())
            };
            let wanted: Vec<u64> = union(&mut rows[first..end].iter().map(Vec::as_slice));
            let changed = ChangedPages::new(rows.clone());
            prop_assert_eq!(union(&mut changed.over(first..end)), wanted);
            prop_assert!(changed.over(first..end).count() <= 12);
            prop_assert!((0..rows.len()).all(|tick| changed.at(tick) == rows.get(tick).map(Vec::as_slice)));
            prop_assert!(changed.at(rows.len()).is_none());
        }
    }
}
