//! Guest memory from two samples of /proc/meminfo, /proc/vmstat and /proc/pressure/memory.

use std::{
    collections::{BTreeMap, BTreeSet},
    thread,
    time::{Duration, Instant},
};

use vmgate_facts::{Allocation, Cause, Fact, GuestMemory, MemoryPressure, Unknown};

use crate::guest::{
    GuestReader,
    ask::{Answers, Question},
    malformed,
};

const MEMINFO: &str = "/proc/meminfo";
const VMSTAT: &str = "/proc/vmstat";
const UPTIME: &str = "/proc/uptime";
const PRESSURE: &str = "/proc/pressure/memory";

/// Shortest time between the two samples that gives usable rates.
const SHORTEST_WINDOW: Duration = Duration::from_secs(1);

/// Files of the first sample; the second sample reads all but the last.
pub(super) const FILES: [&str; 4] = [MEMINFO, VMSTAT, UPTIME, PRESSURE];

/// The first sample, before the second is taken.
pub(super) struct FirstSample {
    answers: Answers,
    at: Instant,
}

impl FirstSample {
    pub(super) fn take(reader: &dyn GuestReader) -> Self {
        let at = reader.began_at();
        let answers =
            questions(&FILES).into_iter().map(|question| (question.clone(), reader.read(question.name())));
        Self { answers: answers.collect(), at }
    }

    /// Takes the second sample, at least [`SHORTEST_WINDOW`] after the first, and derives the facts.
    pub(super) fn take_second(self, reader: &dyn GuestReader, page_bytes: u64) -> GuestMemory {
        let first = |path: &str| text(&self.answers, path);
        let worth_waiting = first(VMSTAT).is_ok() && first(UPTIME).is_ok();
        let after = if worth_waiting {
            thread::sleep(SHORTEST_WINDOW.saturating_sub(self.at.elapsed()));
            reader.ask(&questions(&[MEMINFO, VMSTAT, UPTIME]))
        } else {
            self.answers.clone()
        };
        facts(&self.answers, &after, page_bytes)
    }
}

fn questions(paths: &[&str]) -> BTreeSet<Question> {
    paths.iter().filter_map(|path| Question::file(*path)).collect()
}

fn text(answers: &Answers, path: &str) -> Result<String, Unknown> {
    let answer = Question::file(path).and_then(|question| answers.get(&question));
    match answer {
        Some(Ok(text)) => Ok(String::from_utf8_lossy(text).into_owned()),
        Some(Err(why)) => Err(why.clone()),
        None => Err(Unknown::new(Cause::NotCollected, format!("{path} was not read"))),
    }
}

/// The facts that follow from two samples.
fn facts(before: &Answers, after: &Answers, page_bytes: u64) -> GuestMemory {
    // If the second sample failed, the first one still serves the facts that need only one.
    let latest = text(after, MEMINFO).or_else(|_| text(before, MEMINFO)).map(|text| Counters::of(&text));
    let bytes = |name: &str| -> Fact<u64> {
        latest.clone().and_then(|counters| counters.bytes(name).ok_or_else(|| lacks(MEMINFO, name))).into()
    };
    let huge = latest.clone().and_then(|counters| {
        let number = |name: &str| counters.number(name).ok_or_else(|| lacks(MEMINFO, name));
        // Without huge pages in the kernel there are none in use.
        let Ok(total) = number("HugePages_Total") else { return Ok(0) };
        let used = total.saturating_sub(number("HugePages_Free")?).saturating_add(number("HugePages_Rsvd")?);
        Ok(used.saturating_mul(counters.bytes("Hugepagesize").ok_or_else(|| lacks(MEMINFO, "Hugepagesize"))?))
    });
    GuestMemory {
        available_bytes: bytes("MemAvailable"),
        committed_bytes: bytes("Committed_AS"),
        locked_bytes: bytes("Mlocked"),
        shared_bytes: bytes("Shmem"),
        huge_pages_used_bytes: huge.into(),
        pressure: match text(before, PRESSURE) {
            Ok(text) => {
                pressure(&text).map(Some).ok_or_else(|| malformed(PRESSURE, "not pressure averages")).into()
            }
            Err(why) if why.cause == Cause::NotSupported => Fact::Known(None),
            Err(why) => Fact::Unknown(why),
        },
        allocation: allocation(before, after, page_bytes).into(),
    }
}

