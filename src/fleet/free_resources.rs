//! Free resources of the hosts while a plan is made.

use super::{Fleet, HostId};

/// Free amounts of every host, less the VMs that the plan has placed so far.
#[derive(Debug, Clone)]
pub(super) struct FreeResources {
    free: Vec<Vec<u64>>,
    first: Vec<Vec<u64>>,
}

impl FreeResources {
    pub(super) fn of(fleet: &Fleet) -> Self {
        let free: Vec<_> = fleet.hosts.iter().map(|host| host.free.clone()).collect();
        Self { first: free.clone(), free }
    }

    pub(super) fn fits(&self, needs: &[u64], host: HostId) -> bool {
        self.free
            .get(host.0)
            .is_some_and(|free| needs.iter().enumerate().all(|(at, need)| amount(free, at) >= *need))
    }

    /// Largest used part of any needed resource after a VM with these needs is placed, relative to the amount that was
    /// free at first: 0 nothing, 1 all.
    #[allow(clippy::cast_precision_loss)] // amounts are compared, and 2^53 bytes are enough
    pub(super) fn fill_after(&self, needs: &[u64], host: HostId) -> f64 {
        let (Some(free), Some(first)) = (self.free.get(host.0), self.first.get(host.0)) else { return 1.0 };
        needs
            .iter()
            .enumerate()
            .filter(|(_, need)| **need > 0)
            .map(|(at, need)| {
                let left = amount(free, at).saturating_sub(*need) as f64;
                1.0 - left / (amount(first, at).max(1) as f64)
            })
            .fold(0.0, f64::max)
    }

    /// Largest free amount of each resource on any of these hosts.
    pub(super) fn most(&self, hosts: &[HostId]) -> Vec<u64> {
        let mut most: Vec<u64> = Vec::new();
        for free in hosts.iter().filter_map(|host| self.free.get(host.0)) {
            most.resize(free.len().max(most.len()), 0);
            for (most, free) in most.iter_mut().zip(free) {
                *most = (*most).max(*free);
            }
        }
        most
    }

    /// Missing amounts for these needs, as (index in the fleet's resources, amount).
    pub(super) fn missing(&self, needs: &[u64], host: HostId) -> Vec<(usize, u64)> {
        let Some(free) = self.free.get(host.0) else { return Vec::new() };
        needs
            .iter()
            .enumerate()
            .filter_map(|(at, need)| {
                let short = need.saturating_sub(amount(free, at));
                (short > 0).then_some((at, short))
            })
            .collect()
    }

    pub(super) fn take(&mut self, needs: &[u64], host: HostId) {
        if let Some(free) = self.free.get_mut(host.0) {
            for (free, need) in free.iter_mut().zip(needs) {
                *free = free.saturating_sub(*need);
            }
        }
    }

    pub(super) fn release(&mut self, needs: &[u64], host: HostId) {
        if let Some(free) = self.free.get_mut(host.0) {
            for (free, need) in free.iter_mut().zip(needs) {
                *free = free.saturating_add(*need);
            }
        }
    }
}

fn amount(amounts: &[u64], at: usize) -> u64 {
    amounts.get(at).copied().unwrap_or(0)
}
