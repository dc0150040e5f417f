//! Migration that a manager would run: its settings from the files of the host, else its defaults, and their meaning.

use vmgate_facts::{
    Cause, DowntimeStep, ManagedEnd, ManagedEndAction, ManagedMigration, ManagerSetting, OriginOfSetting,
    Unknown,
};

use super::{ManagerEntry, MigrationKnob, SettingEntry};

/// Value of a setting with its origin.
struct Value<'a> {
    entry: &'a SettingEntry,
    text: String,
    origin: String,
}

/// Values of a manager's settings.
struct Values<'a>(Vec<Value<'a>>);

impl ManagerEntry {
    /// The migration of a VM with this much memory, by the settings that the files of its host contain. `instead` has values
    /// that are tried in place of them. The error is a value that has no meaning for vmgate.
    pub fn migration(
        &self,
        found: &[ManagerSetting],
        memory_bytes: u64,
        instead: &[(MigrationKnob, String)],
    ) -> Result<ManagedMigration, Unknown> {
        use MigrationKnob as Knob;
        let values = Values(self.settings.iter().map(|entry| self.value(entry, found, instead)).collect());
        if let Some(value) = values.0.iter().find(|value| !value.is_understood()) {
            let name = value.entry.name.as_deref().unwrap_or_default();
            let why = format!("{name} = {} ({}) has no meaning for vmgate", value.text, value.origin);
            return Err(Unknown::new(Cause::Malformed, why));
        }
        let units = |unit: f64| (as_f64(memory_bytes) / unit).ceil();
        let gib = values.number(Knob::MemoryUnit).map_or_else(|| as_f64(memory_bytes >> 30), units);
        let gib = gib.max(values.number(Knob::LeastGib).unwrap_or(0.0));
        let limit = |knob| values.number(knob).filter(|&number| number > 0.0);
        let end =
            limit(Knob::CompletionSeconds).or(limit(Knob::CompletionSecondsPerGib).map(|each| each * gib));
        let action = match values.word(Knob::CompletionAction).as_deref() {
            Some("pause") => ManagedEndAction::Pause,
            Some("post-copy") => ManagedEndAction::PostCopy,
            _ => ManagedEndAction::Abort,
        };
        let post_copy = values.is_on(Knob::PostCopy);
        // With post-copy permitted, nobody waits for the guest to be paused.
        let action = match action {
            ManagedEndAction::Pause if post_copy => ManagedEndAction::PostCopy,
            other => other,
        };
        Ok(ManagedMigration {
            manager: self.id.clone(),
            title: self.title.clone(),
            downtime_limits: values.downtime_limits(gib),
            bandwidth_limit_bytes_per_second: limit(Knob::BandwidthLimit).map(whole),
            auto_converge: values.is_on(Knob::AutoConverge),
            post_copy,
            xbzrle: values.is_on(Knob::Xbzrle),
            multifd_channels: values.number(Knob::MultifdChannels).filter(|&n| n > 1.0).map(small),
            tls: values.is_on(Knob::Tls),
            tunnelled: values.is_on(Knob::Tunnelled),
            end: end.map(|at_seconds| ManagedEnd { at_seconds, action }),
            stall: self.stall.clone(),
            parallel_moves: limit(Knob::ParallelMoves).map(small),
            not_replayed: self.not_replayed.clone(),
            settings: values.origins(),
        })
    }

    /// Text by which an operator sets a knob, such as `live_migration_permit_post_copy = true`; none where the manager leaves no
    /// choice.
    pub fn setting_words(&self, knob: MigrationKnob, value: &str) -> Option<String> {
        let entry = self.settings.iter().find(|entry| entry.sets == knob)?;
        let name = entry.name.as_deref()?;
        let file = self.files.first().map_or_else(String::new, |file| format!(" in {file}"));
        Some(match (name.rsplit_once('/'), &entry.part) {
            (Some((section, name)), _) => format!("{name} = {value} (section {section}{file})"),
            (None, Some(part)) => format!("{name}: {part}={value}{file}"),
            (None, None) => format!("{name} = {value}{file}"),
        })
    }

