//! Managers of VMs on this host: which of them run, their settings of migrations, and the VMs of a Pacemaker cluster.
//!
//! The question names programs, files and settings; of a file only the named settings leave the host, as such files also hold
//! passwords. Where the manager runs in a container its files are read in its own file system (/proc/PID/root).

mod cib;
mod settings_file;

use std::{fs, path::PathBuf};

use serde::{Deserialize, Serialize};
use vmgate_facts::{Cause, Fact, HostManagers, ManagerSetting, Unknown};

use crate::host::not_read;

/// Most files of one pattern that are read.
const MOST_FILES: usize = 64;

/// Questions about managers.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ManagerQuestions {
    /// Programs by which managers are recognised: the file name of the program, or of the script that an interpreter runs.
    pub programs: Vec<String>,
    /// Files with settings, in the order in which the manager reads them.
    pub files: Vec<SettingsFile>,
}

/// File of a manager with settings of migrations.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettingsFile {
    /// Program that reads it.
    pub program: String,
    /// Path; `*` as the beginning of its last part stands for any.
    pub path: String,
    /// Settings that are reported, each with its section where the file has sections (`libvirt/live_migration_downtime`).
    pub names: Vec<String>,
}

/// Process of a manager.
struct Running {
    program: String,
    root: PathBuf,
}

/// The managers of this host.
pub(super) fn look(questions: &ManagerQuestions) -> HostManagers {
    let running = running(&questions.programs);
    HostManagers {
        programs: running
            .as_ref()
            .map_err(Clone::clone)
            .map(|running| {
                let mut programs: Vec<String> = running.iter().map(|one| one.program.clone()).collect();
                programs.sort();
                programs.dedup();
                programs
            })
            .into(),
        settings: running
            .as_ref()
            .map_err(Clone::clone)
            .and_then(|running| settings(&questions.files, running))
            .into(),
        cluster_vms: running.map_or_else(Fact::Unknown, |_| cib::vms().into()),
    }
}

/// Processes of these programs. Kernel threads have no command line.
fn running(programs: &[String]) -> Result<Vec<Running>, Unknown> {
    let entries = fs::read_dir("/proc").map_err(|error| not_read("/proc", &error))?;
    // With hidepid a user sees only their own processes, so that no process proves nothing.
    if fs::read("/proc/1/cmdline").is_err() {
        return Err(Unknown::new(
            Cause::PermissionDenied,
            "the host hides other users' processes from this user (hidepid), so managers of VMs cannot be seen",
        ));
    }
    let mut found = Vec::new();
    for entry in entries.flatten() {
        let Ok(command) = fs::read(entry.path().join("cmdline")) else { continue };
        if let Some(program) = program_of(&command, programs) {
            found.push(Running { program, root: entry.path().join("root") });
        }
    }
    Ok(found)
}

/// The program among `programs` that a command line runs: its first word, or the script that an interpreter runs.
fn program_of(command: &[u8], programs: &[String]) -> Option<String> {
    let words = command.split(|&byte| byte == 0).filter_map(|word| str::from_utf8(word).ok());
    // Services set titles such as `nova-compute: worker`, and some put all words into the first.
    let mut names = words
        .take(2)
        .flat_map(|word| word.split(' ').take(2))
        .filter_map(|word| word.rsplit('/').next().map(|name| name.trim_end_matches(':')));
    names.find_map(|name| programs.iter().find(|program| *program == name).cloned())
}

/// The settings in these files. A file that is not there has none.
fn settings(files: &[SettingsFile], running: &[Running]) -> Result<Vec<ManagerSetting>, Unknown> {
    let mut found = Vec::new();
    for file in files {
        let root = running.iter().find(|one| one.program == file.program).map(|one| one.root.as_path());
        for (shown, text) in settings_file::read(root, &file.path, MOST_FILES)? {
            let of_file = settings_file::settings(&text).filter(|(name, _)| file.names.contains(name));
            found.extend(of_file.map(|(name, value)| ManagerSetting { file: shown.clone(), name, value }));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_recognised_by_its_own_name_and_not_by_a_mention() {
        let programs = ["nova-compute".to_owned(), "pacemakerd".to_owned()];
        let of = |command: &[u8]| program_of(command, &programs);
        assert_eq!(
            of(b"/usr/bin/python3\0/usr/bin/nova-compute\0--config-file\0/etc/nova/nova.conf\0").as_deref(),
            Some("nova-compute")
        );
        assert_eq!(of(b"/usr/sbin/pacemakerd\0").as_deref(), Some("pacemakerd"));
        assert_eq!(of(b"nova-compute: worker(0)\0").as_deref(), Some("nova-compute"));
        assert_eq!(of(b"vi\0/etc/nova/nova-compute.conf\0"), None);
        assert_eq!(of(b"tail\0-f\0/var/log/pacemakerd\0"), None);
        assert_eq!(of(b""), None);
    }

    #[test]
    fn this_machine_answers() {
        let told = look(&ManagerQuestions::default());
        assert_eq!((told.programs, told.settings), (Fact::Known(Vec::new()), Fact::Known(Vec::new())));
    }
}
