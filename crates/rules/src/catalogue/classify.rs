//! Does a VM's component or device migrate? From the catalogue, the versions of both hosts, the source's kernel, and from QEMU's
//! own answer, which decides where it was asked.

use vmgate_facts::{Cause, Fact, HostDevice, PassthroughDevice, Version, Vm, VmComponent};

use super::{Catalogues, ComponentEntry, ShownBy};

/// First QEMU that tells reasons for a refusal (query-migrate, blocked-reasons).
const TELLS_REASONS: Version = Version { major: 6, minor: 0, micro: 0 };

/// Software that would move the VM, as far as it is known.
pub struct Migrator {
    /// QEMU that runs the VM.
    pub vm_qemu: Fact<Version>,
    /// QEMU at the destination.
    pub destination_qemu: Fact<Version>,
    /// libvirt at the source, which begins the migration.
    pub source_libvirt: Fact<Version>,
    /// QEMU's reasons for a refusal.
    pub answer: QemuAnswer,
    /// True if the migration was begun as a trial and accepted: then neither QEMU nor libvirt refuses its start.
    pub was_begun: bool,
}

impl Migrator {
    /// True if it is known that nothing that this shows speaks against the migration.
    fn is_clear(&self, shown_by: ShownBy) -> bool {
        match shown_by {
            ShownBy::BlockedReasons => self.was_begun || self.answer == QemuAnswer::Free,
            ShownBy::Start => self.was_begun,
            ShownBy::End => false,
        }
    }
}

/// QEMU's answer to the question if it would migrate the VM now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QemuAnswer {
    /// Not asked, or too old to tell.
    NotAsked,
    /// It names no reason against it.
    Free,
    /// It names reasons.
    Blocked,
}

impl QemuAnswer {
    /// The answer in the facts of a VM.
    pub fn of(vm: &Vm) -> Self {
        match (vm.migration_blockers.known(), vm.qemu_version.known()) {
            (Some(Some(reasons)), _) if !reasons.is_empty() => Self::Blocked,
            (Some(Some(_)), Some(version)) if *version >= TELLS_REASONS => Self::Free,
            _ => Self::NotAsked,
        }
    }
}

/// Answer about one component, with its reason.
type Answer = (Fact<bool>, Option<String>);

impl Catalogues {
    /// The entry that lists a component, or all other models of its kind (`*`); none if no entry does. Later entries do not
    /// override earlier ones.
    pub fn component(&self, kind: &str, model: &str) -> Option<&ComponentEntry> {
        let listing = |model: &str| {
            let lists = |entry: &&ComponentEntry| {
                entry.kind == kind && entry.models.iter().any(|listed| listed == model)
            };
            self.components().iter().find(lists)
        };
        listing(model).or_else(|| listing("*"))
    }

    /// The entry of a component whose model is not known: the only one of its kind, or that of all other models.
    fn component_of_any_model(&self, kind: &str) -> Option<&ComponentEntry> {
        let mut of_kind = self.components().iter().filter(|entry| entry.kind == kind);
        of_kind.next().filter(|_| of_kind.next().is_none()).or_else(|| self.component(kind, "*"))
    }

    /// Fills in if QEMU migrates a component, unless that is known, or the reader of the configuration says why it is not.
    pub fn classify_component(&self, component: &mut VmComponent, migrator: &Migrator) {
        if is_open(&component.migrates) {
            let name = format!("{} {}", component.kind, component.model);
            let entry = self.component(&component.kind, &component.model);
            (component.migrates, component.why) =
                self.answer((&component.kind, name.trim()), entry, migrator, false);
        }
    }

