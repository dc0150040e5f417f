//! Domain configurations, made from the deviations of configurations.yaml: one at a time, and seeded pairs of them.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_yaml::Mapping;

/// Texts by name.
type Texts = BTreeMap<String, String>;

/// One deviation of configurations.yaml, or with its values filled in, a configuration.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Configuration {
    pub(super) topic: String,
    #[serde(skip)]
    pub(super) id: String,
    values: BTreeMap<String, Vec<String>>,
    /// Texts that stand for others, such as a path that occurs several times.
    texts: Texts,
    name: Option<String>,
    machine: Option<String>,
    firmware: Option<String>,
    memory: Option<String>,
    backing: Option<String>,
    vcpu: Option<String>,
    os: Option<String>,
    cpu: Option<String>,
    clock: Option<String>,
    events: Option<String>,
    usb: Option<String>,
    balloon: Option<String>,
    video: Option<String>,
    features: String,
    domain: String,
    devices: String,
    /// Commands on `source`, `destination` or `both`: before the start, just before it, after it, and in the end.
    before: Texts,
    ready: Texts,
    after: Texts,
    undo: Texts,
    /// True for a configuration as the remediation of the rule makes it.
    #[serde(skip)]
    pub(super) remedied: bool,
}

/// When a command of a configuration runs.
#[derive(Debug, Clone, Copy)]
pub(super) enum When {
    Before,
    Ready,
    After,
    Undo,
}

/// Configurations with one deviation, with one remedied, and with two deviations.
pub(super) fn configurations() -> Vec<Configuration> {
    let entries: Vec<Mapping> = serde_yaml::from_str(include_str!("configurations.yaml")).unwrap();
    let (mut all, mut remedied) = (Vec::new(), Vec::new());
    for mut entry in entries {
        let remedy = entry.remove("remedy");
        all.extend(entry_of(&entry).filled());
        for change in remedy.iter().filter_map(|remedy| remedy.as_mapping()).flatten() {
            entry.insert(change.0.clone(), change.1.clone());
        }
        if remedy.is_some() {
            remedied.extend(entry_of(&entry).filled().into_iter().map(|one| Configuration {
                id: format!("{} (remedied)", one.id),
                remedied: true,
                ..one
            }));
        }
    }
    let base = Configuration { topic: "base".to_owned(), id: "base".to_owned(), ..Configuration::default() };
    all.insert(0, base);
    let pairs = pairs(&all, 200, 17);
    all.extend(remedied);
    all.extend(pairs);
    all
}

fn entry_of(entry: &Mapping) -> Configuration {
    // As text, in which a number is a text too.
    serde_yaml::from_str(&serde_yaml::to_string(entry).unwrap()).unwrap()
}