    /// Value in the manager's own unit for an amount of a knob: seconds, bytes a second or a number; none where the manager leaves
    /// no choice, or would take another amount.
    pub fn in_own_unit(&self, knob: MigrationKnob, amount: f64) -> Option<String> {
        let entry = self.settings.iter().find(|entry| entry.sets == knob && entry.name.is_some())?;
        let own = (amount / entry.times.unwrap_or(1.0)).floor();
        (own >= entry.least.unwrap_or(1.0)).then(|| own.to_string())
    }

    fn value<'a>(
        &'a self,
        entry: &'a SettingEntry,
        found: &[ManagerSetting],
        instead: &[(MigrationKnob, String)],
    ) -> Value<'a> {
        if let Some((_, text)) = instead.iter().find(|(knob, _)| *knob == entry.sets && entry.name.is_some())
        {
            return Value { entry, text: text.clone(), origin: "tried".to_owned() };
        }
        let of_this = |setting: &&ManagerSetting| {
            Some(&setting.name) == entry.name.as_ref()
                && self.files.iter().any(|file| is_of(file, &setting.file))
        };
        // The last file that has it counts, as for the manager.
        let set = found.iter().rev().filter(of_this).find_map(|setting| {
            let text = part(&setting.value, entry.part.as_deref())?;
            Some((text.to_owned(), setting.file.clone()))
        });
        let (text, origin) = set.unwrap_or_else(|| {
            let origin = match entry.name {
                Some(_) => format!("default of {} {}", self.title, self.version),
                None => format!("{} {} leaves no choice", self.title, self.version),
            };
            (entry.default.clone(), origin)
        });
        Value { entry, text, origin }
    }
}

/// True if a file is one of a pattern whose last part may begin with `*`.
fn is_of(pattern: &str, file: &str) -> bool {
    match pattern.split_once('*') {
        Some((folder, ending)) => {
            file.strip_prefix(folder).is_some_and(|rest| rest.ends_with(ending) && !rest.contains('/'))
        }
        None => pattern == file,
    }
}

/// Part of a value that is a list `key=value,key=value`; the first part may leave its key out.
fn part<'a>(value: &'a str, key: Option<&str>) -> Option<&'a str> {
    let Some(key) = key else { return Some(value) };
    let mut parts = value.split(',').map(str::trim);
    let named = parts.clone().find_map(|part| part.split_once('=').filter(|(name, _)| *name == key));
    let first = || parts.next().filter(|part| !part.contains('=') && key == "type");
    named.map(|(_, value)| value).or_else(first)
}

impl Value<'_> {
    /// The text, with the meaning of a word of the manager.
    fn word(&self) -> String {
        let word = self.text.trim().to_ascii_lowercase();
        self.entry.words.get(&word).cloned().unwrap_or(word)
    }

    fn number(&self) -> Option<f64> {
        self.text.trim().parse().ok().filter(|number: &f64| number.is_finite())
    }

    fn is_understood(&self) -> bool {
        use MigrationKnob as Knob;
        match self.entry.sets {
            Knob::CompletionAction => matches!(self.word().as_str(), "abort" | "pause" | "post-copy"),
            Knob::AutoConverge | Knob::PostCopy | Knob::Xbzrle | Knob::Tls | Knob::Tunnelled => {
                matches!(self.word().as_str(), "true" | "yes" | "on" | "1" | "false" | "no" | "off" | "0")
            }
            _ => self.number().is_some(),
        }
    }
}

