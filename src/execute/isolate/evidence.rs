//! What is kept of a VM that was cut off, for those who will ask why: taken after the cut, which cannot wait.

use std::{
    fs, io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};

use super::Isolated;
use crate::collect::{
    self, Uri,
    libvirt::{Domain, Hypervisor, JobStats, LibvirtError},
    transport::{GuestAccess, HostShell, Transport, quoted},
};

/// Bytes of each log that are kept, from its end.
const LOG_TAIL: u32 = 1 << 20;

/// The ways to what is kept.
pub struct Evidence<'a> {
    /// The host the VM runs on.
    pub hypervisor: &'a Hypervisor,
    /// Its URI.
    pub uri: &'a Uri,
    /// The way to its probe.
    pub probe: &'a Transport,
    /// The way to its logs.
    pub shell: &'a HostShell,
    /// The way into the guest.
    pub guest: &'a GuestAccess,
    /// Longest wait for each answer.
    pub timeout: Duration,
    /// The folder in which a new one is made.
    pub folder: &'a Path,
}

/// What was kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Kept {
    /// The folder.
    pub folder: PathBuf,
    /// What could not be had, each with why.
    pub missing: Vec<String>,
}

/// Keeps facts, job statistics, logs and both configurations in a new folder that only its owner can read.
pub fn keep(ways: &Evidence, domain: &Domain, isolated: &Isolated, why: &Value) -> io::Result<Kept> {
    let time = isolated.at.strftime("%Y%m%dT%H%M%S%3fZ");
    let folder = ways.folder.join(format!("{}-{time}", isolated.uuid));
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
    let mut kept = Kept { folder: folder.clone(), missing: Vec::new() };
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

/// libvirt writes to the journal, or to files, as its configuration says; the last hour is what counts.
const DAEMON_LOGS: &str = "{ journalctl --no-pager --since -1h -u libvirtd -u virtqemud 2>/dev/null; \
    for log in /var/log/libvirt/libvirtd.log /var/log/libvirt/virtqemud.log /run/libvirtd.log; do \
    [ -r $log ] && tail -n 2000 $log; done; } | tail -c 1048576; :";

fn tail(ways: &Evidence, script: &str) -> Result<Vec<u8>, String> {
    ways.shell.read(script, ways.timeout).map_err(|error| error.to_string())
}

fn facts(ways: &Evidence, domain: &Domain) -> Result<Vec<u8>, String> {
    let host = (ways.hypervisor, ways.uri);
    let looked =
        collect::collect_without_move(domain, host, (ways.probe, ways.guest), ways.timeout, Timestamp::now());
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
