//! Synthetic dirty trace, made from D(t), the memory dirtied in windows of several lengths, where no real trace exists.
//!
//! The windows are explained by groups of pages, each written at random at one rate: D(t) = Σ Nₖ (1 − e^(−λₖ t)),
//! fitted by non-negative least squares. The groups are then written as a trace, so that one replay serves both.
//! Unknown positions are spread: groups lie anywhere in RAM.

use vmgate_facts::{
    DirtyWindow,
    trace::{Bits, DirtyTrace, PAGE_BYTES, Positions, Stratum, TraceCost, TraceEnd, TraceSchema},
};

use super::random::Random;

/// Group of pages written at random, all at the same average rate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PageGroup {
    /// Number of pages in the group.
    pub pages: f64,
    /// Writes to one page per second.
    pub rate: f64,
}

/// Sampled pages in a word.
const WORD: f64 = 64.0;
/// Words of sampled pages for those that are written, for those that are not, and for zero ones; and for any kind at least.
const WRITTEN_WORDS: f64 = 48.0;
const UNWRITTEN_WORDS: f64 = 16.0;
const ZERO_WORDS: f64 = 8.0;
const FEWEST_WORDS: f64 = 2.0;
/// Time in which a page that is written often is written once.
const OFTEN_SECONDS: f64 = 0.5;
const TICK_SECONDS: f64 = 0.1;
const TICKS: usize = 300;
/// Number of sweeps, enough to separate rates this close.
const SWEEPS: u32 = 10_000;
/// Possible rates of a group: three per decade.
const RATES: [f64; 13] = [0.003, 0.0065, 0.014, 0.03, 0.065, 0.14, 0.3, 0.65, 1.4, 3.0, 6.5, 14.0, 30.0];

/// Fits groups of pages that explain the windows, with at most as many pages as the RAM has.
pub fn fit_page_groups(windows: &[DirtyWindow], ram_bytes: u64) -> Vec<PageGroup> {
    let pages: Vec<f64> = windows.iter().map(|seen| seen.dirtied_bytes as f64 / PAGE_BYTES as f64).collect();
    let shares = |rate: f64| windows.iter().map(|seen| share(rate, seen.window_seconds)).collect();
    fit(&pages, &shares, (ram_bytes / PAGE_BYTES) as f64)
}

/// Fits groups of pages, `most` in all, that explain counts of dirty pages. `shares` gives for a rate the share of such pages
/// that each count has.
///
/// A count that grows with time is explained by many pages written seldom as well as by fewer written more often: the seldomest
/// that there is room for.
pub fn fit(counts: &[f64], shares: &dyn Fn(f64) -> Vec<f64>, most: f64) -> Vec<PageGroup> {
    let sum = |groups: &[PageGroup]| groups.iter().map(|group| group.pages).sum::<f64>();
    let mut rates: &[f64] = &RATES;
    let mut groups = explained_by(rates, counts, shares);
    while let [_, oftener @ ..] = rates
        && !oftener.is_empty()
        && sum(&groups) > most
    {
        rates = oftener;
        groups = explained_by(rates, counts, shares);
    }
    let scale = (most / sum(&groups).max(1e-9)).min(1.0);
    let scaled = groups.into_iter().map(|group| PageGroup { pages: group.pages * scale, ..group });
    scaled.filter(|group| group.pages > 0.5).collect()
}

/// Groups with these rates that explain the counts best: coordinate descent, in which each group in turn takes the residual of
/// the others, and never less than nothing. Residuals are relative to the count, or the largest alone would matter.
fn explained_by(rates: &[f64], counts: &[f64], shares: &dyn Fn(f64) -> Vec<f64>) -> Vec<PageGroup> {
    let relative = |rate: f64| -> Vec<f64> {
        shares(rate).iter().zip(counts).map(|(share, count)| share / count.max(1.0)).collect()
    };
    let group = |rate: &f64| (PageGroup { pages: 0.0, rate: *rate }, relative(*rate));
    let mut groups: Vec<(PageGroup, Vec<f64>)> = rates.iter().map(group).collect();
    let mut left = vec![1.0; counts.len()];
    for _ in 0..SWEEPS {
        for (group, parts) in &mut groups {
            let up: f64 = parts.iter().zip(&left).map(|(part, left)| part * left).sum();
            let down: f64 = parts.iter().map(|part| part * part).sum();
            let taken = if down > 0.0 { (up / down).max(-group.pages) } else { 0.0 };
            left.iter_mut().zip(parts).for_each(|(left, part)| *left -= taken * *part);
            group.pages += taken;
        }
    }
    groups.into_iter().map(|(group, _)| group).collect()
}

fn share(rate: f64, window: f64) -> f64 {
    -libm::expm1(-rate * window)
}

/// Pages of one kind, in words of 64 sampled pages that each stand for the same number of pages.
struct Kind {
    words: u64,
    stands_for: u64,
    /// Writes to one page per second; none for pages that nothing writes.
    rate: f64,
    zero: bool,
}

