//! Cost of a page: its bytes on the wire, its CPU time, and its part of the bandwidth limit.

use super::{
    super::{
        dirty::PageAtCursor,
        random::{mix, to_unit},
    },
    PAGE, PAGE_HEADER, Run, SECTION_SECONDS, SILENT, WINDOW_SECONDS,
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
/// The threshold counts as far if more than this many times the threshold is left to send.
const FAR: f64 = 4.0;

impl Run<'_> {
    /// Number of pages until the next reading of the clock, in a section of this age: QEMU's own number, or a multiple
    /// to save computing: while the threshold is far, as many as the rest of the section takes; near the threshold,
    /// where the exact end of a section matters, as many as a millisecond takes.
    pub(super) fn stride(&self, page_seconds: f64, age_seconds: f64) -> f64 {
        let far = self.left() > FAR * self.threshold;
        let moment = if far { SECTION_SECONDS - age_seconds } else { 1e-3 };
        let look_seconds =
            LOOK_PAGES * page_seconds.max((PAGE + PAGE_HEADER) / self.inputs.goodput).max(1e-9);
        LOOK_PAGES * (moment / look_seconds).floor().clamp(1.0, 4096.0)
    }

    /// Bytes on the wire and CPU seconds of one page at the cursor.
    pub(super) fn page_cost(&self, at: PageAtCursor) -> (f64, f64) {
        if at.zero || self.is_resident_zero(at) {
            return (ZERO_PAGE_BYTES, self.conditions.zero_page_seconds);
        }
        let seconds = self.conditions.page_seconds;
        if let Some(channels) = self.settings.multifd_channels {
            let seconds = (seconds / f64::from(channels.max(1))).max(self.conditions.zero_page_seconds);
            return (PAGE + MULTIFD_PAGE_HEADER, seconds);
        }
        let whole = PAGE + PAGE_HEADER;
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

    /// Bytes that this window may still send. QEMU stops once it has counted more than the limit, and counts what it
    /// flushes: the window sends the limit, rounded up to the next whole flush.
    pub(super) fn budget_left(&self) -> Option<f64> {
        let limit = self.bandwidth_limit? * WINDOW_SECONDS;
        let counted = self.settings.counted_bytes(PAGE + PAGE_HEADER);
        Some(((limit / counted).floor() + 1.0) * counted - self.window_bytes)
    }

    pub(super) fn budget_spent(&self) -> bool {
        self.budget_left().is_some_and(|left| left <= 0.0)
    }
}
