//! A migration that is begun and taken back, in the phases of libvirt's migration protocol (version 3).
//!
//! virDomainMigrate3 goes through the same phases, and lets the VM go over when QEMU has sent all of it, which takes no time for a
//! small guest. A trial calls the phases itself: [`Phases`] tells both hosts that the migration is cancelled, whatever happened,
//! and has no way to tell them anything else. So a guest that was sent as a whole before anybody could look goes on at its source,
//! and the destination's QEMU is ended without having run. If vmgate dies, its connections close: the destination's libvirt then
//! ends that QEMU (it was started for this connection), so that the source has nobody to send to.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use vmgate_libvirt::{
    Domain, Hypervisor, LibvirtError, LibvirtErrorKind,
    raw::{RawError, sys},
};

use super::{
    MigrateParams,
    phases::{Arguments, Cookie, Phases, Text, words},
};
use crate::trial::TrialPass;

/// Time between two looks at the job.
const LOOK: Duration = Duration::from_millis(10);
/// Time that the destination is given to read what was sent: it refuses what it cannot load at once.
const HOLD: Duration = Duration::from_millis(50);
/// Longest wait for the first data of a connection that is being made.
const LONGEST_SILENCE: Duration = Duration::from_secs(10);
/// The least bandwidth that libvirt can be told, MiB a second.
const LEAST_BANDWIDTH: u64 = 1;
/// The shortest stop of the guest that QEMU can be told to aim at: at the least bandwidth no single page fits into it.
const LEAST_DOWNTIME: Duration = Duration::from_millis(1);

/// Phase of a migration, by who answers in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The source checks the VM and describes it.
    Begin,
    /// The destination starts a QEMU that waits for the VM.
    Prepare,
    /// The source connects and sends.
    Perform,
}

/// End of a trial.
#[derive(Debug)]
pub(crate) struct TrialEnd {
    /// Start of the first phase.
    pub(crate) start: Instant,
    /// Time until memory of the guest was sent; none if none was.
    pub(crate) until_sent: Option<Duration>,
    /// Phase and words of the refusal; none if the start was accepted.
    pub(crate) refusal: Option<(Phase, String)>,
}

/// Begins the migration that `params` describe, at the least bandwidth, and takes it back as soon as it sends or `stop` is set. The
/// abort is armed before the start.
///
/// Only with a pass for this VM. An error means that nothing was begun.
pub(crate) fn begin_and_take_back(
    pass: &TrialPass,
    domain: &Domain,
    destination: &Hypervisor,
    params: &MigrateParams,
    stop: &AtomicBool,
) -> Result<TrialEnd, LibvirtError> {
    let action = format!("try to migrate the VM to {}", destination.name());
    let other = |why: &str| domain.error(&action, LibvirtErrorKind::Other(why.to_owned()));
    if domain.uuid()? != *pass.vm() {
        return Err(other("the check was of another VM"));
    }
    let watched = domain.watched(destination, &action)?;
    let params = MigrateParams { bandwidth_mib_per_second: Some(LEAST_BANDWIDTH), ..params.clone() };
    let phases = Phases::of(&watched, &params).ok_or_else(|| {
        domain.error(
            &action,
            LibvirtErrorKind::NotSupported(
                "this libvirt client does not offer the single phases of a migration".to_owned(),
            ),
        )
    })?;
    let trial = PhasedTrial { phases, name: &domain.name()?, migrate_uri: params.migrate_uri.as_deref() };
    let watch = Watch {
        start: Instant::now(),
        performs: OnceLock::new(),
        sent: OnceLock::new(),
        done: AtomicBool::new(false),
        stop,
    };
    let refusal = thread::scope(|scope| {
        scope.spawn(|| watch.run(domain));
        let refusal = trial.run(&watch);
        watch.done.store(true, Ordering::Relaxed);
        refusal
    });
    Ok(TrialEnd { start: watch.start, until_sent: watch.sent.get().map(|sent| *sent - watch.start), refusal })
}

/// Watch over the job of a trial, which it aborts.
struct Watch<'a> {
    start: Instant,
    /// Start of the phase in which memory is sent.
    performs: OnceLock<Instant>,
    /// Time at which memory had been sent.
    sent: OnceLock<Instant>,
    done: AtomicBool,
    stop: &'a AtomicBool,
}