impl Kind {
    /// About so many pages in about so many words.
    fn of(pages: f64, words: f64, rate: f64, zero: bool) -> Self {
        let stands_for = (pages / (words.max(1.0) * WORD)).round().max(1.0);
        let words = (pages / (stands_for * WORD)).round();
        Self { words: words as u64, stands_for: stands_for as u64, rate, zero }
    }

    fn pages(&self) -> u64 {
        self.words * self.stands_for * WORD as u64
    }
}

/// Creates the trace of a guest with these groups, of whose other pages the share `zero_ratio` is zero.
///
/// Most of the sampled pages stand for those that are written often: near the threshold a few of them decide, and each should
/// stand for few pages. Every kind is spread evenly over the RAM, in words of 64 sampled pages.
pub fn from_page_groups(groups: &[PageGroup], ram_bytes: u64, zero_ratio: f64, seed: u64) -> DirtyTrace {
    let ram_pages = (ram_bytes / PAGE_BYTES).max(1);
    let kinds = kinds(groups, ram_pages, zero_ratio);
    let mut words: Vec<(f64, &Kind)> = kinds
        .iter()
        .flat_map(|kind| (0..kind.words).map(move |at| ((at as f64 + 0.5) / kind.words as f64, kind)))
        .collect();
    words.sort_by(|one, other| one.0.total_cmp(&other.0));
    let mut places: Vec<(u64, &Kind)> =
        words.iter().flat_map(|(_, kind)| (0..WORD as u64).map(|_| (kind.stands_for, *kind))).collect();
    // What the whole words leave over, at the end of the RAM.
    let of = |zero: bool| kinds.iter().filter(|kind| kind.zero == zero).map(Kind::pages).sum::<u64>();
    let written = groups.iter().map(|group| group.pages).sum::<f64>();
    let zero_pages = ((ram_pages as f64 - written).max(0.0) * zero_ratio.clamp(0.0, 1.0)) as u64;
    let left = ram_pages.saturating_sub(of(true) + of(false));
    let zero_left = zero_pages.saturating_sub(of(true)).min(left);
    let rest = [(zero_left, true), (left - zero_left, false)].map(|(stands_for, zero)| Kind {
        words: 1,
        stands_for,
        rate: 0.0,
        zero,
    });
    places.extend(rest.iter().filter(|kind| kind.stands_for > 0).map(|kind| (kind.stands_for, kind)));
    let mut random = Random::new(seed);
    let mut changes = Bits::clear(places.len() * TICKS);
    let mut zero = Bits::clear(places.len());
    let (mut strata, mut positions, mut begin) = (Vec::new(), Vec::new(), 0);
    for (page, (stands_for, kind)) in places.iter().enumerate() {
        if kind.zero {
            zero.set(page);
        }
        let chance = share(kind.rate, TICK_SECONDS);
        if chance > 0.0 {
            let dirtied = (0..TICKS).filter(|_| random.unit() < chance);
            dirtied.for_each(|tick| changes.set(page * TICKS + tick));
        }
        strata.push(Stratum { pages: *stands_for, sampled: 1 });
        positions.push(begin + stands_for / 2);
        begin += stands_for;
    }
    DirtyTrace {
        schema: TraceSchema::V1,
        ram_bytes: ram_pages * PAGE_BYTES,
        strata,
        pages: Positions::new(positions),
        tick_microseconds: vec![100_000; TICKS].into(),
        changes,
        zero,
        absent_ratio: 0.0,
        swapped_ratio: 0.0,
        deltas: None,
        compressed_ratio: None,
        vcpu_busy_ratio: None,
        cost: TraceCost::default(),
        ended: TraceEnd::Complete,
    }
}

/// Kinds of pages that make up the whole RAM but for less than a word.
fn kinds(groups: &[PageGroup], ram_pages: u64, zero_ratio: f64) -> Vec<Kind> {
    let mut left = ram_pages;
    let mut take = |pages: f64, words: f64, rate: f64, zero: bool| {
        let kind = Kind::of(pages.clamp(0.0, left as f64), words, rate, zero);
        let fits = kind.pages() <= left;
        let words = if fits { kind.words } else { left / (kind.stands_for * WORD as u64) };
        let kind = Kind { words, ..kind };
        left -= kind.pages();
        kind
    };
    let often = |group: &PageGroup| group.pages * share(group.rate, OFTEN_SECONDS);
    let all_often = groups.iter().map(often).sum::<f64>().max(1e-9);
    let words = |group: &PageGroup| (WRITTEN_WORDS * often(group) / all_often).max(FEWEST_WORDS);
    let mut kinds: Vec<Kind> =
        groups.iter().map(|group| take(group.pages, words(group), group.rate, false)).collect();
    let others = (ram_pages - kinds.iter().map(Kind::pages).sum::<u64>()) as f64;
    kinds.push(take(others * zero_ratio.clamp(0.0, 1.0), ZERO_WORDS, 0.0, true));
    kinds.push(take(others, UNWRITTEN_WORDS, 0.0, false));
    kinds.retain(|kind| kind.words > 0);
    kinds
}
