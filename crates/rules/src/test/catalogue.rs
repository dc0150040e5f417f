//! Tests of catalogues: the entries that match a process, a listener, a UDP socket, a component of a VM, a VM or a move.
//!
//! The tests of `catalogues/<name>.yaml` are in `<name>.test.yaml` in the same folder. Every entry needs a case that
//! finds it, and every pattern needs a case that fails without it: most mistakes in catalogues are in patterns.

use std::{collections::BTreeMap, sync::Arc};

use schemars::JsonSchema;
use serde::Deserialize;
use vmgate_documents::{Node, Problem, Shape, SourceFile, closest};
use vmgate_facts::{
    Accelerator, BootFile, ClusterVm, ControlSession, Fact, FileKind, FlowDirection, Guest, Host, HostFile,
    HostManagers, Listener, MetadataElement, Process, Tcp, Udp, UdpSocket, Version, Vm, VmComponent, VmMarks,
    machine_version,
};

use super::report::{CaseReport, RuleReport};
use crate::{
    Catalogues,
    catalogue::{
        ComponentCatalogue, ControlCatalogue, KnownFailureCatalogue, ManagerCatalogue, MemorySyncEntry,
        UdpCatalogue, UdpEntry,
    },
    files::{FileRole, RuleFile},
};

static TESTS: Shape<CatalogueTestDocument> = Shape::new();

/// The tests of one catalogue. The file name is `<name>.test.yaml`, in the folder of `<name>.yaml`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[schemars(title = "vmgate catalogue test")]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "the schema is checked when the document is read")]
pub(crate) struct CatalogueTestDocument {
    /// Name and version of this format.
    pub(crate) schema: CatalogueTestSchema,
    /// Cases, each with the entries that must be found.
    pub(crate) cases: Vec<CatalogueCase>,
}

vmgate_facts::schema_id!(pub(crate) CatalogueTestSchema = "vmgate/catalogue-test/v1");

/// One case: a process, listener or UDP socket of a guest, a component of a VM, a VM, a move, or a session, and the entries that
/// match. A case has exactly one of process, listener, udp, component, vm, move and control.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CatalogueCase {
    /// A process of the guest: its name in the kernel.
    #[schemars(example = &"corosync")]
    process: Option<String>,
    /// The command line of the process; its name if left out.
    #[schemars(example = &"/usr/sbin/corosync -f")]
    command: Option<String>,
    /// A TCP port with a listener.
    #[schemars(example = 7788)]
    listener: Option<u16>,
    /// The port of a UDP socket.
    #[schemars(example = 5405)]
    udp: Option<u16>,
    /// A component of a VM: its kind and its model.
    #[schemars(example = &"sound ich9")]
    component: Option<String>,
    /// A VM with the marks of its manager.
    vm: Option<VmCase>,
    /// A move between two hosts.
    #[serde(rename = "move")]
    move_: Option<MoveCase>,
    /// A session of a control protocol, as the capture names it.
    control: Option<ControlCase>,
    /// Address and port of the peer of a connected UDP socket.
    #[schemars(example = &"10.0.0.9:514")]
    peer: Option<String>,
    /// Process that owns the port: null for the kernel, left out if the owner is not known.
    #[serde(default)]
    owner: Fact<Option<String>>,
    /// Ids of the entries that it is taken for; an empty list where it is nothing special.
    #[schemars(example = vec!["corosync"])]
    finds: Vec<String>,
    /// The time-out that the command line sets, or that the session's packets and the catalogue give, in seconds.
    #[schemars(example = 5.0)]
    seconds: Option<f64>,
}

/// A VM of a catalogue's test, with what its configuration and its host say of a manager.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct VmCase {
    /// Name of the domain.
    #[schemars(example = &"one-12")]
    name: String,
    /// Namespace of its metadata.
    namespace: Option<String>,
    /// Product in its firmware's tables.
    product: Option<String>,
    /// Socket of QEMU's monitor.
    monitor: Option<String>,
    /// Programs that run on its host.
    programs: Vec<String>,
    /// Names of the domains that the cluster of its host has.
    cluster_vms: Vec<String>,
}

