//! What is known of the hosts of an inventory and of the VMs on them, wherever it was learnt.

use crate::fact::{Fact, Facts, Host, Vm};

/// A site as far as it was seen.
pub trait Site: Sync {
    /// The hosts in the inventory's order; unknown for one that did not answer, with the reason.
    fn hosts(&self) -> &[Fact<Host>];

    /// The VMs that run on them.
    fn vms(&self) -> &[SiteVm];

    /// All that is known of the move of a VM, by its place in [`Self::vms`], to a host, by its place in [`Self::hosts`].
    fn facts(&self, vm: usize, destination: usize) -> Facts;
}

/// A VM that runs.
#[derive(Debug, Clone)]
pub struct SiteVm {
    /// The place of its host.
    pub host: usize,
    /// What is known of it.
    pub vm: Vm,
}

impl SiteVm {
    /// Its name, else its UUID.
    pub fn name(&self) -> &str {
        let known = self.vm.name.known().or(self.vm.uuid.known());
        known.map_or("?", String::as_str)
    }

    /// Whether a person means this VM by `name`.
    pub fn is_called(&self, name: &str) -> bool {
        [&self.vm.name, &self.vm.uuid]
            .into_iter()
            .any(|known| known.known().is_some_and(|known| known == name))
    }
}
