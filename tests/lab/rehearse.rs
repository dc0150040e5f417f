//! Rehearsals with an empty copy: what migrates passes, what the other QEMU cannot load fails, and nothing is left behind.

use std::{thread, time::Duration};

use crate::harness::{
    Guest, Said, a_to_b, lab, ledger, on_host, setting, start_vmgate, statuses, the_move, uri_a, uri_b,
    vmgate, words,
};

/// Names of twins on the hosts, with what libvirt created for them.
fn twins() -> Vec<String> {
    let names = |host| lab(&["host", host, "virsh", "-q", "list", "--all", "--name"]).exits(0).stdout;
    let all = [names("a"), names("b")].concat();
    all.lines().filter(|name| name.starts_with("vmgate-twin-")).map(str::to_owned).collect()
}

/// Everything of a guest that a rehearsal could have changed: its process, its configuration, and what is left on both hosts.
fn traces(guest: &str) -> String {
    let script = format!(
        "cat /run/libvirt/qemu/{guest}.pid; virsh dumpxml {guest}; virsh domstate --reason {guest}; virsh dominfo {guest} | \
         grep -v 'CPU time'; virsh dommemstat {guest} | grep actual"
    );
    let left = "ls -l /dev/zero | cut -c1-30; ls /sys/class/net; ls /var/lib/libvirt/swtpm /var/lib/libvirt/qemu/nvram 2>/dev/null";
    [on_host("a", &script, b""), on_host("a", left, b""), on_host("b", left, b"")]
        .map(|said| said.stdout)
        .concat()
}