impl VmCase {
    /// Entry of the manager to which the VM belongs.
    fn manager(&self, catalogues: &Catalogues) -> FoundEntries {
        let element = |namespace: &String| MetadataElement {
            namespace: namespace.clone(),
            path: "vm".to_owned(),
            text: String::new(),
        };
        let marks = VmMarks {
            metadata: self.namespace.iter().map(element).collect(),
            product: self.product.clone(),
            monitor: self.monitor.clone(),
        };
        let cluster_vm =
            |domain: &String| ClusterVm { resource: format!("vm-{domain}"), domain: domain.clone() };
        let managers = HostManagers {
            programs: Fact::Known(self.programs.clone()),
            settings: Fact::Known(Vec::new()),
            cluster_vms: Fact::Known(self.cluster_vms.iter().map(cluster_vm).collect()),
        };
        let vm = Vm { name: Fact::Known(self.name.clone()), marks: Fact::Known(marks), ..Vm::default() };
        let host = Host { managers: Fact::Known(managers), ..Host::default() };
        let found = catalogues.manager_of(&vm, &Fact::Known(host));
        found.known().into_iter().flatten().map(|manager| (manager.kind.clone(), None)).collect()
    }
}

/// A session of a control protocol whose packets state no time-out.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ControlCase {
    /// Id of the protocol.
    #[schemars(example = &"bgp")]
    protocol: String,
    /// Longest time between two of the guest's packets; 0 where only one was seen.
    #[serde(default)]
    #[schemars(example = 3.0)]
    gap_seconds: f64,
}

impl ControlCase {
    fn completed(&self, catalogues: &Catalogues) -> FoundEntries {
        let mut session = ControlSession {
            protocol: self.protocol.clone(),
            direction: FlowDirection::Both,
            keepalive_gap_seconds: self.gap_seconds,
            ..ControlSession::default()
        };
        catalogues.complete_control(&mut session);
        let known = catalogues.control_protocols().iter().any(|entry| entry.id == self.protocol);
        known.then(|| (self.protocol.clone(), session.timeout_seconds.known().copied())).into_iter().collect()
    }
}

/// A move of a catalogue's test: what is left out is known not to matter.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct MoveCase {
    /// Machine type of the VM.
    #[schemars(example = &"pc-q35-9.2")]
    machine_type: String,
    /// A component of the VM: its kind and its model.
    #[schemars(example = &"interface virtio")]
    component: Option<String>,
    /// Versions of QEMU at the source and at the destination.
    #[schemars(example = vec!["8.0.0", "7.2"])]
    qemu: [Version; 2],
    /// Releases of the kernel at the source and at the destination.
    #[schemars(example = vec!["6.17.0", "6.12.57-amd64"])]
    kernel: Option<[String; 2]>,
    /// True if the emulators have different sizes.
    #[serde(default)]
    other_build: bool,
}

impl MoveCase {
    /// Entries that may concern the move.
    fn failures(&self, catalogues: &Catalogues) -> FoundEntries {
        let [vm_qemu, there] = self.qemu;
        let (kind, model) =
            self.component.as_deref().unwrap_or("none").split_once(' ').unwrap_or(("none", ""));
        let component = VmComponent {
            kind: kind.to_owned(),
            model: model.to_owned(),
            migrates: Fact::default(),
            why: None,
        };
        let emulator = "/usr/bin/qemu-system-x86_64";
        let vm = Vm {
            machine_type: Fact::Known(self.machine_type.clone()),
            machine_version: machine_version(&self.machine_type),
            components: Fact::Known(vec![component]),
            cpu_model: Fact::Known(None),
            accelerator: Fact::Known(Accelerator::Kvm),
            qemu_version: Fact::Known(vm_qemu),
            boot_files: Fact::Known(vec![BootFile {
                purpose: "emulator".to_owned(),
                path: emulator.to_owned(),
            }]),
            ..Vm::default()
        };
        let host = |qemu, kernel: Option<&String>, size_bytes| Host {
            qemu_version: Fact::Known(qemu),
            libvirt_version: Fact::Known(Version::from_libvirt(11_003_000)),
            kernel_release: Fact::Known(kernel.cloned().unwrap_or_default()),
            files: Fact::Known(vec![HostFile {
                path: emulator.to_owned(),
                kind: FileKind::File,
                filesystem: None,
                shared_filesystem: false,
                declared_shared: false,
                read_only: false,
                size_bytes: Some(size_bytes),
                identity: None,
                opening: Fact::default(),
            }]),
            ..Host::default()
        };
        let [kernel, kernel_there] =
            self.kernel.as_ref().map_or([None, None], |[here, there]| [Some(here), Some(there)]);
        let source = host(vm_qemu, kernel, 1);
        let destination = host(there, kernel_there, if self.other_build { 2 } else { 1 });
        let found = catalogues.known_failures_of((&vm, &Fact::default()), &source, &destination);
        let known =
            found.into_iter().filter(|failure| self.other_build || !is_about_builds(catalogues, &failure.id));
        known.map(|failure| (failure.id, None)).collect()
    }
}

