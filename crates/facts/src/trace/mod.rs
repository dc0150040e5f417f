//! The dirty trace: which of a running guest's pages changed, and when, as seen from the source host.
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

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use bits::Bits;
pub use leb128::{Positions, Ticks};

/// Size of a page in every trace: what QEMU sends at a time, on x86 and most others.
pub const PAGE_BYTES: u64 = 4096;
/// More pages than any sampler takes; a longer document is refused before it costs memory.
pub const MOST_PAGES: usize = 1 << 20;
/// More ticks than any sampler takes.
pub const MOST_TICKS: usize = 1 << 20;

/// When which pages of a guest changed. Measured outside QEMU, without any change to it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct DirtyTrace {
    /// Names this format.
    pub schema: TraceSchema,
    /// The guest's RAM as QEMU maps it.
    pub ram_bytes: u64,
    /// Strata in the order of their pages, without a gap: together they are the whole RAM.
    pub strata: Vec<Stratum>,
    /// Page numbers of the sampled pages, rising.
    pub pages: Positions,
    /// How long each tick lasted, in microseconds.
    pub tick_microseconds: Ticks,
    /// A bit for each page and tick, page by page: set where the page's content was not that of a tick before.
    pub changes: Bits,
    /// A bit for each page: set where it held only zeros, or was never touched, when last looked at.
    pub zero: Bits,
    /// Share of the sampled pages that had no memory behind them at the end.
    #[schemars(example = 0.5)]
    pub absent_ratio: f64,
    /// Share of the sampled pages that were swapped out at the end; their changes are not seen.
    #[schemars(example = 0.0)]
    pub swapped_ratio: f64,
    /// How small the changes of a page are; absent where no page changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deltas: Option<Deltas>,
    /// Size after compression by size before, of pages that are not zero: an estimate; absent where there were none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = 0.4)]
    pub compressed_ratio: Option<f64>,
    /// Busy time of the vCPUs by time and number of vCPUs, which tells what throttling them would do; absent where
    /// their threads could not be told from others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = 0.3)]
    pub vcpu_busy_ratio: Option<f64>,
    /// What the measurement cost.
    pub cost: TraceCost,
    /// Why it ended.
    pub ended: TraceEnd,
}

/// The name of the trace format that this version reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TraceSchema {
    /// The first format.
    #[serde(rename = "vmgate/trace/v1")]
    V1,
}

/// A run of pages of which some were sampled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Stratum {
    /// Pages in it.
    #[schemars(example = 65536)]
    pub pages: u64,
    /// How many of them the trace has.
    #[schemars(example = 4096)]
    pub sampled: u32,
}

/// What rewriting a page as a difference (XBZRLE) would take.
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

/// What a trace cost the host.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct TraceCost {
    /// CPU time of the sampler by wall time.
    #[schemars(example = 0.045)]
    pub core_ratio: f64,
    /// CPU time in all.
    #[schemars(example = 1.35)]
    pub cpu_seconds: f64,
    /// Wall time in all, that of choosing the sample included.
    #[schemars(example = 30.4)]
    pub wall_seconds: f64,
}

/// Why a trace ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TraceEnd {
    /// It has the length that was asked for.
    Complete,
    /// A migration or another job started, or whoever asked wanted no more.
    Stopped,
    /// The VM's process is gone.
    ProcessGone,
}

/// What makes a trace unusable.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum TraceError {
    /// Its parts contradict each other.
    #[error("the dirty trace is not sound: {0}; measure again")]
    Unsound(&'static str),
    /// Nothing was seen.
    #[error("the dirty trace is empty: it has {pages} pages over {ticks} ticks; measure longer")]
    Empty {
        /// Sampled pages.
        pages: usize,
        /// Ticks.
        ticks: usize,
    },
}

impl DirtyTrace {
    /// Time from the first look at the pages to the last.
    pub fn seconds(&self) -> f64 {
        self.tick_microseconds.iter().map(|tick| f64::from(*tick) / 1e6).sum()
    }

    /// Whether the parts agree. A trace from a file is checked by this before it is used.
    pub fn check(&self) -> Result<(), TraceError> {
        let (pages, ticks) = (self.pages.as_slice().len(), self.tick_microseconds.len());
        if pages == 0 || ticks == 0 {
            return Err(TraceError::Empty { pages, ticks });
        }
        let unsound = |wrong: bool, why| if wrong { Err(TraceError::Unsound(why)) } else { Ok(()) };
        unsound(pages > MOST_PAGES || ticks > MOST_TICKS, "it is larger than any sampler makes it")?;
        unsound(self.tick_microseconds.contains(&0), "a tick lasts no time")?;
        unsound(self.changes.len() != pages * ticks, "there is not one change bit for each page and tick")?;
        unsound(self.zero.len() != pages, "there is not one zero bit for each page")?;
        let in_strata = self.strata.iter().try_fold(0_u64, |sum, stratum| sum.checked_add(stratum.pages));
        unsound(in_strata != Some(self.ram_bytes / PAGE_BYTES), "the strata are not the whole RAM")?;
        let sampled: u64 = self.strata.iter().map(|stratum| u64::from(stratum.sampled)).sum();
        unsound(u64::try_from(pages) != Ok(sampled), "the strata name another number of sampled pages")?;
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

    /// How many pages each sampled page stands for, in their order.
    #[expect(clippy::cast_precision_loss, reason = "numbers of pages lie far below 2^52")]
    pub fn weights(&self) -> Vec<f64> {
        let of = |stratum: &Stratum| stratum.pages as f64 / f64::from(stratum.sampled.max(1));
        self.strata.iter().flat_map(|s| std::iter::repeat_n(of(s), s.sampled as usize)).collect()
    }
}

#[cfg(test)]
mod tests;
