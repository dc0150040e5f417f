//! The libvirt migration call, and the guard that watches the migration meanwhile.

use std::{
    fmt,
    net::IpAddr,
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use vmgate_facts::{Forecast, Quantiles};
use vmgate_judge::change::MovePlan;
use vmgate_libvirt::{Domain, Hypervisor, JobStats, LibvirtError, LibvirtErrorKind};

use super::{
    Pass,
    guard::{ConvergenceEstimate, Guard, Measure},
    hand::{self, MigrateParams},
};

/// Time between two queries of a running migration's statistics.
const LOOK: Duration = Duration::from_millis(200);

/// Progress of a running migration.
#[derive(Debug)]
pub struct Progress {
    /// libvirt's job statistics.
    pub job: JobStats,
    /// Estimate of the end from these statistics.
    pub estimate: ConvergenceEstimate,
    /// Time since the start.
    pub elapsed: Duration,
    /// Rest by the verdict's forecast; absent where it foretold no duration.
    pub forecast: Option<ForecastLeft>,
}

impl Progress {
    pub(super) fn of(pass: &Pass, job: JobStats, estimate: ConvergenceEstimate, elapsed: Duration) -> Self {
        let forecast = pass.verdict().forecast.as_ref();
        let forecast = forecast.and_then(|forecast| ForecastLeft::of(forecast, elapsed));
        Self { job, estimate, elapsed, forecast }
    }
}

/// Rest of a migration by the forecast that was made before it began.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ForecastLeft {
    /// Time until the end, in seconds.
    pub remaining_seconds: Quantiles,
    /// Blackout, in seconds; absent where none was foretold.
    pub blackout_seconds: Option<Quantiles>,
}

impl ForecastLeft {
    fn of(forecast: &Forecast, elapsed: Duration) -> Option<Self> {
        let total = forecast.total_seconds.known()?;
        let left = |seconds: f64| (seconds - elapsed.as_secs_f64()).max(0.0);
        Some(Self {
            remaining_seconds: Quantiles { p5: left(total.p5), p50: left(total.p50), p95: left(total.p95) },
            blackout_seconds: forecast.blackout_seconds.known().copied(),
        })
    }
}

impl fmt::Display for ForecastLeft {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Quantiles { p5, p95, .. } = self.remaining_seconds;
        if p95 > 0.0 {
            write!(f, "{p5:.0} to {p95:.0} s left")?;
        } else {
            write!(f, "it was to have ended by now")?;
        }
        match self.blackout_seconds {
            Some(Quantiles { p5, p95, .. }) => write!(f, ", blackout {p5:.2} to {p95:.2} s"),
            None => Ok(()),
        }
    }
}

/// A migration that has ended, successful or not.
#[derive(Debug)]
pub(super) struct EndedMigration {
    /// Result of libvirt's call, or of the manager's migration.
    pub(super) result: Result<(), String>,
    /// True if a manager may still begin it or go on with it: nobody heard its end.
    pub(super) is_open: bool,
    /// Reason why vmgate aborted the migration; `None` if it did not.
    pub(super) abort_reason: Option<String>,
    /// Last job statistics.
    pub(super) last_stats: Option<JobStats>,
    /// QEMU's downtime limit at the end.
    pub(super) downtime_limit: Duration,
}

