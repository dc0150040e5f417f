//! A migration that is begun and taken back, in the phases of libvirt's migration protocol (version 3).
//!
//! virDomainMigrate3 goes through the same phases, and lets the VM go over when QEMU has sent all of it, which takes no time for a
//! small guest. A trial calls the phases itself: [`Phases`] tells both hosts that the migration is cancelled, whatever happened,
//! and has no way to tell them anything else. So a guest that was sent as a whole before anybody could look goes on at its source,
//! and the destination's QEMU is ended without having run. If vmgate dies, its connections close: the destination's libvirt then
//! ends that QEMU (it was started for this connection), so that the source has nobody to send to.

use std::{
    ffi::{CStr, c_char, c_int, c_uint, c_void},
    fmt, ptr,
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use vmgate_libvirt::{
    Domain, Hypervisor, LibvirtError, LibvirtErrorKind, WatchedMove,
    raw::{ParamList, RawError, checked, sys},
};

use super::{MigrateParams, migrate};
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
    let phases = Phases::load().ok_or_else(|| {
        domain.error(
            &action,
            LibvirtErrorKind::NotSupported(
                "this libvirt client does not offer the single phases of a migration".to_owned(),
            ),
        )
    })?;
    let watched = domain.watched(destination, &action)?;
    let name = domain.name()?;
    let params = MigrateParams { bandwidth_mib_per_second: Some(LEAST_BANDWIDTH), ..params.clone() };
    let watch = Watch {
        start: Instant::now(),
        performs: OnceLock::new(),
        sent: OnceLock::new(),
        done: AtomicBool::new(false),
        stop,
    };
    let trial = PhasedTrial {
        phases,
        watched: &watched,
        name: &name,
        params: &params,
        flags: migrate::flags(&params),
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
    phases: Phases,
    watched: &'a WatchedMove,
    name: &'a str,
    params: &'a MigrateParams,
    flags: c_uint,
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
                self.phases.cancel_at_source(self, &Cookie::none());
                return Some((Phase::Prepare, words(&error)));
            }
        };
        let list = ListOf { xml: Some(&begun), uri, name: None };
        let _ = watch.performs.set(Instant::now());
        let (performed, cookie) = self.phases.perform(self, &list, &cookie);
        if performed.is_ok() {
            // The whole guest was sent before anybody looked.
            let _ = watch.sent.set(Instant::now());
        }
        let refusal = performed.as_ref().err().and_then(|error| watch.refusal(error));
        let list = ListOf { name: Some(self.name), ..list };
        let (told, cookie) = self.phases.cancel_at_destination(self, &list, &cookie);
        if performed.is_ok() {
            // The guest is stopped since all of it was sent: it goes on at the source.
            self.phases.cancel_at_source(self, &cookie);
        }
        let told =
            told.filter(|told| told.code().to_raw() != sys::VIR_ERR_MIGRATE_FINISH_OK && !is_abort(told));
        let told = told.map_or_else(String::new, |told| format!("; the destination: {}", words(&told)));
        refusal.map(|source| (Phase::Perform, format!("{source}{told}")))
    }

    fn begin(&self) -> Result<(Text, Cookie), RawError> {
        self.phases.begin(self, &ListOf { xml: None, uri: self.params.migrate_uri.clone(), name: None })
    }

    /// Starts the destination's QEMU; returns the URI to send to.
    fn prepare(&self, begun: &Text, cookie: &Cookie) -> Result<(Option<String>, Cookie), RawError> {
        let list = ListOf { xml: Some(begun), uri: self.params.migrate_uri.clone(), name: None };
        let (uri, cookie) = self.phases.prepare(self, &list, cookie)?;
        Ok((uri.map(|uri| uri.to_string()).or(list.uri), cookie))
    }
}

fn is_abort(error: &RawError) -> bool {
    error.code().to_raw() == sys::VIR_ERR_OPERATION_ABORTED
}

fn words(error: &RawError) -> String {
    error.message().split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Parameters of one phase.
struct ListOf<'a> {
    xml: Option<&'a Text>,
    uri: Option<String>,
    name: Option<&'a str>,
}

impl ListOf<'_> {
    fn make(&self, trial: &PhasedTrial) -> Result<ParamList, RawError> {
        let params = MigrateParams { migrate_uri: self.uri.clone(), ..trial.params.clone() };
        let mut list = migrate::param_list(&params)?;
        if let Some(xml) = self.xml {
            list.text(sys::VIR_MIGRATE_PARAM_DEST_XML, &xml.to_string())?;
        }
        if let Some(name) = self.name {
            list.text(sys::VIR_MIGRATE_PARAM_DEST_NAME, name)?;
        }
        Ok(list)
    }
}

