//! QEMU processes of one VM on this host: the one that runs it, and during a migration the one that it leaves or comes into.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use vmgate_facts::{Cause, Fact, Unknown, Uuid, VmState, text::plain};

use crate::qemu::{monitor::Monitor, process::Qemu, vm::vm_state, vms};

/// A QEMU process of a VM.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VmProcess {
    /// Process id.
    pub pid: u32,
    /// Name of the VM on the command line.
    pub name: Option<String>,
    /// UUID of the VM on the command line.
    pub uuid: Option<Uuid>,
    /// Socket of its monitor.
    pub monitor: Option<String>,
    /// State by its monitor.
    pub state: Fact<QemuState>,
}

/// State of a QEMU, by its monitor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QemuState {
    /// QEMU's own word (`RunState`).
    pub status: String,
    /// State of the VM in libvirt's words.
    pub vm: VmState,
    /// The migration that goes on, or the last one.
    pub migration: QemuMigration,
}

/// A migration, as QEMU's `query-migrate` tells it. A figure that QEMU did not give is absent.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
#[allow(missing_docs, reason = "documented by QEMU, as MigrationInfo")]
pub struct QemuMigration {
    pub status: Option<String>,
    /// In milliseconds.
    pub total_time: Option<u64>,
    /// In milliseconds.
    pub expected_downtime: Option<u64>,
    pub cpu_throttle_percentage: Option<u64>,
    pub ram: Option<RamMigration>,
}

/// Memory of a migration, as QEMU's `query-migrate` tells it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
#[allow(missing_docs, reason = "documented by QEMU, as MigrationStats")]
pub struct RamMigration {
    pub total: u64,
    pub transferred: u64,
    pub remaining: u64,
    /// In megabits a second.
    pub mbps: f64,
    /// In pages a second.
    pub dirty_pages_rate: u64,
    pub page_size: u64,
    pub dirty_sync_count: u64,
}

impl QemuMigration {
    /// True if it goes on.
    pub fn is_active(&self) -> bool {
        let over = [None, Some("none"), Some("completed"), Some("failed"), Some("cancelled")];
        !over.contains(&self.status.as_deref())
    }
}

/// The QEMU processes of the VM with this name, UUID or monitor (`qmp:SOCKET`). Each monitor is waited for at most `patience`.
pub fn processes_of(vm: &str, patience: Duration) -> Result<Vec<VmProcess>, Unknown> {
    let of_vm = vms::processes()?.filter(|qemu| qemu.is(vm));
    Ok(of_vm.filter_map(|qemu| seen(&qemu, patience)).collect())
}

/// None for a process that has ended meanwhile.
fn seen(qemu: &Qemu, patience: Duration) -> Option<VmProcess> {
    let monitor = qemu.monitor();
    let state = match &monitor {
        Some(socket) => Fact::from(state(socket, patience)),
        None => Fact::unknown(
            Cause::NotSupported,
            format!(
                "QEMU (process {}) has no QMP socket on its command line, so nobody can ask it",
                qemu.pid
            ),
        ),
    };
    qemu.is_alive().then(|| VmProcess {
        pid: qemu.pid,
        name: qemu.name().map(|name| plain(&name)),
        uuid: qemu.uuid(),
        monitor: monitor.map(|socket| plain(&socket)),
        state,
    })
}

fn state(socket: &str, patience: Duration) -> Result<QemuState, Unknown> {
    let mut monitor = Monitor::open(socket, patience)?;
    let status = monitor.ask("query-status")?;
    let status = status.get("status").and_then(Value::as_str).unwrap_or_default();
    let migration = serde_json::from_value(monitor.ask("query-migrate")?)
        .map_err(|error| Unknown::new(Cause::Malformed, format!("QEMU's query-migrate: {error}")))?;
    Ok(QemuState { status: plain(status), vm: vm_state(status), migration })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_migration_is_read_as_qemu_tells_it() {
        let read = |text: Value| serde_json::from_value::<QemuMigration>(text).unwrap();
        let active = read(
            json!({"status": "active", "total-time": 1200, "setup-time": 3, "expected-downtime": 300,
            "ram": {"total": 268_435_456, "transferred": 1000, "remaining": 2000, "mbps": 8.5, "page-size": 4096, "skipped": 0}}),
        );
        assert!(active.is_active());
        assert_eq!((active.total_time, active.ram.map(|ram| ram.remaining)), (Some(1200), Some(2000)));
        for over in [
            json!({}),
            json!({"status": "none"}),
            json!({"status": "completed"}),
            json!({"status": "failed"}),
        ] {
            assert!(!read(over).is_active());
        }
        assert!(read(json!({"status": "postcopy-paused"})).is_active());
    }
}
