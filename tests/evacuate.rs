//! `vmgate evacuate` through the real binary: on facts files, and on libvirt's mock driver where hosts do not answer.

#![allow(missing_docs, clippy::unwrap_used)]

mod said;

use std::{fmt::Write as _, fs, path::Path};

use said::{Said, vmgate_in};
use tempfile::TempDir;

const HEALTHY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/rules/fixtures/idle-vm.yaml");
const NOW: &str = "2026-11-23T01:05:00Z";
const VMS: usize = 6;
const GIB: u64 = 1 << 30;

impl Said {
    #[track_caller]
    fn says(self, text: &str) -> Self {
        let all = format!("{}{}", self.stdout, self.stderr);
        assert!(all.contains(text), "`{text}` is not said:\n{all}");
        self
    }
}

/// A site of four hosts in two racks, with six VMs on hv1, as facts files.
struct Lab {
    folder: TempDir,
    inventory: String,
}

impl Lab {
    fn new() -> Self {
        let mut inventory = String::from(
            "schema: vmgate/inventory/v1\npools: [{name: compute}, {name: spare}]\nlimits: {outgoing_per_host: 2}\nhosts:\n",
        );
        for n in 1..=4_usize {
            let pool = if n == 4 { "spare" } else { "compute" };
            writeln!(
                inventory,
                "  - {{name: hv{n}, uri: 'qemu+ssh://root@hv{n}/system', rack: r{}, pool: {pool}, migrate_address: 10.77.1.{n}}}",
                n.div_ceil(2)
            )
            .unwrap();
        }
        let lab = Self { folder: tempfile::tempdir().unwrap(), inventory };
        fs::create_dir(lab.folder.path().join("facts")).unwrap();
        for vm in 1..=VMS {
            for to in 2..=4 {
                lab.facts(vm, 1, to, |text| text);
            }
        }
        lab
    }

    /// Facts of one move, with something changed.
    fn facts(&self, vm: usize, from: usize, to: usize, change: impl Fn(String) -> String) {
        let text = fs::read_to_string(HEALTHY).unwrap();
        // The images of all VMs, for each line about that of the first.
        let images = |line: &str| {
            let image = |n| line.replace("web1", &format!("web{n}")).replace("1234", &format!("12{n:02}"));
            (1..=VMS).map(image).collect::<Vec<_>>().join("\n")
        };
        let is_image = |line: &&str| line.contains("- {path: /srv/images/web1.qcow2");
        let with_images =
            text.lines().filter(is_image).fold(text.clone(), |text, line| text.replace(line, &images(line)));
        let text = with_images
            .replace("name: web1", &format!("name: web{vm}"))
            .replace("source: /srv/images/web1", &format!("source: /srv/images/web{vm}"))
            .replace(
                "5e7c9b3e-6a0e-4c2e-9a53-0d6f5a5c9d11",
                &format!("5e7c9b3e-6a0e-4c2e-9a53-0d6f5a5c9d{vm:02}"),
            );
        let (source, destination) = text.split_once("\ndestination:\n").unwrap();
        let named = |text: &str, is: usize, was: usize| {
            text.replace(&format!("hv{was}"), &format!("hv{is}"))
                .replace(&format!("10.77.1.{was}"), &format!("10.77.1.{is}"))
                .replace(
                    &format!("6f0d3c4e-1111-4222-8333-00000000000{was}"),
                    &format!("6f0d3c4e-1111-4222-8333-00000000000{is}"),
                )
        };
        let text = format!("{}\ndestination:\n{}", named(source, from, 1), named(destination, to, 2));
        let file = self.folder.path().join(format!("facts/web{vm}-hv{from}-hv{to}.yaml"));
        fs::write(file, change(text)).unwrap();
    }

    /// Changes all facts about a destination.
    fn destination(&self, to: usize, change: impl Fn(String) -> String) {
        (1..=VMS).for_each(|vm| self.facts(vm, 1, to, &change));
    }

    fn forget(&self, vm: usize, to: usize) {
        fs::remove_file(self.folder.path().join(format!("facts/web{vm}-hv1-hv{to}.yaml"))).unwrap();
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.folder.path().join(name)).unwrap()
    }

    fn vmgate(&self, arguments: &str) -> Said {
        fs::write(self.folder.path().join("site.yaml"), &self.inventory).unwrap();
        vmgate(self.folder.path(), arguments)
    }

    fn evacuate(&self, arguments: &str) -> Said {
        self.vmgate(&format!("evacuate {arguments} --inventory site.yaml --facts facts --at {NOW}"))
    }
}

fn vmgate(folder: &Path, arguments: &str) -> Said {
    vmgate_in(folder, &arguments.split_whitespace().collect::<Vec<_>>())
}