    /// Fills in driver, presence at the destination and answer of a device of the host, unless they are known. `here` and `there`
    /// are the devices that the probes of both hosts looked for.
    pub fn classify_device(
        &self,
        device: &mut HostDevice,
        (here, there): (&Fact<Vec<PassthroughDevice>>, &Fact<Vec<PassthroughDevice>>),
        migrator: &Migrator,
    ) {
        if is_open(&device.at_destination) {
            device.at_destination = there.as_ref().and_then(|all| match at(all, device) {
                Some(found) => Fact::Known(found.present),
                None => Fact::unknown(
                    Cause::NotCollected,
                    format!("nobody looked for {} {} at the destination", device.kind, device.address),
                ),
            });
        }
        let found = here.known().and_then(|all| at(all, device));
        if device.model.known().is_none()
            && let Some(driver) = found.and_then(|found| found.driver.clone())
        {
            device.model = Fact::Known(driver);
        }
        if !is_open(&device.migrates) {
            return;
        }
        let model = device.model.known().map(String::as_str);
        let entry = match model {
            Some(model) => self.component(&device.kind, model),
            None => self.component_of_any_model(&device.kind),
        };
        let name = format!("{} {} {}", device.kind, model.unwrap_or_default(), device.address);
        let name = name.split_whitespace().collect::<Vec<_>>().join(" ");
        (device.migrates, device.why) = match found.and_then(|found| found.saves_state.known()) {
            Some(false) => {
                let why = "the kernel's driver of the device saves no state, or does not track which memory it writes";
                (Fact::Known(false), Some(why.to_owned()))
            }
            told => self.answer((&device.kind, &name), entry, migrator, told.is_some()),
        };
    }

    /// `kernel_says_so` where the source's kernel tells that it can save the component's state.
    fn answer(
        &self,
        (kind, name): (&str, &str),
        entry: Option<&ComponentEntry>,
        migrator: &Migrator,
        kernel_says_so: bool,
    ) -> Answer {
        let Some(entry) = entry else {
            return self.answer_without_entry(kind, name, migrator);
        };
        let why = Some(entry.why.clone());
        let shown_by = entry.shown_by.unwrap_or_default();
        if migrator.was_begun && shown_by != ShownBy::End {
            return (Fact::Known(true), why);
        }
        let free = migrator.is_clear(shown_by);
        match is_new_enough(entry, migrator, free) {
            Fact::Known(None) => {}
            Fact::Known(Some(too_old)) => {
                return (Fact::Known(false), Some(format!("{}, and {too_old}", entry.why)));
            }
            Fact::Unknown(unknown) => return (Fact::Unknown(unknown), why),
        }
        let ask = |way: &str| {
            let reason = format!("vmgate cannot tell if {name} migrates: {}; {way}", entry.why);
            (Fact::unknown(Cause::NotAllowed, reason), why.clone())
        };
        match (entry.migrates, shown_by) {
            _ if free => (Fact::Known(true), why),
            (Some(migrates), _) => (Fact::Known(migrates), why),
            (None, ShownBy::BlockedReasons) if kernel_says_so => (Fact::Known(true), why),
            (None, ShownBy::BlockedReasons) if migrator.answer == QemuAnswer::Blocked => {
                ask("QEMU names reasons against a migration, see the rule no-migration-blocker")
            }
            (None, ShownBy::BlockedReasons) => {
                ask("QEMU was not asked: allow it with --allow-monitor, or try it with --trial")
            }
            (None, ShownBy::Start) => ask("libvirt tells when a migration begins: try it with --trial"),
            (None, ShownBy::End) => ask(
                "only the end of a migration shows it: try a VM of this kind first, then accept the kind with the parameter accepted",
            ),
        }
    }

    /// Answer for a name that no entry lists: QEMU's own holds for devices and formats, not for elements that vmgate does not read.
    fn answer_without_entry(&self, kind: &str, name: &str, migrator: &Migrator) -> Answer {
        let is_read = self.components().iter().any(|entry| entry.kind == kind);
        match migrator.answer {
            _ if is_read && migrator.is_clear(ShownBy::BlockedReasons) => {
                (Fact::Known(true), Some("QEMU was asked and names no reason against a migration".to_owned()))
            }
            QemuAnswer::NotAsked if is_read => {
                let reason = format!(
                    "vmgate does not know if QEMU migrates {name}; QEMU was not asked: allow it with --allow-monitor, or try it with --trial"
                );
                (Fact::unknown(Cause::NotAllowed, reason), None)
            }
            _ => {
                let reason = format!("vmgate does not know if QEMU migrates {name}");
                (Fact::unknown(Cause::NotListed, reason), None)
            }
        }
    }
}

