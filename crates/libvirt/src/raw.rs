//! The door for whoever changes VMs: libvirt's C functions, and raw pointers under this crate's time limits.
//!
//! To have a pointer is harmless; to call with it takes `unsafe`, which every crate forbids but this one, the probe and the
//! executor's private module `hand`.

use std::sync::Arc;

use virt::domain::Domain as RawDomain;
pub use virt::{error::Error as RawError, sys};

pub use super::params::{ParamList, checked};
use super::{
    Domain, Hypervisor, LibvirtError, LibvirtErrorKind,
    limit::CallLimit,
    session::{KeepaliveSession, Session},
};

/// A VM and a destination over connections that a silent daemon ends: for one call that may last, on one thread.
#[derive(Debug)]
pub struct WatchedMove {
    // Before the sessions, which close their connections.
    domain: RawDomain,
    to: KeepaliveSession,
    _from: KeepaliveSession,
}

impl WatchedMove {
    /// The VM at its source; valid for as long as `self` is.
    pub fn domain(&self) -> sys::virDomainPtr {
        // SAFETY: `self` holds the reference that keeps the pointer valid.
        unsafe { self.domain.as_ptr() }
    }

    /// The connection to the destination; valid for as long as `self` is.
    pub fn destination(&self) -> sys::virConnectPtr {
        self.to.session().as_ptr()
    }
}

impl Hypervisor {
    /// Runs a call on the connection's pointer under the time limit. The pointer is valid while the call runs.
    pub fn raw_call<T: Send + 'static>(
        &self,
        doing: &str,
        work: impl FnOnce(sys::virConnectPtr) -> Result<T, RawError> + Send + 'static,
    ) -> Result<T, LibvirtError> {
        self.call(doing, move |session| work(session.as_ptr()))
    }

    /// An error of this host.
    pub fn error(&self, doing: &str, trouble: LibvirtErrorKind) -> LibvirtError {
        self.limit.error(doing, trouble)
    }
}

impl Domain {
    /// Runs a call on the VM's pointer under the time limit. The pointer is valid while the call runs.
    pub fn raw_call<T: Send + 'static>(
        &self,
        doing: &str,
        work: impl FnOnce(sys::virDomainPtr) -> Result<T, RawError> + Send + 'static,
    ) -> Result<T, LibvirtError> {
        self.call(doing, move |domain| work(domain.as_ptr()))
    }

    /// Runs a call on the VM's pointer and on the connection to a destination, under the VM's time limit. Both are valid while
    /// the call runs; after the limit it is left behind.
    pub fn raw_call_to<T: Send + 'static>(
        &self,
        destination: &Hypervisor,
        doing: &str,
        work: impl FnOnce(sys::virDomainPtr, sys::virConnectPtr) -> Result<T, RawError> + Send + 'static,
    ) -> Result<T, LibvirtError> {
        let session = Arc::clone(&destination.session);
        self.call(doing, move |domain| work(domain.as_ptr(), session.as_ptr()))
    }

    /// Opens connections of their own to both hosts, and finds the VM over them.
    pub fn watched(&self, destination: &Hypervisor, doing: &str) -> Result<WatchedMove, LibvirtError> {
        let uuid = self.uuid()?;
        let watched = |limit: &CallLimit, session: &Arc<Session>| {
            let session = Arc::clone(session);
            limit.call(doing, move || session.with_keepalive())
        };
        let from = watched(self.limit(), self.session())?;
        let to = watched(&destination.limit, &destination.session)?;
        let found = from.session().connect().lookup_domain_by_uuid_string(uuid.as_str());
        let domain = found.map_err(|error| self.explain(doing, &error))?;
        Ok(WatchedMove { domain, to, _from: from })
    }

    /// An error of this VM's host.
    pub fn error(&self, doing: &str, trouble: LibvirtErrorKind) -> LibvirtError {
        self.limit().error(doing, trouble)
    }

    /// Names host and attempt in an error of libvirt's.
    pub fn explain(&self, doing: &str, error: &RawError) -> LibvirtError {
        self.limit().explain(doing, error)
    }
}
