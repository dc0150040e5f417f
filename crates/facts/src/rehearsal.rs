//! Rehearsal of a move with an empty copy of the VM.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Cause, Fact, Facts, History, Host, Uuid, Version, VersionPair, VmComponent};

/// Rehearsal of a move: an empty copy of the VM, with its machine type, CPU and devices and without its memory, disks and
/// network, was started at the source, moved to the destination and back, and removed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Rehearsal {
    /// Time of the start.
    #[schemars(example = &"2026-11-22T01:04:00Z")]
    pub at: Timestamp,
    /// UUID of the VM of which the twin was made.
    #[schemars(example = &"5e7c9b3e-6a0e-4c2e-9a53-0d6f5a5c9d11")]
    pub vm: Uuid,
    /// Version of the QEMU that started the twin: the one that is installed at the source.
    #[schemars(example = &"10.0.13")]
    pub source_version: Version,
    /// Version of the destination's QEMU.
    #[schemars(example = &"11.1.3")]
    pub destination_version: Version,
    /// Build id of the source's QEMU; absent where it could not be read.
    #[schemars(example = &"15dfff3239aa7c3b16a71e6b2e3b6e4009dab998")]
    #[serde(default)]
    pub source_build: Option<String>,
    /// Build id of the destination's QEMU; absent where it could not be read.
    #[schemars(example = &"8b1a9953c4611296a827abf8c47804d7aa5b4b2d")]
    #[serde(default)]
    pub destination_build: Option<String>,
    /// Machine type of both.
    #[schemars(example = &"pc-q35-7.2")]
    pub machine_type: String,
    /// Kinds of devices that the twin had, with their models, as in vm.components.
    #[schemars(example = vec!["disk virtio", "interface virtio"])]
    pub devices: Vec<String>,
    /// Reason why the twin did not arrive at the destination, in the words of libvirt and QEMU; absent if it did.
    #[schemars(example = &"VQ 0 vring.num 1024 exceeds allocated max 128")]
    pub failure: Option<String>,
    /// Reason why it did not come back; absent if it did, or never went.
    #[schemars(example = &"Missing section footer for mc146818rtc")]
    pub return_failure: Option<String>,
    /// Devices and settings of the VM that the twin lacked, each by name.
    #[schemars(example = vec!["hostdev pci subsystem"])]
    #[serde(default)]
    pub not_rehearsed: Vec<String>,
    /// Duration of the whole, until the twin was removed.
    #[schemars(example = 2.5)]
    pub total_seconds: f64,
}

impl Rehearsal {
    /// The fact where none was made.
    pub(super) fn not_made() -> Fact<Option<Self>> {
        Fact::Known(None)
    }

    /// Names of a VM's kinds of devices, as rehearsals list them. Images are none of a twin's.
    pub fn devices_of(components: &[VmComponent]) -> Vec<String> {
        let name = |part: &VmComponent| format!("{} {}", part.kind, part.model).trim_end().to_owned();
        components.iter().filter(|part| part.kind != "image").map(name).collect()
    }

    /// True if it says something about the move of these facts: between the same builds of QEMU, with the same machine type, and devices
    /// of the same kinds. One that passed counts for a VM with fewer of them too.
    pub fn counts_for(&self, facts: &Facts) -> bool {
        let (Some(pair), Some(vm)) = (VersionPair::of(facts), facts.vm.known()) else { return false };
        let emulator = |host: &Host| -> Option<String> {
            let files = vm.boot_files.known()?.iter().filter(|file| file.purpose == "emulator");
            let paths: Vec<&str> = files.map(|file| file.path.as_str()).collect();
            let builds = host.program_builds.known()?;
            builds.iter().find(|one| paths.contains(&one.path.as_str())).map(|one| one.build.clone())
        };
        // Distributions patch QEMU without a change of its version. Where a build is not known the versions must do.
        let differ = |mine: &Option<String>, theirs: Option<String>| {
            mine.is_some() && theirs.is_some() && *mine != theirs
        };
        if differ(&self.source_build, vm.qemu_build.known().cloned())
            || differ(&self.destination_build, facts.destination.known().and_then(emulator))
        {
            return false;
        }
        let same_pair = (self.source_version, self.destination_version, &self.machine_type)
            == (pair.source_version, pair.destination_version, &pair.machine_type);
        let Some(components) = vm.components.known() else { return false };
        let devices = Self::devices_of(components);
        let has_all = devices.iter().all(|device| self.devices.contains(device));
        same_pair && has_all && (self.failure.is_none() || self.devices.len() == devices.len())
    }

    /// The same for the way back.
    #[must_use]
    pub fn reversed(&self) -> Self {
        Self {
            source_version: self.destination_version,
            destination_version: self.source_version,
            source_build: self.destination_build.clone(),
            destination_build: self.source_build.clone(),
            failure: self.failure.clone().or_else(|| self.return_failure.clone()),
            return_failure: None,
            ..self.clone()
        }
    }

    /// Pairs of versions between which the twin went.
    pub fn proven_pairs(&self) -> Vec<VersionPair> {
        [self.clone(), self.reversed()]
            .into_iter()
            .filter(|way| way.failure.is_none())
            .map(|way| VersionPair {
                source_version: way.source_version,
                destination_version: way.destination_version,
                machine_type: way.machine_type,
                rehearsed_at: Some(way.at),
                moved_at: None,
            })
            .collect()
    }

