use proptest::{collection::vec, prelude::*};

use super::*;

fn trace(pages: Vec<u64>, ticks: usize, set: &[usize]) -> DirtyTrace {
    let sampled = pages.len();
    let mut changes = Bits::clear(sampled * ticks);
    for at in set {
        changes.set(*at);
    }
    DirtyTrace {
        schema: TraceSchema::V1,
        ram_bytes: 1000 * PAGE_BYTES,
        strata: vec![Stratum { pages: 1000, sampled: u32::try_from(sampled).unwrap() }],
        pages: Positions::new(pages),
        tick_microseconds: vec![100_000; ticks].into(),
        changes,
        zero: Bits::clear(sampled),
        absent_ratio: 0.0,
        swapped_ratio: 0.0,
        deltas: None,
        compressed_ratio: None,
        vcpu_busy_ratio: None,
        cost: TraceCost::default(),
        ended: TraceEnd::Complete,
    }
}

#[test]
fn a_sound_trace_passes_and_each_contradiction_is_named() {
    let sound = trace(vec![3, 40, 999], 4, &[0, 5]);
    assert_eq!(sound.check(), Ok(()));
    assert!((sound.seconds() - 0.4).abs() < 1e-9);

    let mut outside = sound.clone();
    outside.pages = Positions::new(vec![3, 40, 1000]);
    assert_eq!(outside.check(), Err(TraceError::Unsound("a page lies outside its stratum")));

    let mut short = sound.clone();
    short.tick_microseconds = vec![100_000; 3].into();
    assert!(matches!(short.check(), Err(TraceError::Unsound(_))));

    let mut empty = sound;
    empty.pages = Positions::default();
    assert_eq!(empty.check(), Err(TraceError::Empty { pages: 0, ticks: 4 }));
}

#[test]
fn a_trace_with_few_changes_is_a_small_document() {
    let set: Vec<usize> = (0..8192 * 300).step_by(4099).collect();
    let pages = (0..8192).map(|at| at * 512).collect();
    let mut trace = trace(pages, 300, &set);
    trace.ram_bytes = 8192 * 512 * PAGE_BYTES;
    trace.strata = vec![Stratum { pages: 8192 * 512, sampled: 8192 }];
    let text = serde_json::to_string(&trace).unwrap();
    assert!(text.len() < 30_000, "{} bytes", text.len());
    assert_eq!(serde_json::from_str::<DirtyTrace>(&text).unwrap(), trace);
}

#[test]
fn unique_pages_are_counted_once_in_each_window() {
    // Of 1000 pages 4 are sampled over 2 s: the first changes in every tick, the second once, the others never.
    let mut set: Vec<usize> = (0..20).collect();
    set.push(20 + 3);
    let trace = trace(vec![1, 2, 500, 900], 20, &set);
    let windows: Vec<(f64, u64)> = trace
        .dirty_windows()
        .iter()
        .map(|seen| (seen.window_seconds, seen.dirtied_bytes / PAGE_BYTES))
        .collect();
    // 250 pages a sampled one: always the first, and the second in one window of 20, 10, 4, 2, 1.
    let wanted = [(0.1, 262), (0.2, 275), (0.5, 312), (1.0, 375), (2.0, 500)];
    assert_eq!(windows.len(), wanted.len());
    for ((seconds, pages), (wanted_seconds, wanted_pages)) in windows.iter().zip(wanted) {
        assert!((seconds - wanted_seconds).abs() < 1e-9 && pages.abs_diff(wanted_pages) <= 1, "{windows:?}");
    }
}

#[test]
fn damaged_text_is_refused_and_never_a_panic() {
    for text in ["!", "gA", "/////////////w", "BQY"] {
        assert!(serde_json::from_str::<Bits>(&format!("\"{text}\"")).is_err(), "{text}");
    }
    assert!(serde_json::from_str::<Positions>("\"gA\"").is_err());
}

proptest! {
    #[test]
    fn bits_survive_the_document(bits in vec(any::<bool>(), 0..500)) {
        let mut wanted = Bits::clear(bits.len());
        bits.iter().enumerate().filter(|(_, set)| **set).for_each(|(at, _)| wanted.set(at));
        let text = serde_json::to_string(&wanted).unwrap();
        let read: Bits = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(read.ones(), bits.iter().filter(|set| **set).count());
        prop_assert_eq!(read, wanted);
    }

    #[test]
    fn positions_survive_the_document(positions in vec(any::<u64>(), 0..100)) {
        let wanted = Positions::new(positions.into_iter().map(|at| at / 2).collect());
        let text = serde_json::to_string(&wanted).unwrap();
        prop_assert_eq!(serde_json::from_str::<Positions>(&text).unwrap(), wanted);
    }

    #[test]
    fn hostile_text_is_read_or_refused(text in "[A-Za-z0-9+/]{0,40}") {
        let _ = serde_json::from_str::<Bits>(&format!("\"{text}\""));
        let _ = serde_json::from_str::<Positions>(&format!("\"{text}\""));
        let _ = serde_json::from_str::<TickLengths>(&format!("\"{text}\""));
    }
}
