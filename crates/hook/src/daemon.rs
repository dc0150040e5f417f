//! libvirt's daemons and the hook: a daemon looks for hooks only once, when it starts or reloads.
//!
//! virHookInitialize records if an executable hook for QEMU exists; virHookCall then reads the folder each
//! time. So an additional hook works at once, and the first hook after a reload (SIGHUP), which restarts nothing.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::PathBuf,
};

use procfs::process::Process;
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

use super::Layout;

/// Daemons of libvirt that run QEMU and its hooks.
const DAEMONS: [&str; 2] = ["libvirtd", "virtqemud"];

/// Activation of the hook in libvirt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum HookActivation {
    /// libvirt runs the hook.
    #[serde(rename = "yes")]
    Active,
    /// libvirt does not run; the hook is active after the next start.
    AtStart,
    /// libvirt runs and may not have looked for hooks since the first one was installed.
    AfterReload {
        /// Command that reloads the daemon.
        command: String,
    },
}

/// One running daemon process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Daemon {
    name: String,
    pid: i32,
    /// Ticks between the boot of the host and the start of the process.
    started_ticks: u64,
}

impl Daemon {
    /// Start of the process, seconds since the epoch.
    fn started(&self) -> Option<u64> {
        let ticks = procfs::ticks_per_second();
        Some(procfs::boot_time_secs().ok()? + self.started_ticks / ticks.max(1))
    }
}

/// The daemons that run now.
fn running(layout: &Layout) -> Vec<Daemon> {
    let daemon = |file: PathBuf| {
        let pid: i32 = fs::read_to_string(file).ok()?.trim().parse().ok()?;
        let stat = Process::new(pid).ok()?.stat().ok()?;
        let name = DAEMONS.into_iter().find(|name| *name == stat.comm)?;
        Some(Daemon { name: name.to_owned(), pid, started_ticks: stat.starttime })
    };
    layout.pid_files().into_iter().filter_map(daemon).collect()
}

/// Daemons that certainly know of a hook: those in `seen`, and those that started after a hook existed.
pub(super) fn aware_daemons(layout: &Layout, seen: &[Daemon]) -> Vec<Daemon> {
    let oldest = executable_hooks(layout)
        .iter()
        .filter_map(|path| fs::metadata(path).ok())
        .filter_map(|metadata| u64::try_from(metadata.ctime()).ok())
        .min();
    let knows = |daemon: &Daemon| {
        // Both times are whole seconds.
        let started_after = oldest.zip(daemon.started()).is_some_and(|(hook, start)| hook + 1 < start);
        seen.contains(daemon) || started_after
    };
    running(layout).into_iter().filter(knows).collect()
}

/// Activation of the hook in libvirt; `knowing` are the daemons that know of a hook.
pub(super) fn activation(layout: &Layout, knowing: &[Daemon]) -> HookActivation {
    let running = running(layout);
    if running.is_empty() {
        return HookActivation::AtStart;
    }
    match running.iter().find(|daemon| !knowing.contains(daemon)) {
        None => HookActivation::Active,
        Some(daemon) => HookActivation::AfterReload { command: reload_command(daemon) },
    }
}

/// Reloads every running daemon, so that it looks for hooks again. This stops no VM and no daemon.
pub(super) fn reload(layout: &Layout) -> Result<Vec<Daemon>, String> {
    let running = running(layout);
    for daemon in &running {
        let pid = Pid::from_raw(daemon.pid).ok_or_else(|| format!("{} has no process id", daemon.name))?;
        kill_process(pid, Signal::HUP).map_err(|why| format!("{} cannot be reloaded: {why}", daemon.name))?;
    }
    Ok(running)
}

fn reload_command(daemon: &Daemon) -> String {
    if PathBuf::from("/run/systemd/system").is_dir() {
        format!("systemctl reload {}", daemon.name)
    } else {
        format!("kill -HUP {}", daemon.pid)
    }
}

/// Paths of all executable hooks for QEMU, in the order of libvirt.
pub(super) fn executable_hooks(layout: &Layout) -> Vec<PathBuf> {
    let in_folder =
        fs::read_dir(layout.hook_folder()).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut hooks: Vec<PathBuf> = in_folder.collect();
    hooks.sort();
    hooks.insert(0, layout.main_hook());
    hooks.retain(|path| {
        fs::metadata(path).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
    });
    hooks
}