impl Watch<'_> {
    fn run(&self, domain: &Domain) {
        while !self.done.load(Ordering::Relaxed) {
            if let Some(performs) = self.performs.get() {
                self.look(domain);
                let silent_for = performs.elapsed();
                // Asked again and again: before QEMU's part has begun libvirt agrees, and goes on.
                let over = match self.sent.get() {
                    Some(sent) => sent.elapsed() >= HOLD,
                    None => silent_for >= LONGEST_SILENCE,
                };
                if over || self.stop.load(Ordering::Relaxed) {
                    let _ = super::abort_job(domain);
                }
            }
            thread::sleep(LOOK);
        }
    }

    /// Words of a refusal; none if the error is this watch's own abort of a migration that sent.
    fn refusal(&self, error: &RawError) -> Option<String> {
        if !is_abort(error) {
            return Some(words(error));
        }
        if self.sent.get().is_some() {
            return None;
        }
        Some(if self.performs.get().is_some_and(|performs| performs.elapsed() >= LONGEST_SILENCE) {
            format!("nothing was sent within {} s", LONGEST_SILENCE.as_secs())
        } else {
            format!("aborted before anything was sent: {}", words(error))
        })
    }

    fn look(&self, domain: &Domain) {
        let Ok(Some(job)) = domain.job_info() else { return };
        if job.data_processed_bytes.is_some_and(|bytes| bytes > 0) && self.sent.set(Instant::now()).is_ok() {
            // Only now: libvirt has noted QEMU's own limit, and sets it again when the job ends, whatever becomes of vmgate.
            let _ = super::set_max_downtime(domain, LEAST_DOWNTIME);
        }
    }
}

/// A trial on its way through the phases.
struct PhasedTrial<'a> {
    phases: Phases<'a>,
    name: &'a str,
    migrate_uri: Option<&'a str>,
}

impl PhasedTrial<'_> {
    /// Goes through all phases; returns phase and words of a refusal.
    fn run(&self, watch: &Watch) -> Option<(Phase, String)> {
        let (begun, cookie) = match self.begin() {
            Ok(begun) => begun,
            Err(error) => return Some((Phase::Begin, words(&error))),
        };
        let (uri, cookie) = match self.prepare(&begun, &cookie) {
            Ok(prepared) => prepared,
            Err(error) => {
                // The source waits since the first phase.
                self.phases.cancel_at_source(&Cookie::none());
                return Some((Phase::Prepare, words(&error)));
            }
        };
        let arguments = Arguments { xml: Some(&begun), uri: uri.as_deref(), name: None };
        let _ = watch.performs.set(Instant::now());
        let (performed, cookie) = self.phases.perform(&arguments, &cookie);
        if performed.is_ok() {
            // The whole guest was sent before anybody looked.
            let _ = watch.sent.set(Instant::now());
        }
        let refusal = performed.as_ref().err().and_then(|error| watch.refusal(error));
        let arguments = Arguments { name: Some(self.name), ..arguments };
        let (told, cookie) = self.phases.cancel_at_destination(&arguments, &cookie);
        if performed.is_ok() {
            // The guest is stopped since all of it was sent: it goes on at the source.
            self.phases.cancel_at_source(&cookie);
        }
        let told =
            told.filter(|told| told.code().to_raw() != sys::VIR_ERR_MIGRATE_FINISH_OK && !is_abort(told));
        let told = told.map_or_else(String::new, |told| format!("; the destination: {}", words(&told)));
        refusal.map(|source| (Phase::Perform, format!("{source}{told}")))
    }

    fn begin(&self) -> Result<(Text, Cookie), RawError> {
        self.phases.begin(&Arguments { xml: None, uri: self.migrate_uri, name: None })
    }

    /// Starts the destination's QEMU; returns the URI to send to.
    fn prepare(&self, begun: &Text, cookie: &Cookie) -> Result<(Option<String>, Cookie), RawError> {
        let arguments = Arguments { xml: Some(begun), uri: self.migrate_uri, name: None };
        let (uri, cookie) = self.phases.prepare(&arguments, cookie)?;
        Ok((uri.map(|uri| uri.to_string()).or(self.migrate_uri.map(str::to_owned)), cookie))
    }
}

fn is_abort(error: &RawError) -> bool {
    error.code().to_raw() == sys::VIR_ERR_OPERATION_ABORTED
}
