//! Cost of a page: its bytes on the wire, its CPU time, and its part of the bandwidth limit; and pages that are sent at once.

use super::{
    super::{
        dirty::PageAtCursor,
        random::{mix, to_unit},
        settings::{Conditions, MigrationParameters},
    },
    PAGE, PAGE_HEADER, Run, SECTION_SECONDS, SILENT, UncertainInputs, WINDOW_SECONDS,
};

/// Number of pages between two readings of the clock.
const LOOK_PAGES: f64 = 64.0;
/// Bytes of a zero page.
const ZERO_PAGE_BYTES: f64 = 9.0;
/// Bytes per page besides its content in a multifd packet of 128: its offset, and its part of the header.
const MULTIFD_PAGE_HEADER: f64 = 11.0;
/// Header of a page sent as a difference.
const XBZRLE_HEADER: f64 = 11.0;
/// Factor on the CPU time of a page sent as a difference: the page is compared with the cached one.
const XBZRLE_COST: f64 = 1.5;
/// Longest time that is computed at once, by itself and as a part of a moment of the plot; and the distance from the threshold up to which it is not: a part of the threshold, by
/// which windows differ, and the time of a few windows.
const STRETCH_SECONDS: f64 = 0.5;
const STRETCHES_IN_A_MOMENT: f64 = 10.0;
const NEAR: f64 = 1.1;
const NEAR_SECONDS: f64 = 0.3;
/// Number of pages that cost as much to compute at once as one by itself.
const STRETCH_PAGES_WORK: u64 = 8;
/// The threshold counts as far if it is not reached for this time.
const FAR_SECONDS: f64 = 0.1;

/// Part of the CPU time of a page that is left where the kernel does not copy it (zero-copy-send).
const ZERO_COPY_COST: f64 = 0.6;

/// Cost of a page with content that is sent whole, and of a zero page.
#[derive(Debug, Clone, Copy)]
pub(super) struct PageCosts {
    /// Bytes on the wire.
    pub(super) bytes: f64,
    /// CPU seconds of the thread that limits the speed.
    pub(super) seconds: f64,
    zero_seconds: f64,
}

impl PageCosts {
    pub(super) fn of(
        settings: &MigrationParameters,
        conditions: &Conditions,
        inputs: &UncertainInputs,
    ) -> Self {
        let copying = conditions.page_seconds * if settings.zero_copy { ZERO_COPY_COST } else { 1.0 };
        let Some(channels) = settings.multifd_channels else {
            let bytes = PAGE + PAGE_HEADER;
            let ciphering = |bytes: f64| bytes * inputs.tls_seconds_per_byte;
            return Self {
                bytes,
                seconds: copying + ciphering(bytes),
                zero_seconds: conditions.zero_page_seconds + ciphering(ZERO_PAGE_BYTES),
            };
        };
        let packed = if settings.compression.is_some() { inputs.compressed_ratio } else { 1.0 };
        let bytes = PAGE * packed + MULTIFD_PAGE_HEADER;
        let of_thread = copying + inputs.compressing_seconds + bytes * inputs.tls_seconds_per_byte;
        // The migration thread looks at every page, whatever the number of threads that send.
        let zero_seconds = conditions.zero_page_seconds;
        Self { bytes, seconds: (of_thread / f64::from(channels.max(1))).max(zero_seconds), zero_seconds }
    }
}