#[test]
fn the_planned_change_is_go_for_the_same_rules_on_the_same_facts() {
    let lab = Lab::new();
    lab.evacuate("hv1 --into compute hv4 -o change.yaml --change-id CHG-7").exits(0).says("6 of 6 VMs move");
    let check = lab.vmgate(&format!("check --change change.yaml --facts facts --at {NOW} -o json")).exits(0);
    let document: serde_json::Value = serde_json::from_str(&check.stdout).unwrap();
    let verdicts = document["verdicts"].as_array().unwrap();
    assert_eq!(verdicts.len(), VMS);
    let change = lab.read("change.yaml");
    assert!(change.contains("id: CHG-7") && change.contains("migrate_address: 10.77.1."), "{change}");
    // Two at once leave the host over one link of 10 Gbit/s, which each was forecast with half of.
    assert!(change.contains("bandwidth_limit_bytes_per_second: 625000000"), "{change}");
    assert!(!change.contains("hv1/system\n  to: qemu+ssh://root@hv1"), "{change}");
}

#[test]
fn as_many_vms_leave_a_host_at_a_time_as_the_manager_of_the_moves_allows() {
    let mut lab = Lab::new();
    let per_source = |lab: &Lab| {
        lab.evacuate("hv1 --into compute hv4 -o change.yaml --as nova").exits(0).says("6 of 6 VMs move");
        let change = lab.read("change.yaml");
        change.lines().find_map(|line| line.trim().strip_prefix("per_source: ")).map(str::to_owned).unwrap()
    };
    assert_eq!(per_source(&lab), "1", "Nova's own default");
    let setting = "{file: /etc/nova/nova.conf, name: DEFAULT/max_concurrent_live_migrations, value: '3'}";
    let set = |text: String| {
        text.replacen("programs: [], settings: []", &format!("programs: [], settings: [{setting}]"), 1)
    };
    (2..=4).for_each(|to| lab.destination(to, set));
    assert_eq!(per_source(&lab), "2", "the inventory allows fewer");
    lab.inventory = lab.inventory.replace("limits: {outgoing_per_host: 2}\n", "");
    assert_eq!(per_source(&lab), "3");
}

#[test]
fn a_plan_says_that_it_is_faster_than_the_moves_one_after_the_other_only_where_it_is() {
    let lab = Lab::new();
    let number = |said: &Said, before: &str| -> f64 {
        let rest = said.stdout.split_once(before).unwrap_or_else(|| panic!("`{before}`: {}", said.stdout)).1;
        rest.split(' ').next().unwrap().parse().unwrap()
    };
    let one_by_one = "ordered from nova one after the other, the same moves take ";
    // Nova lets one VM leave a host at a time: from one host there is nothing to win.
    let said = lab.evacuate("hv1 --into hv3 hv4 --as nova").exits(0).says("6 of 6 VMs move");
    assert!(!said.stdout.contains(one_by_one), "{}", said.stdout);
    // From two hosts, half of the time.
    for vm in 4..=VMS {
        (2..=4).for_each(|to| lab.forget(vm, to));
        (3..=4).for_each(|to| lab.facts(vm, 2, to, |text| text));
    }
    let said = lab.evacuate("hv1 hv2 --into hv3 hv4 --as nova").exits(0).says("6 of 6 VMs move");
    let (plan, alone) = (number(&said, "VMs move in "), number(&said, one_by_one));
    assert!((alone - 2.0 * plan).abs() <= 2.0, "{plan} {alone}");
    // libvirt has no order of its own to compare with.
    let said = lab.evacuate("hv1 hv2 --into hv3 hv4").exits(0);
    assert!(!said.stdout.contains("one after the other"), "{}", said.stdout);
}

#[test]
fn memory_that_a_guest_never_touched_takes_no_time_in_a_plan() {
    let expected = |resident: &str| {
        let lab = Lab::new();
        for to in 2..=4 {
            lab.destination(to, |facts| {
                let rate = facts.lines().find(|line| line.starts_with("  dirty_rate:")).unwrap();
                facts
                    .replace(rate, "  dirty_rate: {unknown: an audit measures nothing}")
                    .replace("  resident_bytes: 4294967296", &format!("  resident_bytes: {resident}"))
            });
        }
        lab.evacuate("hv1 --into compute hv4 -o change.yaml --change-id CHG-7").exits(0);
        let change = lab.read("change.yaml");
        let seconds = change.lines().filter_map(|line| line.trim().strip_prefix("expected_seconds: "));
        seconds.map(|seconds| seconds.parse::<f64>().unwrap()).fold(0.0, f64::max)
    };
    // 4 GiB at half of 10 Gbit/s take 6.9 s, and 0.5 GiB, with a second for the rest, below 2.
    let (all, few, huge) = (expected("4294967296"), expected("536870912"), expected("null"));
    assert!(all > 6.0 && few < 3.0, "{all} {few}");
    assert!((all - huge).abs() < 0.2, "huge pages do not tell: {huge}");
}