/// True for an entry about builds of one version, which cannot be told apart by their size alone.
fn is_about_builds(catalogues: &Catalogues, id: &str) -> bool {
    catalogues.known_failures().iter().any(|entry| entry.id == id && entry.other_build)
}

/// Ids of the entries that match, with their time-outs.
type FoundEntries = Vec<(String, Option<f64>)>;

impl CatalogueCase {
    fn name(&self) -> String {
        let of = match &self.owner {
            Fact::Known(Some(owner)) => format!(" of {owner}"),
            Fact::Known(None) => " of the kernel".to_owned(),
            Fact::Unknown(_) => String::new(),
        };
        if let Some(component) = &self.component {
            return format!("component {component}");
        }
        if let Some(case) = &self.vm {
            return format!("VM {}", case.name);
        }
        if let Some(ControlCase { protocol, gap_seconds }) = &self.control {
            return format!("control {protocol} with {gap_seconds} s between its packets");
        }
        if let Some(case) = &self.move_ {
            let [here, there] = case.qemu;
            return format!("move of {} from QEMU {here} to {there}", case.machine_type);
        }
        match (&self.process, self.listener, self.udp) {
            (Some(process), ..) => format!("process {}", self.command.as_ref().unwrap_or(process)),
            (None, Some(port), _) => format!("listener {port}{of}"),
            (None, None, Some(port)) => {
                let to = self.peer.as_ref().map_or_else(String::new, |peer| format!(" to {peer}"));
                format!("udp {port}{of}{to}")
            }
            _ => "nothing".to_owned(),
        }
    }

    fn socket(&self, port: u16) -> UdpSocket {
        UdpSocket {
            local: format!("0.0.0.0:{port}"),
            port,
            remote: self.peer.clone(),
            drops: Fact::default(),
            owner: self.owner.clone(),
            service: Fact::default(),
        }
    }

    /// Entries of the software catalogues that match.
    fn software(&self, catalogues: &Catalogues) -> FoundEntries {
        let mut guest = Guest { processes: Fact::Known(Vec::new()), ..Guest::default() };
        if let Some(name) = &self.process {
            guest.processes = Fact::Known(vec![Process {
                pid: 1,
                name: name.clone(),
                command: self.command.clone().unwrap_or_else(|| name.clone()),
                state: "S".into(),
                resident_bytes: 0,
            }]);
        }
        if let Some(port) = self.listener {
            let local = format!("0.0.0.0:{port}");
            let listeners = Fact::Known(vec![Listener { local, port, owner: self.owner.clone() }]);
            guest.tcp = Fact::Known(Tcp { listeners, ..Tcp::default() });
        }
        if let Some(port) = self.udp {
            guest.udp = Fact::Known(Udp { sockets: Fact::Known(vec![self.socket(port)]), ..Udp::default() });
        }
        let found = catalogues.recognise(&guest);
        let found = found.known().into_iter().flatten();
        found.map(|one| (one.id.clone(), one.detector_seconds.known().copied())).collect()
    }

    /// Entries of the UDP catalogues that match.
    fn service(&self, catalogues: &Catalogues) -> FoundEntries {
        let service = self.udp.and_then(|port| catalogues.classify(&self.socket(port)));
        service.map(|service| (service.id, None)).into_iter().collect()
    }

