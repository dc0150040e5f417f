//! Status of the hook on this host, from the files as they are now and not from the record of the installation alone.

use std::fs;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use vmgate_attest::{Digest, NameAndUuid};
use vmgate_facts::{Uuid, text::with_causes};

use super::{
    HookActivation, HookConfig, JournalEntry, Layout, Override, daemon, emergency_override,
    install::{self, InstallRecord},
    journal,
    key_rule::KeyRule,
    keyring::{self, Keyring},
    script, store, trust,
};

/// Most verdicts that are shown one by one.
const SHOWN: usize = 100;

/// Status of the hook on a host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HookStatus {
    /// Version of the installed program; absent if not installed.
    pub vmgate: Option<String>,
    /// UUID of the host at the installation.
    #[serde(default, deserialize_with = "Uuid::or_absent")]
    pub host_uuid: Option<Uuid>,
    /// Time of the last installation or update.
    pub installed_at: Option<Timestamp>,
    /// Settings in force; absent if they cannot be read. Settings that this version does not know are left out.
    #[serde(default, deserialize_with = "known_settings")]
    pub config: Option<HookConfig>,
    /// Files of the key folder.
    pub keys: Vec<KeyFileStatus>,
    /// Activation of the hook in libvirt; absent if not installed.
    pub known: Option<HookActivation>,
    /// Hooks of other programs.
    pub others: Vec<String>,
    /// The active override.
    pub overridden: Option<Override>,
    /// Number of verdicts that were not used yet.
    pub waiting: usize,
    /// The first of these verdicts, by UUID of the VM.
    #[serde(default)]
    pub verdicts: Vec<WaitingVerdict>,
    /// Problems, each with the way out.
    pub problems: Vec<String>,
    /// The last lines of the log, oldest first.
    pub recent: Vec<JournalEntry>,
    /// The last log lines on overrides, set or used, oldest first, for the ledger.
    #[serde(default)]
    pub overrides: Vec<JournalEntry>,
    /// Time by the host's clock, which decides when a verdict expires.
    pub clock: Timestamp,
}

/// A verdict that waits for its VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitingVerdict {
    /// Digest of the signed statement.
    pub verdict: String,
    /// The VM.
    pub vm: NameAndUuid,
    /// The host that the VM leaves. libvirt does not tell it, so it is only shown.
    pub source: NameAndUuid,
    /// Address of the migration; absent where libvirt chooses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub migrate_address: Option<String>,
    /// End of the verdict.
    pub expires_at: Timestamp,
}

/// A file of the key folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyFileStatus {
    /// The file's name.
    pub file: String,
    /// Id of the key; absent if it cannot be read.
    pub id: Option<String>,
    /// Reason why it signs nothing now; absent if it is trusted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// Its limits in hook.yaml.
    #[serde(default)]
    pub limits: KeyRule,
}

/// Reads settings from a host whose vmgate may be newer: what they mean is not known if one of them has a value of its own.
fn known_settings<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<HookConfig>, D::Error> {
    let settings = Option::<Value>::deserialize(deserializer)?;
    Ok(settings.and_then(|settings| HookConfig::deserialize(settings).ok()))
}

/// Checks everything that the hook needs.
pub(super) fn status(layout: &Layout, lines: usize) -> HookStatus {
    let clock = Timestamp::now();
    let mut problems = Vec::new();
    let there = layout.record().exists() || installed_hooks(layout) > 0;
    let record = there.then(|| install::record(layout));
    let record = record.and_then(|record| record.map_err(|why| problems.push(why)).ok());
    let config = there.then(|| HookConfig::load(layout));
    let config = config.and_then(|config| config.map_err(|why| problems.push(why.to_string())).ok());
    let overridden = emergency_override::load(layout).unwrap_or_else(|why| {
        problems.push(format!("the override is ignored: {why}"));
        None
    });
    let settings = config.clone().unwrap_or_default();
    let keys = if there { keys(layout, &settings, clock, &mut problems) } else { Vec::new() };
    let (waiting, verdicts) = waiting(layout, &settings, clock);
    if there {
        look_at_files(layout, record.as_ref(), &mut problems);
    }
    HookStatus {
        host_uuid: record.as_ref().map(|record| record.host_uuid.clone()),
        installed_at: record.as_ref().map(|record| record.installed_at),
        known: record
            .as_ref()
            .map(|record| daemon::activation(layout, &daemon::aware_daemons(layout, &record.known_by))),
        vmgate: record.map(|record| record.vmgate),
        config,
        keys,
        others: install::others(layout),
        overridden: overridden.filter(|set| set.since <= clock && clock < set.until),
        waiting,
        verdicts,
        problems,
        recent: journal::last_entries(layout, lines),
        overrides: journal::overrides(layout),
        clock,
    }
}

