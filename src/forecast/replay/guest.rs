//! The guest as the trace shows it: which pages it dirties between two moments of its own time.
//!
//! The trace is laid out by tick, so that what was dirtied over a while is the union of a few rows of bits. Guest time
//! goes on past the end of the trace at its beginning, with other pages in place of those that changed once; it runs
//! slower while QEMU throttles the vCPUs.

use std::borrow::Cow;

use crate::fact::trace::{DirtyTrace, TraceError};

use super::random::{mix, to_unit};

/// RAM that KVM's dirty log clears at a time, in pages: QEMU's x-clear-bitmap-shift, 1 GiB.
const CLEAR_CHUNK_PAGES: u64 = 1 << 18;

/// A trace made ready to be replayed many times.
#[derive(Debug)]
pub(super) struct Guest {
    /// Pages that each sampled page stands for.
    pub(super) weights: Vec<f64>,
    /// A bit for each sampled page: zero.
    pub(super) zero: Vec<u64>,
    /// Changed pages, a row of words for each tick, and for all of them together.
    rows: Vec<Vec<u64>>,
    ever: Vec<u64>,
    /// Pages that changed in one tick alone. Of pages seen once there are about as many more that were not seen (Good 1953):
    /// past the trace's end others take their place, or a short trace would make a guest's working set too small.
    once: Vec<u64>,
    /// Words of bits with a page in them that is not zero: where those others lie.
    used: Vec<usize>,
    /// End of each tick from the trace's beginning, in seconds.
    ends: Vec<f64>,
    /// Writes that a page is expected to see in a tick beyond the one that its bit tells of.
    again: Vec<f64>,
    /// Ranges of sampled pages whose dirty log is cleared together under KVM, one a GiB.
    pub(super) chunks: Vec<Span>,
    /// RAM in GiB.
    pub(super) ram_gib: f64,
}

/// A range of sampled pages as words of bits.
#[derive(Debug, Clone)]
pub(super) struct Span {
    pub(super) first_page: usize,
    pub(super) pages: usize,
    first_word: usize,
    mask: Vec<u64>,
}

impl Span {
    pub(super) fn new(first_page: usize, pages: usize) -> Self {
        let first_word = first_page / 64;
        let last_word = (first_page + pages).div_ceil(64);
        let mut mask = vec![0_u64; last_word - first_word];
        for page in first_page..first_page + pages {
            if let Some(word) = mask.get_mut(page / 64 - first_word) {
                *word |= 1 << (page % 64);
            }
        }
        Self { first_page, pages, first_word, mask }
    }

    /// Pairs the words of `bits` in this range with those of `other` and the range's mask.
    pub(super) fn zip<'a>(
        &'a self,
        bits: &'a mut [u64],
        other: &'a [u64],
    ) -> impl Iterator<Item = (&'a mut u64, u64)> {
        let other = other.iter().skip(self.first_word);
        bits.iter_mut()
            .skip(self.first_word)
            .zip(other)
            .zip(&self.mask)
            .map(|((to, from), mask)| (to, from & mask))
    }

    fn words<'a>(&'a self, bits: &'a [u64]) -> impl Iterator<Item = (usize, u64)> + 'a {
        let words = bits.iter().enumerate().skip(self.first_word);
        words.zip(&self.mask).map(|((at, word), mask)| (at, word & mask))
    }
}

impl Guest {
    pub(super) fn new(trace: &DirtyTrace) -> Result<Self, TraceError> {
        trace.check()?;
        let pages = trace.pages.as_slice().len();
        let words = pages.div_ceil(64);
        let ticks = trace.tick_microseconds.len();
        let mut rows = vec![vec![0_u64; words]; ticks];
        let mut zero = vec![0_u64; words];
        let mut again = Vec::with_capacity(pages);
        let mut once = vec![0_u64; words];
        for page in 0..pages {
            let bit = 1_u64 << (page % 64);
            let mut changed = 0_usize;
            for (tick, row) in rows.iter_mut().enumerate() {
                if trace.changes.get(page * ticks + tick)
                    && let Some(word) = row.get_mut(page / 64)
                {
                    *word |= bit;
                    changed += 1;
                }
            }
            if trace.zero.get(page)
                && let Some(word) = zero.get_mut(page / 64)
            {
                *word |= bit;
            }
            if changed == 1
                && let Some(word) = once.get_mut(page / 64)
            {
                *word |= bit;
            }
            again.push(further_writes(changed, ticks));
        }
        let mut ever = vec![0_u64; words];
        for row in &rows {
            ever.iter_mut().zip(row).for_each(|(to, from)| *to |= from);
        }
        let mut end = 0.0;
        let ends = trace.tick_microseconds.iter().map(|tick| {
            end += f64::from(*tick) / 1e6;
            end
        });
        Ok(Self {
            ends: ends.collect(),
            chunks: chunks(trace.pages.as_slice()),
            weights: trace.weights(),
            ram_gib: trace.ram_bytes as f64 / (1_u64 << 30) as f64,
            used: (0..words).filter(|at| zero.get(*at).is_some_and(|word| *word != u64::MAX)).collect(),
            zero,
            rows,
            ever,
            once,
            again,
        })
    }

