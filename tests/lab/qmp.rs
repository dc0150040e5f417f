//! VMs without libvirt: QEMU started by hand as Proxmox VE and Ganeti start it, checked by its monitor.

use std::{
    io::{BufRead as _, BufReader},
    os::unix::net::UnixStream,
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{Running, Said, SlowLink, on_host, setting, statuses, vmgate};

/// Seconds of blackout that are accepted of an idle guest.
const ACCEPTED: &str = "4";
const UUID: &str = "0d1f3c5e-7a9b-4c1d-8e2f-0123456789ab";

/// A QEMU on host `a` that ends with the test.
pub(crate) struct Qemu {
    /// Path of its QMP socket on the host.
    pub(crate) socket: String,
    pub(crate) pid: String,
    tap: String,
    /// Shell commands that make its tap and start it.
    pub(crate) command: String,
}

impl Qemu {
    /// A VM as `qm showcmd` prints it, without what needs Proxmox VE's own QEMU (-id) or KVM.
    fn of_proxmox(id: &str, workload: &str, more: &str) -> Self {
        let folder = "/var/run/qemu-server";
        let socket = format!("{folder}/{id}.qmp");
        let options = format!(
            "-name web{id},debug-threads=on -no-shutdown -chardev socket,id=qmp,path={socket},server=on,wait=off \
             -mon chardev=qmp,mode=control -smbios type=1,uuid={UUID} -smp 1,sockets=1,cores=1,maxcpus=1 -nodefaults \
             -vnc unix:{folder}/{id}.vnc,password=on -cpu qemu64,+lahf-lm -m 256 \
             -device pci-bridge,id=pci.1,chassis_nr=1,bus=pci.0,addr=0x1e -device vmgenid,guid={UUID} \
             -device VGA,id=vga,bus=pci.0,addr=0x2 \
             -device virtio-balloon-pci,id=balloon0,bus=pci.0,addr=0x3 -iscsi initiator-name=iqn.1993-08.org.debian:01:aa \
             -device virtio-net-pci,mac=BC:24:11:00:00:{id},netdev=net0,bus=pci.0,addr=0x12,id=net0 \
             -machine accel=tcg,type=pc {more}"
        );
        // Its firewall is on.
        let (bridge, end, at_network) = (format!("fwbr{id}i0"), format!("fwln{id}i0"), format!("fwpr{id}p0"));
        let firewall = format!(
            "ip link add {bridge} type bridge; ip link add {end} type veth peer name {at_network}
             ip link set {end} master {bridge} up; ip link set {at_network} master br0 up; ip link set {bridge} up"
        );
        on_host("a", &firewall, b"").exits(0);
        Self::start(&socket, (&format!("tap{id}i0"), &bridge), "net0", &options, workload)
    }

    /// A VM as Ganeti starts it.
    pub(crate) fn of_ganeti(name: &str, workload: &str) -> Self {
        let folder = "/var/run/ganeti/kvm-hypervisor/ctrl";
        let socket = format!("{folder}/{name}.qmp");
        let options = format!(
            "-name {name} -m 256 -smp 1 -no-user-config -nodefaults -device virtio-balloon,id=balloon -uuid {UUID} \
             -machine pc-i440fx-7.2,accel=tcg -monitor unix:{folder}/{name}.monitor,server,nowait \
             -qmp unix:{socket},server,nowait \
             -device virtio-net-pci,bus=pci.0,id=nic-1,addr=0xd,netdev=nic-1,mac=aa:00:00:11:22:33"
        );
        Self::start(&socket, ("gnt.com.0", "br0"), "nic-1", &options, workload)
    }

    fn start(socket: &str, (tap, bridge): (&str, &str), netdev: &str, options: &str, workload: &str) -> Self {
        let folder = socket.rsplit_once('/').unwrap().0;
        let command = format!(
            "set -e; mkdir -p {folder}; ip tuntap add {tap} mode tap; ip link set {tap} master {bridge} up
             boot=$(ls -dt /lab/cache/guest-???????????? | head -n 1)
             /usr/bin/qemu-system-x86_64 {options} -netdev type=tap,id={netdev},ifname={tap},script=no,downscript=no \
               -kernel $boot/vmlinuz -initrd $boot/initramfs -serial file:{socket}.log \
               -append 'console=ttyS0 quiet panic=1 no_timer_check vmgate.name=web vmgate.address=10.77.2.240/24 \
                        vmgate.gateway=10.77.2.254 vmgate.agent=none vmgate.workload={workload}' \
               -pidfile {socket}.pid -daemonize"
        );
        let ready = format!(
            "cat {socket}.pid
             for i in $(seq 600); do grep -q 'guest ready' {socket}.log && exit 0; sleep 0.2; done; exit 1"
        );
        let said = on_host("a", &format!("{command}\n{ready}"), b"");
        let pid = said.stdout.trim().to_owned();
        let started = Self { socket: socket.to_owned(), pid, tap: tap.to_owned(), command };
        said.exits(0);
        started
    }

    pub(crate) fn vm(&self) -> String {
        format!("qmp:{}", self.socket)
    }

    /// Path at which this test reaches the socket.
    fn path_here(&self) -> String {
        let run = format!("{}/hosts/a/run", setting("VMGATE_LAB_STATE"));
        self.socket.replace("/var/run", &run)
    }

    fn kill(&self) {
        let Self { pid, .. } = self;
        on_host("a", &format!("kill -9 {pid}; while kill -0 {pid} 2>&-; do sleep 0.1; done"), b"").exits(0);
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        let Self { socket, pid, tap, .. } = self;
        on_host(
            "a",
            &format!(
                "kill {pid}; sleep 0.5; ip link del {tap}; rm -f {socket}*; for i in $(ls /sys/class/net | grep ^fw); do ip link del $i; done"
            ),
            b"",
        );
    }
}

/// Checks a VM between hosts that are only logged in to.
fn check(vm: &str, more: &[&str]) -> Said {
    let address = setting("VMGATE_LAB_MIGRATE_B");
    let hosts = ["check", vm, "--from", "ssh://root@lab-a", "--to", "ssh://root@lab-b"];
    let by_packets = ["--migrate-address", &address, "--guest", "wire", "--longest-blackout", ACCEPTED];
    vmgate(&[&hosts[..], &by_packets, more].concat())
}

fn judged(vm: &str, more: &[&str]) -> Value {
    check(vm, &[&["--output", "json"][..], more].concat()).json()
}

#[test]
#[ignore = "needs the lab: make lab-test"]
fn a_vm_of_proxmox_is_checked_by_its_monitor_and_moved_by_proxmox_alone() {
    let qemu = Qemu::of_proxmox("10", "idle", "");
    let verdict = judged(&qemu.vm(), &["--as", "proxmox"]);
    assert_eq!(verdict["decision"]["answer"], "GO", "{verdict:#}");
    for rule in ["vm-is-persistent", "vm-has-no-snapshots", "destination-accepts-configuration"] {
        assert_eq!(statuses(&verdict, rule), ["not-applicable"], "{rule}");
    }
    for rule in [
        "no-migration-blocker",
        "vm-runs-once",
        "destination-memory-fits",
        "machine-type-takes-vcpus",
        "destination-networks-exist",
    ] {
        assert_eq!(statuses(&verdict, rule), ["pass"], "{rule}");
    }
    assert!(statuses(&verdict, "components-migratable").iter().all(|status| status == "pass"));
    check(&qemu.vm(), &[]).exits(20).says("belongs to Proxmox VE").says("qm migrate 10 NODE --online");
    let vm = qemu.vm();
    let order = ["migrate", &vm, "--from", "ssh://root@lab-a", "--to", "ssh://root@lab-b"];
    vmgate(&order).exits(2).says("qm migrate 10 NODE --online");
    let rehearsal = ["rehearse", &vm, "--from", "ssh://root@lab-a", "--to", "ssh://root@lab-b"];
    vmgate(&rehearsal).exits(2).says("qm migrate 10 NODE --online");
    let status = on_host("a", &format!("kill -0 {}", qemu.pid), b"");
    status.exits(0);
}

#[test]
#[ignore = "needs the lab: make lab-test"]
fn a_vm_without_a_destination_is_judged_where_it_runs_or_for_every_host_of_the_site() {
    let qemu = Qemu::of_proxmox("14", "idle", "");
    let (vm, address) = (qemu.vm(), setting("VMGATE_LAB_MIGRATE_B"));
    let alone = ["check", &vm, "--from", "ssh://root@lab-a", "--guest", "wire", "--as", "proxmox"];
    let verdict = vmgate(&[&alone[..], &["--output", "json"]].concat()).exits(21).json();
    for (rule, status) in
        [("no-migration-blocker", "pass"), ("vm-is-running", "pass"), ("destination-memory-fits", "unknown")]
    {
        assert_eq!(statuses(&verdict, rule), [status], "{rule}");
    }
    assert_eq!(verdict["unknown"][0]["cause"], "no-destination", "{:#}", verdict["unknown"]);
    assert_eq!(verdict["move"]["destination"], serde_json::json!({}));

    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("vmgate.yaml");
    let hosts = format!("hosts: {{lab-b: {{uri: 'ssh://root@lab-b', migrate_address: '{address}'}}}}");
    std::fs::write(&config, hosts).unwrap();
    let site = ["--config", config.to_str().unwrap(), "--longest-blackout", ACCEPTED];
    vmgate(&[&alone[..], &site].concat()).exits(0).says("lab-b");
}

#[test]
#[ignore = "needs the lab: make lab-test"]
fn every_vm_of_a_host_without_libvirt_is_checked_by_the_monitor_on_its_command_line() {
    let (proxmox, ganeti) =
        (Qemu::of_proxmox("15", "idle", ""), Qemu::of_ganeti("inst2.example.org", "idle"));
    let all = ["check", "--all", "--from", "ssh://root@lab-a", "--to", "ssh://root@lab-b"];
    let report = vmgate(&[&all[..], &["--guest", "none", "--output", "json"]].concat()).json();
    let verdicts = report["verdicts"].as_array().unwrap();
    let names: Vec<_> = verdicts.iter().map(|verdict| &verdict["move"]["vm"]["name"]).collect();
    assert_eq!(names, ["inst2.example.org", "web15"], "{}, {}", proxmox.vm(), ganeti.vm());
}

/// Configuration of a site whose two hosts have no libvirt, by an inventory.
fn site_without_libvirt() -> (TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let inventory = format!(
        "schema: vmgate/inventory/v1\nhosts:\n  - {{name: pve1, uri: 'ssh://root@lab-a'}}\n  \
         - {{name: pve2, uri: 'ssh://root@lab-b', migrate_address: '{}'}}\n",
        setting("VMGATE_LAB_MIGRATE_B")
    );
    std::fs::write(folder.path().join("inventory.yaml"), inventory).unwrap();
    let config = folder.path().join("vmgate.yaml");
    std::fs::write(&config, "inventory: inventory.yaml\n").unwrap();
    let config = config.to_str().unwrap().to_owned();
    (folder, config)
}

#[test]
#[ignore = "needs the lab: make lab-test"]
fn hosts_without_libvirt_and_their_vms_are_named_as_all_others() {
    let _qemu = Qemu::of_proxmox("16", "idle", "");
    let (_folder, config) = site_without_libvirt();
    let at_site = |arguments: &[&str]| vmgate(&[arguments, &["--config", &config]].concat());
    let idle = ["--guest", "wire", "--as", "proxmox", "--longest-blackout", ACCEPTED];
    for vm in ["web16", UUID, "qmp:/var/run/qemu-server/16.qmp"] {
        let check = ["check", vm, "--to", "pve2"];
        at_site(&[&check[..], &idle].concat()).exits(0).says("web16").says("pve2");
    }
    at_site(&[&["check", "web16"][..], &idle].concat()).exits(0).says("pve2");
    let all = ["check", "--all", "--from", "pve1", "--guest", "none", "--output", "json"];
    let verdict = at_site(&all).json();
    assert_eq!(verdict["move"]["vm"]["name"], "web16", "{verdict:#}");
    at_site(&["check", "wbe16", "--to", "pve2"]).exits(2).says("Did you mean web16 (on pve1)?");
    at_site(&["doctor"]).exits(0).says("pve2").says("from pve1");
    at_site(&["audit"]).says("names a login, and no libvirt");
    at_site(&["migrate", "web16", "--to", "pve2"]).exits(2).says("qm migrate 16 NODE --online");
}

/// Ends the ssh that keeps vmgate's login at a host.
fn break_login(vmgate: &Running, host: &str) {
    let parent = format!("PPid:\t{}\n", vmgate.child.id());
    let is_login = |folder: &std::path::Path| {
        let read = |file: &str| std::fs::read_to_string(folder.join(file)).unwrap_or_default();
        let arguments = read("cmdline");
        read("status").contains(&parent) && arguments.contains("\0-M\0") && arguments.contains(host)
    };
    let processes = std::fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path());
    let logins: Vec<_> = processes.filter(|folder| is_login(folder)).collect();
    assert_eq!(logins.len(), 1, "{logins:?}");
    let pid = logins[0].file_name().unwrap().to_str().unwrap().parse().unwrap();
    // SAFETY: kill(2) takes no pointers, and the process is a child of the vmgate that this test started.
    assert_eq!(unsafe { libc::kill(pid, libc::SIGKILL) }, 0);
}