/// The device at the address in the VM's configuration.
fn at<'a>(all: &'a [PassthroughDevice], device: &HostDevice) -> Option<&'a PassthroughDevice> {
    all.iter().find(|one| one.address == device.address)
}

/// True if nobody has looked yet.
fn is_open(migrates: &Fact<bool>) -> bool {
    matches!(migrates, Fact::Unknown(why) if why.cause == Cause::NotCollected)
}

/// Software that is too old for an entry, if any. The QEMU that runs the VM needs no version where it says itself that
/// nothing speaks against a migration.
fn is_new_enough(entry: &ComponentEntry, migrator: &Migrator, free: bool) -> Fact<Option<String>> {
    let Some(since) = entry.since else { return Fact::Known(None) };
    let mut unknown = None;
    let ends = [
        ("QEMU", "of the VM", since.qemu.filter(|_| !free), &migrator.vm_qemu),
        ("QEMU", "at the destination", since.qemu, &migrator.destination_qemu),
        ("libvirt", "at the source", since.libvirt, &migrator.source_libvirt),
    ];
    for (software, place, least, is) in ends {
        match (least, is) {
            (None, _) => {}
            (Some(least), Fact::Known(is)) if *is >= least => {}
            (Some(least), Fact::Known(is)) => {
                return Fact::Known(Some(format!(
                    "that takes {software} {}.{} or newer; {software} {place} is {is}",
                    least.major, least.minor
                )));
            }
            (Some(_), Fact::Unknown(why)) => unknown = Some(why.clone()),
        }
    }
    unknown.map_or(Fact::Known(None), Fact::Unknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn migrator(answer: QemuAnswer) -> Migrator {
        let version = |text: &str| Fact::Known(text.parse().unwrap());
        Migrator {
            vm_qemu: version("10.0.13"),
            destination_qemu: version("10.0.13"),
            source_libvirt: version("11.3"),
            answer,
            was_begun: false,
        }
    }

    fn device(kind: &str, model: &str) -> HostDevice {
        HostDevice {
            kind: kind.into(),
            address: "x".into(),
            model: Fact::Known(model.into()),
            ..HostDevice::default()
        }
    }

    fn judged(mut device: HostDevice, migrator: &Migrator, saves_state: Option<bool>) -> HostDevice {
        let saves_state = saves_state.map_or_else(Fact::default, Fact::Known);
        let here =
            PassthroughDevice { address: "x".into(), present: true, saves_state, ..Default::default() };
        Catalogues::shipped().unwrap().classify_device(
            &mut device,
            (&Fact::Known(vec![here]), &Fact::default()),
            migrator,
        );
        device
    }

    #[test]
    fn a_driver_that_saves_no_state_is_a_clear_no_and_one_that_does_needs_a_word_of_kernel_or_qemu() {
        use QemuAnswer::{Blocked, Free, NotAsked};

        let asked = |model: &str, answer, kernel| {
            judged(device("pci", model), &migrator(answer), kernel).migrates.known().copied()
        };
        assert_eq!(asked("vfio-pci", NotAsked, None), Some(false));
        assert_eq!(asked("mlx5_vfio_pci", NotAsked, None), None);
        assert_eq!(asked("mlx5_vfio_pci", Blocked, None), None);
        assert_eq!(asked("mlx5_vfio_pci", Free, None), Some(true));
        assert_eq!(asked("mlx5_vfio_pci", NotAsked, Some(true)), Some(true));
        assert_eq!(asked("mlx5_vfio_pci", Free, Some(false)), Some(false));
        assert_eq!(asked("vendor_of_tomorrow", NotAsked, None), None);
        assert_eq!(asked("vendor_of_tomorrow", Free, None), Some(true));
    }

    #[test]
    fn software_that_is_too_old_refuses() {
        let mut old = migrator(QemuAnswer::NotAsked);
        old.vm_qemu = Fact::Known("7.2.22".parse().unwrap());
        let vf = judged(device("pci", "mlx5_vfio_pci"), &old, Some(true));
        assert_eq!(vf.migrates, Fact::Known(false));
        assert!(vf.why.unwrap().ends_with("takes QEMU 8.1 or newer; QEMU of the VM is 7.2.22"));
        let mut old = migrator(QemuAnswer::Free);
        old.source_libvirt = Fact::Known("8.5".parse().unwrap());
        assert_eq!(judged(device("pci", "mlx5_vfio_pci"), &old, None).migrates, Fact::Known(false));
        old.source_libvirt = Fact::default();
        assert_eq!(judged(device("pci", "mlx5_vfio_pci"), &old, None).migrates.known(), None);
    }

    #[test]
    fn a_reason_names_the_way_out() {
        for (kind, model, way) in [
            ("vhost-user", "interface", "--allow-monitor"),
            ("virtiofs", "launched", "--trial"),
            ("virtiofs", "external", "parameter accepted"),
        ] {
            let judged = judged(device(kind, model), &migrator(QemuAnswer::NotAsked), None);
            let Fact::Unknown(why) = judged.migrates else { panic!("{kind} {model}") };
            assert!(why.reason.contains(way), "{}", why.reason);
        }
    }

    #[test]
    fn qemus_empty_answer_clears_what_qemu_judges_and_nothing_else() {
        let shipped = Catalogues::shipped().unwrap();
        let migrates = |kind: &str, model: &str| {
            let mut component =
                VmComponent { kind: kind.into(), model: model.into(), migrates: Fact::default(), why: None };
            shipped.classify_component(&mut component, &migrator(QemuAnswer::Free));
            component.migrates.known().copied()
        };
        assert_eq!(migrates("sound", "gus"), Some(true));
        assert_eq!(migrates("crypto", "virtio"), Some(true), "a newer QEMU may have learnt it");
        assert_eq!(migrates("devices/flux", ""), None);
        assert_eq!(migrates("qemu", "commandline"), None);
        let judged = |kind: &str, model: &str| {
            judged(device(kind, model), &migrator(QemuAnswer::Free), None).migrates.known().copied()
        };
        assert_eq!(judged("9p", ""), Some(true));
        assert_eq!(judged("virtiofs", "external"), None);
        assert_eq!(judged("shmem", "peer"), Some(false), "libvirt refuses it whatever QEMU says");
    }

    #[test]
    fn a_trial_that_was_accepted_clears_what_the_start_shows() {
        let begun = Migrator { was_begun: true, ..migrator(QemuAnswer::NotAsked) };
        let migrates =
            |kind: &str, model: &str| judged(device(kind, model), &begun, None).migrates.known().copied();
        assert_eq!(migrates("virtiofs", "launched"), Some(true));
        assert_eq!(migrates("vhost-user", "interface"), Some(true));
        assert_eq!(migrates("virtiofs", "external"), None, "only the end shows it");
    }

    #[test]
    fn a_qemu_that_tells_no_reasons_was_not_asked() {
        let mut vm = Vm { migration_blockers: Fact::Known(Some(Vec::new())), ..Vm::default() };
        assert_eq!(QemuAnswer::of(&vm), QemuAnswer::NotAsked);
        vm.qemu_version = Fact::Known("5.2".parse().unwrap());
        assert_eq!(QemuAnswer::of(&vm), QemuAnswer::NotAsked);
        vm.qemu_version = Fact::Known("6.0".parse().unwrap());
        assert_eq!(QemuAnswer::of(&vm), QemuAnswer::Free);
        vm.migration_blockers = Fact::Known(Some(vec!["x".into()]));
        assert_eq!(QemuAnswer::of(&vm), QemuAnswer::Blocked);
    }
}
