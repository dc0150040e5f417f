//! The sample of pages: the last content (hash) of each page, and the pages that changed at each tick.

use std::{io, time::Duration};

use vmgate_facts::trace::{
    Bits, DirtyTrace, MOST_PAGES, PAGE_BYTES, Positions, Stratum, TraceCost, TraceEnd, TraceSchema,
};

use crate::trace::{
    RamBlock, TraceOptions,
    content::ContentSample,
    hash::{self, PAGE},
    memory::{Backing, Pagemap, read_pages, thread_cpu_seconds},
};

/// Pages read at a time: they stay in the CPU's cache until they are hashed.
const BATCH: usize = 64;
/// Number of ticks over which the checks of all pages' backing are spread.
const BACKING_TICKS: usize = 10;
/// Number of pages in a trial read that measures the cost of one page, and number of trials.
const TRIAL_PAGES: usize = 256;
const TRIALS: u32 = 5;
/// Cost of a page in a tick, relative to a trial: a tick reads more pages, from cold caches.
const COLD: f64 = 1.5;
/// Share of the CPU budget for which the sample is sized; the rest is for ticks that cost more.
const OF_BUDGET: f64 = 0.85;

/// A page of the sample.
#[derive(Debug, Clone, Copy)]
struct Page {
    number: u64,
    address: u64,
    backing: Backing,
    hash: u64,
}

pub(super) struct PageSample {
    pid: u32,
    pagemap: Pagemap,
    pages: Vec<Page>,
    ram_pages: u64,
    zeros: u64,
    /// For each tick, the indices in the sample of the pages that changed.
    changed: Vec<Vec<u32>>,
    tick_microseconds: Vec<u32>,
    seconds: f64,
    content: ContentSample,
    buffer: Vec<u8>,
}

impl PageSample {
    /// Chooses the sample and reads it for the first time.
    pub(super) fn begin(pid: u32, blocks: &[RamBlock], options: &TraceOptions) -> io::Result<Self> {
        let mut sample = Self {
            pid,
            pagemap: Pagemap::open(pid)?,
            pages: choose(blocks, TRIAL_PAGES, options.seed),
            ram_pages: blocks.iter().map(|block| block.bytes / PAGE_BYTES).sum(),
            zeros: hash::of_zeros(),
            changed: Vec::new(),
            tick_microseconds: Vec::new(),
            seconds: 0.0,
            content: ContentSample::default(),
            buffer: vec![0; BATCH * PAGE],
        };
        sample.look_at_backing(|_| true)?;
        // The quickest trial counts: the others had cold caches, or another process on this core.
        let mut trial_seconds = f64::INFINITY;
        for _ in 0..TRIALS {
            let before = thread_cpu_seconds();
            sample.look(|_, _| ())?;
            trial_seconds = trial_seconds.min(thread_cpu_seconds() - before);
        }
        let read = sample.pages.iter().filter(|page| page.backing == Backing::Present).count();
        // If almost no page is present, the cost of a page cannot be measured: a cautious guess.
        let page_seconds = if read > TRIAL_PAGES / 8 { COLD * trial_seconds / read as f64 } else { 2e-6 };
        let share = (read as f64 / sample.pages.len().max(1) as f64).max(0.1);
        let affordable = options.core_ratio * options.tick.as_secs_f64() * OF_BUDGET / (page_seconds * share);
        let wanted = (affordable as usize).clamp(BATCH, options.most_pages.clamp(BATCH, MOST_PAGES));
        sample.pages = choose(blocks, wanted, options.seed);
        sample.look_at_backing(|_| true)?;
        let mut content = ContentSample::default();
        let zeros = sample.zeros;
        sample.look(|found, page| {
            if found.hash != zeros {
                content.first_seen(page);
            }
        })?;
        sample.content = content;
        Ok(sample)
    }

    /// Reads every page again, `since` the last tick.
    pub(super) fn tick(&mut self, since: Duration) -> io::Result<()> {
        self.seconds += since.as_secs_f64();
        let turn = self.changed.len() % BACKING_TICKS;
        let gone = self.look_at_backing(|number| number % BACKING_TICKS == turn)?;
        let mut content = std::mem::take(&mut self.content);
        let now = self.seconds;
        let mut changed = gone;
        self.look(|found, page| {
            changed.push(found.number);
            content.changed(found.number as usize, page, now);
        })?;
        self.content = content;
        self.changed.push(changed);
        self.tick_microseconds.push(u32::try_from(since.as_micros()).unwrap_or(u32::MAX).max(1));
        Ok(())
    }

    /// Checks the backing of some pages. A page returned to the host reads as zeros from then on; returns the pages for
    /// which that is a change.
    fn look_at_backing(&mut self, which: impl Fn(usize) -> bool) -> io::Result<Vec<u32>> {
        let mut changed = Vec::new();
        for (number, page) in self.pages.iter_mut().enumerate().filter(|(number, _)| which(*number)) {
            page.backing = self.pagemap.backing(page.address)?;
            if page.backing == Backing::Absent && page.hash != self.zeros {
                page.hash = self.zeros;
                changed.extend(u32::try_from(number));
            }
        }
        Ok(changed)
    }