    /// Entry of the catalogues of components that lists it.
    fn component(&self, catalogues: &Catalogues) -> FoundEntries {
        let Some(component) = &self.component else { return Vec::new() };
        let (kind, model) = component.split_once(' ').unwrap_or((component, ""));
        catalogues.component(kind, model).map(|entry| (entry.id.clone(), None)).into_iter().collect()
    }

    fn found(&self, catalogues: &Catalogues, of: CatalogueKind) -> FoundEntries {
        match of {
            CatalogueKind::Components => self.component(catalogues),
            CatalogueKind::KnownFailures => {
                self.move_.as_ref().map(|case| case.failures(catalogues)).unwrap_or_default()
            }
            CatalogueKind::Managers => {
                self.vm.as_ref().map(|case| case.manager(catalogues)).unwrap_or_default()
            }
            CatalogueKind::Software => self.software(catalogues),
            CatalogueKind::Services => self.service(catalogues),
            CatalogueKind::Control => {
                self.control.as_ref().map(|case| case.completed(catalogues)).unwrap_or_default()
            }
        }
    }

    fn matches(&self, found: &FoundEntries) -> bool {
        let ids: Vec<&str> = found.iter().map(|(id, _)| id.as_str()).collect();
        ids == self.finds
            && self.seconds.is_none_or(|seconds| found.iter().all(|(_, is)| *is == Some(seconds)))
    }
}

/// Keys of a case, one of which it must have.
const OBJECTS: [&str; 7] = ["process", "listener", "udp", "component", "vm", "move", "control"];

/// Kind of a catalogue.
#[derive(Clone, Copy, PartialEq, Eq)]
enum CatalogueKind {
    Components,
    KnownFailures,
    Managers,
    Software,
    Services,
    Control,
}

/// Tests every catalogue of the files, or only those whose name contains `filter`.
pub(super) fn run(
    files: &[RuleFile],
    catalogues: &Catalogues,
    filter: Option<&str>,
    problems: &mut Vec<Problem>,
) -> Vec<RuleReport> {
    let mut tests: BTreeMap<String, &RuleFile> = files
        .iter()
        .filter(|file| file.role == FileRole::CatalogueTest)
        .map(|file| (place(file), file))
        .collect();
    let mut reports = Vec::new();
    for file in files.iter().filter(|file| file.role == FileRole::Catalogue) {
        let tests = tests.remove(&place(file));
        if filter.is_none_or(|filter| file.stem.contains(filter)) {
            reports.push(catalogue(file, tests, catalogues));
        }
    }
    for file in tests.into_values() {
        let message = format!("there is no catalogue `{}` in the folder of these tests", file.stem);
        problems.push(Problem::of_file(&file.file.name, message, "write the catalogue, or remove its tests"));
        problems.extend(document(&file.file).err().unwrap_or_default());
    }
    reports
}

/// Folder and name, which are the same for a catalogue and its tests.
fn place(file: &RuleFile) -> String {
    let folder = file.file.name.rsplit_once('/').map_or("", |(folder, _)| folder);
    format!("{folder}/{}", file.stem)
}

fn catalogue(file: &RuleFile, tests: Option<&RuleFile>, catalogues: &Catalogues) -> RuleReport {
    let mut report = RuleReport::new("catalogue", &file.stem);
    let Some(tests) = tests else {
        let message = format!("the catalogue `{}` has no tests", file.stem);
        let help =
            format!("write {}.test.yaml in the same folder; docs/writing-rules.md shows how", file.stem);
        report.failures.push(Problem::of_file(&file.file.name, message, &help));
        return report;
    };
    match document(&tests.file) {
        Err(found) => report.failures.extend(found),
        Ok((document, node)) => {
            let nodes = node.get("cases").map(Node::items).unwrap_or_default();
            let run = CatalogueRun { file: &tests.file, cases: &document.cases, nodes, catalogues };
            run.run(file, &mut report);
        }
    }
    report
}

/// Reads the tests of a catalogue.
pub(super) fn document(file: &Arc<SourceFile>) -> Result<(CatalogueTestDocument, Node), Vec<Problem>> {
    TESTS.read(file, |root| check_one_object_each(file, root))
}