impl Run<'_> {
    /// Number of pages until the next reading of the clock, in a section of this age: QEMU's own number, or a multiple
    /// to save computing: while the threshold is far, as many as the rest of the section takes; near the threshold,
    /// where the exact end of a section matters, as many as a millisecond takes.
    pub(super) fn stride(&self, page_seconds: f64, age_seconds: f64) -> f64 {
        let far = self.left() > self.threshold + FAR_SECONDS * self.inputs.goodput;
        let moment = if far { SECTION_SECONDS - age_seconds } else { 1e-3 };
        let look_seconds =
            LOOK_PAGES * page_seconds.max((PAGE + PAGE_HEADER) / self.inputs.goodput).max(1e-9);
        LOOK_PAGES * (moment / look_seconds).floor().clamp(1.0, 4096.0)
    }

    /// Bytes on the wire and CPU seconds of one page at the cursor.
    pub(super) fn page_cost(&self, at: PageAtCursor) -> (f64, f64) {
        let PageCosts { bytes: whole, seconds, zero_seconds } = self.page;
        if at.zero || self.is_resident_zero(at) {
            return (ZERO_PAGE_BYTES, zero_seconds);
        }
        if at.page == SILENT && self.settings.xbzrle_cache_bytes.is_some() {
            return (XBZRLE_HEADER, seconds * XBZRLE_COST);
        }
        if self.in_cache.get(at.page / 64).is_some_and(|word| word >> (at.page % 64) & 1 == 1) {
            let overflow = self.inputs.delta_overflow;
            let bytes = overflow * whole + (1.0 - overflow) * (XBZRLE_HEADER + self.inputs.delta_bytes);
            return (bytes, seconds * XBZRLE_COST);
        }
        (whole, seconds)
    }

    /// True for a page that the host holds for the guest and that was never written to, in this run's draw.
    fn is_resident_zero(&self, at: PageAtCursor) -> bool {
        self.inputs.resident_zero_ratio > 0.0
            && at.page != SILENT
            && !self.guest.is_written(at.page)
            && to_unit(mix(at.page as u64)) < self.inputs.resident_zero_ratio
    }

    /// Stores a page sent after the first pass in its slot of the XBZRLE cache, unless another page has the slot. All
    /// pages that a sampled page stands for are stored together, once the last of them was sent.
    pub(super) fn cache(&mut self, page: usize) {
        let Some(size) = self.settings.xbzrle_cache_bytes else { return };
        let free = 1.0 - self.cached_pages * PAGE / size as f64;
        let bit = 1_u64 << (page % 64);
        if let Some(word) = self.in_cache.get_mut(page / 64)
            && *word & bit == 0
            && self.dirty.passes() > 0
            && to_unit(mix(self.inputs.seed ^ page as u64)) < free
        {
            *word |= bit;
            self.cached_pages += self.inputs.weights.get(page).copied().unwrap_or(0.0);
        }
    }

    /// Bytes that one window may send. QEMU stops once it has counted more than the limit, and counts what it flushes: the
    /// window sends the limit, rounded up to the next whole flush.
    pub(super) fn window_budget(&self) -> Option<f64> {
        let limit = self.bandwidth_limit? * WINDOW_SECONDS;
        let counted = self.settings.counted_bytes(self.page.bytes);
        Some(((limit / counted).floor() + 1.0) * counted)
    }

    /// Bytes that this window may still send.
    pub(super) fn budget_left(&self) -> Option<f64> {
        Some(self.window_budget()? - self.window_bytes)
    }

    pub(super) fn budget_spent(&self) -> bool {
        self.budget_left().is_some_and(|left| left <= 0.0)
    }

    /// Sends several pages at once where the threshold is so far that the ends of sections and windows between them decide
    /// nothing; false where it is near.
    pub(super) fn stretch(&mut self) -> bool {
        let speed = self.inputs.goodput.max(self.settings.switchover_bandwidth().unwrap_or(0.0));
        let spare = (self.left() - speed * (self.downtime_limit * NEAR + NEAR_SECONDS)) / PAGE;
        if spare <= 0.0 || self.budget_spent() {
            return false;
        }
        let Some(first) = self.dirty.seek(self.guest_now) else { return false };
        let rate = self.inputs.goodput.min(self.bandwidth_limit.unwrap_or(f64::INFINITY));
        let longest = self.longest_stretch();
        let (of_first, cpu_of_first) = self.page_cost(first);
        let at_once = (longest / (of_first / rate).max(cpu_of_first).max(1e-9)).min(spare);
        if first.left >= at_once {
            let enough = at_once >= LOOK_PAGES;
            if enough {
                self.hand_over(first, at_once, of_first, cpu_of_first);
            }
            return enough;
        }
        let mut taken: Vec<PageAtCursor> = Vec::with_capacity(64);
        let (mut bytes, mut cpu, mut pages) = (0.0, 0.0, 0.0);
        for at in self.dirty.ahead() {
            let (of_page, cpu_of_page) = self.page_cost(at);
            pages += at.left;
            let (more_bytes, more_cpu) = (bytes + at.left * of_page, cpu + at.left * cpu_of_page);
            if pages > spare || (more_bytes / rate).max(more_cpu) > longest {
                break;
            }
            (bytes, cpu) = (more_bytes, more_cpu);
            taken.push(at);
        }
        if taken.is_empty() {
            return false;
        }
        let seconds = self.send_queue.send(bytes, cpu);
        self.cpu += cpu;
        self.elapse(seconds);
        self.window_bytes += bytes;
        self.bytes += bytes;
        self.dirty.sent_ahead(&taken);
        self.work += 1 + taken.len() as u64 / STRETCH_PAGES_WORK;
        for at in &taken {
            self.cache(at.page);
        }
        true
    }

    /// Longest time to compute at once: longer in a long migration, and never beyond the next event.
    fn longest_stretch(&self) -> f64 {
        let moment = self.inputs.moment_seconds;
        let syncs_by_time = self.settings.syncs_while_throttling() && self.syncs > 1;
        let longest = if moment.is_finite() && !syncs_by_time {
            moment.min(STRETCH_SECONDS).max(moment / STRETCHES_IN_A_MOMENT)
        } else {
            STRETCH_SECONDS
        };
        let now = self.now + self.inputs.setup_seconds;
        let events = self.steps.iter().map(|step| step.at_seconds).chain([self.inputs.load_ends_seconds]);
        let next = events.filter(|at| *at > now).fold(f64::INFINITY, f64::min);
        longest.min((next - now).max(WINDOW_SECONDS))
    }
}