    /// Reads the present pages and calls `changed` for each whose content differs from the last read.
    fn look(&mut self, mut changed: impl FnMut(ChangedPage, &[u8])) -> io::Result<()> {
        let there = self.pages.iter().enumerate().filter(|(_, page)| page.backing == Backing::Present);
        let there: Vec<(usize, u64)> = there.map(|(number, page)| (number, page.address)).collect();
        let mut rest = there.as_slice();
        while !rest.is_empty() {
            let (batch, _) = rest.split_at(rest.len().min(BATCH));
            let addresses: Vec<u64> = batch.iter().map(|(_, address)| *address).collect();
            let got = match read_pages(self.pid, &addresses, &mut self.buffer) {
                Ok(got) => got,
                Err(error) if error.raw_os_error() == Some(libc::EFAULT) => 0,
                Err(error) => return Err(error),
            };
            for ((number, _), content) in batch.iter().zip(self.buffer.chunks_exact(PAGE)).take(got) {
                let Some(page) = self.pages.get_mut(*number) else { continue };
                let hash = hash::of(content);
                if hash != page.hash {
                    page.hash = hash;
                    changed(
                        ChangedPage { number: u32::try_from(*number).unwrap_or(u32::MAX), hash },
                        content,
                    );
                }
            }
            // A page that cannot be read is skipped until its backing is checked again.
            if got < batch.len()
                && let Some((number, _)) = batch.get(got)
                && let Some(page) = self.pages.get_mut(*number)
            {
                page.backing = Backing::Swapped;
            }
            rest = rest.get((got + usize::from(got < batch.len()))..).unwrap_or_default();
        }
        Ok(())
    }

    /// The trace; `None` if there was no tick.
    pub(super) fn end(self, why: TraceEnd, cpu_seconds: f64, wall: Duration) -> Option<DirtyTrace> {
        let ticks = self.tick_microseconds.len();
        if ticks == 0 {
            return None;
        }
        let mut changes = Bits::clear(self.pages.len() * ticks);
        for (tick, changed) in self.changed.iter().enumerate() {
            for number in changed {
                changes.set(*number as usize * ticks + tick);
            }
        }
        let mut zero = Bits::clear(self.pages.len());
        for (number, page) in self.pages.iter().enumerate() {
            if page.hash == self.zeros && page.backing != Backing::Swapped {
                zero.set(number);
            }
        }
        let share = |backing| {
            self.pages.iter().filter(|page| page.backing == backing).count() as f64 / self.pages.len() as f64
        };
        let wall_seconds = wall.as_secs_f64();
        Some(DirtyTrace {
            schema: TraceSchema::V1,
            ram_bytes: self.ram_pages * PAGE_BYTES,
            strata: vec![Stratum { pages: self.ram_pages, sampled: u32::try_from(self.pages.len()).ok()? }],
            pages: Positions::new(self.pages.iter().map(|page| page.number).collect()),
            tick_microseconds: self.tick_microseconds.into(),
            changes,
            zero,
            absent_ratio: share(Backing::Absent),
            swapped_ratio: share(Backing::Swapped),
            deltas: self.content.deltas(),
            compressed_ratio: self.content.compressed_ratio(),
            vcpu_busy_ratio: None,
            cost: TraceCost { core_ratio: cpu_seconds / wall_seconds.max(1e-9), cpu_seconds, wall_seconds },
            ended: why,
        })
    }
}

/// A page whose content changed.
#[derive(Debug, Clone, Copy)]
struct ChangedPage {
    /// Its index in the sample.
    number: u32,
    hash: u64,
}

/// Chooses `wanted` pages by stratified sampling: the blocks, laid end to end, are split into equal parts, and one
/// random page is taken from each part.
fn choose(blocks: &[RamBlock], wanted: usize, seed: u64) -> Vec<Page> {
    let ram_pages: u64 = blocks.iter().map(|block| block.bytes / PAGE_BYTES).sum();
    let wanted = (wanted as u64).min(ram_pages);
    let mut random = seed;
    let mut pages = Vec::new();
    for part in 0..wanted {
        let (begin, end) = (part * ram_pages / wanted, (part + 1) * ram_pages / wanted);
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let number = begin + (random >> 33) % (end - begin).max(1);
        let Some(address) = address_of(blocks, number) else { continue };
        pages.push(Page { number, address, backing: Backing::Absent, hash: hash::of_zeros() });
    }
    pages
}

fn address_of(blocks: &[RamBlock], number: u64) -> Option<u64> {
    let mut left = number;
    blocks.iter().find_map(|block| {
        let pages = block.bytes / PAGE_BYTES;
        if left < pages {
            return Some(block.address + left * PAGE_BYTES);
        }
        left -= pages;
        None
    })
}
