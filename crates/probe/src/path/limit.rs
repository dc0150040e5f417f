//! Rate limits of the migration: by the links, the change, libvirt, and traffic shapers.

use vmgate_facts::{Cause, Change, Fact, PathNic, Shaper};

/// Lowest rate limit of the migration; absent where nothing limits it. A known limit counts even where others are unknown:
/// it holds in any case.
pub(super) fn limit(
    source: &Fact<PathNic>,
    destination: &Fact<PathNic>,
    change: &Change,
    libvirt: &Fact<Option<u64>>,
) -> Fact<Option<u64>> {
    let known = [
        change.bandwidth_limit_bytes_per_second,
        libvirt.known().copied().flatten(),
        least_shaper(source).known().copied().flatten(),
        least_shaper(destination).known().copied().flatten(),
    ];
    if let Some(least) = known.into_iter().flatten().min() {
        return Fact::Known(Some(least));
    }
    let unknown = [libvirt.clone(), least_shaper(source), least_shaper(destination)];
    unknown.into_iter().find(|fact| fact.known().is_none()).unwrap_or(Fact::Known(None))
}

fn least_shaper(end: &Fact<PathNic>) -> Fact<Option<u64>> {
    end.as_ref().and_then(|nic| {
        let least = |shapers: &Vec<Shaper>| shapers.iter().map(|shaper| shaper.rate_bytes_per_second).min();
        nic.shapers.as_ref().map(least)
    })
}

/// Nominal speed of the slower end, or a lower limit.
pub(super) fn bandwidth(
    source: &Fact<PathNic>,
    destination: &Fact<PathNic>,
    change: &Change,
    libvirt: &Fact<Option<u64>>,
) -> Fact<u64> {
    let speed = |end: &Fact<PathNic>, which: &str| {
        end.as_ref().and_then(|nic| match nic.speed_bytes_per_second {
            Some(speed) => Fact::Known(speed),
            None => Fact::unknown(
                Cause::NotSupported,
                format!("the network driver of {} at the {which} reports no link speed", nic.name),
            ),
        })
    };
    // An unknown limit is taken as none: the link's own speed is the figure then.
    let limit = limit(source, destination, change, libvirt).known().copied().flatten();
    speed(source, "source").and_then(|source| {
        speed(destination, "destination").map(|destination| {
            let slower = source.min(destination);
            limit.map_or(slower, |limit| limit.min(slower))
        })
    })
}