    /// Length of the trace.
    pub(super) fn seconds(&self) -> f64 {
        self.ends.last().copied().unwrap_or(0.0)
    }

    /// The whole RAM as one range.
    pub(super) fn all(&self) -> Span {
        Span::new(0, self.weights.len())
    }

    /// Adds to `dirty` the pages of `span` dirtied after `from` and up to `to`, in seconds of guest time.
    /// `seed` decides on pages whose tick lies only partly in that time; the same seed decides the same for each.
    pub(super) fn dirtied(&self, from: f64, to: f64, seed: u64, span: &Span, dirty: &mut [u64]) {
        let length = self.seconds();
        for lap in (from / length) as u64..=(to / length) as u64 {
            let began = lap as f64 * length;
            let (from, to) = ((from - began).max(0.0), (to - began).min(length));
            if from <= 0.0 && to >= length {
                span.zip(dirty, &self.in_lap(&self.ever, lap)).for_each(|(to, from)| *to |= from);
            } else {
                self.within(lap, (from, to), seed ^ mix(lap), span, dirty);
            }
        }
    }

    /// A row as it is when the trace is gone through for the `lap`-th time, from 0.
    fn in_lap<'r>(&self, row: &'r [u64], lap: u64) -> Cow<'r, [u64]> {
        if lap == 0 {
            return Cow::Borrowed(row);
        }
        let mut out: Vec<u64> = row.iter().zip(&self.once).map(|(row, once)| row & !once).collect();
        let by = mix(lap) as usize % self.used.len().max(1);
        let others = self.used.iter().cycle().skip(by);
        for (&from, &to) in self.used.iter().zip(others) {
            let moved = row.get(from).zip(self.once.get(from)).map_or(0, |(row, once)| row & once);
            let zero = self.zero.get(to).copied().unwrap_or(0);
            if let Some(word) = out.get_mut(to) {
                *word |= moved & !zero;
            }
        }
        Cow::Owned(out)
    }

    fn within(&self, lap: u64, (from, to): (f64, f64), seed: u64, span: &Span, dirty: &mut [u64]) {
        let first = self.ends.partition_point(|end| *end <= from);
        let mut begin = first.checked_sub(1).and_then(|at| self.ends.get(at)).copied().unwrap_or(0.0);
        for (tick, (row, end)) in self.rows.iter().zip(&self.ends).enumerate().skip(first) {
            if begin >= to {
                return;
            }
            let row = self.in_lap(row, lap);
            if begin >= from && *end <= to {
                span.zip(dirty, &row).for_each(|(to, from)| *to |= from);
            } else {
                let length = end - begin;
                let part = ((from - begin).max(0.0) / length, ((to - begin) / length).min(1.0));
                self.partly(&row, part, mix(seed ^ tick as u64), span, dirty);
            }
            begin = *end;
        }
    }

    /// A page of a tick of which only a part counts: its one known write lies anywhere in the tick, further ones may too.
    fn partly(&self, row: &[u64], (begin, end): (f64, f64), seed: u64, span: &Span, dirty: &mut [u64]) {
        for (at, word) in span.words(row) {
            let Some(to) = dirty.get_mut(at) else { return };
            let mut left = word & !*to;
            while left != 0 {
                let bit = left.trailing_zeros() as usize;
                left &= left - 1;
                let page = at * 64 + bit;
                let random = mix(seed ^ ((page as u64) << 20));
                let again = self.again.get(page).copied().unwrap_or(0.0);
                let known = to_unit(random);
                let further = again > 0.01 && to_unit(mix(random)) < -(-again * (end - begin)).exp_m1();
                if (known >= begin && known < end) || further {
                    *to |= 1 << bit;
                }
            }
        }
    }
}

/// Of a page that changed in so many ticks: with writes at random, how many further ones a tick with a change has.
fn further_writes(changed: usize, ticks: usize) -> f64 {
    let probability = (changed as f64 / ticks as f64).min(1.0 - 0.5 / ticks as f64);
    if probability <= 0.0 {
        return 0.0;
    }
    -(-probability).ln_1p() / probability - 1.0
}

fn chunks(positions: &[u64]) -> Vec<Span> {
    let mut first = 0;
    let by_chunk = positions.chunk_by(|a, b| a / CLEAR_CHUNK_PAGES == b / CLEAR_CHUNK_PAGES);
    let spans = by_chunk.map(|chunk| {
        let span = Span::new(first, chunk.len());
        first += chunk.len();
        span
    });
    spans.collect()
}
