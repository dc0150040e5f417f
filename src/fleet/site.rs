//! Site: known facts of an inventory's hosts and of the VMs on them, from any source.

use vmgate_facts::{Fact, Facts, Host, Uuid, Vm};

/// Known facts of hosts and VMs.
pub trait Site: Sync {
    /// The hosts in the inventory's order; unknown for one that did not answer, with the reason.
    fn hosts(&self) -> &[Fact<Host>];

    /// The VMs that run on the hosts.
    fn vms(&self) -> &[SiteVm];

    /// Facts for the move of a VM, by its index in [`Self::vms`], to a host, by its index in [`Self::hosts`].
    fn facts(&self, vm: usize, destination: usize) -> Facts;
}

/// A running VM of a site.
#[derive(Debug, Clone)]
pub struct SiteVm {
    /// Index of its host.
    pub host: usize,
    /// Facts on the VM.
    pub vm: Vm,
}

impl SiteVm {
    /// Name of the VM, else its UUID.
    pub fn name(&self) -> &str {
        let name = self.vm.name.known().map(String::as_str);
        name.or(self.vm.uuid.known().map(Uuid::as_str)).unwrap_or("?")
    }

    /// True if `name` is the VM's name or UUID.
    pub fn is_called(&self, name: &str) -> bool {
        self.vm.is_called(name)
    }
}
