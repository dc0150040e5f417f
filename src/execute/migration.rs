//! The migration itself, with its guard beside it.

use std::{
    net::IpAddr,
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use super::guard::{Guard, Measure, Outlook};
use crate::{
    change::MovePlan,
    collect::libvirt::{Domain, Hypervisor, JobStats, LibvirtError, MigrateParams, LibvirtErrorKind},
};

/// Time between two looks at a running migration.
const LOOK: Duration = Duration::from_millis(200);

/// A look at a running migration.
#[derive(Debug)]
pub struct Progress {
    /// libvirt's figures.
    pub job: JobStats,
    /// What they say of the end.
    pub outlook: Outlook,
    /// Time since the start.
    pub elapsed: Duration,
}

/// A migration that is over, whichever way.
#[derive(Debug)]
pub(super) struct Over {
    /// What libvirt's call said.
    pub(super) result: Result<(), LibvirtError>,
    /// Why vmgate stopped it; none where it did not.
    pub(super) stopped: Option<String>,
    /// The last figures of it.
    pub(super) last: Option<JobStats>,
    /// The longest stop that QEMU was allowed in the end.
    pub(super) limit: Duration,
}

/// Migrates, and looks after the migration: takes the guard's measures, and aborts where `stop` asks for it.
pub(super) fn migrate(
    domain: &Domain,
    destination: &Hypervisor,
    mut guard: Guard,
    (plan, address): (&MovePlan, Option<IpAddr>),
    stop: &AtomicBool,
    watch: &mut dyn FnMut(&Progress),
) -> Result<Over, LibvirtError> {
    let params = params(domain, plan, address, guard.limit())?;
    let start = Instant::now();
    thread::scope(|scope| {
        let (sender, ended) = mpsc::sync_channel(1);
        scope.spawn(move || sender.send(domain.migrate(destination, &params)));
        let (mut stopped, mut last) = (None, None);
        let result = loop {
            match ended.recv_timeout(LOOK) {
                Ok(result) => break result,
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => break Err(lost_sight(destination.name())),
            }
            // Asked again and again: before QEMU's part has begun libvirt agrees, and goes on.
            if stop.load(Ordering::Relaxed) && domain.abort_job().is_ok() {
                stopped.get_or_insert_with(|| "the migration was aborted on request".to_owned());
            }
            let Ok(Some(job)) = domain.job_info() else { continue };
            let elapsed = start.elapsed();
            let (outlook, measure) = guard.look(&job, elapsed);
            if let Some(measure) = measure
                && stopped.is_none()
            {
                stopped = take(domain, measure);
            }
            let progress = Progress { job, outlook, elapsed };
            watch(&progress);
            last = Some(progress.job);
        };
        Ok(Over { result, stopped, last, limit: guard.limit() })
    })
}

/// Takes a measure; gives the reason where that ends the migration.
fn take(domain: &Domain, measure: Measure) -> Option<String> {
    let (what, taken, ends) = match measure {
        Measure::RaiseLimit(limit) => {
            let what = format!("QEMU may stop the guest for {} ms", limit.as_millis());
            (what, domain.set_max_downtime(limit), None)
        }
        Measure::PostCopy(why) => (format!("post-copy, because {why}"), domain.start_post_copy(), None),
        Measure::Suspend(why) => (format!("the guest is suspended, because {why}"), domain.suspend(), None),
        Measure::GiveUp(why) => (format!("given up: {why}"), domain.abort_job(), Some(why)),
    };
    match taken {
        Ok(()) => {
            tracing::info!("{what}");
            ends
        }
        Err(error) => {
            tracing::warn!("{what}: {error}");
            None
        }
    }
}

fn params(
    domain: &Domain,
    plan: &MovePlan,
    address: Option<IpAddr>,
    limit: Duration,
) -> Result<MigrateParams, LibvirtError> {
    let settings = &plan.settings;
    let yes = |setting: Option<bool>| setting.unwrap_or(false);
    Ok(MigrateParams {
        migrate_uri: address.map(migrate_uri),
        bandwidth_mib_per_second: settings.bandwidth_limit_bytes_per_second.map(|limit| (limit >> 20).max(1)),
        max_downtime: Some(limit),
        auto_converge: yes(settings.auto_converge),
        post_copy: yes(settings.post_copy),
        xbzrle: yes(settings.xbzrle),
        multifd_channels: settings.multifd_channels,
        tls: yes(settings.tls),
        persistent: domain.is_persistent()?,
    })
}

/// The call ended without an answer, which only a defect can cause.
fn lost_sight(host: &str) -> LibvirtError {
    LibvirtError {
        host: host.to_owned(),
        action: "migrate the VM".to_owned(),
        kind: LibvirtErrorKind::Other("the call ended without an answer".to_owned()),
    }
}

/// The URI that libvirt gives to the source's QEMU.
fn migrate_uri(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => format!("tcp://{address}"),
        IpAddr::V6(address) => format!("tcp://[{address}]"),
    }
}
