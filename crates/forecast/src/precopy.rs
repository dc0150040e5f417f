//! A first estimate of a pre-copy migration, from the dirty rate and the bandwidth alone.
//!
//! The geometric model of Clark et al. (NSDI 2005): each round sends what was dirtied during the one before, so that its
//! length shrinks by ρ = dirty rate / bandwidth, and all rounds together take M/B × 1/(1 − ρ). It is an upper bound for a
//! guest whose working set is small, since pages written twice in a round are sent once.

use vmgate_facts::{
    Cause, Change, Fact, Facts, Forecast, ForecastMethod, MigrationPath, MigrationTransport, Quantiles,
};

use super::{memory::TouchedMemory, replay::Conditions};

/// Goodput of one TCP stream as a part of the link's nominal speed, where nobody measured it: 0.9564 was measured at
/// MTU 1500 on a link without other traffic, and a margin is left.
const GOODPUT_OF_NOMINAL_RATIO: f64 = 0.9;
/// Factor by which the true dirty rate may exceed the measured one: page sampling measured 20, then 12, for a true 14.
const DIRTY_RATE_ERROR_RATIO: f64 = 1.4;
/// Factor by which the bandwidth may fall short in the worst case.
const BANDWIDTH_ERROR_RATIO: f64 = 1.25;
/// Time for libvirt's handshake, the start of the destination's QEMU and the switchover: 0.9 s was measured for an idle
/// guest.
const SETUP_SECONDS: f64 = 1.0;
/// Part of the touched memory that is sent even for a guest that has hardly used it: an empty page costs 9 bytes.
const LEAST_USED_RATIO: f64 = 0.1;

/// Interval at which QEMU checks if the rest is small enough for the switchover (migration_thread).
const LOOK_SECONDS: f64 = 0.1;

/// Forecast from dirty rate and bandwidth alone. `limit_seconds` is the downtime limit; none for one like the accepted blackout.
pub(super) fn forecast(facts: &Facts, limit_seconds: Option<f64>, transport: MigrationTransport) -> Forecast {
    let limit = limit_seconds.unwrap_or(facts.change.longest_blackout_seconds);
    let bandwidth = facts.path.as_ref().and_then(|path| bandwidth(path, &facts.change, transport));
    let vm = facts.vm.as_ref();
    let rate = vm.clone().and_then(|vm| vm.dirty_rate.as_ref().map(|rate| rate.rate_bytes_per_second));
    let memory = vm.clone().and_then(|vm| vm.memory_bytes.clone());
    let touched = facts.vm.known().and_then(TouchedMemory::of).map(|memory| memory.most_bytes());
    let ratio = ratio(&rate, &bandwidth);
    Forecast {
        method: Fact::Known(ForecastMethod::Assumed),
        evidence_seconds: vm.and_then(|vm| vm.dirty_rate.as_ref().map(|rate| rate.window_seconds)),
        converges_ratio: ratio.as_ref().and_then(|ratio| converges(*ratio, limit)),
        blackout_seconds: assumed_blackout(limit),
        downtime_limit_seconds: Fact::Known(limit),
        total_seconds: total(&memory, touched, &bandwidth, &ratio),
        dirty_to_bandwidth_ratio: ratio,
        ..Forecast::default()
    }
}

/// Blackout assumed from the change's limit. QEMU stops the guest when it expects to send the rest within the limit. It
/// does not count the socket's queue, device state, the hand-over of locks and libvirt's round trips: with a limit of
/// 300 ms, 285 to 353 ms were measured for the first alone. Twice the limit covers them; half of it is a guest that
/// hardly writes. The forecast's method says that this is an assumption.
fn assumed_blackout(limit_seconds: f64) -> Fact<Quantiles> {
    if limit_seconds.is_finite() && limit_seconds > 0.0 {
        let p50 = limit_seconds;
        Fact::Known(Quantiles { p5: p50 / 2.0, p50, p95: p50 * 2.0 })
    } else {
        Fact::unknown(
            Cause::Malformed,
            format!("the longest blackout of {limit_seconds} s is not a positive number of seconds"),
        )
    }
}

/// Probability that pre-copy converges, where rates alone can decide. The smallest rest is the memory dirtied between
/// two checks of QEMU, counted twice in the worst case to allow for bursts.
fn converges(ratio: f64, limit_seconds: f64) -> Fact<f64> {
    let (worst, best) = (ratio * DIRTY_RATE_ERROR_RATIO, ratio / DIRTY_RATE_ERROR_RATIO);
    if worst < 1.0 && worst * LOOK_SECONDS * 2.0 <= limit_seconds {
        Fact::Known(1.0)
    } else if best >= 1.0 || best * LOOK_SECONDS > limit_seconds {
        Fact::Known(0.0)
    } else {
        Fact::unknown(
            Cause::NotSupported,
            format!(
                "the dirty rate is {ratio:.2} of the path's bandwidth: a rate alone cannot predict if pre-copy converges; a \
                 dirty trace can (--trace-seconds)"
            ),
        )
    }
}

