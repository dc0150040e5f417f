//! Model of QEMU's dirty bitmap and of the cursor that walks it.
//!
//! The cursor continues from its last position, in address order and round again; a sync does not move it. Under TCG a
//! page counts as dirty again from the sync on. KVM clears its log one GiB at a time when the cursor enters that GiB,
//! so pages count as dirty again only from then on.

use vmgate_facts::Accelerator;

use super::guest::TracedGuest;

/// Dirty pages still to be sent, represented by the sampled pages. Figures are in pages of the whole RAM.
#[derive(Debug)]
pub(super) struct DirtyPages<'a> {
    guest: &'a TracedGuest,
    /// Pages that each sampled page stands for in this run; those that stand for none are left out of `alive`.
    weights: &'a [f64],
    alive: Vec<u64>,
    bits: Vec<u64>,
    pages: f64,
    cursor: usize,
    sent_of_cursor: f64,
    passes: u32,
    seed: u64,
    synced_at: f64,
    /// Time when each chunk of KVM's dirty log was cleared; `None` while it still holds the pages that the last sync
    /// reported. Empty under emulation.
    cleared_at: Vec<Option<f64>>,
    /// Pages that KVM's log has reported and not cleared.
    reported: Vec<u64>,
}

/// Sampled page at the cursor.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct PageAtCursor {
    /// Number of the page.
    pub(super) page: usize,
    /// Number of dirty pages left among those that the page stands for.
    pub(super) left: f64,
    /// True if the page is zero.
    pub(super) zero: bool,
}

impl<'a> DirtyPages<'a> {
    /// Marks all of RAM dirty, as at the start of a migration, at guest time `now`.
    pub(super) fn all(
        guest: &'a TracedGuest,
        weights: &'a [f64],
        accelerator: Accelerator,
        seed: u64,
        now: f64,
    ) -> Self {
        let mut alive = vec![0_u64; guest.zero.len()];
        for (word, weights) in alive.iter_mut().zip(weights.chunks(64)) {
            *word = weights.iter().rev().fold(0, |word, weight| word << 1 | u64::from(*weight > 0.0));
        }
        let chunks = match accelerator {
            Accelerator::Kvm => guest.chunks.len(),
            Accelerator::Tcg => 0,
        };
        Self {
            guest,
            pages: weights.iter().sum(),
            weights,
            bits: alive.clone(),
            cleared_at: vec![None; chunks],
            reported: alive.clone(),
            alive,
            cursor: 0,
            sent_of_cursor: 0.0,
            passes: 0,
            seed,
            synced_at: now,
        }
    }

    /// Number of dirty pages.
    pub(super) fn pages(&self) -> f64 {
        self.pages
    }

    /// Number of times that the cursor has passed the end of RAM.
    pub(super) fn passes(&self) -> u32 {
        self.passes
    }

    /// Next dirty page at or after the cursor, continuing from the beginning of RAM; `None` when all pages are clean.
    pub(super) fn seek(&mut self, now: f64) -> Option<PageAtCursor> {
        if !self.is_set(self.cursor) {
            let found = if let Some(page) = self.find(self.cursor) {
                page
            } else {
                self.passes += 1;
                self.find(0)?
            };
            self.cursor = found;
            self.sent_of_cursor = 0.0;
        }
        self.enter(now);
        let weight = self.weights.get(self.cursor).copied().unwrap_or(0.0);
        let zero =
            self.guest.zero.get(self.cursor / 64).is_some_and(|word| word >> (self.cursor % 64) & 1 == 1);
        Some(PageAtCursor { page: self.cursor, left: weight - self.sent_of_cursor, zero })
    }

    fn is_set(&self, page: usize) -> bool {
        self.bits.get(page / 64).is_some_and(|word| word >> (page % 64) & 1 == 1)
    }

    fn find(&self, from: usize) -> Option<usize> {
        let mut words = self.bits.iter().enumerate().skip(from / 64);
        let (at, first) = words.next()?;
        let first = first & (u64::MAX << (from % 64));
        let (at, word) = if first == 0 {
            words.find(|(_, word)| **word != 0).map(|(at, word)| (at, *word))?
        } else {
            (at, first)
        };
        Some(at * 64 + word.trailing_zeros() as usize)
    }

    /// Clears KVM's log of the chunk at the cursor, as happens before its first page is sent after a sync.
    fn enter(&mut self, now: f64) {
        if let Some(cleared_at) = self.cleared_at.get_mut(self.guest.chunk_of(self.cursor)) {
            cleared_at.get_or_insert(now);
        }
    }

