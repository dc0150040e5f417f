//! A VM of a hypervisor: identity, configuration, state, life cycle and guest agent.

use std::{ffi::c_int, sync::Arc, time::Duration};

use virt::{domain::Domain as RawDomain, error::Error, sys};
use vmgate_facts::{InvalidUuid, Uuid, VmState};

use super::{
    Hypervisor, LibvirtErrorKind, error::LibvirtError, limit::CallLimit, params::checked, session::Session,
};

/// Time that a call gets in addition to the agent's own time limit, for the round trip.
const AGENT_MARGIN: Duration = Duration::from_secs(1);

/// A VM, found on a hypervisor. Cheap to clone; clones may be used from several threads at once.
#[derive(Debug, Clone)]
pub struct Domain {
    raw: Arc<RawDomain>,
    // After `raw`, so that the connection is closed by the session, which does it without hanging.
    session: Arc<Session>,
    limit: CallLimit,
}

/// Present state of a VM, with libvirt's reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunState {
    /// The state.
    pub state: VmState,
    /// libvirt's number for the reason, whose meaning depends on the state (virDomainRunningReason …).
    pub reason: i32,
}

impl Domain {
    pub(super) fn new(raw: RawDomain, session: &Arc<Session>, limit: &CallLimit) -> Self {
        Self { raw: Arc::new(raw), session: Arc::clone(session), limit: limit.clone() }
    }

    /// The hypervisor on which the VM was found.
    pub fn hypervisor(&self) -> Hypervisor {
        Hypervisor { session: Arc::clone(&self.session), limit: self.limit.clone() }
    }

    /// Host and time limit of calls.
    pub(super) fn limit(&self) -> &CallLimit {
        &self.limit
    }

    /// Connection over which the VM was found.
    pub(super) fn session(&self) -> &Arc<Session> {
        &self.session
    }

    /// The `virt` crate's domain, for the calls of it that do no harm.
    pub(super) fn raw(&self) -> &RawDomain {
        &self.raw
    }

    /// The domain's raw pointer; it is valid for as long as `self` is.
    pub(super) fn as_ptr(&self) -> sys::virDomainPtr {
        // SAFETY: only passed to libvirt calls made while `self` is borrowed, and `self` holds the reference that
        // keeps it valid.
        unsafe { self.raw.as_ptr() }
    }

    /// The same VM with another time limit.
    #[must_use]
    pub fn with_timeout(&self, timeout: Duration) -> Self {
        let limit = CallLimit { host: self.limit.host.clone(), timeout };
        Self { raw: Arc::clone(&self.raw), session: Arc::clone(&self.session), limit }
    }

    /// Runs a call on the VM under the time limit.
    pub(super) fn call<T: Send + 'static>(
        &self,
        action: &str,
        work: impl FnOnce(&Self) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, LibvirtError> {
        let domain = self.clone();
        self.limit.call(action, move || work(&domain))
    }

    /// The VM's name.
    pub fn name(&self) -> Result<String, LibvirtError> {
        self.call("read the VM's name", |domain| domain.raw.name())
    }

    /// The VM's UUID.
    pub fn uuid(&self) -> Result<Uuid, LibvirtError> {
        let action = "read the VM's UUID";
        let text = self.call(action, |domain| domain.raw.uuid_string())?;
        text.parse()
            .map_err(|why: InvalidUuid| self.limit.error(action, LibvirtErrorKind::Other(why.to_string())))
    }

    /// Number that libvirt gave to this start of the VM when the VM was found; none if it did not run then.
    pub fn id(&self) -> Option<u32> {
        self.raw.id()
    }

    /// The live configuration; the stored one where the VM does not run.
    pub fn xml(&self) -> Result<String, LibvirtError> {
        self.call("read the VM's configuration", |domain| domain.raw.xml_desc(0))
    }

    /// The configuration as a migration sends it to the destination: interfaces by the name of their network, and nothing that
    /// libvirt chose for this host only. Needs a connection that may write.
    pub fn migratable_xml(&self) -> Result<String, LibvirtError> {
        self.call("read the VM's migratable configuration", |domain| {
            domain.raw.xml_desc(sys::VIR_DOMAIN_XML_MIGRATABLE)
        })
    }

