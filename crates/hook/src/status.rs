//! Status of the hook on this host, from the files as they are now and not from the record of the installation alone.

use std::fs;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};
use vmgate_attest::Digest;
use vmgate_facts::{Uuid, text::with_causes};

use super::{
    HookActivation, HookConfig, JournalEntry, Layout, Override, daemon, emergency_override,
    install::{self, InstallRecord},
    journal, keyring, script, store, trust,
};

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
    /// Problems, each with the way out.
    pub problems: Vec<String>,
    /// The last lines of the log, oldest first. Events that this version does not know are left out.
    #[serde(default, deserialize_with = "journal::known_entries")]
    pub recent: Vec<JournalEntry>,
    /// The last log lines on overrides, set or used, oldest first, for the ledger.
    #[serde(default, deserialize_with = "journal::known_entries")]
    pub overrides: Vec<JournalEntry>,
    /// Time by the host's clock, which decides when a verdict expires.
    pub clock: Timestamp,
}

/// A file of the key folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyFileStatus {
    /// The file's name.
    pub file: String,
    /// Id of the key; absent if not trusted.
    pub id: Option<String>,
}

/// Reads settings from a host whose vmgate may be newer; in hook.yaml an unknown setting is an error.
fn known_settings<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<HookConfig>, D::Error> {
    let Some(mut settings) = Option::<Map<String, Value>>::deserialize(deserializer)? else {
        return Ok(None);
    };
    if let Ok(Value::Object(known)) = serde_json::to_value(HookConfig::default()) {
        settings.retain(|name, _| known.contains_key(name));
    }
    Ok(serde_json::from_value(Value::Object(settings)).ok())
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
    let keys = if there { keys(layout, &mut problems) } else { Vec::new() };
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
        waiting: store::waiting(layout),
        problems,
        recent: journal::last_entries(layout, lines),
        overrides: journal::overrides(layout),
        clock,
    }
}

fn installed_hooks(layout: &Layout) -> usize {
    [layout.folder_hook(), layout.main_hook()].iter().filter(|path| install::is_ours(path)).count()
}

fn keys(layout: &Layout, problems: &mut Vec<String>) -> Vec<KeyFileStatus> {
    let files = keyring::key_files(layout).unwrap_or_else(|why| {
        problems.push(why.to_string());
        Vec::new()
    });
    let mut keys = Vec::new();
    for file in files {
        let name = file.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let id = file.key.map(|key| key.id()).map_err(|why| problems.push(why)).ok();
        keys.push(KeyFileStatus { file: name, id });
    }
    if !keys.iter().any(|key| key.id.is_some()) {
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
    let unchanged = fs::read(&hook).is_ok_and(|there| there == script::text(record.place).into_bytes());
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
