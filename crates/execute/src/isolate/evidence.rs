//! Evidence on an isolated VM, for the later analysis: collected after the cut, which cannot wait.

use std::{
    fs, io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};
use vmgate_collect::{guest_probe::GuestAccess, transport::Transport};
use vmgate_facts::Uri;
use vmgate_libvirt::{Domain, Hypervisor, JobStats, LibvirtError};
use vmgate_reach::{HostShell, quoted};

use super::IsolationReport;

/// Bytes that are saved from the end of each log.
const LOG_TAIL: u32 = 1 << 20;

/// Sources of the evidence, and the folder for it.
pub struct EvidenceSources<'a> {
    /// Connection to the host that the VM runs on.
    pub hypervisor: &'a Hypervisor,
    /// URI of that host.
    pub uri: &'a Uri,
    /// Transport to the probe on that host.
    pub probe: &'a Transport,
    /// Shell on that host, for its logs.
    pub shell: &'a HostShell,
    /// The way into the guest.
    pub guest: &'a GuestAccess,
    /// Longest wait for each answer.
    pub timeout: Duration,
    /// Folder in which a new folder is made.
    pub folder: &'a Path,
}

/// Result of saving the evidence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SavedEvidence {
    /// The folder.
    pub folder: PathBuf,
    /// Files that could not be obtained, each with the reason.
    pub missing: Vec<String>,
}

/// Saves facts, job statistics, logs and both domain XMLs in a new folder that only its owner can read.
pub fn save_evidence(
    ways: &EvidenceSources,
    domain: &Domain,
    isolated: &IsolationReport,
    why: &Value,
) -> io::Result<SavedEvidence> {
    let time = isolated.at.strftime("%Y%m%dT%H%M%S%3fZ");
    let folder = ways.folder.join(format!("{}-{time}", isolated.uuid));
    fs::DirBuilder::new().recursive(true).mode(0o700).create(ways.folder)?;
    // Not one that is there already: in a shared folder somebody else could have made it, with links in it.
    fs::DirBuilder::new().mode(0o700).create(&folder)?;
    let mut kept = SavedEvidence { folder: folder.clone(), missing: Vec::new() };
    fs::write(folder.join("isolation.json"), format!("{:#}\n", json!({"isolation": isolated, "said": why})))?;
    fs::write(folder.join("domain-before.xml"), &isolated.xml_before)?;
    let mut keep = |name: &str, content: Result<Vec<u8>, String>| match content {
        Ok(content) => fs::write(folder.join(name), content),
        Err(why) => {
            kept.missing.push(format!("{name}: {why}"));
            Ok(())
        }
    };
    keep("domain-after.xml", domain.xml().map(String::into_bytes).map_err(|error| error.to_string()))?;
    let jobs = json!({"running": job(domain.job_info()), "completed": job(domain.completed_job())});
    keep("jobs.json", Ok(format!("{jobs:#}\n").into_bytes()))?;
    let log = format!("/var/log/libvirt/qemu/{}.log", isolated.vm);
    keep("qemu.log", tail(ways, &format!("tail -c {LOG_TAIL} {}", quoted(&[log]))))?;
    keep("libvirt.log", tail(ways, DAEMON_LOGS))?;
    keep("facts.json", facts(ways, domain))?;
    let missing = serde_json::to_vec_pretty(&kept.missing).unwrap_or_default();
    fs::write(folder.join("missing.json"), missing)?;
    Ok(kept)
}

/// Shell script for libvirt's own logs: in the journal or in files, as configured; the last hour matters.
const DAEMON_LOGS: &str = "{ journalctl --no-pager --since -1h -u libvirtd -u virtqemud 2>/dev/null; \
    for log in /var/log/libvirt/libvirtd.log /var/log/libvirt/virtqemud.log /run/libvirtd.log; do \
    [ -r $log ] && tail -n 2000 $log; done; } | tail -c 1048576; :";

fn tail(ways: &EvidenceSources, script: &str) -> Result<Vec<u8>, String> {
    ways.shell.read(script, ways.timeout).map_err(|error| error.to_string())
}

fn facts(ways: &EvidenceSources, domain: &Domain) -> Result<Vec<u8>, String> {
    let host = (ways.hypervisor, ways.uri);
    let looked = vmgate_collect::collect_without_move(
        domain,
        host,
        (ways.probe, ways.guest),
        ways.timeout,
        Timestamp::now(),
    );
    let facts = looked.map_err(|error| error.to_string())?;
    serde_json::to_vec_pretty(&facts).map_err(|error| error.to_string())
}

fn job(asked: Result<Option<JobStats>, LibvirtError>) -> Value {
    match asked {
        Ok(None) => Value::Null,
        Err(error) => json!({"unknown": error.to_string()}),
        Ok(Some(job)) => json!({
            "operation": job.operation.name(),
            "end": job.end.map(|end| format!("{end:?}").to_lowercase()),
            "elapsed_seconds": job.elapsed.map(|time| time.as_secs_f64()),
            "data_total_bytes": job.data_total_bytes,
            "data_processed_bytes": job.data_processed_bytes,
            "data_remaining_bytes": job.data_remaining_bytes,
            "memory_remaining_bytes": job.memory_remaining_bytes,
            "memory_bytes_per_second": job.memory_bytes_per_second,
            "dirty_bytes_per_second": job.dirty_bytes_per_second,
            "iteration": job.iteration,
            "downtime_seconds": job.downtime.map(|time| time.as_secs_f64()),
            "throttle_percent": job.throttle_percent,
            "error": job.error,
        }),
    }
}
