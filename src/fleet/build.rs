//! Builds the planner's [`Fleet`] from an inventory and a site: amounts, links, groups and limits.

use std::collections::BTreeSet;

use thiserror::Error;
use vmgate_facts::{Fact, Host, HugePages, NumaNode, Vm};
use vmgate_probe::path::host_of_address;

use super::{
    AffinityGroup, Fleet, FleetHost, FleetNetwork, FleetVm, HostId, Resource, Site, SiteVm, VmId,
    inventory::{Inventory, InventoryHost},
};

/// Assumed speed of a link whose speed is unknown: 1 Gbit/s.
const ASSUMED_LINK_BYTES_PER_SECOND: u64 = 125_000_000;

/// Gaps and assumptions of a built fleet.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct BuildNotes {
    /// Hosts that did not answer: name and reason.
    pub unreached: Vec<(String, String)>,
    /// Group members that run on no known host: group and VM.
    pub missing: Vec<(String, String)>,
    /// Hosts whose migration link has an assumed speed.
    pub assumed_links: Vec<String>,
}

/// A group member whose name fits several VMs.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("the group `{group}` names the VM `{vm}`, but several VMs have this name: use the UUID")]
pub struct AmbiguousMember {
    group: String,
    vm: String,
}

/// Builds the fleet. `overhead_bytes` is the memory that QEMU needs besides a guest's memory.
pub fn build(
    inventory: &Inventory,
    site: &dyn Site,
    overhead_bytes: u64,
) -> Result<(Fleet, BuildNotes), AmbiguousMember> {
    let mut notes = BuildNotes::default();
    let resources = resources(inventory, site);
    let hosts = inventory.hosts.iter().zip(site.hosts()).enumerate();
    let hosts: Vec<FleetHost> = hosts
        .map(|(at, (declared, seen))| {
            if let Fact::Unknown(why) = seen {
                notes.unreached.push((declared.name.clone(), why.reason.clone()));
            }
            let vms = site.vms().iter().filter(|vm| vm.host == at);
            host(inventory, declared, seen.known(), vms, &resources, &mut notes)
        })
        .collect();
    let vms = site.vms().iter().map(|seen| FleetVm {
        name: seen.name().to_owned(),
        host: HostId(seen.host),
        needs: resources.iter().map(|resource| needs(&seen.vm, resource, overhead_bytes)).collect(),
        memory_bytes: memory(&seen.vm).unwrap_or(0),
        dirty_bytes_per_second: seen.vm.dirty_rate.known().map_or(0, |rate| rate.rate_bytes_per_second),
    });
    let vms = vms.collect();
    let networks = inventory.networks.iter().map(|network| FleetNetwork {
        name: network.name.clone(),
        bandwidth_bytes_per_second: network.bandwidth_bytes_per_second,
    });
    let networks = networks.collect();
    let affinities = affinities(inventory, site, &mut notes)?;
    Ok((Fleet { resources, hosts, vms, affinities, networks, limits: inventory.limits }, notes))
}

/// The resources that are counted: all that any VM needs.
fn resources(inventory: &Inventory, site: &dyn Site) -> Vec<Resource> {
    let mut found: BTreeSet<Resource> = BTreeSet::from([Resource::Memory]);
    found.extend(site.vms().iter().flat_map(|seen| [huge_pages(&seen.vm), on_node(&seen.vm)]).flatten());
    if inventory.pools.iter().any(|pool| pool.vcpus_per_cpu.is_some()) {
        found.insert(Resource::Vcpus);
    }
    found.into_iter().collect()
}

fn huge_pages(vm: &Vm) -> Option<Resource> {
    let page_bytes = vm.huge_page_bytes.known().copied().flatten()?;
    Some(Resource::HugePages { page_bytes })
}

/// The resource of the one NUMA node that a VM's memory is bound to; `None` if it is not bound to one node.
fn on_node(vm: &Vm) -> Option<Resource> {
    let placement = vm.placement.known().filter(|placement| placement.strict)?;
    let [node] = placement.numa_nodes.as_slice() else { return None };
    Some(match vm.huge_page_bytes.known().copied().flatten() {
        Some(page_bytes) => Resource::NodeHugePages { page_bytes, node: *node },
        None => Resource::NodeMemory { node: *node },
    })
}

fn memory(vm: &Vm) -> Option<u64> {
    vm.memory_max_bytes.known().or(vm.memory_bytes.known()).copied()
}

fn needs(vm: &Vm, resource: &Resource, overhead_bytes: u64) -> u64 {
    let memory = memory(vm).unwrap_or(0);
    let is_it = huge_pages(vm).as_ref() == Some(resource) || on_node(vm).as_ref() == Some(resource);
    match resource {
        // With huge pages, only QEMU's own overhead is in ordinary pages.
        Resource::Memory if huge_pages(vm).is_some() => overhead_bytes,
        Resource::Memory => memory.saturating_add(overhead_bytes),
        Resource::Vcpus => vm.vcpus.known().copied().unwrap_or(0).into(),
        _ if is_it => memory,
        _ => 0,
    }
}