/// Migrates, and watches the migration: takes the guard's measures, and aborts if `stop` is set.
pub(super) fn migrate(
    pass: &Pass,
    domain: &Domain,
    destination: &Hypervisor,
    mut guard: Guard,
    (plan, address): (&MovePlan, Option<IpAddr>),
    stop: &AtomicBool,
    watch: &mut dyn FnMut(&Progress),
) -> Result<EndedMigration, LibvirtError> {
    let params = MigrateParams { max_downtime: Some(guard.limit()), ..params(domain, plan, address)? };
    let start = Instant::now();
    thread::scope(|scope| {
        let (sender, ended) = mpsc::sync_channel(1);
        scope.spawn(move || sender.send(hand::migrate(pass, domain, destination, &params)));
        let (mut stopped, mut last) = (None, None);
        let result = loop {
            match ended.recv_timeout(LOOK) {
                Ok(result) => break result,
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => break Err(lost_sight(destination.name())),
            }
            // Asked again and again: before QEMU's part has begun libvirt agrees, and goes on.
            if stop.load(Ordering::Relaxed) && hand::abort_job(domain).is_ok() {
                stopped.get_or_insert_with(|| "the migration was aborted on request".to_owned());
            }
            let Ok(Some(job)) = domain.job_info() else { continue };
            let elapsed = start.elapsed();
            let (estimate, measure) = guard.assess(&job, elapsed);
            let progress = Progress::of(pass, job, estimate, elapsed);
            if let Some(measure) = measure
                && stopped.is_none()
            {
                stopped = take(domain, measure, &progress);
            }
            watch(&progress);
            last = Some(progress.job);
        };
        let result = result.map_err(|error| error.to_string());
        Ok(EndedMigration {
            result,
            is_open: false,
            abort_reason: stopped,
            last_stats: last,
            downtime_limit: guard.limit(),
        })
    })
}

/// Takes a measure, and logs it beside the forecast and QEMU's own word; returns the reason if it aborts the migration.
fn take(domain: &Domain, measure: Measure, progress: &Progress) -> Option<String> {
    let (what, taken, ends) = match measure {
        Measure::RaiseLimit(limit) => {
            let what = format!("QEMU may stop the guest for {} ms", limit.as_millis());
            (what, hand::set_max_downtime(domain, limit), None)
        }
        Measure::PostCopy(why) => (format!("post-copy, because {why}"), hand::start_post_copy(domain), None),
        Measure::Suspend(why) => {
            (format!("the guest is suspended, because {why}"), hand::suspend(domain), None)
        }
        Measure::GiveUp(why) => (format!("given up: {why}"), hand::abort_job(domain), Some(why)),
    };
    match taken {
        Ok(()) => {
            let forecast = progress.forecast.map(|forecast| format!("; forecast: {forecast}"));
            let expected = progress.job.downtime;
            let qemu =
                expected.map(|downtime| format!("; QEMU expects a blackout of {} ms", downtime.as_millis()));
            tracing::info!("{what}{}{}", forecast.unwrap_or_default(), qemu.unwrap_or_default());
            ends
        }
        Err(error) => {
            tracing::warn!("{what}: {error}");
            None
        }
    }
}

/// Parameters of the migration that a plan asks for.
pub(super) fn params(
    domain: &Domain,
    plan: &MovePlan,
    address: Option<IpAddr>,
) -> Result<MigrateParams, LibvirtError> {
    let settings = &plan.settings;
    let yes = |setting: Option<bool>| setting.unwrap_or(false);
    Ok(MigrateParams {
        migrate_uri: address.map(migrate_uri),
        bandwidth_mib_per_second: settings.bandwidth_limit_bytes_per_second.map(|limit| (limit >> 20).max(1)),
        max_downtime: None,
        auto_converge: yes(settings.auto_converge),
        post_copy: yes(settings.post_copy),
        xbzrle: yes(settings.xbzrle),
        multifd_channels: settings.multifd_channels,
        tls: yes(settings.tls),
        persistent: domain.is_persistent()?,
    })
}

/// Error for a migration call that ended without an answer, which only a defect can cause.
fn lost_sight(host: &str) -> LibvirtError {
    LibvirtError {
        host: host.to_owned(),
        action: "migrate the VM".to_owned(),
        kind: LibvirtErrorKind::Other("the call ended without an answer".to_owned()),
    }
}

/// Migration URI that libvirt gives to the source's QEMU.
pub(super) fn migrate_uri(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => format!("tcp://{address}"),
        IpAddr::V6(address) => format!("tcp://[{address}]"),
    }
}
