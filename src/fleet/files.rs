//! A site built from facts files, without a hypervisor: each file holds facts on a VM, its host and one destination.
//!
//! A destination's answers about one kind of VM (CPU model, machine type) are used for all VMs of that
//! kind. Migration paths that no file covers stay unknown, as in an audit.

use std::collections::HashMap;

use vmgate_facts::{Cause, Change, Fact, Facts, Host, Provenance, Unknown, Vm};
use vmgate_judge::change::is_host;
use vmgate_probe::path::{self, PathEnd};

use super::{Site, SiteVm, inventory::Inventory};

/// A site of facts files, merged.
#[derive(Debug)]
pub struct FilesSite {
    files: Vec<Facts>,
    hosts: Vec<Fact<Host>>,
    vms: Vec<SiteVm>,
    /// Index of each VM's file.
    file_of: Vec<usize>,
    /// The newest file with facts on each host, and true if the host is the file's destination.
    newest_file: Vec<Option<(usize, bool)>>,
    /// Files by VM and destination.
    exact: HashMap<(usize, usize), usize>,
    offers: HashMap<(usize, Kind), Host>,
    addresses: Vec<Fact<std::net::IpAddr>>,
}

/// Kind of a VM: VMs of one kind get the same answers from a destination.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Kind(String);

impl Kind {
    fn of(vm: &Vm) -> Self {
        let asked = (&vm.machine_type, &vm.cpu_mode, &vm.cpu_model, &vm.cpu_features);
        Self(serde_json::to_string(&asked).unwrap_or_default())
    }
}

impl FilesSite {
    /// Builds the site from facts files. Hosts that are not in the inventory are left out.
    pub fn new(inventory: &Inventory, mut files: Vec<Facts>) -> Self {
        files.sort_by_key(|facts| facts.collected_at);
        let place = |host: &Fact<Host>| inventory.hosts.iter().position(|known| is_host(host, &known.uri));
        let nobody = || Fact::unknown(Cause::NotCollected, "no facts file has facts on this host");
        let mut site = Self {
            hosts: inventory.hosts.iter().map(|_| nobody()).collect(),
            newest_file: vec![None; inventory.hosts.len()],
            addresses: inventory.hosts.iter().map(|host| address(host.migrate_address)).collect(),
            vms: Vec::new(),
            file_of: Vec::new(),
            exact: HashMap::new(),
            offers: HashMap::new(),
            files: Vec::new(),
        };
        let mut known: HashMap<String, usize> = HashMap::new();
        for (number, facts) in files.iter().enumerate() {
            let (source, destination) = (place(&facts.source), place(&facts.destination));
            for (at, host, is_destination) in
                [(source, &facts.source, false), (destination, &facts.destination, true)]
            {
                if let (Some(at), Fact::Known(host)) = (at, host) {
                    site.add_host(at, host, number, is_destination);
                }
            }
            let (Fact::Known(vm), Some(host)) = (&facts.vm, source) else { continue };
            let seen = SiteVm { host, vm: vm.clone() };
            let key = seen.name().to_owned();
            let at = *known.entry(key).or_insert(site.vms.len());
            if let (Some(vm), Some(file)) = (site.vms.get_mut(at), site.file_of.get_mut(at)) {
                (*vm, *file) = (seen, number);
            } else {
                site.vms.push(seen);
                site.file_of.push(number);
            }
            if let (Some(destination), Fact::Known(host)) = (destination, &facts.destination) {
                site.exact.insert((at, destination), number);
                site.offers.insert((destination, Kind::of(vm)), host.clone());
            }
        }
        site.files = files;
        site
    }

    /// Sets a host's facts from a newer file. The lists of files that VMs need are merged over all facts files.
    fn add_host(&mut self, at: usize, host: &Host, number: usize, is_destination: bool) {
        let Some(known) = self.hosts.get_mut(at) else { return };
        let mut newest = host.clone();
        if let Fact::Known(Host { files: Fact::Known(earlier), .. }) = known
            && let Fact::Known(files) = &mut newest.files
        {
            let more = earlier.iter().filter(|file| !files.iter().any(|known| known.path == file.path));
            let more: Vec<_> = more.cloned().collect();
            files.extend(more);
        }
        *known = Fact::Known(newest);
        if let Some(told) = self.newest_file.get_mut(at) {
            *told = Some((number, is_destination));
        }
    }