#[test]
#[ignore = "needs the lab: make lab-test"]
fn a_login_that_breaks_in_a_check_is_made_again_for_what_is_asked_next() {
    let _vms = (Qemu::of_proxmox("17", "idle", ""), Qemu::of_ganeti("inst3.example.org", "idle"));
    let traced = "30";
    let running = Running::start(
        &[
            &["check", "--all", "--from", "ssh://root@lab-a", "--to", "ssh://root@lab-b"][..],
            &["--guest", "none", "--trace-seconds", traced, "--output", "json"],
        ]
        .concat(),
    );
    let began = Instant::now();
    // The first VM is being traced, and all other questions have been answered.
    let running = running.wait_until("a trace of the first VM", || began.elapsed() > Duration::from_secs(20));
    break_login(&running, "lab-a");
    let report = running.said().json();
    let verdicts = report["verdicts"].as_array().unwrap();
    let traces: Vec<_> =
        verdicts.iter().map(|verdict| statuses(verdict, "dirty-evidence-long-enough")).collect();
    assert_eq!(traces.iter().filter(|status| **status == ["pass"]).count(), 1, "{traces:?}");
    assert_eq!(traces.iter().filter(|status| **status == ["unknown"]).count(), 1, "{traces:?}");
}

#[test]
#[ignore = "needs the lab: make lab-test"]
fn a_vm_that_dirties_its_memory_too_fast_does_not_move() {
    // Ganeti does not throttle it.
    let qemu = Qemu::of_ganeti("inst2.example.org", "dirty,size=128,rate=100");
    let _slow = SlowLink::at("100mbit");
    let verdict = judged(&qemu.vm(), &["--as", "ganeti", "--trace-seconds", "5"]);
    assert_eq!(verdict["decision"]["answer"], "NO-GO", "{verdict:#}");
    assert_eq!(statuses(&verdict, "forecast-converges"), ["fail"], "{:#}", verdict["forecast"]);
}

