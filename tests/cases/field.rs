//! Cases that went wrong in the field, at least two of each kind: a condition of the move, put into the facts of a healthy VM,
//! and what `vmgate check` must say.

use std::process::Command;

use serde_json::{Value, json};

const HEALTHY: &str = include_str!("../../rules/fixtures/idle-vm.yaml");
const MEMBER: &str = include_str!("../../rules/fixtures/busy-cluster-member.yaml");
const NOW: &str = "2026-11-23T01:05:00Z";

/// Verdict of `vmgate check`.
struct Checked {
    exit: i32,
    verdict: Value,
}

/// Judges the healthy VM with changes: paths of JSON pointers and values; `/-` appends to a list.
#[track_caller]
fn check(changes: &[(&str, Value)]) -> Checked {
    check_on(HEALTHY, changes)
}

#[track_caller]
fn check_on(facts: &str, changes: &[(&str, Value)]) -> Checked {
    let mut facts = serde_json::to_value(serde_yaml::from_str::<serde_yaml::Value>(facts).unwrap()).unwrap();
    for (path, value) in changes {
        if let Some(list) = path.strip_suffix("/-") {
            facts.pointer_mut(list).unwrap().as_array_mut().unwrap().push(value.clone());
            continue;
        }
        let (group, field) = path.rsplit_once('/').unwrap();
        match facts.pointer_mut(group).unwrap_or_else(|| panic!("no {group}")) {
            Value::Array(items) => items[field.parse::<usize>().unwrap()] = value.clone(),
            group => group[field] = value.clone(),
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("facts.yaml");
    std::fs::write(&file, serde_json::to_vec(&facts).unwrap()).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_vmgate"))
        .args(["check", "--at", NOW, "--output", "json", "--facts"])
        .arg(&file)
        .current_dir(folder.path())
        .env_remove("VMGATE_CONFIG")
        .output()
        .unwrap();
    let verdict = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    Checked { exit: output.status.code().unwrap(), verdict }
}

impl Checked {
    /// Statuses and messages of a rule's outcomes.
    fn outcomes(&self, rule: &str) -> Vec<(&str, &str)> {
        let all = self.verdict["outcomes"].as_array().unwrap().iter();
        all.filter(|outcome| outcome["rule"] == rule)
            .map(|outcome| (outcome["status"].as_str().unwrap(), outcome["message"].as_str().unwrap()))
            .collect()
    }

    /// Outcome of a rule for one subject.
    #[track_caller]
    fn outcome(&self, rule: &str, subject: &str) -> &Value {
        let all = self.verdict["outcomes"].as_array().unwrap();
        let found = all.iter().find(|outcome| outcome["rule"] == rule && outcome["subject"] == subject);
        found.unwrap_or_else(|| panic!("{rule} of {subject}: {:?}", self.outcomes(rule)))
    }

    /// NO-GO, as this rule is violated; the message has these words.
    #[track_caller]
    fn refused_by(&self, rule: &str, words: &str) {
        assert_eq!(self.exit, 20, "{:?}", self.outcomes(rule));
        self.says(rule, "fail", words);
    }

    /// No GO, as this rule cannot tell; the message has these words, and there is a way out.
    #[track_caller]
    fn open_by(&self, rule: &str, words: &str) {
        assert_eq!(self.exit, 21, "{:?}", self.outcomes(rule));
        self.says(rule, "unknown", words);
        let groups = self.verdict["unknown"].as_array().unwrap();
        let of_rule = |group: &&Value| group["rules"].as_array().unwrap().iter().any(|one| one == rule);
        assert!(
            groups.iter().find(of_rule).is_some_and(|group| !group["way_out"].as_str().unwrap().is_empty())
        );
    }

    #[track_caller]
    fn says(&self, rule: &str, status: &str, words: &str) {
        let outcomes = self.outcomes(rule);
        assert!(
            outcomes.iter().any(|(found, message)| *found == status && message.contains(words)),
            "{rule} is not {status} with `{words}`: {outcomes:?}"
        );
    }

    #[track_caller]
    fn is_go(&self) {
        let against: Vec<&Value> = self.verdict["outcomes"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|outcome| outcome["status"] != "pass" && outcome["effect_now"] == "block")
            .collect();
        assert_eq!(self.exit, 0, "{against:#?}");
    }
}

#[test]
fn the_healthy_vm_is_go() {
    check(&[]).is_go();
}

/// Case 1.
#[test]
fn an_address_that_only_the_source_has() {
    for (device, address) in [("spice", "10.77.1.1"), ("serial", "192.168.40.7"), ("vnc", "fd00:77::1")] {
        let listener = json!([{ "device": device, "address": address }]);
        check(&[("/vm/listeners", listener)]).refused_by("destination-has-listen-addresses", address);
    }
    for address in ["0.0.0.0", "::", "127.0.0.1", "10.77.1.2"] {
        check(&[("/vm/listeners", json!([{ "device": "vnc", "address": address }]))]).is_go();
    }
}

/// Case 2.
#[test]
fn a_path_that_only_the_source_has() {
    for (purpose, path) in
        [("rom", "/opt/roms/nic.rom"), ("acpi", "/etc/tables/slic.bin"), ("dtb", "/srv/board.dtb")]
    {
        let file = json!({ "purpose": purpose, "path": path });
        check(&[("/vm/boot_files/-", file)]).refused_by("destination-has-boot-files", path);
    }
}

/// Case 3.
#[test]
fn a_topology_for_which_a_newer_qemu_adds_a_flag() {
    for (mode, threads) in [("custom", 8), ("host-model", 4)] {
        let changes = [
            ("/vm/cpu_mode", json!(mode)),
            ("/vm/cpu_model", json!("Haswell-noTSX")),
            ("/vm/threads_per_socket", json!(threads)),
        ];
        check(&changes).refused_by("cpu-topology-flag-agrees", &format!("{threads} threads a socket"));
    }
    check(&[("/vm/threads_per_socket", json!(8)), ("/vm/cpu_features", json!(["ht"]))]).is_go();
}

/// Case 4.
#[test]
fn a_secret_that_only_the_source_has() {
    for secret in ["ceph client.libvirt secret", "7e0c1a52-3333-4444-8555-00000000000a"] {
        check(&[("/vm/secrets", json!([secret])), ("/destination/secrets", json!(["another"]))])
            .refused_by("destination-has-secrets", secret);
        check(&[("/vm/secrets", json!([secret])), ("/destination/secrets", json!([secret]))]).is_go();
    }
}

/// Case 6.
#[test]
fn an_image_format_that_blocks_or_that_nobody_knows() {
    for format in ["vmdk", "vpc", "qcow"] {
        let image = json!({ "kind": "image", "model": format });
        check(&[("/vm/components/-", image)]).refused_by("components-migratable", &format!("image {format}"));
    }
    for (kind, model) in
        [("image", "qcow9"), ("sound", "theremin"), ("iommu", "riscv"), ("devices/teleporter", "")]
    {
        let named = json!({ "kind": kind, "model": model });
        check(&[("/vm/components/-", named)])
            .open_by("components-migratable", format!("{kind} {model}").trim());
    }
}

/// Case 9, and what stands in `when` elsewhere: another name is unknown by its name.
#[test]
fn a_name_that_nobody_has_thought_of() {
    check(&[("/vm/nics/0/kind", json!("wormhole"))]).open_by("destination-networks-exist", "kind `wormhole`");
    check(&[("/vm/disks/0/kind", json!("tape"))]).open_by("destination-storage-reachable", "kind `tape`");
    check(&[("/vm/disks/0/cache", json!("telepathy"))]).open_by("disk-cache-safe", "cache `telepathy`");
}

/// Case 14, the other way: a device that stays behind.
#[test]
fn a_device_that_only_the_source_has() {
    for (kind, address) in [("nvme", "0000:01:00.0"), ("scsi", "scsi_host3:0:0:1"), ("9p", "share")] {
        let device = json!([{ "kind": kind, "address": address }]);
        check(&[("/vm/host_devices", device)]).refused_by("devices-migratable", kind);
    }
}

/// Case 12: software is recognised by its processes, as in a real guest.
#[test]
fn an_active_member_of_a_cluster_is_warned_of_and_taken_out_in_maintenance_mode() {
    for (process, title) in
        [("corosync", "Corosync"), ("pacemakerd", "Pacemaker"), ("sbd", "SBD (storage-based death)")]
    {
        let process = json!([{ "pid": 77, "name": process, "command": format!("/usr/sbin/{process} -f"), "state": "S", "resident_bytes": 4096 }]);
        let unknown = json!({ "unknown": "not derived yet" });
        let checked = check_on(MEMBER, &[("/guest/memory_sync", unknown), ("/guest/processes", process)]);
        checked.says("cluster-member-may-move", "fail", "SUSE and Red Hat give no support");
        let outcome = checked.outcome("cluster-member-may-move", title);
        assert_eq!(outcome["effect_now"], "warn", "{title}");
        let way_out = outcome["remediation"].as_str().unwrap();
        let order = [
            "shows",
            "maintenance-mode --update true && systemctl stop pacemaker",
            "systemctl start",
            "maintenance-mode --update false",
        ];
        let places: Vec<usize> = order
            .iter()
            .map(|step| way_out.find(step).unwrap_or_else(|| panic!("no {step}: {way_out}")))
            .collect();
        assert!(places.is_sorted(), "{way_out}");
    }
    // Another vendor that advises against it, and one that says nothing.
    let beam = json!([{ "pid": 78, "name": "beam.smp", "command": "/usr/lib/erlang/erts/bin/beam.smp -s rabbit boot", "state": "S", "resident_bytes": 4096 }]);
    let unknown = json!({ "unknown": "not derived yet" });
    check_on(MEMBER, &[("/guest/memory_sync", unknown.clone()), ("/guest/processes", beam)]).says(
        "cluster-member-may-move",
        "fail",
        "advises against suspending",
    );
    let sentinel = json!([{ "pid": 79, "name": "redis-sentinel", "command": "redis-sentinel *:26379 [sentinel]", "state": "S", "resident_bytes": 4096 }]);
    let checked = check_on(MEMBER, &[("/guest/memory_sync", unknown), ("/guest/processes", sentinel)]);
    assert!(checked.outcomes("cluster-member-may-move").iter().all(|(status, _)| *status == "pass"));
}
