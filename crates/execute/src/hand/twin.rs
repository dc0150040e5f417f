//! Empty twins of VMs: domains that vmgate made itself, and may therefore start, move and remove without a pass.
//!
//! A [`Twin`] comes from [`Twin::start`], which gives it a fresh UUID, or from a host, where a domain is one only if its name,
//! its UUID and its note agree, and nothing of it is stored. So nobody's VM can take this road.

use std::{
    ffi::{CString, c_int},
    fs,
};

use jiff::Timestamp;
use vmgate_facts::{Uuid, xml};
use vmgate_ledger::entry::Driver;
use vmgate_libvirt::{
    Domain, Hypervisor, LibvirtError, LibvirtErrorKind,
    domain_xml::twin::{self, NoTwin, TWIN_NAMESPACE, TwinIdentity},
    raw::{ParamList, RawError, checked, sys},
};

/// Prefix of a twin's name; the UUID of its VM follows, so that a VM has one twin at a time.
const NAME: &str = "vmgate-twin-";

/// A domain that vmgate made to rehearse the move of a VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Twin {
    uuid: Uuid,
    note: TwinNote,
}

/// Note in the metadata of a twin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TwinNote {
    /// UUID of the VM.
    pub(crate) of: Uuid,
    /// Person who made it.
    pub(crate) by: String,
    /// Time at which it was made.
    pub(crate) at: Timestamp,
    /// Process that made it.
    pub(crate) driver: Driver,
}