impl Values<'_> {
    fn of(&self, knob: MigrationKnob) -> Option<&Value<'_>> {
        self.0.iter().find(|value| value.entry.sets == knob)
    }

    fn word(&self, knob: MigrationKnob) -> Option<String> {
        self.of(knob).map(Value::word)
    }

    fn is_on(&self, knob: MigrationKnob) -> bool {
        self.word(knob).is_some_and(|word| matches!(word.as_str(), "true" | "yes" | "on" | "1"))
    }

    /// Number in seconds, bytes a second or pieces.
    fn number(&self, knob: MigrationKnob) -> Option<f64> {
        let value = self.of(knob)?;
        let number = value.number()?;
        let bounded = value.entry.least.map_or(number, |least| number.max(least));
        Some(bounded * value.entry.times.unwrap_or(1.0))
    }

    /// Limits in equal steps from one step's part to the whole; the hypervisor's default where the manager sets none.
    fn downtime_limits(&self, gib: f64) -> Vec<DowntimeStep> {
        let Some(last) = self.number(MigrationKnob::DowntimeLimit).filter(|&limit| limit > 0.0) else {
            return Vec::new();
        };
        let steps = self.number(MigrationKnob::DowntimeSteps).map_or(0, small);
        if steps == 0 {
            return vec![DowntimeStep { at_seconds: 0.0, limit_seconds: last }];
        }
        let every = self.number(MigrationKnob::StepSecondsPerGib).unwrap_or(0.0) * gib;
        let first = last / f64::from(steps);
        let step = |number: u32| DowntimeStep {
            at_seconds: f64::from(number) * every,
            limit_seconds: first + (last - first) * f64::from(number) / f64::from(steps),
        };
        (0..=steps).map(step).collect()
    }

    fn origins(&self) -> Vec<OriginOfSetting> {
        let named = self.0.iter().filter_map(|value| Some((value.entry.name.as_ref()?, value)));
        named
            .map(|(name, value)| OriginOfSetting {
                name: name.clone(),
                value: value.text.clone(),
                origin: value.origin.clone(),
            })
            .collect()
    }
}

