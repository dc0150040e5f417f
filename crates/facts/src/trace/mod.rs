//! The dirty trace: pages of a running guest that changed over time, as seen from the source host.
//!
//! A trace holds a sample of the guest's pages. Each sampled page stands for all pages of its stratum, in equal
//! parts, so that figures of the sample scale up to the whole RAM. Positions are page numbers in the order in which
//! QEMU sends them: RAM blocks by falling size, then by address.

mod bits;
mod leb128;
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "numbers of pages, ticks and bytes lie far below 2^52 and above zero"
)]
mod windows;

pub use bits::Bits;
pub use leb128::{Positions, TickLengths};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Page size in every trace: the unit in which QEMU sends memory, on x86 and most others.
pub const PAGE_BYTES: u64 = 4096;
/// Maximum number of sampled pages, more than any sampler takes; a longer document is refused before it costs memory.
pub const MOST_PAGES: usize = 1 << 20;
/// Maximum number of ticks, more than any sampler takes.
pub const MOST_TICKS: usize = 1 << 20;

/// Dirty trace: changes of a guest's sampled pages, tick by tick. Measured outside QEMU, without any change to QEMU.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct DirtyTrace {
    /// Name of this format.
    pub schema: TraceSchema,
    /// The guest's RAM as QEMU maps it.
    pub ram_bytes: u64,
    /// Strata in the order of their pages, without a gap: together they are the whole RAM.
    pub strata: Vec<Stratum>,
    /// Page numbers of the sampled pages, rising.
    pub pages: Positions,
    /// Length of each tick in microseconds.
    pub tick_microseconds: TickLengths,
    /// One bit for each page and tick, page by page: set where the page's content differs from the tick before.
    pub changes: Bits,
    /// One bit for each page: set where the page held only zeros, or was never touched, at the last reading.
    pub zero: Bits,
    /// Share of the sampled pages without memory behind them at the end.
    #[schemars(example = 0.5)]
    pub absent_ratio: f64,
    /// Share of the sampled pages that were swapped out at the end; their changes are not seen.
    #[schemars(example = 0.0)]
    pub swapped_ratio: f64,
    /// Size of the differences between versions of a page; absent where no page changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deltas: Option<Deltas>,
    /// Size after compression by size before, of pages that are not zero: an estimate; absent where there were none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = 0.4)]
    pub compressed_ratio: Option<f64>,
    /// Busy share of the vCPUs' time, to predict the effect of throttling; absent where the vCPU threads could not be
    /// told from other threads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = 0.3)]
    pub vcpu_busy_ratio: Option<f64>,
    /// Cost of the measurement.
    pub cost: TraceCost,
    /// Reason for the end of the trace.
    pub ended: TraceEnd,
}

crate::schema_id!(pub TraceSchema = "vmgate/trace/v1");

/// Consecutive pages of RAM of which some were sampled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Stratum {
    /// Number of pages in the stratum.
    #[schemars(example = 65536)]
    pub pages: u64,
    /// Number of sampled pages in the stratum.
    #[schemars(example = 4096)]
    pub sampled: u32,
}

/// Size of pages sent as differences (XBZRLE).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Deltas {
    /// Time between the two versions that were compared.
    #[schemars(example = 1.0)]
    pub lag_seconds: f64,
    /// Mean size of the difference where it is smaller than the page.
    #[schemars(example = 120.0)]
    pub mean_bytes: f64,
    /// Share of changed pages whose difference is no smaller than the page.
    #[schemars(example = 0.1)]
    pub overflow_ratio: f64,
    /// Changed pages compared.
    #[schemars(example = 400)]
    pub compared: u32,
}

/// Cost of a trace for the host.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct TraceCost {
    /// CPU time of the sampler divided by wall time.
    #[schemars(example = 0.045)]
    pub core_ratio: f64,
    /// Total CPU time.
    #[schemars(example = 1.35)]
    pub cpu_seconds: f64,
    /// Total wall time, including the choice of the sample.
    #[schemars(example = 30.4)]
    pub wall_seconds: f64,
}

/// Reason for the end of a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TraceEnd {
    /// The trace has the requested length.
    Complete,
    /// Stopped early: a migration or another job started, or the caller stopped the trace.
    Stopped,
    /// The VM's QEMU process ended.
    ProcessGone,
}

/// Error that makes a trace unusable.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum TraceError {
    /// The parts of the trace contradict each other.
    #[error("the dirty trace contradicts itself: {0}; measure again")]
    Unsound(&'static str),
    /// The trace has no pages or no ticks.
    #[error("the dirty trace is empty: {pages} pages over {ticks} ticks; measure longer")]
    Empty {
        /// Number of sampled pages.
        pages: usize,
        /// Number of ticks.
        ticks: usize,
    },
}

impl DirtyTrace {
    /// Time from the first reading of the pages to the last, in seconds.
    pub fn seconds(&self) -> f64 {
        self.tick_microseconds.iter().map(|tick| f64::from(*tick) / 1e6).sum()
    }

    /// Checks that the parts of the trace agree. A trace from a file is checked before use.
    pub fn check(&self) -> Result<(), TraceError> {
        let (pages, ticks) = (self.pages.as_slice().len(), self.tick_microseconds.len());
        if pages == 0 || ticks == 0 {
            return Err(TraceError::Empty { pages, ticks });
        }
        let unsound = |wrong: bool, why| if wrong { Err(TraceError::Unsound(why)) } else { Ok(()) };
        unsound(pages > MOST_PAGES || ticks > MOST_TICKS, "more pages or ticks than any sampler takes")?;
        unsound(self.tick_microseconds.contains(&0), "a tick has length 0")?;
        unsound(self.changes.len() != pages * ticks, "the number of change bits is not pages times ticks")?;
        unsound(self.zero.len() != pages, "the number of zero bits is not the number of pages")?;
        let in_strata = self.strata.iter().try_fold(0_u64, |sum, stratum| sum.checked_add(stratum.pages));
        unsound(in_strata != Some(self.ram_bytes / PAGE_BYTES), "the strata do not cover the whole RAM")?;
        let sampled: u64 = self.strata.iter().map(|stratum| u64::from(stratum.sampled)).sum();
        unsound(
            u64::try_from(pages) != Ok(sampled),
            "the number of sampled pages in the strata does not match the number of pages",
        )?;
        unsound(!self.positions_fit(), "a page lies outside its stratum")
    }

    fn positions_fit(&self) -> bool {
        let mut pages = self.pages.as_slice().iter().peekable();
        let mut last = None;
        let mut end = 0_u64;
        for stratum in &self.strata {
            end += stratum.pages;
            for _ in 0..stratum.sampled {
                let Some(&page) = pages.next() else { return false };
                if page >= end || page < end - stratum.pages || last.is_some_and(|last| page <= last) {
                    return false;
                }
                last = Some(page);
            }
        }
        pages.next().is_none()
    }

    /// Number of pages that each sampled page stands for, in the order of the pages.
    #[expect(clippy::cast_precision_loss, reason = "numbers of pages lie far below 2^52")]
    pub fn weights(&self) -> Vec<f64> {
        let of = |stratum: &Stratum| stratum.pages as f64 / f64::from(stratum.sampled.max(1));
        self.strata.iter().flat_map(|s| std::iter::repeat_n(of(s), s.sampled as usize)).collect()
    }
}

#[cfg(test)]
mod tests;