fn host<'a>(
    inventory: &Inventory,
    declared: &InventoryHost,
    seen: Option<&Host>,
    vms: impl Iterator<Item = &'a SiteVm>,
    resources: &[Resource],
    notes: &mut BuildNotes,
) -> FleetHost {
    let pool = declared.pool.and_then(|pool| inventory.pools.get(pool));
    let (reserve, ratio) = pool.map_or((0, None), |pool| (pool.reserve_bytes, pool.vcpus_per_cpu));
    let vcpus: u64 = vms.map(|vm| u64::from(vm.vm.vcpus.known().copied().unwrap_or(0))).sum();
    let has = |resource: &Resource| match resource {
        // Unknown memory is not a lack of memory: the rules report missing evidence.
        Resource::Memory => {
            seen.map_or(0, |host| free_memory(host).unwrap_or(u64::MAX)).saturating_sub(reserve)
        }
        Resource::Vcpus => vcpus_free(seen, ratio, vcpus),
        Resource::HugePages { page_bytes } => free_huge_pages(seen, *page_bytes),
        Resource::NodeMemory { node } => node_of(seen, *node).map_or(0, |node| node.available_bytes),
        Resource::NodeHugePages { page_bytes, node } => {
            node_of(seen, *node).map_or(0, |node| bytes_in(&node.huge_pages, *page_bytes))
        }
    };
    let link = declared.bandwidth_bytes_per_second.or_else(|| seen.and_then(|host| speed(declared, host)));
    if link.is_none() && seen.is_some() {
        notes.assumed_links.push(declared.name.clone());
    }
    let marked = seen.and_then(|host| host.maintenance.known()?.clone());
    let maintenance = declared.maintenance.clone().or(marked);
    let not_reached = seen.is_none().then(|| "not reached".to_owned());
    FleetHost {
        name: declared.name.clone(),
        rack: declared.rack.clone(),
        closed: maintenance.map(|why| format!("in maintenance: {why}")).or(not_reached),
        free: resources.iter().map(has).collect(),
        bandwidth_bytes_per_second: link.unwrap_or(ASSUMED_LINK_BYTES_PER_SECOND),
        networks: declared.networks.clone(),
    }
}

/// Memory that is free for further VMs, calculated like in the rule `destination-memory-fits`.
fn free_memory(host: &Host) -> Option<u64> {
    let promised =
        host.claims.known().map_or(0, |claims| claims.incoming_bytes.saturating_add(claims.planned_bytes));
    Some(host.memory.known()?.available_bytes.saturating_sub(promised))
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // numbers of vCPUs, above 0
fn vcpus_free(seen: Option<&Host>, ratio: Option<f64>, taken: u64) -> u64 {
    let Some(ratio) = ratio else { return u64::MAX };
    let cpus = seen.and_then(|host| host.cpus.known().copied()).unwrap_or(0);
    ((f64::from(cpus) * ratio) as u64).saturating_sub(taken)
}

fn free_huge_pages(seen: Option<&Host>, page_bytes: u64) -> u64 {
    let Some(host) = seen else { return 0 };
    let planned = host.claims.known().into_iter().flat_map(|claims| &claims.planned_huge_pages);
    let planned: u64 =
        planned.filter(|claim| claim.page_bytes == page_bytes).map(|claim| claim.claimed_bytes).sum();
    host.huge_pages.known().map_or(0, |pages| bytes_in(pages, page_bytes)).saturating_sub(planned)
}

fn bytes_in(pages: &[HugePages], page_bytes: u64) -> u64 {
    pages.iter().filter(|pages| pages.page_bytes == page_bytes).map(|pages| pages.free * page_bytes).sum()
}

fn node_of(seen: Option<&Host>, id: u32) -> Option<&NumaNode> {
    seen?.numa_nodes.known()?.iter().find(|node| node.id == id)
}

/// Speed of the interface with the host's migration address, bytes per second.
fn speed(declared: &InventoryHost, host: &Host) -> Option<u64> {
    let address = declared.migrate_address?.to_string();
    let holds = |held: &String| held.split('/').next().is_some_and(|held| host_of_address(held) == address);
    host.nics.known()?.iter().find(|nic| nic.addresses.iter().any(holds))?.speed_bytes_per_second
}

fn affinities(
    inventory: &Inventory,
    site: &dyn Site,
    notes: &mut BuildNotes,
) -> Result<Vec<AffinityGroup>, AmbiguousMember> {
    let mut affinities = Vec::new();
    for group in &inventory.groups {
        let mut vms = Vec::new();
        for name in &group.vms {
            let mut called =
                site.vms().iter().enumerate().filter(|(_, vm)| vm.is_called(name)).map(|(at, _)| VmId(at));
            match (called.next(), called.next()) {
                (Some(_), Some(_)) => {
                    return Err(AmbiguousMember { group: group.name.clone(), vm: name.clone() });
                }
                (Some(vm), None) => vms.push(vm),
                (None, _) => notes.missing.push((group.name.clone(), name.clone())),
            }
        }
        affinities.push(AffinityGroup {
            name: group.name.clone(),
            rule: group.rule,
            vms,
            one_at_a_time: group.one_at_a_time,
        });
    }
    Ok(affinities)
}
