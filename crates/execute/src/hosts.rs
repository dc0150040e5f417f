//! Connections to both hosts of a move, which are opened again when they break.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use vmgate_collect::transport::Transport;
use vmgate_facts::{Uri, Uuid};
use vmgate_libvirt::{Domain, Hypervisor, LibvirtError, LibvirtErrorKind};
use vmgate_reach::HostShell;

/// Both hosts of a move.
#[derive(Debug)]
pub struct Hosts {
    /// Host that the VM runs on.
    pub source: HostConnection,
    /// Host that the VM is to be moved to.
    pub destination: HostConnection,
}

/// Connection to the libvirt daemon of one host; opened again after a restart of the daemon.
#[derive(Debug)]
pub struct HostConnection {
    uri: Uri,
    timeout: Duration,
    /// Way to the host's probe, whose login libvirt shares.
    way: Transport,
    shell: HostShell,
    open: Mutex<Option<Hypervisor>>,
}

impl Hosts {
    /// Connections to both hosts, opened on the first use.
    pub fn new(from: Uri, to: Uri, timeout: Duration) -> Self {
        Self { source: HostConnection::new(from, timeout), destination: HostConnection::new(to, timeout) }
    }
}

impl HostConnection {
    /// Connection to a host, opened on the first use.
    pub fn new(uri: Uri, timeout: Duration) -> Self {
        let (way, shell) = (Transport::for_uri(&uri), HostShell::for_uri(&uri));
        Self { way, shell, uri, timeout, open: Mutex::new(None) }
    }

    /// The same connection, over the login of this way if it is one at the host.
    #[must_use]
    pub fn over(self, way: Transport) -> Self {
        Self { way, ..self }
    }

    /// The same connection, with this access to a shell on the host.
    #[must_use]
    pub fn with_shell(self, shell: HostShell) -> Self {
        Self { shell, ..self }
    }

    /// Access to a shell on the host: ssh to the host of the URI, unless it was named.
    pub(super) fn shell(&self) -> &HostShell {
        &self.shell
    }

    /// Name of the host, for people.
    pub fn name(&self) -> &str {
        self.uri.host_for_people()
    }

    /// libvirt URI of the host.
    pub fn uri(&self) -> &Uri {
        &self.uri
    }

    /// The open connection; opens one if there is none.
    pub fn hypervisor(&self) -> Result<Hypervisor, LibvirtError> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(hypervisor) = &*open {
            return Ok(hypervisor.clone());
        }
        let hypervisor = self.way.open_libvirt(&self.uri, self.timeout)?;
        *open = Some(hypervisor.clone());
        Ok(hypervisor)
    }

    /// Asks the host; asks again over a new connection if the first was lost.
    pub fn ask<T>(
        &self,
        question: impl Fn(&Hypervisor) -> Result<T, LibvirtError>,
    ) -> Result<T, LibvirtError> {
        let answer = self.hypervisor().and_then(|hypervisor| question(&hypervisor));
        match answer {
            Err(LibvirtError {
                kind: LibvirtErrorKind::ConnectionLost(_) | LibvirtErrorKind::TimedOut(_),
                ..
            }) => {
                *self.open.lock().unwrap_or_else(PoisonError::into_inner) = None;
                self.hypervisor().and_then(|hypervisor| question(&hypervisor))
            }
            // libvirt has words of its own for every way in which a connection can be gone.
            Err(LibvirtError {
                kind: LibvirtErrorKind::Other(_) | LibvirtErrorKind::Unreachable(_), ..
            }) => {
                *self.open.lock().unwrap_or_else(PoisonError::into_inner) = None;
                answer
            }
            answer => answer,
        }
    }

    /// Domain of the VM on this host.
    pub fn domain(&self, vm: &str) -> Result<Domain, LibvirtError> {
        self.ask(|hypervisor| hypervisor.domain(vm))
    }

    /// The UUID in the host's capabilities.
    pub fn uuid(&self) -> Result<Uuid, LibvirtError> {
        self.ask(Hypervisor::uuid)
    }
}