#[test]
fn a_destination_that_no_file_is_about_is_judged_from_what_others_say_of_it() {
    let lab = Lab::new();
    (2..=VMS).for_each(|vm| (3..=4).for_each(|to| lab.forget(vm, to)));
    lab.evacuate("hv1 --into hv3 hv4 -o change.yaml").exits(0).says("6 of 6 VMs move");
    assert!(!lab.read("change.yaml").contains("hv2"));
    lab.destination(3, |text| text.replace("maintenance: null", "maintenance: new disks"));
    lab.evacuate("hv1 --into hv3 hv4 -o change.yaml").exits(0);
    assert!(!lab.read("change.yaml").contains("hv3"), "it is in maintenance");
}

#[test]
fn a_vm_that_cannot_go_is_told_with_its_reason_and_way_out_and_the_others_go() {
    let lab = Lab::new();
    let device = "host_devices: [{kind: pci, address: '0000:3b:00.1', model: vfio-pci, migrates: false, at_destination: true}]";
    (2..=4).for_each(|to| lab.facts(2, 1, to, |text| text.replacen("host_devices: []", device, 1)));
    let said = lab.evacuate("hv1 --into compute -o change.yaml").exits(20).says("5 of 6 VMs move");
    let told = said.says("web2 stays on hv1").says("devices-migratable: ").stdout;
    let way_out = told.split_once("way out: ").unwrap().1;
    assert!(!way_out.starts_with("no other destination"), "the rule's own remedy is told: {told}");
    let change = lab.read("change.yaml");
    assert!(change.contains("stays:\n- vm: web2"), "{change}");
}

#[test]
fn a_pool_that_is_too_small_says_by_how_much() {
    let lab = Lab::new();
    // Each VM takes 4 GiB and QEMU 256 MiB beside it: 25.5 GiB in all.
    let small = format!("available_bytes: {}", 10 * GIB);
    for to in 2..=3 {
        lab.destination(to, |text| text.replace("available_bytes: 206158430208", &small));
    }
    lab.evacuate("hv1 --into compute")
        .exits(20)
        .says("the destinations lack 5.5 GiB of memory: 25.5 GiB needed, 20.0 GiB free")
        .says("4 of 6 VMs move")
        .says("the closest fit, lacks 2.8 GiB of memory")
        .says("way out: free 2.8 GiB of memory on hv");
}

#[test]
fn replanning_changes_only_what_must_change_and_keeps_what_people_wrote() {
    let lab = Lab::new();
    lab.evacuate("hv1 --into hv2 hv3 hv4 -o old.yaml").exits(0);
    let reviewed = lab.read("old.yaml").replace("- vm: web1\n", "- vm: web1\n  guest: none\n");
    let reviewed = format!("# approved by the board\n{reviewed}");
    fs::write(lab.folder.path().join("old.yaml"), &reviewed).unwrap();
    lab.evacuate("hv1 --into hv2 hv3 hv4 --replan old.yaml -o same.yaml").exits(0);
    assert_eq!(lab.read("same.yaml"), reviewed, "nothing has changed");
    lab.destination(3, |text| text.replace("maintenance: null", "maintenance: broken fan"));
    lab.evacuate("hv1 --into hv2 hv3 hv4 --replan old.yaml -o new.yaml").exits(0);
    let new = lab.read("new.yaml");
    let moves = |text: &str| -> Vec<String> { text.split("- vm: ").skip(1).map(str::to_owned).collect() };
    let (before, after) = (moves(&reviewed), moves(&new));
    assert_eq!(before.len(), after.len());
    let mut elsewhere = 0;
    for (before, after) in before.iter().zip(&after) {
        if before.contains("hv3/system") {
            elsewhere += 1;
            assert!(!after.contains("hv3"), "{after}");
        } else {
            assert_eq!(before, after, "it is as it was");
        }
    }
    assert!((1..VMS).contains(&elsewhere), "{reviewed}");
    assert!(new.starts_with("# approved by the board\n") && new.contains("guest: none"), "{new}");
}

