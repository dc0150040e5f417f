//! Catalogue of migrations that are known to fail: pairs of QEMU builds, kernels, libvirt versions, machine types and devices.
//!
//! An entry concerns a move if all its conditions hold. Where one cannot be told and the others hold, the outcome is unknown.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use vmgate_facts::{Accelerator, Cause, Fact, Guest, Host, KnownFailure, Unknown, Version, VirtioQueues, Vm};

use super::{Catalogues, Reference, VersionRange, check::EntryCheck};

/// A failure, and the moves that it concerns: those that meet every condition of the entry.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KnownFailureEntry {
    /// Id of the entry.
    pub id: String,
    /// Machine types of the VM; a `*` at the end stands for any rest.
    #[serde(default)]
    #[schemars(example = vec!["pc-i440fx-rhel7.*"])]
    pub machine_types: Vec<String>,
    /// Version of QEMU that the VM's machine type is made from.
    #[serde(default)]
    #[schemars(example = &">=10.2")]
    pub machine_version: Option<VersionRange>,
    /// CPU models of the VM; a `*` at the end stands for any rest.
    #[serde(default)]
    #[schemars(example = vec!["EPYC*"])]
    pub cpu_models: Vec<String>,
    /// Components of the VM, of which it has at least one; a `*` at the end stands for any rest.
    #[serde(default)]
    #[schemars(example = vec!["interface virtio*"])]
    pub components: Vec<String>,
    /// Versions at the source; its QEMU is the one that runs the VM.
    #[serde(default)]
    pub source: Versions,
    /// Versions at the destination.
    #[serde(default)]
    pub destination: Versions,
    /// True if it concerns two builds of one version of QEMU.
    #[serde(default)]
    pub other_build: bool,
    /// Size of a queue of a virtio device with which it happens. QEMU tells the queues with --allow-monitor; else they have this
    /// size if the guest was booted by the QEMU that runs it, and its operating system runs.
    #[serde(default)]
    #[schemars(example = 1024)]
    pub queue_size: Option<u32>,
    /// True if such a move always fails; false if it may.
    pub always: bool,
    /// The failure, in one sentence.
    pub why: String,
    /// Way around it, in one sentence.
    pub remedy: String,
    /// Documents or sources that prove it.
    #[serde(default)]
    pub references: Vec<Reference>,
}

/// Versions of the software of a host.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Versions {
    /// Versions of QEMU.
    #[serde(default)]
    #[schemars(example = &">=8.0 <8.0.3")]
    pub qemu: Option<VersionRange>,
    /// Versions of libvirt.
    #[serde(default)]
    #[schemars(example = &"<9.0")]
    pub libvirt: Option<VersionRange>,
    /// Versions of the kernel; what a distribution adds to the number is left out.
    #[serde(default)]
    #[schemars(example = &"<6.2")]
    pub kernel: Option<VersionRange>,
}

/// Checks an entry for problems that its types cannot express.
pub(super) fn check(check: &mut EntryCheck<'_>) {
    check.referenced();
}

impl Catalogues {
    /// Failures that may concern the move of this VM between these hosts.
    pub fn known_failures_of(
        &self,
        (vm, guest): (&Vm, &Fact<Guest>),
        source: &Host,
        destination: &Host,
    ) -> Vec<KnownFailure> {
        let has_booted = vm.accelerator == Fact::Known(Accelerator::Kvm)
            || guest.known().is_some_and(|guest| guest.os.known().is_some());
        let concerned = |entry: &KnownFailureEntry| {
            let mut fails = entry.concerns(vm, has_booted, source, destination);
            if fails == Fact::Known(false) {
                return None;
            }
            if fails == Fact::Known(true) && !entry.always {
                let reason =
                    format!("{}; it may concern this move, and only a rehearsal shows it", entry.why);
                fails = Fact::unknown(Cause::NotAllowed, format!("{reason}: `vmgate rehearse`"));
            }
            Some(KnownFailure {
                id: entry.id.clone(),
                fails,
                why: entry.why.clone(),
                remedy: entry.remedy.clone(),
            })
        };
        self.known_failures().iter().filter_map(concerned).collect()
    }
}