fn lacks(path: &str, name: &str) -> Unknown {
    Unknown::new(Cause::NotSupported, format!("{path} in the guest has no {name}"))
}

/// `some avg10=0.12 avg60=…` and `full avg10=…`, in percent.
fn pressure(text: &str) -> Option<MemoryPressure> {
    let ratio = |kind: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(kind))?;
        let percent: f64 =
            line.split_whitespace().find_map(|word| word.strip_prefix("avg10="))?.parse().ok()?;
        (0.0..=100.0).contains(&percent).then_some(percent / 100.0)
    };
    Some(MemoryPressure { some_ratio: ratio("some ")?, full_ratio: ratio("full ")? })
}

// Sizes of memory stay below 2^52 bytes, where f64 is exact; only a hostile guest reports more.
#[allow(clippy::cast_precision_loss)]
fn allocation(before: &Answers, after: &Answers, page_bytes: u64) -> Result<Allocation, Unknown> {
    let both = |path: &str| -> Result<[Counters; 2], Unknown> {
        Ok([Counters::of(&text(before, path)?), Counters::of(&text(after, path)?)])
    };
    let uptime = |answers: &Answers| {
        let text = text(answers, UPTIME)?;
        let seconds = text.split_whitespace().next().and_then(|word| word.parse::<f64>().ok());
        seconds
            .filter(|seconds| seconds.is_finite())
            .ok_or_else(|| malformed(UPTIME, "not a number of seconds"))
    };
    let window_seconds = ((uptime(after)? - uptime(before)?) * 100.0).round() / 100.0;
    if !(0.5..=3600.0).contains(&window_seconds) {
        return Err(malformed(
            UPTIME,
            "the guest's uptime did not advance by 0.5 s to 3600 s between the two samples",
        ));
    }
    let vmstat = both(VMSTAT)?;
    // A name that ends in `*` is a prefix: each memory zone has its own counter.
    let grown = |name: &str| {
        let [first, last] = vmstat.each_ref().map(|counters| counters.sum(name));
        last.saturating_sub(first)
    };
    let meminfo = both(MEMINFO)?;
    let change = |names: &[&str]| -> Result<f64, Unknown> {
        names.iter().try_fold(0.0, |sum, name| {
            let [Some(first), Some(last)] = meminfo.each_ref().map(|counters| counters.bytes(name)) else {
                return Err(lacks(MEMINFO, name));
            };
            Ok(sum + last as f64 - first as f64)
        })
    };
    let per_second = |bytes: f64| (bytes / window_seconds).round();
    // A float becomes the nearest integer of the type: no wrap.
    #[allow(clippy::cast_possible_truncation)]
    let total_change_bytes = change(&["MemTotal"])? as i64;
    Ok(Allocation {
        window_seconds,
        allocation_stalls: grown("allocstall*"),
        compaction_stalls: grown("compact_stall"),
        pages_scanned: ["pgscan_kswapd", "pgscan_direct", "pgscan_khugepaged"].map(grown).iter().sum(),
        balloon_bytes: ["balloon_inflate", "balloon_deflate"]
            .map(grown)
            .iter()
            .sum::<u64>()
            .saturating_mul(page_bytes),
        total_change_bytes,
        committed_growth_bytes_per_second: per_second(change(&["Committed_AS"])?),
        used_growth_bytes_per_second: per_second(change(&["AnonPages", "Shmem"])?),
    })
}

/// Names with numbers, `Name: 12 kB` or `name 12`.
#[derive(Debug, Clone)]
struct Counters(BTreeMap<String, (u64, bool)>);

impl Counters {
    fn of(text: &str) -> Self {
        let line = |line: &str| {
            let mut words = line.split_whitespace();
            let name = words.next()?.trim_end_matches(':').to_owned();
            // The memory that a kernel can count fits into 48 bits of kB.
            let number = words.next()?.parse::<u64>().ok().filter(|number| *number < 1 << 48)?;
            Some((name, (number, words.next() == Some("kB"))))
        };
        Self(text.lines().take(4096).filter_map(line).collect())
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.0.get(name).map(|(number, _)| *number)
    }