    /// Reads the present state of the VM.
    pub fn state(&self) -> Result<RunState, LibvirtError> {
        let (state, reason) = self.call("read the VM's state", |domain| {
            let (mut state, mut reason): (c_int, c_int) = (-1, -1);
            // SAFETY: both pointers are to live integers that libvirt fills.
            checked(unsafe { sys::virDomainGetState(domain.as_ptr(), &raw mut state, &raw mut reason, 0) })?;
            Ok((state, reason))
        })?;
        let state = match u32::try_from(state).unwrap_or(sys::VIR_DOMAIN_NOSTATE) {
            // A VM that is blocked on a resource is running all the same.
            sys::VIR_DOMAIN_RUNNING | sys::VIR_DOMAIN_BLOCKED | sys::VIR_DOMAIN_NOSTATE => VmState::Running,
            sys::VIR_DOMAIN_PAUSED => VmState::Paused,
            sys::VIR_DOMAIN_SHUTDOWN => VmState::ShuttingDown,
            sys::VIR_DOMAIN_CRASHED => VmState::Crashed,
            sys::VIR_DOMAIN_PMSUSPENDED => VmState::Suspended,
            _ => VmState::ShutOff,
        };
        Ok(RunState { state, reason })
    }

    /// True if the configuration is stored on the host.
    pub fn is_persistent(&self) -> Result<bool, LibvirtError> {
        self.call("read if the VM is persistent", |domain| domain.raw.is_persistent())
    }

    /// Frames that the guest has sent through a device of the host since it is there.
    pub fn frames_sent(&self, device: &str) -> Result<u64, LibvirtError> {
        let device = device.to_owned();
        self.call("read the frame counter of an interface", move |domain| {
            domain.raw.interface_stats(&device).map(|stats| u64::try_from(stats.tx_packets).unwrap_or(0))
        })
    }

    /// Resident memory of the VM's QEMU, from libvirt's balloon statistics; none where libvirt has no figure.
    pub fn resident_bytes(&self) -> Result<Option<u64>, LibvirtError> {
        self.call("read the VM's memory statistics", |domain| {
            let stats = domain.raw.memory_stats(0)?;
            let resident = stats.iter().find(|stat| stat.tag == sys::VIR_DOMAIN_MEMORY_STAT_RSS);
            Ok(resident.map(|stat| stat.val.saturating_mul(1024)).filter(|bytes| *bytes > 0))
        })
    }

    /// Sends a command to the guest agent and returns its answer, both JSON. `patience` is the agent's time limit, rounded
    /// up to whole seconds; the whole call gets one second more for the round trip.
    ///
    /// libvirt sends one agent command at a time, and before each it checks that the agent listens.
    pub fn agent_command(&self, json: &str, patience: Duration) -> Result<String, LibvirtError> {
        let seconds = c_int::try_from(patience.as_millis().div_ceil(1000)).unwrap_or(c_int::MAX).max(1);
        let json = json.to_owned();
        self.with_timeout(patience.saturating_add(AGENT_MARGIN))
            .call("ask the guest agent", move |domain| domain.raw.qemu_agent_command(&json, seconds, 0))
    }

    /// Reads the guest's clock through its agent, in seconds since the epoch. Unlike [`Domain::agent_command`] this is a
    /// call of libvirt's own and does not taint the domain.
    pub fn guest_time(&self) -> Result<i64, LibvirtError> {
        self.call("ask the guest agent for the time", |domain| domain.raw.time(0).map(|(seconds, _)| seconds))
    }
}

#[cfg(test)]
mod tests {
    use super::{super::LibvirtErrorKind, *};

    fn mock() -> Domain {
        let host = Hypervisor::open(
            &vmgate_facts::Uri::from_operator("test:///default").unwrap(),
            Duration::from_secs(10),
        )
        .unwrap();
        host.domain("test").unwrap()
    }

    #[test]
    fn a_mock_vm_tells_about_itself() {
        let vm = mock();
        assert_eq!(vm.name().unwrap(), "test");
        assert_eq!(vm.uuid().unwrap().as_str().len(), 36);
        assert_eq!(vm.state().unwrap().state, VmState::Running);
        assert!(vm.is_persistent().unwrap());
        assert!(vm.xml().unwrap().contains("<name>test</name>"));
    }

    #[test]
    fn a_driver_without_agent_says_so() {
        let error = mock().agent_command(r#"{"execute":"guest-ping"}"#, Duration::from_secs(1)).unwrap_err();
        assert!(matches!(error.kind, LibvirtErrorKind::NotSupported(_)), "{error}");
        let nul = mock().agent_command("a\0b", Duration::from_secs(1));
        assert!(nul.is_err());
    }
}