type Begin = unsafe extern "C" fn(
    sys::virDomainPtr,
    sys::virTypedParameterPtr,
    c_int,
    *mut *mut c_char,
    *mut c_int,
    c_uint,
) -> *mut c_char;
type Prepare = unsafe extern "C" fn(
    sys::virConnectPtr,
    sys::virTypedParameterPtr,
    c_int,
    *const c_char,
    c_int,
    *mut *mut c_char,
    *mut c_int,
    *mut *mut c_char,
    c_uint,
) -> c_int;
type Perform = unsafe extern "C" fn(
    sys::virDomainPtr,
    *const c_char,
    sys::virTypedParameterPtr,
    c_int,
    *const c_char,
    c_int,
    *mut *mut c_char,
    *mut c_int,
    c_uint,
) -> c_int;
type Finish = unsafe extern "C" fn(
    sys::virConnectPtr,
    sys::virTypedParameterPtr,
    c_int,
    *const c_char,
    c_int,
    *mut *mut c_char,
    *mut c_int,
    c_uint,
    c_int,
) -> sys::virDomainPtr;
type Confirm = unsafe extern "C" fn(
    sys::virDomainPtr,
    sys::virTypedParameterPtr,
    c_int,
    *const c_char,
    c_int,
    c_uint,
    c_int,
) -> c_int;

/// The phases of a migration, as libvirt's client calls them. They are in every libvirt.so since 1.1 (2013), for libvirt's own
/// daemons, but not in its headers; so they are looked for by name, and without them there is no trial.
struct Phases {
    begin: Begin,
    prepare: Prepare,
    perform: Perform,
    finish: Finish,
    confirm: Confirm,
}

impl Phases {
    /// The only end of a trial that both hosts are ever told.
    const CANCELLED: c_int = 1;

    fn load() -> Option<Self> {
        let find = |name: &CStr| {
            // SAFETY: the name ends with a NUL; the search has no side effects.
            let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
            (!found.is_null()).then_some(found)
        };
        let (begin, prepare) =
            (find(c"virDomainMigrateBegin3Params")?, find(c"virDomainMigratePrepare3Params")?);
        let (perform, finish) =
            (find(c"virDomainMigratePerform3Params")?, find(c"virDomainMigrateFinish3Params")?);
        let confirm = find(c"virDomainMigrateConfirm3Params")?;
        // SAFETY: libvirt's functions of these names have these signatures (libvirt_internal.h, unchanged since 1.1).
        unsafe {
            Some(Self {
                begin: std::mem::transmute::<*mut c_void, Begin>(begin),
                prepare: std::mem::transmute::<*mut c_void, Prepare>(prepare),
                perform: std::mem::transmute::<*mut c_void, Perform>(perform),
                finish: std::mem::transmute::<*mut c_void, Finish>(finish),
                confirm: std::mem::transmute::<*mut c_void, Confirm>(confirm),
            })
        }
    }

    /// The source checks the VM and describes it for the destination.
    fn begin(&self, trial: &PhasedTrial, list: &ListOf) -> Result<(Text, Cookie), RawError> {
        let mut list = list.make(trial)?;
        let (values, count) = parts(&mut list);
        let mut cookie = Cookie::none();
        // SAFETY: the domain is valid while it is borrowed, the list has `count` parameters, and the cookie is filled by libvirt.
        let xml = unsafe {
            (self.begin)(
                trial.watched.domain(),
                values,
                count,
                &raw mut cookie.start,
                &raw mut cookie.length,
                protected(trial.flags),
            )
        };
        if xml.is_null() { Err(RawError::last_error()) } else { Ok((Text(xml), cookie)) }
    }

    /// The destination starts a QEMU that waits; returns the URI to send to, where the destination chose one.
    fn prepare(
        &self,
        trial: &PhasedTrial,
        list: &ListOf,
        from_source: &Cookie,
    ) -> Result<(Option<Text>, Cookie), RawError> {
        let mut list = list.make(trial)?;
        let (values, count) = parts(&mut list);
        let (mut cookie, mut uri) = (Cookie::none(), ptr::null_mut());
        // SAFETY: as for `begin`; the connection is valid while it is borrowed, and libvirt fills the URI.
        let result = unsafe {
            (self.prepare)(
                trial.watched.destination(),
                values,
                count,
                from_source.start,
                from_source.length,
                &raw mut cookie.start,
                &raw mut cookie.length,
                &raw mut uri,
                at_destination(trial.flags),
            )
        };
        let uri = (!uri.is_null()).then(|| Text(uri));
        checked(result)?;
        Ok((uri, cookie))
    }

