//! Cases that went wrong in the field, at least two of each kind: a condition of the move, put into the facts of a healthy VM,
//! and what `vmgate check` must say.

use std::process::Command;

use serde_json::{Value, json};
use vmgate_facts::machine_version;

const HEALTHY: &str = include_str!("../../rules/fixtures/idle-vm.yaml");
const MEMBER: &str = include_str!("../../rules/fixtures/busy-cluster-member.yaml");
const NOW: &str = "2026-11-23T01:05:00Z";

/// Verdict of `vmgate check`.
struct Checked {
    exit: i32,
    verdict: Value,
}

/// QEMU was not asked for its migration blockers, of which it has none in the healthy VM.
const NOT_ASKED: (&str, Value) = ("/vm/migration_blockers", Value::Null);

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
        check(&[("/vm/components/-", image), NOT_ASKED])
            .refused_by("components-migratable", &format!("image {format}"));
    }
    for (kind, model) in
        [("image", "qcow9"), ("sound", "theremin"), ("iommu", "riscv"), ("devices/teleporter", "")]
    {
        let named = json!({ "kind": kind, "model": model });
        check(&[("/vm/components/-", named), NOT_ASKED])
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
    for (kind, model, address) in
        [("nvme", "", "0000:01:00.0"), ("scsi_host", "", "naa.5001405"), ("shmem", "peer", "lookup")]
    {
        let device = json!([{ "kind": kind, "model": model, "address": address }]);
        check(&[("/vm/host_devices", device), NOT_ASKED]).refused_by("devices-migratable", kind);
    }
    let device = json!([{ "kind": "misc", "model": "", "address": "/dev/dongle" }]);
    check(&[("/vm/host_devices", device), NOT_ASKED]).open_by("devices-migratable", "misc /dev/dongle");
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
    assert_eq!(checked.outcome("cluster-member-may-move", "Redis or Valkey Sentinel")["status"], "pass");
}

/// Case 5.
#[test]
fn a_file_that_qemus_user_at_the_destination_may_not_open() {
    for detail in [
        "uid 107 may not read and write it: owner 999:999, mode 0600",
        "uid 64055 may not pass the folder /srv: owner 0:0, mode 0700",
    ] {
        let opening = json!({ "allowed": false, "detail": detail });
        check(&[("/destination/files/0/opening", opening)])
            .refused_by("destination-qemu-opens-files", detail);
    }
    check(&[(
        "/destination/files/0/opening",
        json!({ "unknown": "the probe runs as uid 1000", "cause": "permission-denied" }),
    )])
    .open_by("destination-qemu-opens-files", "uid 1000");
}

/// Changes that give the VM a machine type that both hosts have, as vmgate reads its name.
fn of_machine_type(name: &str) -> Vec<(&'static str, Value)> {
    let offered = json!({ "name": name, "deprecated": false });
    vec![
        ("/vm/machine_type", json!(name)),
        ("/vm/machine_version", serde_json::to_value(machine_version(name)).unwrap()),
        ("/source/machine_types/-", offered.clone()),
        ("/destination/machine_types/-", offered),
        ("/vm/known_failures", json!({ "unknown": "not derived yet" })),
    ]
}

/// Case 7.
#[test]
fn another_build_of_one_version() {
    for (machine, version, known) in [
        ("pc-i440fx-rhel7.6.0", "6.2.0", true),
        ("pc-i440fx-rhel7.4.0", "7.2.0", true),
        ("pc-q35-6.2", "8.2.2", false),
    ] {
        let mut changes = of_machine_type(machine);
        let build = json!([{ "path": "/usr/bin/qemu-system-x86_64", "build": "ff" }]);
        changes.extend([
            ("/vm/qemu_version", json!(version)),
            ("/source/qemu_version", json!(version)),
            ("/destination/qemu_version", json!(version)),
            ("/destination/program_builds", build),
            ("/destination/files/1/size_bytes", json!(16_770_000)),
        ]);
        let checked = check(&changes);
        checked.says("hypervisor-builds-agree", "fail", &format!("another build of QEMU ({version})"));
        if known {
            checked.open_by("move-not-known-to-fail", "rehears");
        }
    }
}

/// Cases 8 and 9: UDP segmentation offload, also of machine types that distributions name.
#[test]
fn an_offload_that_the_destinations_kernel_lacks() {
    let kernels = |here: &'static str, there: &'static str| {
        [("/source/kernel_release", json!(here)), ("/destination/kernel_release", json!(there))]
    };
    for (machine, here, there) in [
        ("pc-q35-8.2", "6.12.9-amd64", "6.1.0-30-amd64"),
        ("pc-q35-rhel9.6.0", "6.12.0-55.el10", "5.14.0-503.el9"),
        ("pc-q35-noble", "6.8.0-51-generic", "5.15.0-130-generic"),
        ("pc-i440fx-9.0+pve0", "6.8.12-4-pve", "5.15.158-2-pve"),
    ] {
        let changes = [of_machine_type(machine), kernels(here, there).to_vec()].concat();
        check(&changes).refused_by("virtio-features-subset", there);
    }
    for machine in ["pc-q35-rhel12.4.0", "pc-q35-zany"] {
        let changes = [of_machine_type(machine), kernels("6.12.9-amd64", "6.1.0-30-amd64").to_vec()].concat();
        check(&changes).open_by("virtio-features-subset", machine);
    }
}

/// Case 14.
#[test]
fn a_device_that_moves_with_the_vm_is_no_obstacle() {
    let there = json!([{ "address": "0000:3b:00.1", "present": true, "model": "15b3:101e" }]);
    for model in ["mlx5_vfio_pci", "hisi_acc_vfio_pci"] {
        let device = json!([{ "kind": "pci", "address": "0000:3b:00.1", "model": model, "migrates": true }]);
        check(&[
            ("/vm/host_devices", device),
            ("/source/passthrough_devices", there.clone()),
            ("/destination/passthrough_devices", there.clone()),
        ])
        .is_go();
    }
    for (kind, model) in [("virtiofs", "external"), ("vhost-user", "interface")] {
        let device = json!([{ "kind": kind, "address": "/run/backend.sock", "model": model }]);
        let checked = check(&[
            ("/vm/host_devices", device),
            ("/vm/qemu_version", json!("10.0.13")),
            ("/source/qemu_version", json!("10.0.13")),
            ("/source/libvirt_version", json!("11.3.0")),
            ("/destination/libvirt_version", json!("11.3.0")),
        ]);
        let outcomes = checked.outcomes("devices-migratable");
        assert!(outcomes.iter().all(|(status, _)| *status != "fail"), "{outcomes:?}");
    }
}

/// Case 15.
#[test]
fn a_state_that_the_destinations_qemu_cannot_load() {
    for (device, name) in [("virtio-disk0", "virtio-blk"), ("net0", "virtio-net")] {
        let queues = json!([{ "device": format!("/machine/peripheral/{device}/virtio-backend"), "name": name, "sizes": [1024] }]);
        check(&[
            ("/vm/virtio_queues", queues),
            ("/vm/known_failures", json!({ "unknown": "not derived yet" })),
            ("/vm/qemu_version", json!("10.0.13")),
            ("/source/qemu_version", json!("10.0.13")),
            ("/destination/qemu_version", json!("11.1.3")),
        ])
        .refused_by("move-not-known-to-fail", "1024");
    }
}