impl KnownFailureEntry {
    /// True if every condition holds.
    fn concerns(&self, vm: &Vm, has_booted: bool, source: &Host, destination: &Host) -> Fact<bool> {
        let conditions = [
            named(&self.machine_types, &vm.machine_type),
            within(self.machine_version.as_ref(), vm.machine_version.clone()),
            listed(&self.cpu_models, &vm.cpu_model.clone().map(|model| model.into_iter().collect())),
            listed(
                &self.components,
                &vm.components.clone().map(|all| {
                    all.iter().map(|one| format!("{} {}", one.kind, one.model).trim().to_owned()).collect()
                }),
            ),
            within(self.source.qemu.as_ref(), vm.qemu_version.clone().map(Some)),
            within(self.source.libvirt.as_ref(), source.libvirt_version.clone().map(Some)),
            within(self.source.kernel.as_ref(), kernel(source)),
            within(self.destination.qemu.as_ref(), destination.qemu_version.clone().map(Some)),
            within(self.destination.libvirt.as_ref(), destination.libvirt_version.clone().map(Some)),
            within(self.destination.kernel.as_ref(), kernel(destination)),
            if self.other_build { is_other_build(vm, source, destination) } else { Fact::Known(true) },
        ];
        match all(conditions) {
            Fact::Known(true) => {
                self.queue_size.map_or(Fact::Known(true), |size| queues_have(size, vm, has_booted))
            }
            other => other,
        }
    }
}

/// True if all hold; false if one does not, whatever the others are.
fn all(conditions: impl IntoIterator<Item = Fact<bool>>) -> Fact<bool> {
    let mut unknown: Option<Unknown> = None;
    for condition in conditions {
        match condition {
            Fact::Known(true) => {}
            Fact::Known(false) => return Fact::Known(false),
            Fact::Unknown(why) => unknown = unknown.or(Some(why)),
        }
    }
    unknown.map_or(Fact::Known(true), Fact::Unknown)
}

/// True if a name is among the patterns, or there are none.
fn named(patterns: &[String], name: &Fact<String>) -> Fact<bool> {
    listed(patterns, &name.clone().map(|name| vec![name]))
}

fn listed(patterns: &[String], names: &Fact<Vec<String>>) -> Fact<bool> {
    if patterns.is_empty() {
        return Fact::Known(true);
    }
    let matches = |name: &String| {
        patterns.iter().any(|pattern| match pattern.strip_suffix('*') {
            Some(start) => name.starts_with(start),
            None => name == pattern,
        })
    };
    names.as_ref().map(|names| names.iter().any(matches))
}

/// True if a version is in the range, or there is no range; a version that does not exist is in none.
fn within(range: Option<&VersionRange>, version: Fact<Option<Version>>) -> Fact<bool> {
    let Some(range) = range else { return Fact::Known(true) };
    version.map(|version| version.is_some_and(|version| range.contains(version)))
}

/// Version of a host's kernel: the numbers that its release begins with.
fn kernel(host: &Host) -> Fact<Option<Version>> {
    host.kernel_release.as_ref().map(|release| {
        let numbers = release.split(|c: char| c != '.' && !c.is_ascii_digit()).next().unwrap_or_default();
        let parts: Vec<&str> = numbers.split('.').filter(|part| !part.is_empty()).take(3).collect();
        parts.join(".").parse().ok()
    })
}

/// True if both hosts have one version of QEMU in two builds.
fn is_other_build(vm: &Vm, source: &Host, destination: &Host) -> Fact<bool> {
    let one_version = match (&vm.qemu_version, &destination.qemu_version) {
        (Fact::Known(here), Fact::Known(there)) => Fact::Known(here == there),
        (Fact::Unknown(why), _) | (_, Fact::Unknown(why)) => Fact::Unknown(why.clone()),
    };
    let emulators = vm.boot_files.known().into_iter().flatten().filter(|file| file.purpose == "emulator");
    let emulators: Vec<&str> = emulators.map(|file| file.path.as_str()).collect();
    let sizes = |host: &Host| -> Option<Vec<u64>> {
        let files = host.files.known()?.iter().filter(|file| emulators.contains(&file.path.as_str()));
        Some(files.filter_map(|file| file.size_bytes).collect())
    };
    let builds = destination.program_builds.known();
    let there = builds.and_then(|all| all.iter().find(|one| emulators.contains(&one.path.as_str())));
    let differs = match (vm.qemu_build.known(), there) {
        (Some(here), Some(there)) => Fact::Known(*here != there.build),
        // Without the builds, files of different size are different builds; files of one size need not be the same.
        _ => match (sizes(source), sizes(destination)) {
            (Some(here), Some(there)) if here != there => Fact::Known(true),
            _ => Fact::unknown(Cause::NoHostProbe, "the builds of QEMU at both hosts are not known"),
        },
    };
    all([one_version, differs])
}

