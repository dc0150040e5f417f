//! Provenance of collected facts: collector, method, time and window of each.

use std::collections::BTreeMap;

use jiff::Timestamp;
use vmgate_facts::Provenance;
use vmgate_probe::host::HostProbe;

use super::{dirty_measurement::DirtyMeasurement, host::PROBED, transport::Transport};

/// Times and methods of the parts of a collection.
pub(super) struct Sources<'a> {
    pub(super) vm_at: Timestamp,
    /// True for a VM that was looked at by its monitor.
    pub(super) monitored: bool,
    pub(super) dirtying: &'a DirtyMeasurement,
    pub(super) dirtying_at: Timestamp,
    pub(super) guest_collector: &'static str,
    pub(super) guest: &'a str,
    pub(super) guest_at: Timestamp,
    pub(super) flows_at: Timestamp,
    pub(super) flows_window_seconds: Option<f64>,
    pub(super) source: HostSource<'a>,
    pub(super) destination: HostSource<'a>,
    pub(super) path_at: Timestamp,
    pub(super) peers_at: Timestamp,
    pub(super) path_window_seconds: f64,
    pub(super) path_tried: bool,
}

/// Times and methods of one host's part.
pub(super) struct HostSource<'a> {
    pub(super) libvirt_at: Timestamp,
    pub(super) probe_at: Timestamp,
    pub(super) way: &'a Transport,
    pub(super) probe: Option<&'a HostProbe>,
}

/// Provenance of everything that [`collect`](super::collect) gathers, by the path of the fact.
pub(super) fn of(sources: &Sources) -> BTreeMap<String, Provenance> {
    let mut notes = BTreeMap::new();
    let mut note = |path: &str, collector: &str, method: &str, at: Timestamp, window_seconds: Option<f64>| {
        let provenance =
            Provenance { collector: collector.into(), method: method.into(), at, window_seconds };
        notes.insert(path.to_owned(), provenance);
    };
    if sources.monitored {
        note("vm", "host probe", "QEMU's monitor (QMP), and /proc/PID of its process", sources.vm_at, None);
    } else {
        let calls = "virDomainGetXMLDesc, virDomainGetState, virDomainGetJobStats";
        note("vm", "libvirt", calls, sources.vm_at, None);
        let version = "/proc/PID/exe -version of the VM's QEMU";
        note("vm.qemu_version", "host probe", version, sources.source.probe_at, None);
    }
    let DirtyMeasurement { collector, method, seconds, .. } = sources.dirtying;
    for fact in ["vm.dirty_rate", "vm.dirty_windows", "vm.dirty_trace"] {
        note(fact, collector, method, sources.dirtying_at, *seconds);
    }
    note("guest", sources.guest_collector, sources.guest, sources.guest_at, None);
    note(
        "guest.udp.flows",
        "host probe",
        &sources.source.way.method("flows"),
        sources.flows_at,
        sources.flows_window_seconds,
    );
    note(
        "guest.wire",
        "host probe",
        &sources.source.way.method("flows"),
        sources.flows_at,
        sources.flows_window_seconds,
    );
    for (name, side) in [("source", &sources.source), ("destination", &sources.destination)] {
        let calls = "virConnectGetCapabilities, virConnectGetVersion, virNodeGetMemoryStats, virConnectGetAllDomainStats";
        note(name, "libvirt", calls, side.libvirt_at, None);
        // libvirt stands in where the probe has no figure for memory.
        let memory = side.probe.filter(|probe| probe.memory.known().is_some()).map(|_| "memory");
        let from_probe = PROBED.iter().copied().chain(memory);
        for fact in from_probe {
            note(&format!("{name}.{fact}"), "host probe", &side.way.method("host"), side.probe_at, None);
        }
    }
    note("path", "vmgate", "routes of the source, interfaces of both hosts", sources.path_at, None);
    note(
        "path.libvirt_limit_bytes_per_second",
        "libvirt",
        "virDomainMigrateGetMaxSpeed",
        sources.vm_at,
        None,
    );
    note("path.route_back", "host probe", "RTM_GETROUTE at the destination", sources.peers_at, None);
    for end in ["source_nic", "destination_nic"] {
        let used = format!("path.{end}.used_bytes_per_second");
        let window = Some(sources.path_window_seconds);
        note(&used, "host probe", "/sys/class/net/*/statistics, read twice", sources.peers_at, window);
    }
    if sources.path_tried {
        let tried = "one connection and pings that may not be fragmented, between both hosts' probes";
        for fact in ["mtu_bytes", "ports", "rtt_seconds"] {
            note(&format!("path.{fact}"), "host probe", tried, sources.peers_at, None);
        }
        for fact in ["goodput", "goodput_bytes_per_second"] {
            let stream = "one bounded TCP stream between both hosts' probes";
            note(&format!("path.{fact}"), "host probe", stream, sources.peers_at, None);
        }
    }
    notes
}

/// Provenance of a survey, all of whose facts are of one pass.
pub(super) fn of_survey(at: Timestamp) -> BTreeMap<String, Provenance> {
    let note = |collector: &str, method: &str| Provenance {
        collector: collector.into(),
        method: method.into(),
        at,
        window_seconds: None,
    };
    let hosts = note("audit", "libvirt and host probe of every host, once");
    [
        ("vm", note("audit", "virDomainGetXMLDesc, virConnectGetAllDomainStats")),
        ("source", hosts.clone()),
        ("destination", hosts),
        ("path", note("vmgate", "routes of the source, interfaces of both hosts")),
    ]
    .map(|(path, note)| (path.to_owned(), note))
    .into()
}