    /// Dirty pages from the cursor on whose sending may be computed together: those of its word of bits, in its chunk.
    pub(super) fn ahead(&self) -> impl Iterator<Item = PageAtCursor> {
        let (at, guest) = (self.cursor / 64, self.guest);
        let of = |bits: &[u64]| bits.get(at).copied().unwrap_or(0);
        let mut left = of(&self.bits) & (u64::MAX << (self.cursor % 64));
        if !self.cleared_at.is_empty() {
            left &= guest.chunks.get(guest.chunk_of(self.cursor)).map_or(0, |chunk| chunk.word(at));
        }
        let (zero, mut sent) = (of(&guest.zero), self.sent_of_cursor);
        std::iter::from_fn(move || {
            let bit = (left != 0).then(|| left.trailing_zeros() as usize)?;
            left &= left - 1;
            let page = at * 64 + bit;
            let weight = self.weights.get(page).copied().unwrap_or(0.0);
            Some(PageAtCursor { page, left: weight - std::mem::take(&mut sent), zero: zero >> bit & 1 == 1 })
        })
    }

    /// Records that these pages, the next ones [`Self::ahead`], were sent.
    pub(super) fn sent_ahead(&mut self, pages: &[PageAtCursor]) {
        for at in pages {
            if let Some(word) = self.bits.get_mut(at.page / 64) {
                *word &= !(1 << (at.page % 64));
            }
            self.pages -= at.left;
            self.cursor = at.page;
        }
        self.pages = self.pages.max(0.0);
        self.sent_of_cursor = 0.0;
    }

    /// Records that pages at the cursor were sent; no more than were left.
    pub(super) fn sent(&mut self, pages: f64) {
        self.pages = (self.pages - pages).max(0.0);
        self.sent_of_cursor += pages;
        let weight = self.weights.get(self.cursor).copied().unwrap_or(0.0);
        if self.sent_of_cursor >= weight - 1e-6 {
            if let Some(word) = self.bits.get_mut(self.cursor / 64) {
                *word &= !(1 << (self.cursor % 64));
            }
            self.sent_of_cursor = 0.0;
        }
    }

    /// Synchronises with the dirty log at guest time `now`; returns the number of clean pages that became dirty.
    pub(super) fn sync(&mut self, now: f64) -> f64 {
        let (before, left_of_cursor) = (self.pages, self.sent_of_cursor);
        let cursor_was_set = self.is_set(self.cursor);
        let mut new = vec![0_u64; self.bits.len()];
        self.guest.dirtied(self.synced_at, now, self.seed, &self.guest.all, &mut new);
        if !self.cleared_at.is_empty() {
            self.read_log(now, &mut new);
        }
        new.iter_mut().zip(&self.alive).for_each(|(word, alive)| *word &= alive);
        // The sent part of a page that was sent in part is dirty again.
        let again =
            |bits: &[u64], at: usize| bits.get(at / 64).is_some_and(|word| word >> (at % 64) & 1 == 1);
        if !cursor_was_set || again(&new, self.cursor) {
            self.sent_of_cursor = 0.0;
        }
        self.pages = before + left_of_cursor - self.sent_of_cursor + self.add(&new);
        self.synced_at = now;
        (self.pages - before).max(0.0)
    }

    /// Makes of the pages `new` since the last sync those that KVM's log reports.
    fn read_log(&mut self, now: f64, new: &mut [u64]) {
        let (mut cleared, mut since_clear) = (vec![0_u64; new.len()], vec![0_u64; new.len()]);
        for (span, cleared_at) in self.guest.chunks.iter().zip(&mut self.cleared_at) {
            if let Some(cleared_at) = cleared_at.take() {
                span.add_to(&mut cleared);
                self.guest.dirtied(cleared_at, now, self.seed, span, &mut since_clear);
            }
        }
        let masks = cleared.iter().zip(&since_clear);
        for ((new, reported), (cleared, since_clear)) in new.iter_mut().zip(&mut self.reported).zip(masks) {
            let log = cleared & (*new & !*reported | since_clear) | !cleared & (*new | *reported);
            (*new, *reported) = (log, log);
        }
    }

    /// Marks pages dirty; returns the number of those that were clean.
    fn add(&mut self, new: &[u64]) -> f64 {
        let mut sum = 0.0;
        for ((bits, new), weights) in self.bits.iter_mut().zip(new).zip(self.weights.chunks(64)) {
            let mut left = new & !*bits;
            *bits |= new;
            while left != 0 {
                sum += weights.get(left.trailing_zeros() as usize).copied().unwrap_or(0.0);
                left &= left - 1;
            }
        }
        sum
    }
}
