//! Cuts a VM off the network at the hypervisor, at once, and lets it back exactly as it was.
//!
//! What was changed is noted on the running VM itself, in its metadata, before anything is changed. The note lives as
//! long as the change: both end when the VM is started anew, and both go with it when it migrates. So a release needs
//! nothing else, whoever asks for it and from where, and an isolation that stopped half-way is simply done again.

mod evidence;
mod links;

use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::Serialize;
use thiserror::Error;

pub use evidence::{Evidence, Kept, keep};
pub use links::{Link, Uncuttable};

use self::links::{Cut, Interface, LinkState, NOTE_URI};
use crate::{
    collect::{
        libvirt::{Domain, LibvirtError, LibvirtErrorKind},
        text::plain,
    },
    fact::VmState,
    ledger::{
        Entry,
        entry::{Isolation, IsolationAction},
    },
    verdict::{ExitCode, NameAndUuid},
};

/// How long a call may take: longer than a busy libvirt needs, since nothing else stops the harm.
const CALL_LIMIT: Duration = Duration::from_secs(35);

/// What was cut.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Isolated {
    /// The VM's name.
    pub vm: String,
    /// Its UUID.
    pub uuid: String,
    /// The host it runs on.
    pub host: String,
    /// When it began.
    pub at: Timestamp,
    /// Interfaces that were cut now.
    pub cut: Vec<Link>,
    /// Interfaces that an earlier isolation had cut.
    pub cut_before: Vec<Link>,
    /// Interfaces whose link was down before, and stays down after a release.
    pub down_before: Vec<Link>,
    /// What still has a network: nothing can cut it, or it did not work.
    pub not_cut: Vec<Uncuttable>,
    /// Time until libvirt had cut the last of them.
    pub took_seconds: f64,
    /// The configuration before, as libvirt gave it.
    #[serde(skip)]
    pub xml_before: String,
}

/// What was let back.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Released {
    /// The VM's name.
    pub vm: String,
    /// Its UUID.
    pub uuid: String,
    /// The host it runs on.
    pub host: String,
    /// Interfaces whose link is as it was before the isolation.
    pub released: Vec<Link>,
    /// Interfaces that stay down, because they were before.
    pub down_before: Vec<Link>,
    /// Interfaces that could not be let back.
    pub not_released: Vec<Uncuttable>,
    /// Who had isolated it, when and why; absent where it was not isolated.
    pub isolated: Option<String>,
    /// Time until libvirt had let back the last of them.
    pub took_seconds: f64,
}

/// What a change of a VM's links is written down with.
#[derive(Debug, Clone, Default)]
pub struct Circumstances {
    /// The host's UUID, where it is known.
    pub host_uuid: Option<String>,
    /// Who asked for it.
    pub by: String,
    /// Why.
    pub reason: String,
    /// Where the evidence is kept.
    pub evidence: Option<String>,
    /// The run of a move that it belongs to.
    pub run: Option<String>,
}

/// Why nothing was changed.
#[derive(Debug, Error)]
pub enum NotIsolated {
    /// libvirt did not answer.
    #[error(transparent)]
    Libvirt(#[from] LibvirtError),
    /// There is nothing to cut off.
    #[error("{vm} is not active on {host}, so there is nothing to cut off")]
    Inactive {
        /// The VM's name.
        vm: String,
        /// The host that was asked.
        host: String,
    },
    /// Its configuration cannot be read.
    #[error("{vm}: libvirt's domain XML is not well-formed: {why}")]
    Malformed {
        /// The VM's name.
        vm: String,
        /// What the parser says.
        why: String,
    },
}

impl Isolated {
    /// Whether nothing of it can reach a network any more.
    pub fn is_whole(&self) -> bool {
        self.not_cut.is_empty()
    }

    /// The entry for the ledger.
    pub fn entry(&self, around: Circumstances) -> Entry {
        let vm = named(&self.vm, Some(self.uuid.clone()));
        entry((vm, &self.host), IsolationAction::Isolated, &self.cut, self.took_seconds, around)
    }