/// Goodput of the path in bytes per second: measured, else the nominal bandwidth with a margin.
pub(super) fn path_goodput(path: &MigrationPath) -> Fact<f64> {
    match (&path.goodput_bytes_per_second, &path.bandwidth_bytes_per_second) {
        (Fact::Known(goodput), _) => Fact::Known(as_f64(*goodput)),
        (Fact::Unknown(_), Fact::Known(nominal)) => Fact::Known(as_f64(*nominal) * GOODPUT_OF_NOMINAL_RATIO),
        (Fact::Unknown(_), Fact::Unknown(why)) => Fact::Unknown(why.clone()),
    }
}

/// Speed of the path's links in bytes per second without limits of QEMU, which it lifts for the switchover: the measured
/// goodput, else the slowest interface or shaper with a margin; none where neither is known.
pub(super) fn line_goodput(path: &MigrationPath) -> Option<f64> {
    if let Fact::Known(goodput) = &path.goodput_bytes_per_second {
        return Some(as_f64(*goodput));
    }
    let ends = [path.source_nic.known()?, path.destination_nic.known()?];
    let shapers = ends.iter().filter_map(|nic| nic.shapers.known()).flatten();
    let shaped = shapers.map(|shaper| shaper.rate_bytes_per_second);
    let speeds = ends.iter().map(|nic| nic.speed_bytes_per_second);
    let slowest = speeds.collect::<Option<Vec<u64>>>()?.into_iter().chain(shaped).min()?;
    Some(as_f64(slowest) * GOODPUT_OF_NOMINAL_RATIO)
}

/// Converts bytes, or bytes per second, to a float.
#[expect(clippy::cast_precision_loss, reason = "no link carries 2^53 bytes a second")]
pub(super) fn as_f64(bytes: u64) -> f64 {
    bytes as f64
}

/// Bandwidth of the migration in bytes per second: what its carrier makes of its part of the path's goodput, up to the change's
/// limit.
fn bandwidth(path: &MigrationPath, change: &Change, transport: MigrationTransport) -> Fact<f64> {
    let allowed = change.bandwidth_limit_bytes_per_second.map_or(f64::INFINITY, as_f64);
    let assumed = Conditions::default();
    let carried = |goodput: f64| match transport {
        MigrationTransport::Tcp => goodput,
        MigrationTransport::Tls => {
            let threads = change.settings.multifd_channels.unwrap_or(1).max(1);
            goodput.min(assumed.tls_bytes_per_second.middle() * f64::from(threads))
        }
        MigrationTransport::Tunnelled => goodput / assumed.tunnelled_slower.middle(),
    };
    let moves = f64::from(change.moves_at_once.max(1));
    path_goodput(path).map(|goodput| carried(goodput / moves).min(allowed)).and_then(|bandwidth| {
        if bandwidth > 0.0 {
            Fact::Known(bandwidth)
        } else {
            Fact::unknown(Cause::Malformed, "the bandwidth of the path is 0 bytes per second")
        }
    })
}

/// ρ: dirty rate divided by bandwidth.
#[allow(clippy::cast_precision_loss)] // no guest dirties 2^53 bytes a second
pub(super) fn ratio(rate_bytes_per_second: &Fact<u64>, bandwidth: &Fact<f64>) -> Fact<f64> {
    rate_bytes_per_second
        .as_ref()
        .and_then(|rate| bandwidth.as_ref().map(|bandwidth| *rate as f64 / bandwidth))
}

