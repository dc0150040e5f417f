//! Model of QEMU's dirty bitmap and of the cursor that walks it.
//!
//! The cursor continues from its last position, in address order and round again; a sync does not move it. Under TCG a
//! page counts as dirty again from the sync on. KVM clears its log one GiB at a time when the cursor enters that GiB,
//! so pages count as dirty again only from then on.

use vmgate_facts::Accelerator;

use super::guest::{SampledPages, TracedGuest};

/// Dirty pages still to be sent, represented by the sampled pages. Figures are in pages of the whole RAM.
#[derive(Debug)]
pub(super) struct DirtyPages<'a> {
    guest: &'a TracedGuest,
    /// Pages that each sampled page stands for in this run; those that stand for none are left out of `alive`.
    weights: Vec<f64>,
    alive: Vec<u64>,
    bits: Vec<u64>,
    pages: f64,
    cursor: usize,
    sent_of_cursor: f64,
    passes: u32,
    seed: u64,
    synced_at: f64,
    all: SampledPages,
    chunks: Vec<DirtyLogChunk>,
    chunk_at_cursor: Option<usize>,
}

/// Part of RAM whose dirty log KVM clears together.
#[derive(Debug)]
struct DirtyLogChunk {
    span: SampledPages,
    /// Time when the log was cleared; `None` while it still holds the pages that the last sync reported.
    cleared_at: Option<f64>,
    /// Pages that the log has reported and not cleared.
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
        weights: Vec<f64>,
        accelerator: Accelerator,
        seed: u64,
        now: f64,
    ) -> Self {
        let mut alive = vec![0_u64; guest.zero.len()];
        for (page, weight) in weights.iter().enumerate() {
            if *weight > 0.0
                && let Some(word) = alive.get_mut(page / 64)
            {
                *word |= 1 << (page % 64);
            }
        }
        let spans = match accelerator {
            Accelerator::Kvm => guest.chunks.clone(),
            Accelerator::Tcg => Vec::new(),
        };
        let chunk = |span| DirtyLogChunk { span, cleared_at: None, reported: alive.clone() };
        Self {
            guest,
            pages: weights.iter().sum(),
            weights,
            bits: alive.clone(),
            chunks: spans.into_iter().map(chunk).collect(),
            alive,
            cursor: 0,
            sent_of_cursor: 0.0,
            passes: 0,
            seed,
            synced_at: now,
            all: guest.all(),
            chunk_at_cursor: None,
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
        if self.chunks.is_empty() {
            return;
        }
        let inside = |chunk: &DirtyLogChunk| {
            (chunk.span.first_page..chunk.span.first_page + chunk.span.pages).contains(&self.cursor)
        };
        let known = self.chunk_at_cursor.filter(|at| self.chunks.get(*at).is_some_and(inside));
        let at = known.or_else(|| self.chunks.iter().position(inside));
        if at != self.chunk_at_cursor || known.is_none() {
            self.chunk_at_cursor = at;
        }
        if let Some(chunk) = at.and_then(|at| self.chunks.get_mut(at)) {
            chunk.cleared_at.get_or_insert(now);
        }
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
        if self.chunks.is_empty() {
            self.guest.dirtied(self.synced_at, now, self.seed, &self.all, &mut new);
        } else {
            self.read_chunks(now, &mut new);
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

    fn read_chunks(&mut self, now: f64, new: &mut [u64]) {
        for chunk in &mut self.chunks {
            let mut since_sync = vec![0_u64; new.len()];
            self.guest.dirtied(self.synced_at, now, self.seed, &chunk.span, &mut since_sync);
            if let Some(cleared_at) = chunk.cleared_at.take() {
                let mut since_clear = vec![0_u64; new.len()];
                self.guest.dirtied(cleared_at, now, self.seed, &chunk.span, &mut since_clear);
                let reported = since_sync.iter().zip(&since_clear).zip(&chunk.reported);
                let log: Vec<u64> =
                    reported.map(|((sync, clear), reported)| sync & !reported | clear).collect();
                chunk.reported = log;
            } else {
                chunk.reported.iter_mut().zip(&since_sync).for_each(|(to, from)| *to |= from);
            }
            chunk.span.zip(new, &chunk.reported).for_each(|(to, from)| *to |= from);
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
