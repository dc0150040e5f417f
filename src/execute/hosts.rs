//! Both hosts of a move, over connections that may break and are made again.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use crate::collect::{
    Uri, capabilities,
    libvirt::{Domain, Hypervisor, LibvirtError, LibvirtErrorKind},
};

/// Both hosts of a move.
#[derive(Debug)]
pub struct Hosts {
    /// The host the VM runs on.
    pub source: Line,
    /// The host it is to go to.
    pub destination: Line,
}

/// A line to one host. A daemon that was restarted is found again.
#[derive(Debug)]
pub struct Line {
    uri: Uri,
    timeout: Duration,
    open: Mutex<Option<Hypervisor>>,
}

impl Hosts {
    /// Lines to both hosts; neither is called yet.
    pub fn new(from: Uri, to: Uri, timeout: Duration) -> Self {
        Self { source: Line::new(from, timeout), destination: Line::new(to, timeout) }
    }
}

impl Line {
    /// A line to a host, which is not called yet.
    pub fn new(uri: Uri, timeout: Duration) -> Self {
        Self { uri, timeout, open: Mutex::new(None) }
    }

    /// What people call the host.
    pub fn name(&self) -> &str {
        self.uri.host_for_people()
    }

    /// How libvirt reaches it.
    pub fn uri(&self) -> &Uri {
        &self.uri
    }

    /// The connection, made if there is none.
    pub fn hypervisor(&self) -> Result<Hypervisor, LibvirtError> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(hypervisor) = &*open {
            return Ok(hypervisor.clone());
        }
        let hypervisor = Hypervisor::open(&self.uri, self.timeout)?;
        *open = Some(hypervisor.clone());
        Ok(hypervisor)
    }

    /// Asks the host, a second time over a new connection where the first was lost.
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

    /// The VM there.
    pub fn domain(&self, vm: &str) -> Result<Domain, LibvirtError> {
        self.ask(|hypervisor| hypervisor.domain(vm))
    }

    /// The UUID in the host's capabilities.
    pub fn uuid(&self) -> Result<String, String> {
        let xml = self.ask(Hypervisor::capabilities_xml).map_err(|error| error.to_string())?;
        let uuid = capabilities::parse(&xml).ok().and_then(|capabilities| capabilities.uuid);
        uuid.ok_or_else(|| format!("host {} does not tell its UUID", self.name()))
    }
}
