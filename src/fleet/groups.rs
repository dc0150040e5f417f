//! Affinity groups while a plan is made: the hosts that a VM's groups allow.

use std::collections::HashMap;

use super::{AffinityGroup, AffinityRule, Fleet, GroupScope, HostId, VmId};

/// Hosts of the members of all groups, now or by the plan.
pub(super) struct Groups<'a> {
    fleet: &'a Fleet,
    of_vm: HashMap<VmId, Vec<usize>>,
    at: Vec<HostId>,
}

impl<'a> Groups<'a> {
    pub(super) fn of(fleet: &'a Fleet) -> Self {
        let mut of_vm: HashMap<VmId, Vec<usize>> = HashMap::new();
        for (number, group) in fleet.affinities.iter().enumerate() {
            for vm in &group.vms {
                of_vm.entry(*vm).or_default().push(number);
            }
        }
        Self { fleet, of_vm, at: fleet.vms.iter().map(|vm| vm.host).collect() }
    }

    /// The groups of a VM.
    pub(super) fn of_vm(&self, vm: VmId) -> impl Iterator<Item = &'a AffinityGroup> + '_ {
        let fleet = self.fleet;
        self.of_vm.get(&vm).into_iter().flatten().filter_map(move |number| fleet.affinities.get(*number))
    }

    /// The host of a VM by the plan so far.
    pub(super) fn host_of(&self, vm: VmId) -> Option<HostId> {
        self.at.get(vm.0).copied()
    }

    pub(super) fn put(&mut self, vm: VmId, host: HostId) {
        if let Some(at) = self.at.get_mut(vm.0) {
            *at = host;
        }
    }

    /// The group that forbids `vm` on `host`. `leaving` is true for hosts that are being emptied: their VMs do not count for
    /// groups that belong together, since they have no destination yet.
    pub(super) fn forbidding_group(
        &self,
        vm: VmId,
        host: HostId,
        leaving: &dyn Fn(HostId) -> bool,
    ) -> Option<&'a AffinityGroup> {
        self.of_vm(vm).find(|group| {
            let Some((rule, scope)) = group.rule else { return false };
            let mut others =
                group.vms.iter().filter(|other| **other != vm).filter_map(|other| self.host_of(*other));
            match rule {
                AffinityRule::Apart => others.any(|at| self.same(at, host, scope)),
                AffinityRule::Together => others.any(|at| !leaving(at) && !self.same(at, host, scope)),
            }
        })
    }

    fn same(&self, one: HostId, other: HostId, scope: GroupScope) -> bool {
        match scope {
            GroupScope::Host => one == other,
            GroupScope::Rack => {
                let rack = |id| self.fleet.host(id).map(|host| &host.rack);
                one == other || rack(one) == rack(other)
            }
        }
    }
}
