//! Rehearsal of a move with an empty copy of the VM: started paused at the source, moved to the destination and back, removed.
//!
//! A move of the twin goes through the end of a migration, where the destination's QEMU loads the state of the devices; of the
//! VM nothing is read but its configuration. The twin's name is that of its VM, so that a VM has one twin at a time, and a note
//! in its metadata says who made it: a twin whose process is gone is removed by the next rehearsal, and by `vmgate recover`.

mod leftover;
mod log;

use std::{
    net::IpAddr,
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use jiff::Timestamp;
pub use leftover::{ClearedTwins, clear_twins, rehearsal_started};
pub use log::HostFiles;
use vmgate_facts::{
    Cause, Rehearsal, Unknown, Uuid, Version,
    text::{ShownCommand, plain},
};
use vmgate_libvirt::{Domain, Hypervisor, LibvirtError, LibvirtErrorKind, domain_xml};

use super::{
    HostConnection, Hosts, driver,
    hand::{Twin, TwinNote},
};

/// Longest move of a twin, after which it is aborted: it takes about a second.
const LONGEST_MOVE: Duration = Duration::from_secs(30);
/// Longest wait for a host to start a QEMU, or to end one.
const QEMU_LIMIT: Duration = Duration::from_secs(20);
/// Time that libvirt gets to end a move that was aborted.
const ABORT_LIMIT: Duration = Duration::from_secs(10);
/// Pause before a host is asked again.
const PAUSE: Duration = Duration::from_millis(100);
/// First libvirt with UEFI without a file of variables.
const STATELESS_FIRMWARE: &str = "8.6.0";

/// Order of a rehearsal.
pub struct RehearsalOrder<'a> {
    /// Name or UUID of the VM, which runs at the source.
    pub vm: &'a str,
    /// Address at the destination that takes the traffic; libvirt's own choice where there is none.
    pub migrate_address: Option<IpAddr>,
    /// Person who makes it.
    pub by: &'a str,
    /// Way to files of both hosts.
    pub files: &'a dyn HostFiles,
}

/// Reason why a rehearsal showed nothing, neither that the VM can move nor that it cannot.
#[derive(Debug, thiserror::Error)]
pub enum NotRehearsed {
    /// A host failed, or has no such VM.
    #[error("{0}")]
    Host(#[from] LibvirtError),
    /// The VM does not run, so that its devices are not known.
    #[error(
        "the VM {0} does not run on {1}: only a running VM is rehearsed. Start it, or name the host that runs it with --from"
    )]
    NotRunning(String, String),
    /// No twin could be started.
    #[error("the empty copy of the VM could not be started on {host}: {why}")]
    NotStarted {
        /// Name of the source.
        host: String,
        /// Reason, in libvirt's words.
        why: String,
    },
    /// Another rehearsal of the VM is under way.
    #[error(
        "an empty copy of this VM is on {host} already, made by {by} at {at}: wait until that rehearsal has ended"
    )]
    Busy {
        /// Name of the host.
        host: String,
        /// Author of the other one.
        by: String,
        /// Its time.
        at: Timestamp,
    },
    /// A hook on a host did not let the twin in.
    #[error(
        "a hook on {host} did not let the twin in: {why}. If that is vmgate's own, let the twin in for a minute: vmgate hook \
         override {host} --minutes 1 --by NAME --reason rehearsal"
    )]
    Hook {
        /// Name of the host.
        host: String,
        /// Words of the hook.
        why: String,
    },
    /// The twin did not get over, for a reason that has nothing to do with its devices.
    #[error("the empty copy of the VM did not reach {host}: {why}")]
    Path {
        /// Name of the host.
        host: String,
        /// Reason, in libvirt's words.
        why: String,
    },
    /// The move of the twin was aborted.
    #[error("the rehearsal was ended: {0}. The copy of the VM is removed")]
    Aborted(String),
    /// The twin is still on a host.
    #[error("the empty copy {name} could not be removed from {host}: {why}. Remove it there: {remove}")]
    NotRemoved {
        /// Name of its domain.
        name: String,
        /// Command that removes it.
        remove: ShownCommand,
        /// Name of the host.
        host: String,
        /// Reason, in libvirt's words.
        why: String,
    },
}

impl From<NotRehearsed> for Unknown {
    fn from(why: NotRehearsed) -> Self {
        match why {
            NotRehearsed::Host(error) => error.into(),
            NotRehearsed::NotRunning(..) => Self::new(Cause::GuestNotRunning, why.to_string()),
            NotRehearsed::NotStarted { .. } | NotRehearsed::NotRemoved { .. } => {
                Self::new(Cause::NotSupported, why.to_string())
            }
            NotRehearsed::Hook { .. } => Self::new(Cause::PermissionDenied, why.to_string()),
            NotRehearsed::Path { .. } => Self::new(Cause::HostUnreachable, why.to_string()),
            NotRehearsed::Busy { .. } | NotRehearsed::Aborted(_) => {
                Self::new(Cause::NotRehearsed, why.to_string())
            }
        }
    }
}