/// Duration of the whole migration. Median: all memory that the guest can have touched is sent. Low end: a tenth of it.
/// High end: all of it, and both measurements with the largest errors seen so far.
#[allow(clippy::cast_precision_loss)] // no guest has 2^53 bytes
pub(super) fn total(
    memory_bytes: &Fact<u64>,
    touched_bytes: Option<f64>,
    bandwidth: &Fact<f64>,
    ratio: &Fact<f64>,
) -> Fact<Quantiles> {
    let known = memory_bytes.as_ref().and_then(|memory| {
        bandwidth.as_ref().and_then(|bandwidth| {
            let sent = touched_bytes.unwrap_or(*memory as f64);
            ratio.as_ref().map(|ratio| (sent / bandwidth, *ratio))
        })
    });
    known.and_then(|(once_seconds, ratio)| {
        let worst_ratio = ratio * DIRTY_RATE_ERROR_RATIO;
        if worst_ratio >= 1.0 {
            return Fact::unknown(
                Cause::NotSupported,
                format!("the dirty rate is {ratio:.2} of the path's bandwidth, ± 40 %: the duration cannot be predicted"),
            );
        }
        Fact::Known(Quantiles {
            p5: once_seconds * LEAST_USED_RATIO,
            p50: SETUP_SECONDS + once_seconds / (1.0 - ratio),
            p95: SETUP_SECONDS + once_seconds * BANDWIDTH_ERROR_RATIO / (1.0 - worst_ratio),
        })
    })
}

#[cfg(test)]
mod tests {
    use MigrationTransport::{Tcp, Tls, Tunnelled};
    use proptest::prelude::*;

    use super::*;

    const GIB: u64 = 1 << 30;

    fn path(goodput: Fact<u64>, nominal: Fact<u64>) -> MigrationPath {
        MigrationPath {
            goodput_bytes_per_second: goodput,
            bandwidth_bytes_per_second: nominal,
            ..MigrationPath::default()
        }
    }

    fn total_of(memory: u64, bandwidth: f64, ratio: f64) -> Fact<Quantiles> {
        total(&Fact::Known(memory), None, &Fact::Known(bandwidth), &Fact::Known(ratio))
    }

    #[test]
    fn goodput_counts_where_it_was_measured_and_nominal_speed_with_a_margin_where_not() {
        let change = Change::default();
        let measured = path(Fact::Known(100), Fact::Known(1000));
        assert_eq!(bandwidth(&measured, &change, Tcp), Fact::Known(100.0));
        assert_eq!(bandwidth(&path(Fact::default(), Fact::Known(1000)), &change, Tcp), Fact::Known(900.0));
        assert!(bandwidth(&MigrationPath::default(), &change, Tcp).known().is_none());
        assert!(bandwidth(&path(Fact::Known(0), Fact::default()), &change, Tcp).known().is_none());
        let limited = Change { bandwidth_limit_bytes_per_second: Some(50), ..Change::default() };
        assert_eq!(bandwidth(&measured, &limited, Tcp), Fact::Known(50.0));
    }

    #[test]
    fn a_tunnel_halves_the_bandwidth_and_tls_bounds_it_by_a_core_for_each_connection() {
        let fast = path(Fact::Known(10_000_000_000), Fact::default());
        let of = |transport, channels| {
            let mut change = Change::default();
            change.settings.multifd_channels = channels;
            *bandwidth(&fast, &change, transport).known().unwrap()
        };
        assert!((4.5e9..5.5e9).contains(&of(Tunnelled, None)));
        assert!((4e8..1.2e9).contains(&of(Tls, None)));
        assert!((of(Tls, Some(4)) / of(Tls, None) - 4.0).abs() < 1e-9);
        assert!((of(Tls, Some(64)) - 1e10).abs() < 1.0, "no more than the path carries");
    }

    #[test]
    fn an_idle_guest_takes_one_pass() {
        let total = total_of(GIB, 1024.0 * 1024.0 * 1024.0, 0.0);
        assert_eq!(total, Fact::Known(Quantiles { p5: 0.1, p50: 2.0, p95: 2.25 }));
    }

    #[test]
    fn a_guest_near_the_links_speed_has_no_forecast() {
        assert!(total_of(GIB, 1e9, 0.7).known().is_some());
        assert!(total_of(GIB, 1e9, 0.72).known().is_none());
        assert!(total_of(GIB, 1e9, 3.0).known().is_none());
    }

    proptest! {
        #[test]
        fn more_memory_more_dirt_or_less_bandwidth_never_takes_less_time(
            memory in 0_u64..1 << 40,
            more in 0_u64..1 << 40,
            bandwidth in 1e3..1e11_f64,
            ratio in 0.0..0.7_f64,
        ) {
            let base = *total_of(memory, bandwidth, ratio).known().unwrap();
            prop_assert!(base.p5 <= base.p50 && base.p50 <= base.p95);
            for worse in [
                total_of(memory + more, bandwidth, ratio),
                total_of(memory, bandwidth / 2.0, ratio),
                total_of(memory, bandwidth, (ratio + 0.01).min(0.71)),
            ] {
                let worse = worse.known().unwrap();
                prop_assert!(worse.p5 >= base.p5 && worse.p50 >= base.p50 && worse.p95 >= base.p95);
            }
        }
    }
}