#[test]
#[ignore = "needs the lab: make lab-test"]
fn a_device_that_qemu_does_not_migrate_is_named_in_qemus_words() {
    let blocked =
        "-device piix3-usb-uhci,id=uhci -netdev user,id=u0 -device usb-net,netdev=u0,bus=uhci.0,id=usbnet";
    let qemu = Qemu::of_proxmox("12", "idle", blocked);
    let said = check(&qemu.vm(), &["--as", "proxmox"]).exits(20);
    said.says("no-migration-blocker").says("non-migratable");
}

#[test]
#[ignore = "needs the lab: make lab-test"]
fn a_vm_of_ganeti_is_checked_and_its_monitor_for_people_is_told_apart() {
    let qemu = Qemu::of_ganeti("inst1.example.org", "idle");
    let verdict = judged(&qemu.vm(), &["--as", "ganeti"]);
    assert_eq!(verdict["decision"]["answer"], "GO", "{verdict:#}");
    check(&qemu.vm(), &[]).exits(20).says("gnt-instance migrate inst1.example.org");
    let for_people = qemu.vm().replace(".qmp", ".monitor");
    check(&for_people, &[]).exits(2).says("monitor for people (HMP)").says(".qmp");
}

#[test]
#[ignore = "needs the lab: make lab-test"]
fn what_is_no_free_qmp_monitor_is_said_clearly_and_nothing_hangs() {
    let qemu = Qemu::of_proxmox("13", "idle", "");
    check("qmp:/var/run/qemu-server/999.qmp", &[])
        .exits(1)
        .says("has no socket /var/run/qemu-server/999.qmp");
    check(&qemu.vm().replace(".qmp", ".vnc"), &[]).exits(2).says("no QMP monitor: it says \"RFB");
    check("wbe13", &[]).exits(2).says("names no libvirt").says("Did you mean web13?");

    let held = UnixStream::connect(qemu.path_here()).unwrap();
    let mut greeting = String::new();
    BufReader::new(&held).read_line(&mut greeting).unwrap();
    assert!(greeting.contains("QMP"), "{greeting}");
    let start = Instant::now();
    check(&qemu.vm(), &["--timeout", "4"]).exits(1).says("another program holds the monitor");
    assert!(start.elapsed() < Duration::from_mins(1), "{:?}", start.elapsed());
    drop(held);
    // vmgate has left, too: the next client is greeted.
    let next = UnixStream::connect(qemu.path_here()).unwrap();
    next.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    greeting.clear();
    BufReader::new(&next).read_line(&mut greeting).unwrap();
    assert!(greeting.contains("QMP"), "{greeting}");
    drop(next);

    qemu.kill();
    check(&qemu.vm(), &[]).exits(1).says("its QEMU has ended, and left the socket behind");
}