fn installed_hooks(layout: &Layout) -> usize {
    [layout.folder_hook(), layout.main_hook()].iter().filter(|path| install::is_ours(path)).count()
}

/// Number of the verdicts that a VM could use now, and the first of them.
fn waiting(layout: &Layout, config: &HookConfig, now: Timestamp) -> (usize, Vec<WaitingVerdict>) {
    let keys = Keyring::load(layout, config, now).map(|ring| ring.public()).unwrap_or_default();
    let (mut number, mut shown) = (0, Vec::new());
    for vm in store::vms(layout) {
        for file in store::names_for(layout, &vm) {
            if file.no_go || file.until().is_some_and(|until| until <= now) {
                continue;
            }
            let Ok(verdict) = file.open(&keys) else { continue };
            if store::is_no_go(&verdict) || store::spent(layout, &vm, &verdict).is_some() {
                continue;
            }
            number += 1;
            if shown.len() >= SHOWN {
                continue;
            }
            let moved = verdict.verdict.moved;
            shown.push(WaitingVerdict {
                verdict: verdict.statement.to_string(),
                vm: moved.vm,
                source: moved.source,
                migrate_address: moved.migrate_address,
                expires_at: verdict.verdict.expires_at,
            });
        }
    }
    (number, shown)
}

fn keys(
    layout: &Layout,
    config: &HookConfig,
    now: Timestamp,
    problems: &mut Vec<String>,
) -> Vec<KeyFileStatus> {
    let files = keyring::key_files(layout).unwrap_or_else(|why| {
        problems.push(why.to_string());
        Vec::new()
    });
    let mut keys = Vec::new();
    for file in files {
        let name = file.name();
        let id = file.key.map(|key| key.id());
        let trusted = id.clone().and_then(|id| config.rule_of(&name, &id, now));
        let limits = config.keys.as_ref().and_then(|rules| rules.get(&name)).cloned().unwrap_or_default();
        let refused = trusted.err();
        problems.extend(refused.clone());
        keys.push(KeyFileStatus { file: name, id: id.ok(), refused, limits });
    }
    for file in config.keys.iter().flat_map(|rules| rules.keys()) {
        if !keys.iter().any(|key| key.file == *file) {
            problems.push(format!(
                "`keys` in hook.yaml lists {file}, but there is no such file in {}",
                layout.keys().display()
            ));
        }
    }
    if !keys.iter().any(|key| key.refused.is_none()) {
        problems.push(format!(
            "no key is trusted, so no verdict can let a VM in: put a public key into {}",
            layout.keys().display()
        ));
    }
    keys
}

/// Compares program and script with the record of the installation.
fn look_at_files(layout: &Layout, record: Option<&InstallRecord>, problems: &mut Vec<String>) {
    let again = "install the hook again with: vmgate hook install";
    let program = layout.program();
    match trust::executable(&program) {
        Err(why) => problems.push(format!("{why}; {again}")),
        Ok(false) => problems.push(format!("{}: the program is not executable; {again}", program.display())),
        Ok(true) => {
            let digest = fs::read(&program).ok().map(|bytes| Digest::of(&bytes));
            if record.is_some_and(|record| Some(record.program) != digest) {
                problems.push(format!(
                    "{}: the program differs from the installed one; {again}",
                    program.display()
                ));
            }
        }
    }
    let Some(record) = record else { return };
    let hook = match record.place {
        script::HookPlacement::Folder => layout.folder_hook(),
        script::HookPlacement::Chained => layout.main_hook(),
    };
    let unchanged =
        fs::read(&hook).is_ok_and(|there| there == script::text(layout, record.place).into_bytes());
    match trust::executable(&hook) {
        Err(why) => problems.push(format!("{}; {again}", with_causes(&why))),
        Ok(false) => problems.push(format!(
            "{}: the script is not executable, so libvirt does not run it; {again}",
            hook.display()
        )),
        Ok(true) if !unchanged => {
            problems.push(format!("{}: the script was changed; {again}", hook.display()));
        }
        Ok(true) => {}
    }
    for folder in [layout.verdicts(), layout.spent()] {
        if let Err(why) = trust::list(&folder) {
            problems.push(why.to_string());
        }
    }
}
