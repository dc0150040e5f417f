//! Recognition of the manager to which a VM belongs, from marks of the VM and programs of its host.
//!
//! A manager's own record of the VM is certain: its metadata, or the configuration of its cluster. A name such as one-12 is a mark
//! only on a host where the manager runs: there is no VM that is not called something.

use vmgate_facts::{
    Fact, Host, HostManagers, ManagerConfidence, Unknown, Uuid, Vm, VmManager, VmMarks, text::ShellWord,
};

use super::{Catalogues, ManagerEntry, NamePattern};

/// Evidence for one manager.
struct Evidence {
    confidence: ManagerConfidence,
    vm: Option<String>,
    project: Option<String>,
    words: String,
}

/// Answer of the source host on the managers that run there.
type OnHost<'a> = Result<&'a HostManagers, Unknown>;

impl Catalogues {
    /// The manager to which the VM belongs. Unknown where a mark would be one only on a host whose programs are not known.
    pub fn manager_of(&self, vm: &Vm, source: &Fact<Host>) -> Fact<Option<VmManager>> {
        let (marks, name) = match (&vm.marks, &vm.name) {
            (Fact::Known(marks), Fact::Known(name)) => (marks, name),
            (Fact::Unknown(why), _) | (_, Fact::Unknown(why)) => return Fact::Unknown(why.clone()),
        };
        let host: OnHost = match source {
            Fact::Known(host) => known(&host.managers),
            Fact::Unknown(why) => Err(why.clone()),
        };
        let mut unknown = None;
        let mut best: Option<(&ManagerEntry, Evidence)> = None;
        for entry in self.managers() {
            match entry.evidence(marks, name, &host) {
                Ok(Some(found)) => {
                    let better = best.as_ref().is_none_or(|(_, best)| {
                        found.confidence == ManagerConfidence::Certain
                            && best.confidence != ManagerConfidence::Certain
                    });
                    if better {
                        best = Some((entry, found));
                    }
                }
                Ok(None) => {}
                Err(why) => unknown = unknown.or(Some(why)),
            }
        }
        match (best, unknown) {
            (Some((entry, found)), _) => Fact::Known(Some(entry.manager(found, name, vm.uuid.known()))),
            (None, Some(why)) => Fact::Unknown(why),
            (None, None) => Fact::Known(None),
        }
    }
}

impl ManagerEntry {
    /// Evidence that the VM belongs to this manager.
    fn evidence(&self, marks: &VmMarks, name: &str, host: &OnHost) -> Result<Option<Evidence>, Unknown> {
        if let Some(found) = self.in_metadata(marks) {
            return Ok(Some(found));
        }
        let monitor = marks.monitor.as_ref().and_then(|path| Some((path, captured(&self.monitors, path)?)));
        if let Some((path, (vm, project))) = monitor {
            let words = format!("its monitor's socket is {path}");
            return Ok(Some(Evidence { confidence: ManagerConfidence::Likely, vm, project, words }));
        }
        if self.cluster {
            let vms = known(&host.as_ref().map_err(Clone::clone)?.cluster_vms)?;
            let resource = vms.iter().find(|vm| vm.domain == name);
            return Ok(resource.map(|vm| Evidence {
                confidence: ManagerConfidence::Certain,
                vm: Some(vm.resource.clone()),
                project: None,
                words: format!(
                    "the cluster's configuration on its host has it as the resource {}",
                    vm.resource
                ),
            }));
        }
        let likely = |words| {
            Ok(Some(Evidence { confidence: ManagerConfidence::Likely, vm: None, project: None, words }))
        };
        if let Some(product) = marks.product.as_ref().filter(|product| self.products.contains(product)) {
            return likely(format!("its firmware's tables name the product {product}"));
        }
        if captured(&self.names, name).is_none() {
            return Ok(None);
        }
        let running = known(&host.as_ref().map_err(Clone::clone)?.programs)?;
        match running.iter().find(|program| self.programs.contains(program)) {
            Some(program) => {
                likely(format!("its name is one that {} gives, and {program} runs on its host", self.title))
            }
            None => Ok(None),
        }
    }

    fn in_metadata(&self, marks: &VmMarks) -> Option<Evidence> {
        let namespace = self.namespace.as_deref()?;
        let own = || marks.metadata.iter().filter(|element| element.namespace.starts_with(namespace));
        let first = own().next()?;
        let text = |paths: &[String]| {
            let find =
                |path: &String| own().find(|element| element.path == *path && !element.text.is_empty());
            paths.iter().find_map(find).map(|element| element.text.clone())
        };
        Some(Evidence {
            confidence: ManagerConfidence::Certain,
            vm: text(&self.vm_elements),
            project: text(&self.project_elements),
            words: format!("its metadata have the element {} of {}", first.path, first.namespace),
        })
    }

    fn manager(&self, found: Evidence, domain: &str, uuid: Option<&Uuid>) -> VmManager {
        let (of_name, project_of_name) = captured(&self.names, domain).unwrap_or_default();
        let vm = found.vm.or(of_name).unwrap_or_else(|| domain.to_owned());
        let project = found.project.or(project_of_name);
        // Guests' owners choose these names, and people copy the command.
        let word = |text: &str| ShellWord(text).to_string();
        let way_out = self
            .way_out
            .replace("{uuid}", &word(uuid.map_or(vm.as_str(), Uuid::as_str)))
            .replace("{project}", &word(project.as_deref().unwrap_or("PROJECT")))
            .replace("{vm}", &word(&vm));
        VmManager {
            kind: self.id.clone(),
            title: self.title.clone(),
            vm,
            project,
            confidence: found.confidence,
            evidence: found.words,
            way_out,
        }
    }
}

/// The VM's name and its project in the manager, from a text that one of the patterns matches as a whole.
fn captured(patterns: &[NamePattern], text: &str) -> Option<(Option<String>, Option<String>)> {
    patterns.iter().find_map(|pattern| {
        let part = pattern.parts(text)?;
        Some((part("vm").map(str::to_owned), part("project").map(str::to_owned)))
    })
}

fn known<T>(fact: &Fact<T>) -> Result<&T, Unknown> {
    match fact {
        Fact::Known(value) => Ok(value),
        Fact::Unknown(why) => Err(why.clone()),
    }
}