/// Checks that each case has exactly one object.
fn check_one_object_each(file: &Arc<SourceFile>, root: &Node) -> Vec<Problem> {
    let cases = root.get("cases").map(Node::items).unwrap_or_default();
    let wrong = cases.iter().filter(|case| OBJECTS.iter().filter(|key| case.get(key).is_some()).count() != 1);
    wrong
        .map(|case| {
            Problem::at(
                file,
                case.span.clone(),
                format!("a case must have exactly one of {}", OBJECTS.join(", ")),
            )
            .label("this case")
            .help("split the case, or remove all but one")
        })
        .collect()
}

struct CatalogueRun<'a> {
    file: &'a Arc<SourceFile>,
    cases: &'a [CatalogueCase],
    nodes: &'a [Node],
    catalogues: &'a Catalogues,
}

impl CatalogueRun<'_> {
    fn run(&self, file: &RuleFile, report: &mut RuleReport) {
        let Some(catalogue) = self.catalogues.file(&file.file.name) else {
            let help = "load the catalogues of the folder whose tests are run";
            report.failures.push(Problem::of_file(
                &file.file.name,
                "has tests, but the catalogue is not loaded",
                help,
            ));
            return;
        };
        let entries: Vec<(&str, &Node)> = catalogue.entries().collect();
        let kind = match catalogue.node.get("schema").and_then(Node::text) {
            Some(UdpCatalogue::SCHEMA) => CatalogueKind::Services,
            Some(ComponentCatalogue::SCHEMA) => CatalogueKind::Components,
            Some(KnownFailureCatalogue::SCHEMA) => CatalogueKind::KnownFailures,
            Some(ManagerCatalogue::SCHEMA) => CatalogueKind::Managers,
            Some(ControlCatalogue::SCHEMA) => CatalogueKind::Control,
            _ => CatalogueKind::Software,
        };
        for (case, node) in self.cases.iter().zip(self.nodes) {
            report.cases.push(self.case(case, node, kind));
            report.failures.extend(case.finds.iter().filter_map(|id| self.unknown_id(id, node, &entries)));
        }
        for (id, node) in &entries {
            if !self.cases.iter().any(|case| case.finds.iter().any(|found| found == id)) {
                let node = node.get("id").unwrap_or(node);
                let problem =
                    Problem::at(&catalogue.source, node.span.clone(), format!("no case finds `{id}`"));
                let help = format!("add such a case to {}", self.file.name);
                report.failures.push(problem.label("this entry").help(help));
            }
            self.mutants(id, node, kind, &catalogue.source, report);
        }
    }

    fn case(&self, case: &CatalogueCase, node: &Node, kind: CatalogueKind) -> CaseReport {
        let found = case.found(self.catalogues, kind);
        let message = || format!("{}: other entries match than expected", case.name());
        let problem = (!case.matches(&found))
            .then(|| Problem::at(self.file, node.span.clone(), message()).label("this case"));
        let line = |id: &str, seconds: Option<f64>| match seconds {
            Some(seconds) => format!("{id}, {seconds} s"),
            None => id.to_owned(),
        };
        let lines = |all: Vec<String>| if all.is_empty() { vec!["no entry".to_owned()] } else { all };
        CaseReport {
            name: case.name(),
            problem,
            expected: lines(case.finds.iter().map(|id| line(id, case.seconds)).collect()),
            actual: lines(found.iter().map(|(id, seconds)| line(id, *seconds)).collect()),
        }
    }

    fn unknown_id(&self, id: &str, node: &Node, entries: &[(&str, &Node)]) -> Option<Problem> {
        let software = self.catalogues.memory_sync().iter().map(|entry| entry.id.as_str());
        let services = self.catalogues.udp_services().iter().map(|entry| entry.id.as_str());
        let components = self.catalogues.components().iter().map(|entry| entry.id.as_str());
        let failures = self.catalogues.known_failures().iter().map(|entry| entry.id.as_str());
        let control = self.catalogues.control_protocols().iter().map(|entry| entry.id.as_str());
        let managers = self.catalogues.managers().iter().map(|entry| entry.id.as_str());
        let mut found =
            software.chain(services).chain(components).chain(failures).chain(control).chain(managers);
        if found.any(|known| known == id) {
            return None;
        }
        let node = node.get("finds").unwrap_or(node);
        let problem = Problem::at(self.file, node.span.clone(), format!("there is no entry `{id}`"));
        let problem = problem.label("no such entry");
        Some(match closest(id, entries.iter().map(|(id, _)| *id)) {
            Some(like) => problem.help(format!("did you mean `{like}`?")),
            None => problem.help("write the id of an entry"),
        })
    }

    /// Checks that a case fails without each pattern of an entry.
    fn mutants(
        &self,
        id: &str,
        node: &Node,
        kind: CatalogueKind,
        source: &Arc<SourceFile>,
        report: &mut RuleReport,
    ) {
        for mutant in mutants(node, kind) {
            report.mutants += 1;
            let changed = self.catalogues.with_changed_entry(
                id,
                |entry| mutant.software(entry),
                |entry| mutant.service(entry),
            );
            // Only a case about this entry, or a case that no entry matches, can notice.
            let about =
                |case: &&CatalogueCase| case.finds.is_empty() || case.finds.iter().any(|found| found == id);
            if self.cases.iter().filter(about).all(|case| case.matches(&case.found(&changed, kind))) {
                let message = format!("{id}: no case needs this part");
                let problem = Problem::at(source, mutant.span(node), message).label(mutant.label());
                report
                    .failures
                    .push(problem.help(format!("add a case that needs this part to {}", self.file.name)));
            }
        }
    }
}