#[expect(clippy::cast_precision_loss, reason = "no VM has 2^52 bytes")]
fn as_f64(bytes: u64) -> f64 {
    bytes as f64
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bounded before")]
fn whole(number: f64) -> u64 {
    number.clamp(0.0, 1e18) as u64
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bounded before")]
fn small(number: f64) -> u32 {
    number.clamp(0.0, 1000.0) as u32
}

#[cfg(test)]
mod tests {
    use super::super::Catalogues;
    use super::*;

    fn migration_of(id: &str, files: &[(&str, &str, &str)], gib: u64) -> ManagedMigration {
        let catalogues = Catalogues::shipped().unwrap();
        let entry = catalogues.managers().iter().find(|entry| entry.id == id).unwrap();
        let setting = |(file, name, value): &(&str, &str, &str)| ManagerSetting {
            file: (*file).to_owned(),
            name: (*name).to_owned(),
            value: (*value).to_owned(),
        };
        entry.migration(&files.iter().map(setting).collect::<Vec<_>>(), gib << 30, &[]).unwrap()
    }

    fn end(at_seconds: f64, action: ManagedEndAction) -> ManagedEnd {
        ManagedEnd { at_seconds, action }
    }

    #[test]
    fn novas_defaults_are_what_a_real_nova_set() {
        let nova = migration_of("nova", &[], 1);
        let limits: Vec<(f64, f64)> = nova
            .downtime_limits
            .iter()
            .map(|step| (step.at_seconds, (step.limit_seconds * 1e3).round()))
            .collect();
        assert_eq!(limits[..3], [(0.0, 50.0), (150.0, 95.0), (300.0, 140.0)]);
        assert_eq!(limits.last(), Some(&(1500.0, 500.0)));
        assert_eq!(nova.end, Some(end(1600.0, ManagedEndAction::Abort)));
        assert_eq!((nova.parallel_moves, nova.auto_converge, nova.multifd_channels), (Some(1), false, None));
        let origin =
            &nova.settings.iter().find(|one| one.name == "libvirt/live_migration_downtime").unwrap().origin;
        assert!(origin.contains("default of OpenStack Nova"), "{origin}");
    }

    #[test]
    fn settings_come_from_the_last_file_that_has_them() {
        let nova = migration_of(
            "nova",
            &[
                ("/etc/nova/nova.conf", "libvirt/live_migration_downtime", "50"),
                ("/etc/nova/nova.conf", "libvirt/live_migration_completion_timeout", "100"),
                ("/etc/nova/nova.conf.d/a.conf", "libvirt/live_migration_downtime", "2000"),
                ("/etc/nova/nova-compute.conf", "libvirt/live_migration_timeout_action", "force_complete"),
                ("/etc/nova/nova-compute.conf", "libvirt/live_migration_bandwidth", "100"),
                ("/etc/nova/nova-compute.conf", "libvirt/live_migration_permit_auto_converge", "True"),
                ("/home/x/nova.conf", "libvirt/live_migration_downtime", "9999"),
            ],
            4,
        );
        assert!((nova.downtime_limits.last().unwrap().limit_seconds - 2.0).abs() < 1e-9);
        assert_eq!(nova.end, Some(end(400.0, ManagedEndAction::Pause)));
        assert_eq!(nova.bandwidth_limit_bytes_per_second, Some(100 << 20));
        assert!(nova.auto_converge);
        let less =
            migration_of("nova", &[("/etc/nova/nova.conf", "libvirt/live_migration_downtime", "50")], 4);
        assert!((less.downtime_limits.last().unwrap().limit_seconds - 0.1).abs() < 1e-9, "Nova's least");
    }

    #[test]
    fn force_complete_with_post_copy_permitted_switches_to_post_copy() {
        let of = |post_copy: &str| {
            let file = "/etc/nova/nova.conf";
            migration_of(
                "nova",
                &[
                    (file, "libvirt/live_migration_timeout_action", "force_complete"),
                    (file, "libvirt/live_migration_permit_post_copy", post_copy),
                ],
                2,
            )
        };
        assert_eq!(of("true").end.unwrap().action, ManagedEndAction::PostCopy);
        assert_eq!(of("false").end.unwrap().action, ManagedEndAction::Pause);
    }

    #[test]
    fn lists_in_values_and_other_units_are_understood() {
        let cfg = "/etc/pve/datacenter.cfg";
        let pve = |value| {
            migration_of(
                "proxmox",
                &[(cfg, "migration", value), (cfg, "bwlimit", "clone=1,migration=2048")],
                2,
            )
        };
        assert!(pve("secure,network=10.0.0.0/24").tunnelled && pve("network=10.0.0.0/24").tunnelled);
        assert!(!pve("insecure").tunnelled && !pve("network=10.0.0.0/24,type=insecure").tunnelled);
        let pve = pve("secure");
        assert_eq!(pve.bandwidth_limit_bytes_per_second, Some(2 << 20));
        assert!(pve.auto_converge && pve.xbzrle);
        let agent = "/etc/cloudstack/agent/agent.properties";
        let cloudstack = migration_of(
            "cloudstack",
            &[(agent, "vm.migrate.pauseafter", "60000"), (agent, "vm.migrate.speed", "800")],
            2,
        );
        assert_eq!(cloudstack.end, Some(end(60.0, ManagedEndAction::Pause)));
        assert_eq!(cloudstack.bandwidth_limit_bytes_per_second, Some(800 << 20));
        assert_eq!(migration_of("cloudstack", &[], 2).end, None);
        let kubevirt = migration_of("kubevirt", &[], 8).end;
        assert_eq!(kubevirt, Some(end(1350.0, ManagedEndAction::Abort)), "8.6 GB count as 9");
        assert_eq!(migration_of("ovirt", &[], 8).bandwidth_limit_bytes_per_second, Some(52 << 20));
    }

    #[test]
    fn a_value_without_a_meaning_is_unknown_by_its_name() {
        let catalogues = Catalogues::shipped().unwrap();
        let nova = catalogues.managers().iter().find(|entry| entry.id == "nova").unwrap();
        for (name, value) in [
            ("libvirt/live_migration_downtime", "$other"),
            ("libvirt/live_migration_permit_post_copy", "perhaps"),
            ("libvirt/live_migration_timeout_action", "explode"),
        ] {
            let setting = ManagerSetting {
                file: "/etc/nova/nova.conf".to_owned(),
                name: name.to_owned(),
                value: value.to_owned(),
            };
            let why = nova.migration(&[setting], 1 << 30, &[]).unwrap_err();
            assert!(why.reason.contains(name) && why.reason.contains(value), "{}", why.reason);
        }
    }
}
