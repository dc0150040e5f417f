//! `vmgate observe`: measures the dirty rate of VMs at intervals over a day, and writes it to the ledger.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use clap::Args;
use signal_hook::consts::{SIGINT, SIGTERM};
use vmgate_facts::Uri;
use vmgate_ledger::{Entry, Observation};
use vmgate_libvirt::Hypervisor;
use vmgate_verdict::{ExitCode, NameAndUuid};

use super::{
    Failure,
    options::{GlobalOptions, seconds},
    output,
    session::Session,
};

/// Longest sleep between two checks for Ctrl-C.
const NAP: Duration = Duration::from_millis(200);

#[derive(Debug, Args)]
pub(super) struct Observe {
    /// Names or UUIDs of the VMs
    #[arg(required = true, value_name = "VM")]
    vms: Vec<String>,
    /// Host that the VMs run on: a name of vmgate.yaml or the inventory, hv1, root@hv1 or a libvirt URI [default: the host of the
    /// site that runs the VM at the time]
    #[arg(long, value_name = "HOST")]
    from: Option<String>,
    /// Duration of the observation, in seconds; a day if not given
    #[arg(long = "for", value_name = "SECONDS", default_value = "86400", value_parser = seconds)]
    length: Duration,
    /// Time between two measurements of a VM, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "900", value_parser = seconds)]
    every: Duration,
    /// Duration of each measurement, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = seconds)]
    window: Duration,
    /// Limit on the host's CPU time for the measurement, as a share of a core
    #[arg(long, value_name = "RATIO", default_value = "0.02", value_parser = super::probe::core_ratio)]
    core_ratio: f64,
}

impl Observe {
    pub(super) fn run(&self, shared: &GlobalOptions) -> Result<ExitCode, Failure> {
        let session = Session::open(shared)?;
        let ledger = session.open_ledger(session.ledger_for_moves()?)?;
        let named = self.from.as_deref().map(|from| session.host_named(from)).transpose()?;
        let stop = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            signal_hook::flag::register(signal, Arc::clone(&stop)).map_err(Failure::failed)?;
        }
        let began = Instant::now();
        let (mut round, mut measured) = (0_u32, false);
        while began.elapsed() <= self.length && !stop.load(Ordering::Relaxed) {
            for vm in &self.vms {
                match self.look(vm, named.as_ref(), &session) {
                    Ok(seen) => {
                        output::say(shared, &format!("{vm}: {} MiB/s", seen.rate_bytes_per_second >> 20));
                        ledger.append(&Entry::Observation(seen)).map_err(Failure::failed)?;
                        measured = true;
                    }
                    // A VM that is off, or busy with a job, may be looked at the next time.
                    Err(why) => output::say(shared, &format!("{vm}: not measured: {why}")),
                }
            }
            round += 1;
            let next = self.every.saturating_mul(round);
            while began.elapsed() < next.min(self.length) && !stop.load(Ordering::Relaxed) {
                thread::sleep(NAP);
            }
            if next > self.length {
                break;
            }
        }
        // A timer that starts this, and whoever watches it, must see that it measures nothing.
        Ok(if measured { ExitCode::Go } else { ExitCode::EvidenceMissing })
    }

    fn look(&self, vm: &str, named: Option<&Uri>, session: &Session) -> Result<Observation, String> {
        let from = named.map_or_else(|| session.source_of(vm), |named| Ok(named.clone()));
        let from = from.map_err(|failure| failure.text)?;
        let way = session.probe(&from).map_err(|failure| failure.text)?;
        let host = Hypervisor::open(&from, session.timeout()).map_err(|error| error.to_string())?;
        let domain = host.domain(vm).map_err(|error| error.to_string())?;
        if let Ok(Some(job)) = domain.job_info() {
            return Err(format!("a libvirt job runs on the VM ({})", job.operation.name()));
        }
        let uuid = domain.uuid().map_err(|error| error.to_string())?;
        let trace = way
            .trace(uuid.as_str(), self.window, self.core_ratio, session.timeout())
            .map_err(|why| why.reason)?;
        Ok(Observation {
            vm: NameAndUuid { name: domain.name().ok(), uuid: Some(uuid) },
            host: NameAndUuid { name: Some(host.name().to_owned()), uuid: host.uuid().ok() },
            watched_seconds: trace.seconds(),
            rate_bytes_per_second: trace.dirty_rate().rate_bytes_per_second,
            dirty_windows: trace.dirty_windows(),
            core_ratio: trace.cost.core_ratio,
        })
    }
}