#[test]
fn rolling_empties_a_rack_waits_for_its_new_versions_and_brings_its_vms_back() {
    let mut lab = Lab::new();
    lab.inventory.push_str("after_maintenance: {qemu_version: '10.0.13', libvirt_version: '11.3.0'}\n");
    lab.inventory.push_str("groups: [{name: shop, vms: [web1, web2], apart: host, one_at_a_time: true}]\n");
    lab.evacuate("r1 --into r2 --rolling -o change.yaml")
        .exits(0)
        .says("6 of 6 VMs move")
        .says("back to r1: 6 moves");
    let change = lab.read("change.yaml");
    assert!(change.contains("- name: empty r1\n- name: back to r1\n  wait_for:"), "{change}");
    assert!(change.contains("qemu_version: 10.0.13"), "{change}");
    assert_eq!(change.matches("- vm: ").count(), 2 * VMS);
    assert_eq!(change.matches("- shop").count(), 4, "two members, there and back");
    let (there, back) = change.rsplit_once("wave: empty r1").unwrap();
    assert!(!there.split_once("moves:").unwrap().1.contains("to: qemu+ssh://root@hv1"), "{change}");
    assert!(back.contains("to: qemu+ssh://root@hv1/system"), "{change}");
    // A VM that its own host could not take back is not moved.
    let no_way_back = |text: String| text.replacen("    - {name: pc-q35-7.2, deprecated: false}\n", "", 1);
    (2..=4).for_each(|to| lab.facts(1, 1, to, no_way_back));
    lab.evacuate("r1 --into r2 --rolling").exits(20).says("web1 stays on hv1").says("machine-type-supported");
    lab.evacuate("hv1 --into r2").exits(0).says("6 of 6 VMs move");
}

#[test]
fn a_plan_that_its_window_cannot_hold_says_so_and_one_made_ahead_of_it_is_made() {
    let lab = Lab::new();
    let window = "--window-start 2026-11-24T01:00:00Z --window-end";
    lab.evacuate(&format!("hv1 --into compute {window} 2026-11-24T05:00:00Z -o change.yaml")).exits(0);
    assert!(lab.read("change.yaml").contains("start: 2026-11-24T01:00:00Z"));
    lab.evacuate(&format!("hv1 --into compute {window} 2026-11-24T01:00:05Z"))
        .exits(0)
        .says("the window is 5 s long");
}

#[test]
fn names_and_inventories_that_are_wrong_are_mistakes_with_their_place() {
    let mut lab = Lab::new();
    lab.evacuate("hv1 --into compuet").exits(2).says("did you mean `compute`?");
    lab.evacuate("hv9 --into compute").exits(2).says("no host, pool or rack `hv9`");
    lab.inventory.push_str("groups: [{name: shop, vms: [web1, nobody], apart: host}]\n");
    lab.evacuate("hv1 --into compute").exits(0).says("the group `shop` names nobody, which runs on no host");
    lab.inventory = lab.inventory.replace("name: hv2", "name: hv1").replace("pool: spare", "pool: spar");
    let said = lab.evacuate("hv1 --into compute").exits(2).says("the host `hv1` is listed twice");
    said.says("site.yaml:6:").says("did you mean `spare`?");
}

#[cfg(feature = "libvirt")]
#[test]
fn a_host_that_does_not_answer_is_planned_around_and_named() {
    let folder = tempfile::tempdir().unwrap();
    let host = |name: &str, vms: &str| {
        let file = folder.path().join(format!("{name}.xml"));
        fs::write(&file, format!("<node>{vms}</node>")).unwrap();
        let inventory = format!("  - {{name: {name}, uri: 'qemu+ssh://root@{name}/system', rack: r1}}\n");
        (inventory, format!("  {name}: {{uri: 'test://{}'}}\n", file.display()))
    };
    let vm = "<domain type='test'><name>web1</name><memory unit='MiB'>1024</memory><vcpu>2</vcpu>\
              <os><type arch='x86_64' machine='pc-q35-7.2'>hvm</type></os><devices><shmem name='s'>\
              <size unit='M'>1</size></shmem></devices></domain>";
    let (first, at_first) = host("hv1", vm);
    let (second, at_second) = host("hv2", "");
    let gone = "  - {name: hv3, uri: 'qemu+ssh://root@hv3/system'}\n";
    let at_gone = "  hv3: {uri: 'qemu+unix:///system?socket=/nonexistent/libvirt-sock'}\n";
    let inventory = format!("schema: vmgate/inventory/v1\nhosts:\n{first}{second}{gone}");
    fs::write(folder.path().join("site.yaml"), inventory).unwrap();
    let config = format!("hosts:\n{at_first}{at_second}{at_gone}");
    fs::write(folder.path().join("vmgate.yaml"), config).unwrap();
    vmgate(folder.path(), "evacuate hv1 --into hv2 hv3 --inventory site.yaml")
        .exits(20)
        .says("web1 stays on hv1")
        .says("devices-migratable")
        .says("hv3 did not answer and is not used in the plan: ")
        .says("the link speed of hv1 and 1 more is unknown, 1 Gbit/s is assumed");
    vmgate(folder.path(), "evacuate hv3 --into hv2 --inventory site.yaml")
        .exits(21)
        .says("hv3 did not answer");
}