/// Reason why there is no twin.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotStarted {
    /// None can be made of the VM.
    #[error(transparent)]
    NoTwin(#[from] NoTwin),
    /// The host did not start it.
    #[error(transparent)]
    Refused(#[from] LibvirtError),
}

impl Twin {
    /// Starts a twin of the VM with this live configuration, paused. Also returns what it lacks, by name.
    pub(crate) fn start(
        host: &Hypervisor,
        live_xml: &str,
        note: TwinNote,
        stateless_firmware: bool,
    ) -> Result<(Self, Vec<String>), NotStarted> {
        let action = "start an empty copy of the VM";
        let twin = Self { uuid: fresh_uuid(host, action)?, note };
        let identity = TwinIdentity {
            name: twin.name(),
            uuid: twin.uuid.clone(),
            note: twin.note.attributes(&twin.uuid),
            stateless_firmware,
        };
        let config = twin::of(live_xml, &identity)?;
        let xml = CString::new(config.xml).map_err(|_| {
            host.error(action, LibvirtErrorKind::Other("its configuration holds a NUL".to_owned()))
        })?;
        host.raw_call(action, move |connect| {
            // SAFETY: the connection is valid while the call runs, and the text ends with a NUL.
            let started =
                unsafe { sys::virDomainCreateXML(connect, xml.as_ptr(), sys::VIR_DOMAIN_START_PAUSED) };
            free(started)
        })?;
        Ok((twin, config.not_rehearsed))
    }

    /// Every twin on the host, whoever made it.
    pub(crate) fn all_on(host: &Hypervisor) -> Result<Vec<Self>, LibvirtError> {
        let names = host.vm_names()?;
        let twins = names.iter().filter(|name| name.starts_with(NAME)).filter_map(|name| {
            let domain = host.domain(name).ok()?;
            if domain.is_persistent().unwrap_or(true) {
                return None;
            }
            Self::read(name, &domain.xml().ok()?)
        });
        Ok(twins.collect())
    }

    /// The twin of this name and configuration; `None` for any other domain.
    fn read(name: &str, live_xml: &str) -> Option<Self> {
        let document = xml::parse(live_xml).ok()?;
        let domain = document.root_element();
        let child = |name: &str| domain.children().find(|node| node.has_tag_name(name));
        let uuid: Uuid = child("uuid")?.text()?.parse().ok()?;
        let note = child("metadata")?.children().find(|node| node.has_tag_name((TWIN_NAMESPACE, "twin")))?;
        let text = |name: &str| note.attribute(name);
        let driver = Driver {
            machine: text("machine")?.to_owned(),
            boot: text("boot")?.to_owned(),
            pid: text("pid")?.parse().ok()?,
            started_ticks: text("started")?.parse().ok()?,
        };
        let (of, by, at) = (text("of")?.parse().ok()?, text("by")?.to_owned(), text("at")?.parse().ok()?);
        let twin = Self { uuid, note: TwinNote { of, by, at, driver } };
        // A VM that somebody made from a twin's configuration has another name, or another UUID.
        (twin.name() == name && text("uuid") == Some(twin.uuid.as_str())).then_some(twin)
    }

    /// Name of its domain.
    pub(crate) fn name(&self) -> String {
        format!("{NAME}{}", self.note.of)
    }

    /// Its note.
    pub(crate) fn note(&self) -> &TwinNote {
        &self.note
    }

    /// Moves it from host to host, over the connections that there are. Blocks until that is over; [`Twin::abort`] from another
    /// thread ends it. After the time limit of `from` the call is left behind. A host that takes VMs with TLS only (migrate_tls_force)
    /// is given one.
    pub(crate) fn migrate(
        &self,
        from: &Hypervisor,
        to: &Hypervisor,
        migrate_uri: Option<&str>,
    ) -> Result<(), LibvirtError> {
        match self.migrate_with(from, to, migrate_uri, 0) {
            Err(error) if error.to_string().contains("VIR_MIGRATE_TLS") => {
                self.migrate_with(from, to, migrate_uri, sys::VIR_MIGRATE_TLS)
            }
            moved => moved,
        }
    }

    fn migrate_with(
        &self,
        from: &Hypervisor,
        to: &Hypervisor,
        migrate_uri: Option<&str>,
        tls: sys::virDomainMigrateFlags,
    ) -> Result<(), LibvirtError> {
        let action = format!("move the twin to {}", to.name());
        let uri = migrate_uri.map(str::to_owned);
        self.on(from)?.raw_call_to(to, &action, move |domain, destination| {
            let mut list = ParamList::new();
            if let Some(uri) = &uri {
                list.text(sys::VIR_MIGRATE_PARAM_URI, uri)?;
            }
            let (values, count) = list.as_parts();
            let flags = sys::VIR_MIGRATE_LIVE | sys::VIR_MIGRATE_ABORT_ON_ERROR | tls;
            // SAFETY: domain and connection are valid while the call runs, and the list has `count` parameters.
            free(unsafe { sys::virDomainMigrate3(domain, destination, values, count, flags) })
        })
    }

    /// Ends the move that is under way.
    pub(crate) fn abort(&self, from: &Hypervisor) -> Result<(), LibvirtError> {
        super::abort_job(&self.on(from)?)
    }

    /// Removes it from a host. False if it was not there.
    pub(crate) fn remove(&self, host: &Hypervisor) -> Result<bool, LibvirtError> {
        match self.on(host) {
            Ok(domain) => super::destroy(&domain).map(|()| true),
            Err(LibvirtError { kind: LibvirtErrorKind::NoSuchVm(_), .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Its domain on a host, looked at once more.
    fn on(&self, host: &Hypervisor) -> Result<Domain, LibvirtError> {
        let domain = host.domain(self.uuid.as_str())?;
        if Self::read(&domain.name()?, &domain.xml()?).as_ref() == Some(self) {
            return Ok(domain);
        }
        let other = format!("the domain {} is not the twin that vmgate made", self.uuid);
        Err(host.error("find the twin", LibvirtErrorKind::Other(other)))
    }
}

impl TwinNote {
    fn attributes(&self, own: &Uuid) -> Vec<(&'static str, String)> {
        let Self { of, by, at, driver } = self;
        vec![
            ("uuid", own.to_string()),
            ("of", of.to_string()),
            ("by", by.clone()),
            ("at", at.to_string()),
            ("machine", driver.machine.clone()),
            ("boot", driver.boot.clone()),
            ("pid", driver.pid.to_string()),
            ("started", driver.started_ticks.to_string()),
        ]
    }
}

/// A UUID that nobody has (RFC 9562, version 4, from the kernel).
fn fresh_uuid(host: &Hypervisor, action: &str) -> Result<Uuid, LibvirtError> {
    let text = fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap_or_default();
    text.trim().parse().map_err(|_| {
        let why = "this machine's kernel gives no random UUID (/proc/sys/kernel/random/uuid)";
        host.error(action, LibvirtErrorKind::Other(why.to_owned()))
    })
}

/// Gives up the reference to a domain that libvirt returned.
fn free(domain: sys::virDomainPtr) -> Result<(), RawError> {
    if domain.is_null() {
        return Err(RawError::last_error());
    }
    // SAFETY: libvirt returned a new reference, which nothing else has.
    let freed: Result<c_int, RawError> = checked(unsafe { sys::virDomainFree(domain) }).map(|()| 0);
    freed.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OF: &str = "5e7c9b3e-6a0e-4c2e-9a53-0d6f5a5c9d11";
    const OWN: &str = "0d6f5a5c-6a0e-4c2e-9a53-5e7c9b3e9d12";

    fn note() -> TwinNote {
        TwinNote {
            of: OF.parse().unwrap(),
            by: "o'hara".to_owned(),
            at: "2026-11-29T10:00:00Z".parse().unwrap(),
            driver: Driver { machine: "ops".to_owned(), boot: "b".to_owned(), pid: 7, started_ticks: 9 },
        }
    }

    fn xml_of(uuid: &str, own: &str) -> String {
        let identity = TwinIdentity {
            name: format!("{NAME}{OF}"),
            uuid: uuid.parse().unwrap(),
            note: note().attributes(&own.parse().unwrap()),
            stateless_firmware: true,
        };
        let vm = "<domain type='kvm'><vcpu>1</vcpu><os><type>hvm</type></os><devices/></domain>";
        twin::of(vm, &identity).unwrap().xml
    }

    #[test]
    fn a_domain_is_a_twin_only_if_name_uuid_and_note_agree() {
        let found = Twin::read(&format!("{NAME}{OF}"), &xml_of(OWN, OWN));
        assert_eq!(found, Some(Twin { uuid: OWN.parse().unwrap(), note: note() }));
        assert_eq!(Twin::read("web1", &xml_of(OWN, OWN)), None, "another name");
        assert_eq!(Twin::read(&format!("{NAME}{OF}"), &xml_of(OF, OWN)), None, "a copy with another UUID");
        let without = xml_of(OWN, OWN).replace(TWIN_NAMESPACE, "urn:x");
        assert_eq!(Twin::read(&format!("{NAME}{OF}"), &without), None, "no note");
        assert_eq!(Twin::read("web1", "<domain>"), None);
    }
}