impl Hosts {
    /// Rehearses the move of a VM. `stop` ends it; the twin is removed whatever happens.
    pub fn rehearse(&self, order: &RehearsalOrder, stop: &AtomicBool) -> Result<Rehearsal, NotRehearsed> {
        let start = Instant::now();
        let at = Timestamp::now();
        self.connect();
        let vm = self.source.domain(order.vm)?;
        let (uuid, xml) = (vm.uuid()?, live_xml(&vm, &self.source)?);
        self.make_room(&uuid)?;
        let note = TwinNote { of: uuid.clone(), by: plain(order.by), at, driver: driver::this_process() };
        let [source_version, destination_version] = self.versions()?;
        let (twin, not_rehearsed) = self.start(&xml, note)?;
        let went = self.there_and_back(&twin, order.migrate_address, stop);
        // As a check reads them: libvirt hides from a destination what it added itself.
        let config = domain_xml::parse(&vm.migratable_xml().unwrap_or(xml)).unwrap_or_default();
        let emulator = config.emulator.as_deref();
        let hosts = [&self.source, &self.destination];
        let (removed, logs, builds) = thread::scope(|scope| {
            let files = order.files;
            let logs = hosts.map(|host| scope.spawn(|| files.log(host, &twin.name())));
            let builds = hosts.map(|host| scope.spawn(|| files.build(host, emulator?)));
            let read = |reader: thread::ScopedJoinHandle<Option<String>>| reader.join().ok().flatten();
            (self.remove(&twin), logs.map(read), builds.map(read))
        });
        removed?;
        let Journey { failure, return_failure } = went?;
        let [home, there] = logs.each_ref().map(|log| log.as_deref());
        let [source_build, destination_build] = builds;
        Ok(Rehearsal {
            at,
            vm: uuid,
            source_version,
            destination_version,
            source_build,
            destination_build,
            machine_type: config.machine_type.unwrap_or_default(),
            devices: Rehearsal::devices_of(&config.components),
            failure: failure.map(|words| log::with_words_of(&words, there)),
            return_failure: return_failure.map(|words| log::with_words_of(&words, home)),
            not_rehearsed,
            total_seconds: start.elapsed().as_secs_f64(),
        })
    }

    /// Opens both connections at the same time: over ssh that takes longer than all that follows. What fails shows at the first
    /// question.
    fn connect(&self) {
        thread::scope(|scope| {
            for host in [&self.source, &self.destination] {
                scope.spawn(|| host.hypervisor());
            }
        });
    }

    /// Removes what an earlier rehearsal of this VM left behind.
    fn make_room(&self, vm: &Uuid) -> Result<(), NotRehearsed> {
        for host in [&self.source, &self.destination] {
            leftover::clear_host(host, false)?;
            let twins = host.ask(Twin::all_on)?;
            if let Some(other) = twins.iter().find(|twin| twin.note().of == *vm) {
                let note = other.note();
                return Err(NotRehearsed::Busy {
                    host: host.name().to_owned(),
                    by: plain(&note.by),
                    at: note.at,
                });
            }
        }
        Ok(())
    }

    fn start(&self, xml: &str, note: TwinNote) -> Result<(Twin, Vec<String>), NotRehearsed> {
        let has_stateless = |host: &HostConnection| {
            let version = host.ask(Hypervisor::libvirt_version)?;
            Ok::<_, LibvirtError>(STATELESS_FIRMWARE.parse().is_ok_and(|least: Version| version >= least))
        };
        let stateless = has_stateless(&self.source)? && has_stateless(&self.destination)?;
        let host = self.source.hypervisor()?.with_timeout(QEMU_LIMIT);
        Twin::start(&host, xml, note, stateless).map_err(|why| NotRehearsed::NotStarted {
            host: self.source.name().to_owned(),
            why: why.to_string(),
        })
    }

    fn versions(&self) -> Result<[Version; 2], LibvirtError> {
        let version = |host: &HostConnection| host.ask(Hypervisor::hypervisor_version);
        Ok([version(&self.source)?, version(&self.destination)?])
    }

    fn there_and_back(
        &self,
        twin: &Twin,
        address: Option<IpAddr>,
        stop: &AtomicBool,
    ) -> Result<Journey, NotRehearsed> {
        let address = address.map(crate::migration::migrate_uri);
        let failure = go(twin, &self.source, &self.destination, address.as_deref(), stop)?;
        let return_failure = match failure {
            Some(_) => None,
            None => go(twin, &self.destination, &self.source, None, stop)?,
        };
        Ok(Journey { failure, return_failure })
    }

    /// Removes the twin from both hosts. A host that is busy with it is asked again.
    fn remove(&self, twin: &Twin) -> Result<(), NotRehearsed> {
        for host in [&self.source, &self.destination] {
            let start = Instant::now();
            while let Err(error) = host.ask(|hypervisor| twin.remove(hypervisor)) {
                if start.elapsed() > QEMU_LIMIT {
                    return Err(NotRehearsed::NotRemoved {
                        remove: ShownCommand::new("virsh destroy").operand(twin.name()),
                        name: twin.name(),
                        host: host.name().to_owned(),
                        why: error.to_string(),
                    });
                }
                thread::sleep(PAUSE);
            }
        }
        Ok(())
    }
}

