//! Isolation: cuts a VM off the network at the hypervisor, at once, and connects it again exactly as it was.
//!
//! A note of the interfaces is written to the running VM itself, in its metadata, before they are cut. The note lives as
//! long as the cut: both end when the VM is restarted, and both go with it when it migrates. So a release needs
//! nothing else, whoever asks for it and from where, and an interrupted isolation is simply repeated.

mod evidence;
mod links;

use std::time::{Duration, Instant};

pub use evidence::{EvidenceSources, SavedEvidence, save_evidence};
use jiff::Timestamp;
pub use links::{Link, UncutDevice};
use serde::Serialize;
use thiserror::Error;
use vmgate_facts::{Uuid, VmState, text::plain};
use vmgate_ledger::{
    Entry,
    entry::{Isolation, IsolationAction},
};
use vmgate_libvirt::{Domain, LibvirtError, LibvirtErrorKind};
use vmgate_verdict::{ExitCode, NameAndUuid};

use crate::{
    hand,
    isolate::links::{CutInterface, Interface, LinkState, NOTE_URI},
};

/// Time limit of a libvirt call: longer than a busy libvirt needs, since nothing else stops the harm.
const CALL_LIMIT: Duration = Duration::from_secs(35);

/// Report of an isolation.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct IsolationReport {
    /// Name of the VM.
    pub vm: String,
    /// UUID of the VM.
    pub uuid: Uuid,
    /// Host that the VM runs on.
    pub host: String,
    /// Time of the beginning.
    pub at: Timestamp,
    /// Interfaces that were cut now.
    pub cut: Vec<Link>,
    /// Interfaces that an earlier isolation had cut.
    pub cut_before: Vec<Link>,
    /// Interfaces whose link was down before, and stays down after a release.
    pub down_before: Vec<Link>,
    /// Devices that still have a network: libvirt cannot cut them, or the cut failed.
    pub not_cut: Vec<UncutDevice>,
    /// Time until libvirt had cut the last interface.
    pub took_seconds: f64,
    /// Domain XML before the isolation, as libvirt gave it.
    #[serde(skip)]
    pub xml_before: String,
}

/// Report of a release.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ReleaseReport {
    /// Name of the VM.
    pub vm: String,
    /// UUID of the VM.
    pub uuid: Uuid,
    /// Host that the VM runs on.
    pub host: String,
    /// Interfaces whose link is as it was before the isolation.
    pub released: Vec<Link>,
    /// Interfaces that stay down, because they were before.
    pub down_before: Vec<Link>,
    /// Interfaces that could not be connected again.
    pub not_released: Vec<UncutDevice>,
    /// Operator, time and reason of the isolation; absent if the VM was not isolated.
    pub isolated: Option<String>,
    /// Time until libvirt had connected the last interface again.
    pub took_seconds: f64,
}

/// Context of an isolation or release, for its ledger record.
#[derive(Debug, Clone, Default)]
pub struct IsolationContext {
    /// The host's UUID, where it is known.
    pub host_uuid: Option<Uuid>,
    /// Operator.
    pub by: String,
    /// Reason.
    pub reason: String,
    /// Folder of the evidence.
    pub evidence: Option<String>,
    /// Id of the run of a move that caused it.
    pub run: Option<String>,
}

/// Error of an isolation or release. Nothing was changed.
#[derive(Debug, Error)]
pub enum IsolationError {
    /// libvirt did not answer.
    #[error(transparent)]
    Libvirt(#[from] LibvirtError),
    /// The VM does not run on this host.
    #[error("{vm} is not active on {host}, so there is nothing to cut off")]
    Inactive {
        /// Name of the VM.
        vm: String,
        /// Host that was asked.
        host: String,
    },
    /// The domain XML cannot be read.
    #[error("{vm}: libvirt's domain XML is not well-formed: {why}")]
    Malformed {
        /// Name of the VM.
        vm: String,
        /// Message of the XML parser.
        why: String,
    },
}

impl IsolationReport {
    /// True if no device of the VM can reach a network any more.
    pub fn is_complete(&self) -> bool {
        self.not_cut.is_empty()
    }

    /// The entry for the ledger.
    pub fn entry(&self, context: IsolationContext) -> Entry {
        let vm = named(&self.vm, Some(self.uuid.clone()));
        entry((vm, &self.host), IsolationAction::Isolated, &self.cut, self.took_seconds, context)
    }

    /// Exit code of the process.
    pub fn exit(&self) -> ExitCode {
        if self.is_complete() { ExitCode::Go } else { ExitCode::OperatorNeeded }
    }
}

impl ReleaseReport {
    /// The entry for the ledger.
    pub fn entry(&self, context: IsolationContext) -> Entry {
        let vm = named(&self.vm, Some(self.uuid.clone()));
        entry((vm, &self.host), IsolationAction::Released, &self.released, self.took_seconds, context)
    }