    fn bytes(&self, name: &str) -> Option<u64> {
        self.0.get(name).filter(|(_, kilobytes)| *kilobytes).map(|(number, _)| number * 1024)
    }

    fn sum(&self, name: &str) -> u64 {
        match name.strip_suffix('*') {
            Some(start) => {
                self.0.iter().filter(|(name, _)| name.starts_with(start)).map(|(_, (number, _))| number).sum()
            }
            None => self.number(name).unwrap_or(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::guest::memory::*;

    const MEMINFO_BEFORE: &str = "MemTotal:         738940 kB\nMemAvailable:     110592 kB\nMlocked:          183152 kB\n\
        AnonPages:        200000 kB\nShmem:            100000 kB\nCommitted_AS:    1000000 kB\nHugePages_Total:       8\n\
        HugePages_Free:        5\nHugePages_Rsvd:        1\nHugepagesize:       2048 kB\n";
    const VMSTAT_BEFORE: &str = "allocstall_dma 1\nallocstall_normal 4\ncompact_stall 2\npgscan_kswapd 10\npgscan_direct 5\n\
        balloon_inflate 100\nballoon_deflate 0\n";

    fn answers(meminfo: &str, vmstat: &str, uptime: &str, pressure: &str) -> Answers {
        [(MEMINFO, meminfo), (VMSTAT, vmstat), (UPTIME, uptime), (PRESSURE, pressure)]
            .into_iter()
            .map(|(path, text)| (Question::file(path).unwrap(), Ok(text.into())))
            .collect()
    }

    #[test]
    fn two_looks_give_what_changed() {
        let psi =
            "some avg10=1.50 avg60=0.00 avg300=0.00 total=1\nfull avg10=0.25 avg60=0 avg300=0 total=0\n";
        let before = answers(MEMINFO_BEFORE, VMSTAT_BEFORE, "10.00 9.0\n", psi);
        let meminfo = MEMINFO_BEFORE
            .replace("1000000", "1002048")
            .replace("200000", "202048")
            .replace("738940", "737916");
        let vmstat = VMSTAT_BEFORE.replace("normal 4", "normal 9").replace("deflate 0", "deflate 256");
        let found = facts(&before, &answers(&meminfo, &vmstat, "12.00 10.0\n", psi), 4096);
        assert_eq!(found.available_bytes, Fact::Known(110_592 * 1024));
        assert_eq!(found.locked_bytes, Fact::Known(183_152 * 1024));
        assert_eq!(found.huge_pages_used_bytes, Fact::Known(4 * 2048 * 1024));
        assert_eq!(
            found.pressure,
            Fact::Known(Some(MemoryPressure { some_ratio: 0.015, full_ratio: 0.0025 }))
        );
        let expected = Allocation {
            window_seconds: 2.0,
            allocation_stalls: 5,
            compaction_stalls: 0,
            pages_scanned: 0,
            balloon_bytes: 1 << 20,
            total_change_bytes: -(1 << 20),
            committed_growth_bytes_per_second: f64::from(1 << 20),
            used_growth_bytes_per_second: f64::from(1 << 20),
        };
        assert_eq!(found.allocation, Fact::Known(expected));
    }

    #[test]
    fn what_is_not_there_is_absent_or_unknown() {
        let mut before = answers(MEMINFO_BEFORE, VMSTAT_BEFORE, "10 9", "");
        before.insert(
            Question::file(PRESSURE).unwrap(),
            Err(Unknown::new(Cause::NotSupported, "no such file")),
        );
        let found = facts(&before, &before, 4096);
        assert_eq!(found.pressure, Fact::Known(None));
        assert!(found.allocation.known().is_none(), "no time went by");
        let garbage = facts(&answers("", "", "", "x"), &answers("", "", "", ""), 4096);
        assert!(garbage.available_bytes.known().is_none() && garbage.pressure.known().is_none());
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,80}", near in "((MemTotal|AnonPages|some avg10=|allocstall_a|HugePages_Total)[: ]*[0-9]{0,20}( kB)?\n){0,8}") {
            for text in [&text, &near] {
                let _ = facts(&answers(text, text, "1 1", text), &answers(text, text, "3 1", text), u64::MAX);
            }
        }
    }
}
