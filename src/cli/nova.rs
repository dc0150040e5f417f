//! Nova's records for commands with `--as nova`: the VM of a server, and what a plan has to keep to.

use vmgate_execute::nova::{Compute, Nova, NovaError, ZONE};
use vmgate_facts::{Uuid, text::plain};

use super::{Failure, options::MoveHosts, session::Session};
use crate::fleet::{
    AffinityRule, GroupScope,
    inventory::{Group, Inventory, InventoryHost, VmBound},
};

/// Id of Nova in the catalogue of managers.
pub(super) const NOVA: &str = "nova";

/// Takes `vm` for the name or id of a server: it becomes the UUID of the server's VM, and a source that was not given the machine
/// that Nova has it on. A name that Nova does not know stays; it may be that of the VM in libvirt.
pub(super) fn find_server(
    session: &mut Session,
    run_by: Option<&str>,
    vm: &mut Option<String>,
    hosts: &mut MoveHosts,
) -> Result<(), Failure> {
    let (Some(NOVA), Some(name)) = (run_by, vm.as_ref()) else { return Ok(()) };
    let Some(nova) = session.nova()? else { return Ok(()) };
    let Some(server) = nova.server(name).map_err(failure)? else {
        tracing::info!("Nova has no server {name}: it is looked for as the name of a VM in libvirt");
        return Ok(());
    };
    if let (None, Some(host)) = (&hosts.from, &server.host) {
        let computes = nova.computes().map_err(failure)?;
        let compute = computes.into_iter().find(|compute| compute.host == *host);
        hosts.from = compute.map(|compute| compute.hypervisor);
    }
    // Its guest's settings stand under the name that people know.
    if let Some(way) = session.config.guests.get(name).cloned() {
        session.config.guests.insert(server.id.clone(), way);
    }
    *vm = Some(server.id);
    Ok(())
}

/// Adds to an inventory what Nova itself would keep to: server groups, computes that take no servers, and the zones and aggregates
/// that the servers of hosts to empty ask for.
pub(super) fn add_records(
    session: &Session,
    inventory: &mut Inventory,
    empty: &[usize],
) -> Result<(), Failure> {
    let Some(nova) = session.nova()? else { return Ok(()) };
    let computes = nova.computes().map_err(failure)?;
    inventory.bounds = bounds(&nova, &inventory.hosts, empty, &computes).map_err(failure)?;
    for host in &mut inventory.hosts {
        if host.maintenance.is_none() {
            host.maintenance = reason_against(host, &computes);
        }
    }
    inventory.groups.extend(groups(&nova)?);
    Ok(())
}

/// The compute on a host of the inventory.
fn compute_of<'a>(host: &InventoryHost, computes: &'a [Compute]) -> Option<&'a Compute> {
    let names = [Some(host.name.as_str()), host.uri.host()];
    let is_it = |compute: &&Compute| {
        names.into_iter().flatten().any(|name| compute.hypervisor.eq_ignore_ascii_case(name))
    };
    computes.iter().find(is_it)
}

/// Hosts that Nova's scheduler takes for each server of the hosts to empty, where it does not take all.
fn bounds(
    nova: &Nova,
    hosts: &[InventoryHost],
    empty: &[usize],
    computes: &[Compute],
) -> Result<Vec<VmBound>, NovaError> {
    let of_aggregates = nova.aggregate_metadata()?;
    let metadata = hosts.iter().map(|host| of_aggregates.get(&compute_of(host, computes)?.host));
    let metadata: Vec<_> = metadata.collect();
    let mut bounds = Vec::new();
    for host in empty.iter().filter_map(|at| hosts.get(*at)) {
        let Some(compute) = compute_of(host, computes) else { continue };
        for server in nova.servers_on(&compute.host)? {
            let Some(vm) = Uuid::parse(&server.id) else { continue };
            for (key, value) in server.asks_for() {
                let has = |of_host: &&Vec<(String, String)>| {
                    of_host.iter().any(|it| (&*it.0, &*it.1) == (key, value))
                };
                let fitting =
                    metadata.iter().enumerate().filter(|(_, of_host)| of_host.as_ref().is_some_and(has));
                let hosts = fitting.map(|(at, _)| at).collect();
                let because = if key == ZONE {
                    format!("Nova keeps it in the availability zone {value}")
                } else {
                    format!("its flavor asks Nova for an aggregate with {key} = {value}")
                };
                bounds.push(VmBound { vm: vm.clone(), hosts, because: plain(&because) });
            }
        }
    }
    Ok(bounds)
}

/// Reason of Nova's records against placing servers on a host.
fn reason_against(host: &InventoryHost, computes: &[Compute]) -> Option<String> {
    match compute_of(host, computes) {
        None => Some("Nova has no compute of this name".to_owned()),
        Some(compute) if !compute.is_up => {
            Some(format!("Nova does not hear of its nova-compute {}", compute.host))
        }
        Some(compute) if !compute.is_enabled => {
            Some(format!("Nova places no servers on {}, which is disabled", compute.host))
        }
        Some(_) => None,
    }
}

/// Server groups whose policy Nova enforces. It follows the soft ones where it can, and moves a server all the same.
fn groups(nova: &Nova) -> Result<Vec<Group>, Failure> {
    let groups = nova.server_groups().map_err(failure)?;
    let bound = groups.into_iter().filter_map(|group| {
        let rule = match group.policy.as_str() {
            "affinity" => AffinityRule::Together,
            "anti-affinity" => AffinityRule::Apart,
            _ => return None,
        };
        let name = format!("server group {} of Nova", group.name);
        Some(Group { name, vms: group.members, rule: Some((rule, GroupScope::Host)), one_at_a_time: false })
    });
    Ok(bound.filter(|group| group.vms.len() > 1).collect())
}

/// Failure of a login or a request: the operator's to mend if nothing was asked yet.
pub(super) fn failure(error: NovaError) -> Failure {
    match error {
        NovaError::Login(_) | NovaError::NotOne(_) => Failure::usage(format!("nova: {error}")),
        other => Failure::failed(format!("nova: {other}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_takes_servers_if_nova_places_them_there() {
        let text = "schema: vmgate/inventory/v1\nhosts:\n  - {name: hv1, uri: 'qemu+ssh://root@hv1.example.org/system'}\n";
        let inventory = Inventory::parse("inventory.yaml", text.as_bytes()).unwrap();
        let compute = |hypervisor: &str, is_up, is_enabled| Compute {
            host: "c1".to_owned(),
            hypervisor: hypervisor.to_owned(),
            is_up,
            is_enabled,
        };
        let reason = |compute: Compute| reason_against(&inventory.hosts[0], &[compute]);
        assert_eq!(reason(compute("HV1.example.org", true, true)), None);
        assert_eq!(reason(compute("hv1", true, true)), None);
        for (compute, why) in [
            (compute("hv2", true, true), "no compute"),
            (compute("hv1", false, true), "hear"),
            (compute("hv1", true, false), "disabled"),
        ] {
            assert!(reason(compute).unwrap().contains(why));
        }
    }
}
