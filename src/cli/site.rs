//! Hosts of the site by name: what vmgate.yaml and its inventory say of them, and the host that runs a VM.
//!
//! Wherever an option names a host it takes a libvirt URI, a name of vmgate.yaml or the inventory, or what ssh takes (`hv2`,
//! `root@hv2`, `root@hv2:2222`). A host without libvirt is `ssh://root@pve1`; its VMs are found by their processes.

#[cfg(feature = "libvirt")]
use std::{net::IpAddr, time::Duration};

#[cfg(feature = "libvirt")]
use vmgate_collect::transport::Transport;
#[cfg(feature = "libvirt")]
use vmgate_documents::closest;
use vmgate_facts::Uri;
#[cfg(feature = "libvirt")]
use vmgate_facts::VmState;
#[cfg(feature = "libvirt")]
use vmgate_libvirt::{Hypervisor, LibvirtError, LibvirtErrorKind, ask_each};
#[cfg(feature = "libvirt")]
use vmgate_probe::qemu::{MONITOR, RunningVms, VmMonitor};

use super::{Failure, session::Session};
use crate::fleet::inventory::{Inventory, InventoryHost};

/// Destination that stands for every other host of the site.
#[cfg(feature = "libvirt")]
pub(super) const ANY: &str = "any";

impl Session<'_> {
    /// The inventory that the configuration names, read once.
    pub(super) fn inventory(&self) -> Result<Option<&Inventory>, Failure> {
        if self.inventory.get().is_none() {
            let read = |file| Inventory::read(file).map_err(Failure::usage);
            let inventory = self.config.inventory.as_deref().map(read).transpose()?;
            let _ = self.inventory.set(inventory);
        }
        Ok(self.inventory.get().and_then(Option::as_ref))
    }

    /// URI of a host that was given as a URI, by its name, or as ssh takes it.
    pub(super) fn host_named(&self, text: &str) -> Result<Uri, Failure> {
        if let Some(uri) = self.site_uri(text)? {
            return Ok(uri);
        }
        if let Some(host) = self.inventory_host(text)? {
            return self.uri_of(host);
        }
        let uri = if text.contains("://") { text.to_owned() } else { format!("qemu+ssh://{text}/system") };
        Uri::from_operator(&uri).map_err(|error| Failure::usage(format!("{text}: {error}")))
    }

    /// The host of this name in the inventory.
    fn inventory_host(&self, name: &str) -> Result<Option<&InventoryHost>, Failure> {
        Ok(self.inventory()?.and_then(|inventory| inventory.hosts.iter().find(|host| host.name == name)))
    }

    /// URI to connect with to a host of an inventory: the site's for its name, else the inventory's.
    pub(super) fn uri_of(&self, host: &InventoryHost) -> Result<Uri, Failure> {
        if let Some(uri) = self.site_uri(&host.name)? {
            return Ok(uri);
        }
        let by_address = host.uri.host().map(|address| self.site_uri(address)).transpose()?.flatten();
        let uri = by_address.unwrap_or_else(|| (&host.uri).into());
        Ok(Uri { known_as: Some(host.name.clone()), ..uri })
    }

    /// Every host of the site: those of the inventory, and those of vmgate.yaml that have a URI.
    #[cfg(feature = "libvirt")]
    pub(super) fn site_hosts(&self) -> Result<Vec<Uri>, Failure> {
        let listed = self.inventory()?.map(|inventory| inventory.hosts.as_slice()).unwrap_or_default();
        let mut uris = listed.iter().map(|host| self.uri_of(host)).collect::<Result<Vec<_>, _>>()?;
        for name in self.config.hosts.keys() {
            if let Some(uri) = self.site_uri(name)?
                && !uris.iter().any(|known| known.to_string() == uri.to_string())
            {
                uris.push(uri);
            }
        }
        Ok(uris)
    }
}