/// So many pairs of deviations that can be had together and change nothing on the hosts.
fn pairs(singles: &[Configuration], count: usize, seed: u64) -> Vec<Configuration> {
    let mut state = seed;
    let mut next = || {
        // SplitMix64, so that the same seed always gives the same pairs.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    let quiet = |one: &&Configuration| one.before.is_empty() && one.ready.is_empty() && one.after.is_empty();
    let singles: Vec<&Configuration> = singles.iter().filter(quiet).collect();
    let mut pick = || singles[usize::try_from(next() % singles.len() as u64).unwrap()];
    let mut found = Vec::new();
    while found.len() < count {
        let (first, second) = (pick(), pick());
        found.extend((first.topic != second.topic).then(|| first.with(second)).flatten());
    }
    found
}

impl Configuration {
    /// One configuration for each combination of the values.
    fn filled(&self) -> Vec<Self> {
        let mut made = vec![(String::new(), self.clone())];
        for (key, values) in &self.values {
            let with = |(id, one): &(String, Self), value: &String| {
                let id = format!("{id} {}", value.split_whitespace().collect::<Vec<_>>().join(" "));
                (id, one.replaced(&format!("@{key}@"), value))
            };
            made = made.iter().flat_map(|one| values.iter().map(move |value| with(one, value))).collect();
        }
        let named = |(id, mut one): (String, Self)| {
            // Entries of one topic are told apart by what they contain.
            let what = if id.is_empty() {
                [Some(&one.devices), Some(&one.domain), one.cpu.as_ref(), one.os.as_ref(), one.usb.as_ref()]
                    .into_iter()
                    .flatten()
                    .find(|text| !text.is_empty())
                    .map_or(String::new(), |text| format!(" {text}"))
            } else {
                id
            };
            one.id = format!("{}:{what}", one.topic);
            one
        };
        made.into_iter().map(named).collect()
    }

    /// The texts that take the place of the base's.
    fn places(&mut self) -> [&mut Option<String>; 13] {
        [
            &mut self.name,
            &mut self.machine,
            &mut self.firmware,
            &mut self.memory,
            &mut self.backing,
            &mut self.vcpu,
            &mut self.os,
            &mut self.cpu,
            &mut self.clock,
            &mut self.events,
            &mut self.usb,
            &mut self.balloon,
            &mut self.video,
        ]
    }

    fn replaced(&self, from: &str, to: &str) -> Self {
        let mut one = self.clone();
        for text in one.places().into_iter().flatten() {
            *text = text.replace(from, to);
        }
        for text in [&mut one.features, &mut one.domain, &mut one.devices] {
            *text = text.replace(from, to);
        }
        for texts in [&mut one.before, &mut one.ready, &mut one.after, &mut one.undo] {
            for text in texts.values_mut() {
                *text = text.replace(from, to);
            }
        }
        one
    }

    /// Both deviations, unless they want different texts in one place.
    fn with(&self, other: &Self) -> Option<Self> {
        let mut both = self.clone();
        for (mine, theirs) in both.places().into_iter().zip(other.clone().places()) {
            match (&mine, theirs.take()) {
                (_, None) => {}
                (None, theirs) => *mine = theirs,
                (Some(mine), Some(theirs)) if **mine == theirs => {}
                _ => return None,
            }
        }
        both.features += &other.features;
        both.domain += &other.domain;
        both.devices += &other.devices;
        "two deviations".clone_into(&mut both.topic);
        both.id = format!("{} + {}", self.id, other.id);
        Some(both)
    }

    /// Commands of a host in a case.
    pub(super) fn commands(&self, when: When, host: &str, fill: &Fill) -> String {
        let texts = match when {
            When::Before => &self.before,
            When::Ready => &self.ready,
            When::After => &self.after,
            When::Undo => &self.undo,
        };
        let texts: Vec<&String> = ["both", host].iter().filter_map(|key| texts.get(*key)).collect();
        texts.iter().map(|text| self.fill(text, fill) + "\n").collect()
    }

    /// Name of the VM in a case.
    pub(super) fn name(&self, fill: &Fill) -> String {
        self.name.as_deref().unwrap_or("acc-@n@").replace("@n@", &fill.number.to_string())
    }

    fn fill(&self, text: &str, fill: &Fill) -> String {
        let mut text = text.to_owned();
        for (key, value) in &self.texts {
            text = text.replace(&format!("@{key}@"), value);
        }
        let Fill { number, from, to } = fill;
        for (key, value) in [
            ("@nbd@", NBD.to_owned()),
            ("@nbd-qcow2@", NBD.replace("10809", "10810")),
            ("@name@", self.name(fill)),
            ("@n@", number.to_string()),
            ("@n12@", format!("{number:012}")),
            ("@port@", (20_000 + number).to_string()),
            ("@vnc@", (26_000 + number).to_string()),
            ("@from@", from.to_string()),
            ("@to@", to.to_string()),
        ] {
            text = text.replace(key, &value);
        }
        text
    }

    /// The domain's XML in a case.
    pub(super) fn xml(&self, fill: &Fill) -> String {
        let place = |place: &Option<String>, base: &str| place.clone().unwrap_or_else(|| base.to_owned());
        let firmware = self.firmware.as_ref().map(|firmware| format!(" firmware='{firmware}'"));
        let escape = |name: &str| name.replace('&', "&amp;").replace('<', "&lt;");
        let text = format!(
            "<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
<name>{}</name>{}{}{}
<os{}><type arch='x86_64' machine='{}'>hvm</type>{}</os>
<features><acpi/><apic/>{}</features>
{}{}{}{}
<devices><controller type='usb' model='{}'/>{}{}{}</devices>
</domain>
",
            escape(&self.name(fill)),
            place(&self.memory, "<memory unit='MiB'>64</memory>"),
            place(&self.backing, ""),
            place(&self.vcpu, "<vcpu>1</vcpu>"),
            firmware.unwrap_or_default(),
            place(&self.machine, "pc-q35-7.2"),
            place(&self.os, ""),
            self.features,
            place(&self.cpu, CPU),
            place(&self.clock, "<clock offset='utc'/>"),
            place(&self.events, ""),
            self.domain,
            place(&self.usb, "none"),
            place(&self.balloon, "<memballoon model='none'/>"),
            place(&self.video, ""),
            self.devices,
        );
        self.fill(&text, fill)
    }
}

/// What the placeholders of a case stand for.
pub(super) struct Fill {
    pub(super) number: usize,
    pub(super) from: char,
    pub(super) to: char,
}

const CPU: &str =
    "<cpu mode='custom' match='exact' check='none'><model fallback='forbid'>Nehalem</model></cpu>";
/// A disk at the operator's, which all hosts reach.
const NBD: &str = "<source protocol='nbd' name='export'><host name='10.77.3.100' port='10809'/></source>";