    /// Exit code of the process.
    pub fn exit(&self) -> ExitCode {
        if self.not_released.is_empty() { ExitCode::Go } else { ExitCode::OperatorNeeded }
    }
}

fn named(name: &str, uuid: Option<Uuid>) -> NameAndUuid {
    NameAndUuid { name: Some(name.to_owned()), uuid }
}

fn entry(
    (vm, host): (NameAndUuid, &str),
    action: IsolationAction,
    links: &[Link],
    took_seconds: f64,
    context: IsolationContext,
) -> Entry {
    Entry::Isolation(Isolation {
        vm,
        host: named(host, context.host_uuid),
        action,
        interfaces: links.iter().map(|link| link.mac.clone()).collect(),
        took_seconds,
        reason: context.reason,
        by: context.by,
        evidence: context.evidence,
        run: context.run,
    })
}

/// Cuts every interface of the running VM. The report names those that cannot be cut; they do not stop the others.
pub fn isolate(
    domain: &Domain,
    host: &str,
    by: &str,
    reason: &str,
) -> Result<IsolationReport, IsolationError> {
    let (start, at) = (Instant::now(), Timestamp::now());
    let domain = domain.with_timeout(CALL_LIMIT);
    let (vm, uuid, xml) = active(&domain, host)?;
    let seen = links::read(&xml).map_err(|why| malformed(&vm, &why))?;
    let (up, down): (Vec<&Interface>, Vec<&Interface>) =
        seen.interfaces.iter().partition(|interface| interface.state != LinkState::Down);
    let earlier = seen.note.clone().unwrap_or_default();
    let (cut_before, down_before): (Vec<&Interface>, Vec<&Interface>) =
        down.into_iter().partition(|interface| earlier.cut.iter().any(|cut| cut.is(interface)));
    let (up, none): (Vec<&Interface>, Vec<&Interface>) =
        up.into_iter().partition(|interface| interface.has_link());

    let mut not_cut: Vec<UncutDevice> = none.iter().map(|interface| interface.uncuttable()).collect();
    not_cut.extend(seen.host_devices.iter().cloned());
    if !up.is_empty() {
        let note = earlier.with(up.iter().map(|interface| CutInterface::of(interface)), at, by, reason);
        // Without the note a release does not know what to do; with the network up, harm is done meanwhile.
        if let Err(error) = hand::set_note(&domain, NOTE_URI, Some(&note.to_xml())) {
            tracing::warn!(
                "{error}: `vmgate isolate --release` will not know which interfaces were cut; the evidence lists them"
            );
        }
    }
    let mut cut = Vec::new();
    for interface in up {
        match hand::update_device(&domain, &interface.with(LinkState::Down)) {
            Ok(()) => cut.push(interface.link()),
            Err(error) => not_cut.push(interface.failed(&error.to_string())),
        }
    }
    let took_seconds = start.elapsed().as_secs_f64();
    let links = |interfaces: Vec<&Interface>| interfaces.into_iter().map(Interface::link).collect();
    Ok(IsolationReport {
        vm,
        uuid,
        host: host.to_owned(),
        at,
        cut,
        cut_before: links(cut_before),
        down_before: links(down_before),
        not_cut,
        took_seconds,
        xml_before: xml,
    })
}

/// Connects the interfaces that an isolation cut, and no others. A second call tries those that failed.
pub fn release(domain: &Domain, host: &str) -> Result<ReleaseReport, IsolationError> {
    let start = Instant::now();
    let domain = domain.with_timeout(CALL_LIMIT);
    let (vm, uuid, xml) = active(&domain, host)?;
    let seen = links::read(&xml).map_err(|why| malformed(&vm, &why))?;
    let note = seen.note.unwrap_or_default();
    let down = seen.interfaces.iter().filter(|interface| interface.state == LinkState::Down);
    let (mut released, mut down_before, mut not_released) = (Vec::new(), Vec::new(), Vec::new());
    for interface in down {
        let Some(cut) = note.cut.iter().find(|cut| cut.is(interface)) else {
            down_before.push(interface.link());
            continue;
        };
        match hand::update_device(&domain, &interface.with(cut.was)) {
            Ok(()) => released.push(interface.link()),
            Err(error) => not_released.push(interface.failed(&error.to_string())),
        }
    }
    let took_seconds = start.elapsed().as_secs_f64();
    // The note stays if an interface could not be connected again.
    if not_released.is_empty() && !note.cut.is_empty() {
        hand::set_note(&domain, NOTE_URI, None)?;
    }
    let isolated = (!note.cut.is_empty()).then(|| format!("{} at {}: {}", note.by, note.at, note.reason));
    Ok(ReleaseReport {
        vm,
        uuid,
        host: host.to_owned(),
        released,
        down_before,
        not_released,
        isolated,
        took_seconds,
    })
}

/// Name, UUID and live domain XML of an active VM.
fn active(domain: &Domain, host: &str) -> Result<(String, Uuid, String), IsolationError> {
    let vm = plain(&domain.name()?);
    if domain.state()?.state == VmState::ShutOff {
        return Err(IsolationError::Inactive { vm, host: host.to_owned() });
    }
    match domain.xml() {
        Ok(xml) => Ok((vm, domain.uuid()?, xml)),
        Err(LibvirtError { kind: LibvirtErrorKind::NoSuchVm(_), .. }) => {
            Err(IsolationError::Inactive { vm, host: host.to_owned() })
        }
        Err(error) => Err(error.into()),
    }
}

fn malformed(vm: &str, why: &roxmltree::Error) -> IsolationError {
    IsolationError::Malformed { vm: vm.to_owned(), why: why.to_string() }
}

/// Reads the network devices and the isolation note of a domain XML.
#[cfg(feature = "fuzzing")]
pub fn fuzz_links(xml: &str) {
    let _ = links::read(xml);
}