#[cfg(feature = "libvirt")]
impl Session<'_> {
    /// Reason of vmgate.yaml or the inventory against placing VMs on a host; `None` if there is none.
    pub(super) fn maintenance(&self, uri: &Uri) -> Result<Option<String>, Failure> {
        let Some(name) = uri.name() else { return Ok(None) };
        let configured = self.settings_of(uri).and_then(|(_, host)| host.maintenance.clone());
        Ok(configured.or(self.inventory_host(name)?.and_then(|host| host.maintenance.clone())))
    }

    /// Address of vmgate.yaml or the inventory for migrations to a host.
    pub(super) fn migrate_address(&self, uri: &Uri) -> Result<Option<IpAddr>, Failure> {
        let Some(name) = uri.name() else { return Ok(None) };
        let configured = self.settings_of(uri).and_then(|(_, host)| host.migrate_address);
        Ok(configured.or(self.inventory_host(name)?.and_then(|host| host.migrate_address)))
    }

    /// Hosts that a destination names: one host, or every host of a pool, a rack or the site.
    pub(super) fn destinations(&self, named: &str) -> Result<Vec<Uri>, Failure> {
        if named == ANY {
            return self.site_hosts();
        }
        let inventory = self.inventory()?;
        let group =
            inventory.and_then(|inventory| Some((inventory, inventory.select(&[named.to_owned()]).ok()?)));
        match group {
            Some((inventory, places)) if self.site_uri(named)?.is_none() => {
                let hosts = places.into_iter().filter_map(|at| inventory.hosts.get(at));
                hosts.map(|host| self.uri_of(host)).collect()
            }
            _ => Ok(vec![self.host_named(named)?]),
        }
    }

    /// The host of the site that runs a VM. All are asked at the same time.
    pub(super) fn source_of(&self, vm: &str) -> Result<Uri, Failure> {
        let hosts = self.site_hosts()?;
        if hosts.is_empty() {
            return Err(Failure::usage(format!(
                "--from is missing, and no hosts are known that could be asked which of them runs `{vm}`: give --from HOST, or \
                 name the site's hosts once with `vmgate init HOST…`"
            )));
        }
        let asked = ask_each(&hosts, |host| self.presence(host, vm));
        located(vm, hosts.into_iter().zip(asked).collect())
    }

    /// Presence of the VM on a host, or the reason for which it is not known.
    fn presence(&self, host: &Uri, vm: &str) -> Result<Presence, String> {
        if host.names_libvirt() {
            let state = Hypervisor::open(host, self.timeout()).and_then(|host| host.domain(vm)?.state());
            return match state {
                Ok(state) if state.state == VmState::ShutOff => Ok(Presence::ShutOff),
                Ok(_) => Ok(Presence::Runs),
                Err(LibvirtError { kind: LibvirtErrorKind::NoSuchVm(near), .. }) => {
                    Ok(Presence::Absent(near))
                }
                Err(error) => Err(error.to_string()),
            };
        }
        let way = self.way(host).map_err(|failure| failure.text)?;
        let running = running_at(host, &way, self.timeout()).map_err(|failure| failure.text)?;
        if running.monitors.iter().any(|monitor| monitor.is_of(vm)) {
            return Ok(Presence::Runs);
        }
        Ok(Presence::Absent(near(vm, &running).map(str::to_owned).into_iter().collect()))
    }

    /// Name by which a VM is asked for at its host: where that has no libvirt, its monitor (`qmp:SOCKET`).
    pub(super) fn vm_at(&self, host: &Uri, vm: &str) -> Result<String, Failure> {
        if host.names_libvirt() || vm.starts_with(MONITOR) {
            return Ok(vm.to_owned());
        }
        let running = running_at(host, &self.way(host)?, self.timeout())?;
        let found: Vec<String> =
            running.monitors.iter().filter(|monitor| monitor.is_of(vm)).map(VmMonitor::handle).collect();
        let host = host.host_for_people();
        match found.as_slice() {
            [only] => Ok(only.clone()),
            [] => {
                let near =
                    near(vm, &running).map(|near| format!(". Did you mean {near}?")).unwrap_or_default();
                Err(Failure::usage(format!(
                    "{host} runs no VM `{vm}` with a monitor for programs (QMP), and its address names no libvirt that could have \
                     it{near}"
                )))
            }
            several => Err(Failure::usage(format!(
                "several VMs of {host} are called `{vm}`: name the one that is meant by its monitor: {}",
                several.join(", ")
            ))),
        }
    }
}

/// VMs of a host by their processes, where no libvirt tells them.
#[cfg(feature = "libvirt")]
pub(super) fn running_at(host: &Uri, way: &Transport, timeout: Duration) -> Result<RunningVms, Failure> {
    way.running_vms(timeout).map_err(|why| {
        Failure::failed(format!("the VMs of {} cannot be listed: {}", host.host_for_people(), why.reason))
    })
}