    /// How the process ends.
    pub fn exit(&self) -> ExitCode {
        if self.is_whole() { ExitCode::Go } else { ExitCode::OperatorNeeded }
    }
}

impl Released {
    /// The entry for the ledger.
    pub fn entry(&self, around: Circumstances) -> Entry {
        let vm = named(&self.vm, Some(self.uuid.clone()));
        entry((vm, &self.host), IsolationAction::Released, &self.released, self.took_seconds, around)
    }

    /// How the process ends.
    pub fn exit(&self) -> ExitCode {
        if self.not_released.is_empty() { ExitCode::Go } else { ExitCode::OperatorNeeded }
    }
}

fn named(name: &str, uuid: Option<String>) -> NameAndUuid {
    NameAndUuid { name: Some(name.to_owned()), uuid }
}

fn entry(
    (vm, host): (NameAndUuid, &str),
    action: IsolationAction,
    links: &[Link],
    took_seconds: f64,
    around: Circumstances,
) -> Entry {
    Entry::Isolation(Isolation {
        vm,
        host: named(host, around.host_uuid),
        action,
        interfaces: links.iter().map(|link| link.mac.clone()).collect(),
        took_seconds,
        reason: around.reason,
        by: around.by,
        evidence: around.evidence,
        run: around.run,
    })
}

/// Cuts every interface of the running VM. What cannot be cut is named and does not keep the others from being cut.
pub fn isolate(domain: &Domain, host: &str, by: &str, reason: &str) -> Result<Isolated, NotIsolated> {
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

    let mut not_cut: Vec<Uncuttable> = none.iter().map(|interface| interface.uncuttable()).collect();
    not_cut.extend(seen.host_devices.iter().cloned());
    if !up.is_empty() {
        let note = earlier.with(up.iter().map(|interface| Cut::of(interface)), at, by, reason);
        // Without the note a release does not know what to do; with the network up, harm is done meanwhile.
        if let Err(error) = domain.set_metadata_element(NOTE_URI, Some(&note.to_xml())) {
            tracing::warn!(
                "{error}: `vmgate isolate --release` will not know what was cut; the evidence does"
            );
        }
    }
    let mut cut = Vec::new();
    for interface in up {
        match domain.update_device(&interface.with(LinkState::Down)) {
            Ok(()) => cut.push(interface.link()),
            Err(error) => not_cut.push(interface.failed(&error.to_string())),
        }
    }
    let took_seconds = start.elapsed().as_secs_f64();
    let links = |interfaces: Vec<&Interface>| interfaces.into_iter().map(Interface::link).collect();
    Ok(Isolated {
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

/// Lets back what an isolation cut, and nothing else. Doing it again does the rest.
pub fn release(domain: &Domain, host: &str) -> Result<Released, NotIsolated> {
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
        match domain.update_device(&interface.with(cut.was)) {
            Ok(()) => released.push(interface.link()),
            Err(error) => not_released.push(interface.failed(&error.to_string())),
        }
    }
    let took_seconds = start.elapsed().as_secs_f64();
    // The note stays for what is left to do.
    if not_released.is_empty() && !note.cut.is_empty() {
        domain.set_metadata_element(NOTE_URI, None)?;
    }
    let isolated = (!note.cut.is_empty()).then(|| format!("{} at {}: {}", note.by, note.at, note.reason));
    Ok(Released {
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

/// Name, UUID and live configuration of a VM that is active.
fn active(domain: &Domain, host: &str) -> Result<(String, String, String), NotIsolated> {
    let vm = plain(&domain.name()?);
    if domain.state()?.state == VmState::ShutOff {
        return Err(NotIsolated::Inactive { vm, host: host.to_owned() });
    }
    match domain.xml() {
        Ok(xml) => Ok((vm, domain.uuid()?, xml)),
        Err(LibvirtError { kind: LibvirtErrorKind::NoSuchVm(_), .. }) => {
            Err(NotIsolated::Inactive { vm, host: host.to_owned() })
        }
        Err(error) => Err(error.into()),
    }
}

fn malformed(vm: &str, why: &roxmltree::Error) -> NotIsolated {
    NotIsolated::Malformed { vm: vm.to_owned(), why: why.to_string() }
}
