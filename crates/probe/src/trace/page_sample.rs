//! The pages watched, what was last seen in each, and what changed at which tick.

use std::{io, time::Duration};

use vmgate_facts::trace::{
    Bits, DirtyTrace, MOST_PAGES, PAGE_BYTES, Positions, Stratum, TraceCost, TraceEnd, TraceSchema,
};

use super::{
    Options, RamBlock,
    content::Content,
    hash::{self, PAGE},
    memory::{Backing, Pagemap, read_pages, thread_cpu_seconds},
};

/// Pages read at a time: they stay in the CPU's cache until they are hashed.
const BATCH: usize = 64;
/// Looks at the pages' backing are spread over so many ticks.
const BACKING_TICKS: usize = 10;
/// Pages read to learn what reading one costs, and how often.
const TRIAL_PAGES: usize = 256;
const TRIALS: u32 = 5;
/// A tick reads other pages than a trial, from cold caches: it costs this many times as much.
const COLD: f64 = 1.5;
/// Share of the budget that the sample is chosen for; the rest is for ticks that cost more.
const OF_BUDGET: f64 = 0.85;

/// A page of the sample.
#[derive(Debug, Clone, Copy)]
struct Page {
    number: u64,
    address: u64,
    backing: Backing,
    hash: u64,
}

pub(super) struct Watch {
    pid: u32,
    pagemap: Pagemap,
    pages: Vec<Page>,
    ram_pages: u64,
    zeros: u64,
    /// For each tick, the numbers in the sample of the pages that changed.
    changed: Vec<Vec<u32>>,
    tick_microseconds: Vec<u32>,
    seconds: f64,
    content: Content,
    buffer: Vec<u8>,
}

impl Watch {
    /// Chooses the sample and looks at it for the first time.
    pub(super) fn begin(pid: u32, blocks: &[RamBlock], options: &Options) -> io::Result<Self> {
        let mut watch = Self {
            pid,
            pagemap: Pagemap::open(pid)?,
            pages: choose(blocks, TRIAL_PAGES, options.seed),
            ram_pages: blocks.iter().map(|block| block.bytes / PAGE_BYTES).sum(),
            zeros: hash::of_zeros(),
            changed: Vec::new(),
            tick_microseconds: Vec::new(),
            seconds: 0.0,
            content: Content::default(),
            buffer: vec![0; BATCH * PAGE],
        };
        watch.look_at_backing(|_| true)?;
        // The quickest trial: the others met cold caches, or another process on this core.
        let mut trial_seconds = f64::INFINITY;
        for _ in 0..TRIALS {
            let before = thread_cpu_seconds();
            watch.look(|_, _| ())?;
            trial_seconds = trial_seconds.min(thread_cpu_seconds() - before);
        }
        let read = watch.pages.iter().filter(|page| page.backing == Backing::Present).count();
        // Where next to nothing is there, what a page costs is not known: a careful guess.
        let page_seconds = if read > TRIAL_PAGES / 8 { COLD * trial_seconds / read as f64 } else { 2e-6 };
        let share = (read as f64 / watch.pages.len().max(1) as f64).max(0.1);
        let affordable = options.core_ratio * options.tick.as_secs_f64() * OF_BUDGET / (page_seconds * share);
        let wanted = (affordable as usize).clamp(BATCH, options.most_pages.clamp(BATCH, MOST_PAGES));
        watch.pages = choose(blocks, wanted, options.seed);
        watch.look_at_backing(|_| true)?;
        let mut content = Content::default();
        let zeros = watch.zeros;
        watch.look(|seen, page| {
            if seen.hash != zeros {
                content.first_seen(page);
            }
        })?;
        watch.content = content;
        Ok(watch)
    }

    /// Looks at every page again, `since` the last time.
    pub(super) fn tick(&mut self, since: Duration) -> io::Result<()> {
        self.seconds += since.as_secs_f64();
        let turn = self.changed.len() % BACKING_TICKS;
        let gone = self.look_at_backing(|number| number % BACKING_TICKS == turn)?;
        let mut content = std::mem::take(&mut self.content);
        let now = self.seconds;
        let mut changed = gone;
        self.look(|seen, page| {
            changed.push(seen.number);
            content.changed(seen.number as usize, page, now);
        })?;
        self.content = content;
        self.changed.push(changed);
        self.tick_microseconds.push(u32::try_from(since.as_micros()).unwrap_or(u32::MAX).max(1));
        Ok(())
    }

    /// Looks at what stands behind some pages. A page given back to the host reads as zeros from then on; returns those
    /// for which that is a change.
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

    /// Reads the pages that are there and tells of each whose content is not what it was.
    fn look(&mut self, mut changed: impl FnMut(Seen, &[u8])) -> io::Result<()> {
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
                    changed(Seen { number: u32::try_from(*number).unwrap_or(u32::MAX), hash }, content);
                }
            }
            // One that cannot be read is left out until its backing is looked at again.
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

    /// The trace; `None` where there was not a tick.
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

/// A page that was found changed.
#[derive(Debug, Clone, Copy)]
struct Seen {
    /// Its number in the sample.
    number: u32,
    hash: u64,
}

/// As many pages, spread evenly over the blocks, each anywhere in its part. A part lies in one block or the next: the
/// blocks count as one after the other.
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