    /// Facts on a destination, with its answers about this kind of VM.
    fn destination(&self, at: usize, vm: &Vm) -> Fact<Host> {
        let Some(Fact::Known(host)) = self.hosts.get(at) else {
            return self.hosts.get(at).cloned().unwrap_or_default();
        };
        let asked = self.offers.get(&(at, Kind::of(vm)));
        let not_asked =
            Unknown::new(Cause::NotCollected, "no facts file has this host's answer about a VM of this kind");
        Fact::Known(Host {
            offers_guest_cpu: answer(asked, |host| &host.offers_guest_cpu, &not_asked),
            missing_cpu_features: answer(asked, |host| &host.missing_cpu_features, &not_asked),
            forbidden_cpu_features: answer(asked, |host| &host.forbidden_cpu_features, &not_asked),
            cpu_models: answer(asked, |host| &host.cpu_models, &not_asked),
            most_vcpus: answer(asked, |host| &host.most_vcpus, &not_asked),
            tpm_backends: answer(asked, |host| &host.tpm_backends, &not_asked),
            ..host.clone()
        })
    }

    fn provenance(&self, own: &Facts, destination: usize) -> std::collections::BTreeMap<String, Provenance> {
        let of = |path: &str, group: &str| path == group || path.starts_with(&format!("{group}."));
        let mut all: std::collections::BTreeMap<_, _> = own
            .provenance
            .iter()
            .filter(|(path, _)| !of(path, "destination") && !of(path, "path"))
            .map(|(path, by)| (path.clone(), by.clone()))
            .collect();
        let Some((number, is_destination)) = self.newest_file.get(destination).copied().flatten() else {
            return all;
        };
        let group = if is_destination { "destination" } else { "source" };
        for (path, by) in self.files.get(number).into_iter().flat_map(|facts| &facts.provenance) {
            if of(path, group) {
                all.insert(format!("destination{}", path.get(group.len()..).unwrap_or_default()), by.clone());
            }
        }
        all
    }
}

impl Site for FilesSite {
    fn hosts(&self) -> &[Fact<Host>] {
        &self.hosts
    }

    fn vms(&self) -> &[SiteVm] {
        &self.vms
    }

    fn facts(&self, vm: usize, destination: usize) -> Facts {
        let file = |number: &usize| self.files.get(*number);
        if let Some(facts) = self.exact.get(&(vm, destination)).and_then(file) {
            return facts.clone();
        }
        let (Some(own), Some(seen)) = (self.file_of.get(vm).and_then(file), self.vms.get(vm)) else {
            return Facts::empty(jiff::Timestamp::UNIX_EPOCH);
        };
        let to = self.destination(destination, &seen.vm);
        let told = self.newest_file.get(destination).copied().flatten().and_then(|(number, _)| file(&number));
        let path = match (&own.source, &to, self.addresses.get(destination)) {
            (Fact::Known(from), Fact::Known(to), Some(address)) => {
                Fact::Known(untested_path(from, to, address))
            }
            _ => Fact::unknown(Cause::NotCollected, "one end of the migration path is not known"),
        };
        Facts {
            collected_at: told.map_or(own.collected_at, |told| own.collected_at.min(told.collected_at)),
            provenance: self.provenance(own, destination),
            destination: to,
            path,
            // A trial was of a move to the destination of its file.
            trial: Fact::Known(None),
            ..own.clone()
        }
    }
}

fn address(address: Option<std::net::IpAddr>) -> Fact<std::net::IpAddr> {
    address.map_or_else(
        || Fact::unknown(Cause::NotCollected, "the inventory has no migrate_address for the destination"),
        Fact::Known,
    )
}

/// A path that nobody tried, from what its ends say of themselves.
pub(super) fn untested_path(
    from: &Host,
    to: &Host,
    address: &Fact<std::net::IpAddr>,
) -> vmgate_facts::MigrationPath {
    let why =
        || Unknown::new(Cause::NotCollected, "nobody looked at this path: it is planned for the first time");
    let (from, to) = (unmeasured_end(from, &why()), unmeasured_end(to, &why()));
    path::path(address.clone(), &from, &to, &Change::default(), Fact::Unknown(why()), Err(why()))
}

fn unmeasured_end<'a>(host: &'a Host, why: &Unknown) -> PathEnd<'a> {
    PathEnd::of(Err(why), &host.nics, &host.routes, Fact::Unknown(why.clone()))
}

/// A destination's answer about a kind of VM; unknown if it was not asked.
fn answer<T: Clone>(asked: Option<&Host>, of: fn(&Host) -> &Fact<T>, not_asked: &Unknown) -> Fact<T> {
    asked.map_or_else(|| Fact::Unknown(not_asked.clone()), |host| of(host).clone())
}