/// Failures of both moves of a twin, in libvirt's words.
struct Journey {
    failure: Option<String>,
    return_failure: Option<String>,
}

/// Moves the twin. Returns the words of a failure that says something about the move: a host that is gone, or an abort, does
/// not.
fn go(
    twin: &Twin,
    from: &HostConnection,
    to: &HostConnection,
    address: Option<&str>,
    stop: &AtomicBool,
) -> Result<Option<String>, NotRehearsed> {
    let (here, there) = (from.hypervisor()?.with_timeout(LONGEST_MOVE + ABORT_LIMIT), to.hypervisor()?);
    let start = Instant::now();
    let is_late = || start.elapsed() > LONGEST_MOVE;
    let moved = thread::scope(|scope| {
        let (moving, over) = mpsc::channel::<()>();
        scope.spawn({
            let here = here.clone();
            move || {
                while over.recv_timeout(PAUSE) == Err(RecvTimeoutError::Timeout) {
                    if is_late() || stop.load(Ordering::Relaxed) {
                        // Refused where it has just ended.
                        let _ = twin.abort(&here);
                    }
                }
            }
        });
        let moved = twin.migrate(&here, &there, address);
        drop(moving);
        moved
    });
    let Err(error) = moved else { return Ok(None) };
    if stop.load(Ordering::Relaxed) {
        return Err(NotRehearsed::Aborted("on request".to_owned()));
    }
    if is_late() {
        let seconds = LONGEST_MOVE.as_secs();
        return Err(NotRehearsed::Aborted(format!(
            "the empty copy of the VM did not arrive at {} within {seconds} s; check the migration network",
            to.name()
        )));
    }
    match error.kind {
        LibvirtErrorKind::TimedOut(_)
        | LibvirtErrorKind::NoLibvirt
        | LibvirtErrorKind::Unreachable(_)
        | LibvirtErrorKind::ConnectionLost(_)
        | LibvirtErrorKind::HostKey(_)
        | LibvirtErrorKind::PermissionDenied(_)
        | LibvirtErrorKind::Busy(_) => Err(NotRehearsed::Host(error)),
        LibvirtErrorKind::WrongState(why)
        | LibvirtErrorKind::NotSupported(why)
        | LibvirtErrorKind::AgentSilent(why)
        | LibvirtErrorKind::AgentRefused(why)
        | LibvirtErrorKind::Other(why) => {
            let (host, why) = (to.name().to_owned(), plain(&why));
            match subject_of(&why) {
                Subject::Hook => Err(NotRehearsed::Hook { host, why }),
                Subject::Path => Err(NotRehearsed::Path { host, why }),
                Subject::Twin => Ok(Some(why)),
            }
        }
        LibvirtErrorKind::NoSuchVm(_) => {
            Ok(Some(format!("the empty copy of the VM ended on {}", from.name())))
        }
    }
}

/// Live configuration of a VM that runs.
fn live_xml(vm: &Domain, host: &HostConnection) -> Result<String, NotRehearsed> {
    use vmgate_facts::VmState::{Crashed, ShutOff};
    if matches!(vm.state()?.state, ShutOff | Crashed) {
        return Err(NotRehearsed::NotRunning(vm.name()?, host.name().to_owned()));
    }
    Ok(vm.xml()?)
}

/// Subject of libvirt's words about a move that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Subject {
    /// A hook script of the destination.
    Hook,
    /// The way there, and what a host has left for one more QEMU.
    Path,
    /// The twin itself: what the destination cannot have or load.
    Twin,
}

/// Words with which libvirt and QEMU speak of the way. A failure of it may be over tomorrow, and says nothing about the VM.
const WORDS_OF_THE_WAY: &[&str] = &[
    "unable to connect to server",
    "connection refused",
    "connection reset",
    "connection timed out",
    "no route to host",
    "network is unreachable",
    "unable to resolve address",
    "address already in use",
    "unable to find an unused port",
    "cannot allocate memory",
    "no space left on device",
    "certificate",
    "tls",
];

fn subject_of(why: &str) -> Subject {
    let lower = why.to_ascii_lowercase();
    if lower.contains("hook script execution failed") {
        Subject::Hook
    } else if WORDS_OF_THE_WAY.iter().any(|words| lower.contains(words)) {
        Subject::Path
    } else {
        Subject::Twin
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_said_about_the_twin_says_something_about_the_vm() {
        for (why, subject) in [
            (
                "Hook script execution failed: internal error: Child process (/etc/libvirt/hooks/qemu) unexpected exit status 1",
                Subject::Hook,
            ),
            ("unable to connect to server at 'hv2:49152': No route to host", Subject::Path),
            (
                "internal error: unable to execute QEMU command 'object-add': Unable to access credentials of TLS",
                Subject::Path,
            ),
            (
                "operation failed: job 'migration in' failed: load of migration failed: Invalid argument",
                Subject::Twin,
            ),
            ("unsupported configuration: unknown watchdog model 'itco'", Subject::Twin),
        ] {
            assert_eq!(subject_of(why), subject, "{why}");
        }
    }
}