/// True if a virtio device of the VM has a queue of this size that its guest's driver did not choose. Firmware, which uses a disk to
/// boot from it, may give its queue another size; a driver of an operating system keeps the device's. An accelerated VM that runs
/// counts as booted: nothing outside shows a VM that waits in its firmware.
fn queues_have(size: u32, vm: &Vm, has_booted: bool) -> Fact<bool> {
    // A network card may have been given large queues; its last one, for control, is small by itself.
    let has = |device: &VirtioQueues| {
        let sizes = if device.name == "virtio-net" { device.sizes.last() } else { device.sizes.iter().max() };
        sizes.is_some_and(|largest| *largest >= size)
    };
    match (vm.virtio_queues.known(), vm.started_here.known()) {
        (Some(Some(devices)), _) => Fact::Known(devices.iter().any(has)),
        (_, Some(true)) if has_booted => Fact::Known(true),
        (_, Some(true)) => Fact::unknown(
            Cause::NotAllowed,
            "nothing shows that an operating system runs in the VM, and its firmware may have given the queues other sizes: \
             --allow-monitor lets QEMU tell them",
        ),
        (_, Some(false)) => Fact::unknown(
            Cause::NotAllowed,
            "the VM came to its host by a migration, and keeps the queues of the QEMU on which the guest was booted or last reset: \
             --allow-monitor lets QEMU tell them",
        ),
        (_, None) => Fact::unknown(
            Cause::NotAllowed,
            "the queues of the VM's virtio devices are not known: --allow-monitor lets QEMU tell them",
        ),
    }
}

#[cfg(test)]
mod tests {
    use vmgate_facts::{BootFile, ProgramBuild, VmComponent};

    use super::*;

    const EMULATOR: &str = "/usr/bin/qemu-system-x86_64";

    fn version(text: &str) -> Fact<Version> {
        Fact::Known(text.parse().unwrap())
    }

    /// A VM with a virtio disk that QEMU 10.0.13 runs.
    fn vm() -> Vm {
        let component =
            VmComponent { kind: "disk".into(), model: "virtio".into(), migrates: Fact::default(), why: None };
        Vm {
            machine_type: Fact::Known("pc-q35-7.2".into()),
            machine_version: version("7.2").map(Some),
            components: Fact::Known(vec![component]),
            qemu_version: version("10.0.13"),
            accelerator: Fact::Known(Accelerator::Kvm),
            started_here: Fact::Known(true),
            virtio_queues: Fact::Known(None),
            ..Vm::default()
        }
    }

    fn host(qemu: &str, kernel: &str) -> Host {
        Host { qemu_version: version(qemu), kernel_release: Fact::Known(kernel.into()), ..Host::default() }
    }

    /// The answer about an entry; none where it does not concern the move.
    fn answer(id: &str, vm: &Vm, source: &Host, destination: &Host) -> Option<Fact<bool>> {
        let found =
            Catalogues::shipped().unwrap().known_failures_of((vm, &Fact::default()), source, destination);
        found.into_iter().find(|failure| failure.id == id).map(|failure| failure.fails)
    }

    fn queues(vm: &Vm) -> Option<Fact<bool>> {
        answer("virtio-queues-of-1024", vm, &host("10.0.13", "6.12"), &host("11.1.3", "6.12"))
    }