/// A changed entry: one part is left out, by its position.
enum Mutant {
    Command(usize),
    Option(usize),
    Prefix(usize),
    WithProcess,
}

/// Mutants of an entry: one for every part that matches more than one text.
fn mutants(entry: &Node, kind: CatalogueKind) -> Vec<Mutant> {
    let positions = |key: &str| 0..entry.get(key).map_or(0, |list| list.items().len());
    if matches!(
        kind,
        CatalogueKind::Components
            | CatalogueKind::KnownFailures
            | CatalogueKind::Control
            | CatalogueKind::Managers
    ) {
        return Vec::new();
    }
    if kind == CatalogueKind::Services {
        let with_process = entry.get("with_process").is_some_and(|node| node.to_json() == true);
        return if with_process { vec![Mutant::WithProcess] } else { Vec::new() };
    }
    let names = entry.get("names").map(Node::items).unwrap_or_default();
    let prefixes =
        names.iter().enumerate().filter(|(_, name)| name.text().is_some_and(|name| name.ends_with('*')));
    positions("commands")
        .map(Mutant::Command)
        .chain(positions("command_line").map(Mutant::Option))
        .chain(prefixes.map(|(at, _)| Mutant::Prefix(at)))
        .collect()
}

impl Mutant {
    fn software(&self, entry: &mut MemorySyncEntry) {
        match self {
            Self::Command(at) => drop(entry.commands.remove(*at)),
            Self::Option(at) => drop(entry.command_line.remove(*at)),
            Self::Prefix(at) => drop(entry.names.remove(*at)),
            Self::WithProcess => {}
        }
    }

    fn service(&self, entry: &mut UdpEntry) {
        if matches!(self, Self::WithProcess) {
            entry.with_process = false;
        }
    }

    fn label(&self) -> &'static str {
        match self {
            Self::Command(_) => "every case passes without this pattern",
            Self::Option(_) => "no case uses this option",
            Self::Prefix(_) => "every case passes without this name",
            Self::WithProcess => "every case passes without `with_process`",
        }
    }

    fn span(&self, entry: &Node) -> std::ops::Range<usize> {
        let (key, at) = match self {
            Self::Command(at) => ("commands", *at),
            Self::Option(at) => ("command_line", *at),
            Self::Prefix(at) => ("names", *at),
            Self::WithProcess => ("with_process", usize::MAX),
        };
        let list = entry.get(key);
        list.and_then(|list| list.items().get(at)).or(list).unwrap_or(entry).span.clone()
    }
}
