//! The plan: which migrations are foretold and done. A seed gives the same plan again.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One migration.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Case {
    /// Number in its plan.
    pub(crate) id: u32,
    /// Host that it starts on: `a` (QEMU 7.2) or `b` (QEMU 10.0).
    pub(crate) from: String,
    /// RAM.
    pub(crate) memory_mib: u64,
    /// What the guest does, as `lab guest start` takes it.
    pub(crate) workload: String,
    /// Rate of the migration link.
    pub(crate) link_mbit: u64,
    /// Downtime limit.
    pub(crate) limit_ms: u64,
    /// Further options of `virsh migrate`.
    pub(crate) options: Vec<String>,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, from, memory_mib, workload, link_mbit, limit_ms, options } = self;
        write!(
            f,
            "{id}: {memory_mib} MiB from {from}, {workload}, {link_mbit} Mbit/s, {limit_ms} ms {}",
            options.join(" ")
        )
    }
}

/// Cases drawn over everything that matters. `only` keeps those whose description has it.
pub(crate) fn cases(seed: u64, count: u32, only: Option<&str>) -> Vec<Case> {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let drawn = (0..count * 50).map(|id| draw(id, &mut random));
    drawn
        .filter(|case| only.is_none_or(|text| case.to_string().contains(text)))
        .take(count as usize)
        .collect()
}

fn draw(id: u32, random: &mut Random) -> Case {
    let from = *random.of(&["a", "a", "b"]);
    let memory_mib = *random.of(&[256, 512, 512, 768]);
    let link_mbit = *random.of(&[100, 200, 400, 800]);
    let limit_ms = *random.of(&[100, 300, 300, 1000]);
    let working = *random.of(&[32, 64, 128]);
    // Up to one and a half times what the link carries, mostly well below.
    let share = *random.of(&[0.1, 0.3, 0.5, 0.7, 0.95, 1.4]);
    let rate = (link_mbit as f64 / 8.0 * 0.95 * share).clamp(1.0, 60.0);
    let pattern = *random.of(&["random", "random", "hotcold", "sweep"]);
    let workload = match random.below(8) {
        0 => "idle".to_owned(),
        _ => format!("dirty size={working} rate={rate:.0} pattern={pattern}"),
    };
    let options = match random.below(8) {
        0 => vec!["--auto-converge".to_owned()],
        _ => Vec::new(),
    };
    Case { id, from: from.to_owned(), memory_mib, workload, link_mbit, limit_ms, options }
}

/// Xorshift.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }

    fn of<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len())]
    }
}