    #[test]
    fn queues_that_qemu_tells_decide_and_else_the_qemu_that_booted_the_guest() {
        assert_eq!(queues(&vm()), Some(Fact::Known(true)));
        let arrived = Vm { started_here: Fact::Known(false), ..vm() };
        let Some(Fact::Unknown(why)) = queues(&arrived) else { panic!("{:?}", queues(&arrived)) };
        assert!(why.reason.contains("--allow-monitor"), "{}", why.reason);
        let with = |name: &str, sizes: &[u32]| {
            let device =
                VirtioQueues { device: "/machine/x".into(), name: name.into(), sizes: sizes.to_vec() };
            queues(&Vm { virtio_queues: Fact::Known(Some(vec![device])), ..arrived.clone() })
        };
        assert_eq!(with("virtio-blk", &[256]), None);
        assert_eq!(with("virtio-blk", &[1024]), Some(Fact::Known(true)));
        assert_eq!(with("virtio-serial", &[128, 1024]), Some(Fact::Known(true)));
        assert_eq!(with("virtio-net", &[1024, 64]), None, "its receive queue may be configured so");
        assert_eq!(with("virtio-net", &[256, 1024]), Some(Fact::Known(true)));
        let old = Vm { qemu_version: version("7.2.22"), ..vm() };
        assert_eq!(queues(&old), None);
    }

    #[test]
    fn an_emulated_vm_in_which_nobody_answers_may_still_be_in_its_firmware() {
        let emulated = Vm { accelerator: Fact::Known(Accelerator::Tcg), ..vm() };
        let about = |guest: Fact<Guest>| {
            let (source, destination) = (host("10.0.13", "6.12"), host("11.1.3", "6.12"));
            let shipped = Catalogues::shipped().unwrap();
            let found = shipped.known_failures_of((&emulated, &guest), &source, &destination);
            found.into_iter().find(|failure| failure.id == "virtio-queues-of-1024").unwrap().fails
        };
        let Fact::Unknown(why) = about(Fact::default()) else { panic!("nobody knows") };
        assert!(why.reason.contains("--allow-monitor"), "{}", why.reason);
        let linux = Guest { os: Fact::Known("Debian GNU/Linux 12".into()), ..Guest::default() };
        assert_eq!(about(Fact::Known(linux)), Fact::Known(true));
    }

    #[test]
    fn a_condition_that_cannot_be_told_makes_a_suspicion_only_where_the_others_hold() {
        let unknown = Vm { qemu_version: Fact::default(), ..vm() };
        assert!(matches!(queues(&unknown), Some(Fact::Unknown(_))));
        let sata =
            VmComponent { kind: "disk".into(), model: "sata".into(), migrates: Fact::default(), why: None };
        let other = Vm { components: Fact::Known(vec![sata]), ..unknown };
        assert_eq!(queues(&other), None);
    }

    #[test]
    fn another_build_of_one_version_is_a_suspicion_where_the_machine_type_failed_so() {
        let vm = Vm {
            machine_type: Fact::Known("pc-i440fx-rhel7.6.0".into()),
            qemu_version: version("6.2"),
            qemu_build: Fact::Known("0a".into()),
            boot_files: Fact::Known(vec![BootFile { purpose: "emulator".into(), path: EMULATOR.into() }]),
            ..vm()
        };
        let built = |build: &str| Host {
            program_builds: Fact::Known(vec![ProgramBuild { path: EMULATOR.into(), build: build.into() }]),
            ..host("6.2", "5.14.0-503.el9")
        };
        let about =
            |destination: &Host| answer("piix4-power-management-of-rhel-7", &vm, &built("0a"), destination);
        let Some(Fact::Unknown(why)) = about(&built("0b")) else { panic!("no suspicion") };
        assert!(why.reason.contains("vmgate rehearse"), "{}", why.reason);
        assert_eq!(about(&built("0a")), None);
        assert!(about(&host("6.2", "5.14")).is_some(), "nobody compared the builds");
        assert_eq!(about(&Host { program_builds: built("0b").program_builds, ..host("7.2", "5.14") }), None);
    }

    #[test]
    fn kernels_are_compared_by_the_numbers_that_their_release_begins_with() {
        for (release, expected) in [
            ("6.12.57+deb13-amd64", "6.12.57"),
            ("5.14.0-503.el9", "5.14"),
            ("6.17-rc1", "6.17"),
            ("6.1.0.1", "6.1"),
        ] {
            let found = kernel(&host("1", release));
            assert_eq!(found, version(expected).map(Some), "{release}");
        }
        assert_eq!(kernel(&host("1", "custom")), Fact::Known(None));
    }
}
