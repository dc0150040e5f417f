//! Connections to both hosts of a move, which are opened again when they break: to libvirt, or to the on-host program where the
//! host's URI names no libvirt.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use thiserror::Error;
use vmgate_collect::{HostedVm, ProcessVm, transport::Transport};
use vmgate_facts::{Unknown, Uri, Uuid};
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

/// Reason for which a host shows no VM.
#[derive(Debug, Error)]
pub(super) enum NoVm {
    /// The host does not have it.
    #[error("{0}")]
    NotThere(String),
    /// The host does not tell.
    #[error("{0}")]
    NoAnswer(String),
}

impl From<LibvirtError> for NoVm {
    fn from(error: LibvirtError) -> Self {
        match error.kind {
            LibvirtErrorKind::NoSuchVm(_) => Self::NotThere(error.to_string()),
            _ => Self::NoAnswer(error.to_string()),
        }
    }
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

    /// URI of the host.
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

    /// The VM on this host, by whom knows it there.
    pub(super) fn vm(&self, vm: &str) -> Result<HostedVm, NoVm> {
        if self.uri.names_libvirt() {
            return Ok(HostedVm::Libvirt(self.domain(vm)?));
        }
        match ProcessVm::find(vm, &self.way, self.timeout) {
            Ok(Some(found)) => Ok(HostedVm::Process(Box::new(found))),
            Ok(None) => {
                Err(NoVm::NotThere(format!("no QEMU process of the VM {vm} runs on {}", self.name())))
            }
            Err(why) => Err(NoVm::NoAnswer(format!("host {}: {}", self.name(), why.reason))),
        }
    }

    /// Domain of the VM on this host.
    pub fn domain(&self, vm: &str) -> Result<Domain, LibvirtError> {
        self.ask(|hypervisor| hypervisor.domain(vm))
    }

    /// The UUID in the capabilities of the host's libvirt, or the machine id of a host that is only logged in to.
    pub fn uuid(&self) -> Result<Uuid, Unknown> {
        if self.uri.names_libvirt() {
            Ok(self.ask(Hypervisor::uuid)?)
        } else {
            self.way.machine_id(self.timeout)
        }
    }
}