/// The name most like this one of a VM that can be named.
#[cfg(feature = "libvirt")]
fn near<'a>(vm: &str, running: &'a RunningVms) -> Option<&'a str> {
    closest(vm, running.monitors.iter().map(|monitor| monitor.vm.as_str()))
}

/// Presence of a VM on a host.
#[cfg(feature = "libvirt")]
enum Presence {
    Runs,
    /// Defined there, and not running.
    ShutOff,
    /// Not there; VMs of similar names.
    Absent(Vec<String>),
}

/// The hosts without the source.
#[cfg(feature = "libvirt")]
pub(super) fn others(mut hosts: Vec<Uri>, source: &Uri) -> Result<Vec<Uri>, Failure> {
    hosts.retain(|host| host.to_string() != source.to_string());
    if hosts.is_empty() {
        return Err(Failure::usage(
            "there is no other host to move to: name further hosts in the inventory that vmgate.yaml names (`vmgate init HOST…` \
             writes both)",
        ));
    }
    Ok(hosts)
}

/// The one host that runs the VM, of all that were asked.
#[cfg(feature = "libvirt")]
fn located(vm: &str, asked: Vec<(Uri, Result<Presence, String>)>) -> Result<Uri, Failure> {
    let (mut running, mut off, mut near, mut lost, mut names) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (host, answer) in asked {
        let name = host.host_for_people().to_owned();
        match answer {
            Ok(Presence::Runs) => running.push(host),
            Ok(Presence::ShutOff) => off.push(format!(
                "It is defined on {name} and shut off: only a running VM can be migrated live."
            )),
            Ok(Presence::Absent(like)) => {
                near.extend(like.into_iter().map(|like| format!("{like} (on {name})")));
            }
            Err(why) => lost.push(why),
        }
        names.push(name);
    }
    match running.as_slice() {
        [host] => {
            for why in &lost {
                tracing::warn!("not asked if it runs `{vm}` too: {why}");
            }
            Ok(host.clone())
        }
        [] => {
            let near = (!near.is_empty()).then(|| format!("Did you mean {}?", near.join(", ")));
            let lost_hosts = lost.iter().map(|why| format!("Not asked: {why}"));
            let is_host = names.iter().any(|name| name == vm);
            let is_host = is_host.then(|| {
                "It is a host: the VM is named first, as in `vmgate check VM --to HOST`.".to_owned()
            });
            let more: Vec<String> = off.into_iter().chain(is_host).chain(near).chain(lost_hosts).collect();
            let text =
                format!("no host of the site runs a VM `{vm}` ({}). {}", names.join(", "), more.join(" "));
            Err(if lost.is_empty() { Failure::usage(text.trim_end()) } else { Failure::failed(text) })
        }
        several => {
            let names: Vec<&str> = several.iter().map(Uri::host_for_people).collect();
            Err(Failure::usage(format!(
                "`{vm}` runs on {}: say which one is meant with --from HOST, or give the VM's UUID",
                names.join(" and on ")
            )))
        }
    }
}

#[cfg(all(test, feature = "libvirt"))]
#[allow(clippy::unwrap_used)] // in helpers of tests too
mod tests {
    use super::*;

    fn uri(host: &str) -> Uri {
        Uri::from_operator(&format!("qemu+ssh://{host}/system")).unwrap()
    }

    #[test]
    fn a_vm_is_where_it_runs_and_nothing_is_guessed() {
        let runs = || Ok(Presence::Runs);
        let absent = || Ok(Presence::Absent(vec!["web2".into()]));
        let lost = || Err("no route".to_owned());
        let found = located("web1", vec![(uri("hv1"), absent()), (uri("hv2"), runs()), (uri("hv3"), lost())]);
        assert_eq!(found.unwrap(), uri("hv2"));
        let text = |asked| located("web1", asked).unwrap_err().text;
        let twice = text(vec![(uri("hv1"), runs()), (uri("hv2"), runs())]);
        assert!(twice.contains("runs on hv1 and on hv2") && twice.contains("--from"), "{twice}");
        let nowhere =
            text(vec![(uri("hv1"), absent()), (uri("hv2"), Ok(Presence::ShutOff)), (uri("hv3"), lost())]);
        for part in ["(hv1, hv2, hv3)", "shut off", "web2 (on hv1)", "Not asked", "no route"] {
            assert!(nowhere.contains(part), "{part}: {nowhere}");
        }
    }
}