    /// The source sends, until the job is aborted or all is sent. Blocks as long.
    fn perform(
        &self,
        trial: &PhasedTrial,
        list: &ListOf,
        from_destination: &Cookie,
    ) -> (Result<(), RawError>, Cookie) {
        let mut list = match list.make(trial) {
            Ok(list) => list,
            Err(error) => return (Err(error), Cookie::none()),
        };
        let (values, count) = parts(&mut list);
        let mut cookie = Cookie::none();
        // SAFETY: as for `begin`; without a URI of the destination's libvirt this client manages the migration.
        let result = unsafe {
            (self.perform)(
                trial.watched.domain(),
                ptr::null(),
                values,
                count,
                from_destination.start,
                from_destination.length,
                &raw mut cookie.start,
                &raw mut cookie.length,
                protected(trial.flags),
            )
        };
        (checked(result), cookie)
    }

    /// Ends the destination's QEMU. Returns the destination's words on it.
    fn cancel_at_destination(
        &self,
        trial: &PhasedTrial,
        list: &ListOf,
        from_source: &Cookie,
    ) -> (Option<RawError>, Cookie) {
        let mut list = match list.make(trial) {
            Ok(list) => list,
            // The destination ends its QEMU with the connection.
            Err(error) => return (Some(error), Cookie::none()),
        };
        let (values, count) = parts(&mut list);
        let mut cookie = Cookie::none();
        // SAFETY: as for `prepare`.
        let domain = unsafe {
            (self.finish)(
                trial.watched.destination(),
                values,
                count,
                from_source.start,
                from_source.length,
                &raw mut cookie.start,
                &raw mut cookie.length,
                at_destination(trial.flags),
                Self::CANCELLED,
            )
        };
        if domain.is_null() {
            return (Some(RawError::last_error()), cookie);
        }
        // SAFETY: libvirt returned a new reference, which nothing else has.
        unsafe { sys::virDomainFree(domain) };
        (None, cookie)
    }

    /// Lets the guest go on at the source, where the job ends.
    fn cancel_at_source(&self, trial: &PhasedTrial, from_destination: &Cookie) {
        let list = ListOf { xml: None, uri: trial.params.migrate_uri.clone(), name: None };
        let Ok(mut list) = list.make(trial) else { return };
        let (values, count) = parts(&mut list);
        // SAFETY: as for `begin`.
        let result = unsafe {
            (self.confirm)(
                trial.watched.domain(),
                values,
                count,
                from_destination.start,
                from_destination.length,
                protected(trial.flags),
                Self::CANCELLED,
            )
        };
        if result < 0 {
            tracing::warn!("the source did not end the trial's job: {}", words(&RawError::last_error()));
        }
    }
}

fn parts(list: &mut ParamList) -> (sys::virTypedParameterPtr, c_int) {
    let (values, count) = list.as_parts();
    (values, c_int::try_from(count).unwrap_or(0))
}

/// Flags of the source's phases: from the first on nobody else changes the VM.
fn protected(flags: c_uint) -> c_uint {
    flags | sys::VIR_MIGRATE_CHANGE_PROTECTION
}

/// Flags of the destination's phases: these two are for the source alone.
fn at_destination(flags: c_uint) -> c_uint {
    flags & !(sys::VIR_MIGRATE_ABORT_ON_ERROR | sys::VIR_MIGRATE_AUTO_CONVERGE)
}

/// Text in libvirt's memory.
struct Text(*mut c_char);

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // SAFETY: libvirt made the text, which ends with a NUL, and nobody else has it.
        f.write_str(&unsafe { CStr::from_ptr(self.0) }.to_string_lossy())
    }
}

impl Drop for Text {
    fn drop(&mut self) {
        // SAFETY: from libvirt's allocator, which is malloc; freed once.
        unsafe { libc::free(self.0.cast()) };
    }
}

/// Bytes that one host tells the other through the client.
struct Cookie {
    start: *mut c_char,
    length: c_int,
}

impl Cookie {
    fn none() -> Self {
        Self { start: ptr::null_mut(), length: 0 }
    }
}

impl Drop for Cookie {
    fn drop(&mut self) {
        // SAFETY: from libvirt's allocator, which is malloc; freed once, and null is allowed.
        unsafe { libc::free(self.start.cast()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_phases_are_in_this_libvirt() {
        assert!(Phases::load().is_some());
    }

    #[test]
    fn the_flags_of_each_host_are_its_own() {
        let all = migrate::flags(&MigrateParams { auto_converge: true, ..MigrateParams::default() });
        assert_eq!(at_destination(all) & sys::VIR_MIGRATE_AUTO_CONVERGE, 0);
        assert_eq!(at_destination(all) & sys::VIR_MIGRATE_CHANGE_PROTECTION, 0);
        assert_eq!(protected(all) & !sys::VIR_MIGRATE_CHANGE_PROTECTION, all);
    }
}