    /// Adds this rehearsal to the facts of its move; one that does not count for it leaves the rehearsal unknown.
    pub fn add_to(self, facts: &mut Facts) {
        if !self.counts_for(facts) {
            let Self { source_version, destination_version, machine_type, .. } = self;
            facts.rehearsal = Fact::unknown(
                Cause::NotSupported,
                format!(
                    "the empty copy of machine type {machine_type} went from QEMU {source_version} to {destination_version}, which says \
                     nothing about this VM: it runs under another build of QEMU, or has other devices"
                ),
            );
            return;
        }
        let mut history = facts.history.known().cloned().unwrap_or_default();
        let mut pairs = history.version_pairs.known().cloned().unwrap_or_default();
        pairs.extend(self.proven_pairs());
        history.version_pairs = Fact::Known(pairs);
        history.pair_proven = history.proven(facts);
        facts.history = Fact::Known(history);
        facts.rehearsal = Fact::Known(Some(self));
    }
}

impl VersionPair {
    /// The pair of a move; `None` where a part of it is not known.
    pub fn of(facts: &Facts) -> Option<Self> {
        let vm = facts.vm.known()?;
        Some(Self {
            source_version: *vm.qemu_version.known()?,
            destination_version: *facts.destination.known()?.qemu_version.known()?,
            machine_type: vm.machine_type.known()?.clone(),
            rehearsed_at: None,
            moved_at: None,
        })
    }

    fn is(&self, other: &Self) -> bool {
        (self.source_version, self.destination_version, &self.machine_type)
            == (other.source_version, other.destination_version, &other.machine_type)
    }
}

impl History {
    /// True if a recorded pair is that of the move; unknown where none is.
    pub fn proven(&self, facts: &Facts) -> Fact<bool> {
        let Some(pair) = VersionPair::of(facts) else { return Fact::default() };
        let recorded = self.version_pairs.known().into_iter().flatten().any(|recorded| recorded.is(&pair));
        if recorded {
            return Fact::Known(true);
        }
        let VersionPair { source_version, destination_version, machine_type, .. } = pair;
        Fact::unknown(
            Cause::NotRehearsed,
            format!(
                "the ledger has no move and no rehearsal of a VM of machine type {machine_type} with these devices from QEMU \
                 {source_version} to {destination_version}"
            ),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        serde_yaml::from_str(include_str!("../../../rules/fixtures/idle-vm.yaml")).unwrap()
    }

    fn rehearsal(facts: &Facts) -> Rehearsal {
        let pair = VersionPair::of(facts).unwrap();
        let vm = facts.vm.known().unwrap();
        Rehearsal {
            at: "2026-11-22T01:04:00Z".parse().unwrap(),
            vm: vm.uuid.known().unwrap().clone(),
            source_version: pair.source_version,
            destination_version: pair.destination_version,
            source_build: None,
            destination_build: None,
            machine_type: pair.machine_type,
            devices: Rehearsal::devices_of(vm.components.known().unwrap()),
            failure: None,
            return_failure: None,
            not_rehearsed: Vec::new(),
            total_seconds: 2.0,
        }
    }

    #[test]
    fn one_that_passed_counts_for_fewer_devices_and_one_that_failed_only_for_the_same() {
        let facts = facts();
        let passed = rehearsal(&facts);
        assert!(passed.counts_for(&facts));
        let failed = Rehearsal { failure: Some("no".to_owned()), ..passed.clone() };
        assert!(failed.counts_for(&facts));
        let more = |rehearsal: &Rehearsal| {
            let devices = [rehearsal.devices.clone(), vec!["tpm tpm-crb".to_owned()]].concat();
            Rehearsal { devices, ..rehearsal.clone() }
        };
        assert!(more(&passed).counts_for(&facts) && !more(&failed).counts_for(&facts));
        let fewer = Rehearsal { devices: Vec::new(), ..passed.clone() };
        assert!(!fewer.counts_for(&facts));
        let other = Rehearsal { destination_version: "9.9".parse().unwrap(), ..passed.clone() };
        let build = |build: &str| Rehearsal { source_build: Some(build.to_owned()), ..passed.clone() };
        let own = facts.vm.known().unwrap().qemu_build.known().unwrap();
        assert!(build(own).counts_for(&facts) && !build("another").counts_for(&facts));
        let there = Rehearsal { destination_build: Some("another".to_owned()), ..passed.clone() };
        assert!(!there.counts_for(&facts), "another build at the destination");
        assert!(!other.counts_for(&facts) && !passed.counts_for(&Facts::empty(Timestamp::UNIX_EPOCH)));
    }

    #[test]
    fn a_twin_proves_the_ways_that_it_went() {
        let mut facts = facts();
        let there = rehearsal(&facts);
        assert_eq!(there.proven_pairs().len(), 2);
        let no_return = Rehearsal { return_failure: Some("no".to_owned()), ..there.clone() };
        assert_eq!(no_return.proven_pairs().len(), 1);
        let failed = Rehearsal { failure: Some("no".to_owned()), ..there.clone() };
        assert_eq!(failed.proven_pairs(), []);
        failed.add_to(&mut facts);
        let proven = |facts: &Facts| facts.history.known().unwrap().pair_proven.clone();
        assert!(matches!(proven(&facts), Fact::Unknown(why) if why.cause == Cause::NotRehearsed));
        there.add_to(&mut facts);
        assert_eq!(proven(&facts), Fact::Known(true));
        // The VM runs under a QEMU that was replaced since, with which no twin is booted.
        let other = Rehearsal { source_build: Some("another".to_owned()), ..rehearsal(&facts) };
        other.add_to(&mut facts);
        let Fact::Unknown(why) = &facts.rehearsal else { panic!("{:?}", facts.rehearsal) };
        assert!(why.reason.contains("another build of QEMU"), "{}", why.reason);
    }
}