/// A further host, which is taken down when the test ends.
struct HostDown(&'static str);

impl Drop for HostDown {
    fn drop(&mut self) {
        lab(&["host-down", self.0]);
    }
}

fn rehearse(guest: &str, options: &[String]) -> Said {
    vmgate(&words(&["rehearse", guest], &options[..4]))
}

#[test]
#[ignore = "needs the lab: make lab-test"]
fn an_ordinary_guest_is_rehearsed_and_not_touched() {
    let guest = Guest::start("rehearsed", &["--on", "a"]);
    let before = traces(guest.name);
    rehearse(guest.name, &a_to_b()).exits(0).says("its empty copy").says("lab-b").says("and back in");
    assert_eq!(traces(guest.name), before);
    assert_eq!(twins(), Vec::<String>::new());
    vmgate(&["ledger", "list", "--kind", "rehearsal"]).exits(0).says("passed");
    let back = the_move(&uri_b(), &uri_a(), &setting("VMGATE_LAB_MIGRATE_A"));
    rehearse(guest.name, &back).exits(2).says("the host has no such VM");
}

#[test]
#[ignore = "needs the lab: make lab-test"]
fn a_pair_that_is_new_to_the_ledger_is_said_until_a_twin_went() {
    let guest = Guest::start("new-pair", &["--on", "a"]);
    let checked = |options: &[&str]| {
        let first = ["check", guest.name, "--output", "json"];
        vmgate(&words(&[&first[..], options].concat(), &a_to_b())).json()
    };
    let new = checked(&[]);
    assert_eq!(statuses(&new, "version-pair-rehearsed"), ["unknown"]);
    assert_eq!(statuses(&new, "rehearsal-passed"), ["not-applicable"]);
    let rehearsed = checked(&["--rehearse"]);
    assert_eq!(statuses(&rehearsed, "version-pair-rehearsed"), ["pass"]);
    assert_eq!(statuses(&rehearsed, "rehearsal-passed"), ["pass"]);
    assert_eq!(statuses(&checked(&[]), "version-pair-rehearsed"), ["pass"], "the ledger keeps it");
    assert_eq!(statuses(&checked(&["--profile", "strict"]), "version-pair-rehearsed"), ["pass"]);
    std::fs::remove_file(ledger()).unwrap();
    let without = vmgate(&words(&["check", guest.name, "--output", "json", "--ledger", ""], &a_to_b()));
    assert!(without.code != 0 || statuses(&without.json(), "version-pair-rehearsed") == ["not-applicable"]);
}

#[test]
#[ignore = "needs the lab: make lab-test"]
fn virtio_queues_that_the_destination_refuses_are_found_before_the_move() {
    lab(&["host-up", "d"]).exits(0);
    let _down = HostDown("d");
    let (uri, address) = (setting("VMGATE_LAB_URI_D"), setting("VMGATE_LAB_MIGRATE_D"));
    let guest = Guest::start("queues", &["--on", "b"]);
    let b_to_d = the_move(&uri_b(), &uri, &address);
    rehearse(guest.name, &b_to_d).exits(20).says("lab-d").says("VQ 0 vring.num 1024 exceeds allocated max");
    let verdict = vmgate(&words(&["check", guest.name, "--output", "json"], &b_to_d)).exits(20).json();
    assert_eq!(statuses(&verdict, "rehearsal-passed"), ["fail"], "the ledger keeps it");
    drop(guest);

    // The same VM booted on a, over b: it has the queues that a gave it, and the twin proves nothing.
    let guest = Guest::start("queues", &["--on", "a"]);
    vmgate(&words(&["migrate", guest.name], &a_to_b())).exits(0);
    let verdict = vmgate(&words(&["check", guest.name, "--rehearse", "--output", "json"], &b_to_d)).json();
    assert_eq!(statuses(&verdict, "rehearsal-passed"), ["not-applicable"]);
    assert_eq!(statuses(&verdict, "rehearsal-passed-where-vm-was-booted"), ["fail"]);
    lab(&["host", "b", "virsh", "migrate", "--live", guest.name, "qemu+tcp://lab-d/system"]).exits(0);
}

/// A VM with many kinds of devices, NUMA nodes and address space for 512 GiB, that is never run.
fn many_kinds() -> Said {
    let xml = r"<domain type='qemu'>
  <name>many-kinds</name><uuid>5e7c9b3e-6a0e-4c2e-9a53-0d6f5a5c9d77</uuid>
  <maxMemory slots='16' unit='GiB'>512</maxMemory><memory unit='MiB'>256</memory><vcpu current='2'>4</vcpu>
  <iothreads>1</iothreads>
  <os><type arch='x86_64' machine='pc-q35-7.2'>hvm</type></os>
  <features><acpi/><apic/></features>
  <cpu mode='custom' match='exact' check='none'><model fallback='forbid'>Nehalem</model>
    <numa><cell id='0' cpus='0-1' memory='64' unit='MiB'/><cell id='1' cpus='2-3' memory='64' unit='MiB'/></numa></cpu>
  <devices>
    <controller type='usb' model='qemu-xhci'/><controller type='scsi' model='virtio-scsi'><driver queues='2'/></controller>
    DISKS
    <disk type='file' device='cdrom'><target dev='sdx' bus='sata'/></disk>
    <disk type='file' device='floppy'><target dev='fda' bus='fdc'/></disk>
    <interface type='bridge'><source bridge='br0'/><model type='virtio'/><driver queues='2'/></interface>
    <interface type='bridge'><source bridge='br0'/><model type='e1000e'/></interface>
    <serial type='pty'/><channel type='unix'><target type='virtio' name='org.example.0'/></channel>
    <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>
    <input type='tablet' bus='usb'/><graphics type='vnc' listen='127.0.0.1' autoport='yes'/>
    <sound model='ich9'/><video><model type='virtio'/></video><watchdog model='i6300esb' action='reset'/>
    <memballoon model='virtio'/><rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>
    <panic model='isa'/><iommu model='intel'/>
    <memory model='dimm'><target><size unit='MiB'>128</size><node>0</node></target></memory>
  </devices>
</domain>";
    let disk = |(target, bus): (&str, &str)| {
        format!(
            "<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='/tmp/many-{target}'/>\
             <target dev='{target}' bus='{bus}'/></disk>"
        )
    };
    let disks: String =
        [("vda", "virtio"), ("vdb", "virtio"), ("sda", "scsi"), ("sdb", "sata"), ("sdc", "usb")]
            .map(disk)
            .concat();
    let script = "for d in vda vdb sda sdb sdc; do truncate -s 4M /tmp/many-$d; chmod 666 /tmp/many-$d; done; cat >/tmp/many.xml; \
                  virsh -q create /tmp/many.xml --paused";
    on_host("a", script, xml.replace("DISKS", &disks).as_bytes())
}

#[test]
#[ignore = "needs the lab: make lab-test"]
fn a_vm_with_many_kinds_of_devices_is_rehearsed_within_time_and_memory() {
    lab(&["guest", "stop", "many-kinds"]);
    many_kinds().exits(0);
    let running = start_vmgate(&words(&["rehearse", "many-kinds"], &a_to_b()[..4]));
    let mut largest = 0_u64;
    let mut running = running;
    while running.child.try_wait().unwrap().is_none() {
        for host in ["a", "b"] {
            let look = "for p in /run/libvirt/qemu/vmgate-twin-*.pid; do grep Pss: /proc/$(cat $p)/smaps_rollup; done";
            let said = on_host(host, look, b"").stdout;
            let kib = said.split_whitespace().filter_map(|word| word.parse::<u64>().ok()).max();
            largest = largest.max(kib.unwrap_or(0));
        }
        thread::sleep(Duration::from_millis(50));
    }
    let said = running.said().exits(0);
    println!("{}largest twin: {largest} KiB", said.stdout);
    assert!((1..200_000).contains(&largest), "{largest} KiB");
    assert!(!said.stdout.contains("not rehearsed"), "{}", said.stdout);
    assert_eq!(twins(), Vec::<String>::new());
    lab(&["host", "a", "virsh", "-q", "destroy", "many-kinds"]).exits(0);
}

#[test]
#[ignore = "needs the lab: make lab-test"]
fn a_rehearsal_that_is_killed_leaves_a_twin_that_is_found_and_removed() {
    let guest = Guest::start("killed-twin", &["--on", "a"]);
    let before = traces(guest.name);
    for (killed_after, cleared_by) in
        [(0, "recover"), (300, "rehearse"), (700, "recover"), (1200, "rehearse")]
    {
        let running = start_vmgate(&words(&["rehearse", guest.name], &a_to_b()[..4]));
        let mut running = running.wait_until("there is a twin", || !twins().is_empty());
        thread::sleep(Duration::from_millis(killed_after));
        running.child.kill().unwrap();
        running.child.wait().unwrap();
        // What libvirt itself still has to end of the move.
        thread::sleep(Duration::from_secs(1));
        match cleared_by {
            "recover" => vmgate(&["recover"]).exits(0),
            _ => rehearse(guest.name, &a_to_b()).exits(0),
        };
        assert_eq!(twins(), Vec::<String>::new(), "killed after {killed_after} ms");
        assert_eq!(traces(guest.name), before);
    }
}

#[test]
#[ignore = "needs the lab: make lab-test"]
fn ctrl_c_ends_a_rehearsal_and_removes_the_twin() {
    let guest = Guest::start("interrupted-twin", &["--on", "a"]);
    let running = start_vmgate(&words(&["rehearse", guest.name], &a_to_b()[..4]));
    let running = running.wait_until("there is a twin", || !twins().is_empty());
    running.interrupt();
    running.said().exits(1).says("on request");
    assert_eq!(twins(), Vec::<String>::new());
}

#[test]
#[ignore = "needs the lab: make lab-test"]
fn a_vm_that_only_looks_like_a_twin_is_left_alone() {
    let guest = Guest::start("vmgate-twin-of-somebody", &["--on", "a"]);
    vmgate(&words(&["recover", guest.name], &a_to_b()[..4])).exits(0);
    assert_eq!(guest.state_on("a"), "running");
}
