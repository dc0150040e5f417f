//! A VM without libvirt, moved through the door of its manager: here a script that starts QEMU on both hosts and migrates by QMP, as
//! Ganeti's node daemons do.

use std::{fs, os::unix::fs::PermissionsExt as _, process::Command};

use tempfile::TempDir;

use crate::{
    harness::{AnyForecast, SlowLink, on_host, setting, start_vmgate, vmgate, words},
    migrate::openssl,
    qmp::Qemu,
};

/// Port at which the destination's QEMU receives.
const PORT: u16 = 49_200;
/// Sends a command to a monitor and prints the answer.
const QMP: &str = r#"use IO::Socket::UNIX; my $s = IO::Socket::UNIX->new(Peer => shift) or die "no monitor: $!\n"; <$s>;
for my $c ('{"execute": "qmp_capabilities"}', @ARGV) { print $s "$c\n"; do { $_ = <$s> // die "closed\n" } until /"(return|error)"/ } print"#;

/// The door, and the VM's QEMU on host `b`, which ends with the test.
struct Door<'a> {
    folder: TempDir,
    qemu: &'a Qemu,
}

impl<'a> Door<'a> {
    fn of(qemu: &'a Qemu) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (lab, socket, command) = (setting("VMGATE_LAB"), &qemu.socket, &qemu.command);
        let to = format!("tcp:{}:{PORT}", setting("VMGATE_LAB_MIGRATE_B"));
        let file = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        file("qmp.pl", QMP);
        file("start", &format!("{command} -incoming {to}\n"));
        let end = format!(
            "kill $(cat {socket}.pid); while kill -0 $(cat {socket}.pid) 2>/dev/null; do sleep 0.1; done"
        );
        let door = format!(
            r#"#!/bin/sh
set -eu
cat >/dev/null
qmp() {{ {lab} host "$1" perl -e "$(cat {here}/qmp.pl)" {socket} "$2" </dev/null; }}
case "$1" in
start)
  {lab} host b sh -c "$(cat {here}/start)" >&2 </dev/null
  qmp a '{{"execute": "migrate", "arguments": {{"uri": "{to}"}}}}' >&2
  echo '{{"migration": "1"}}' ;;
progress)
  case $(qmp a '{{"execute": "query-migrate"}}') in
  *'"status": "completed"'*)
    {lab} host a sh -c '{end}'
    echo '{{"state": "finished"}}' ;;
  *'"status": "failed"'* | *'"status": "cancelled"'*)
    {lab} host b sh -c '{end}' || true
    echo '{{"state": "failed", "why": "QEMU gave it up"}}' ;;
  *) echo '{{"state": "running"}}' ;;
  esac ;;
abort)
  qmp a '{{"execute": "migrate_cancel"}}' >&2
  echo '{{}}' ;;
where)
  for host in a b; do
    case $(qmp $host '{{"execute": "query-status"}}' 2>/dev/null) in
    *'"status": "running"'*) echo "{{\"host\": \"lab-$host\"}}"; exit 0 ;;
    esac
  done
  exit 1 ;;
esac
"#,
            here = folder.path().display()
        );
        file("door", &door);
        file(
            "vmgate.yaml",
            &format!("managers: {{ganeti: {{program: ['{}/door']}}}}\n", folder.path().display()),
        );
        fs::set_permissions(folder.path().join("door"), fs::Permissions::from_mode(0o755)).unwrap();
        Self { folder, qemu }
    }

    /// Order of its move from `a` to `b`.
    fn order(&self) -> Vec<String> {
        let (config, vm) = (self.folder.path().join("vmgate.yaml").display().to_string(), self.qemu.vm());
        let address = setting("VMGATE_LAB_MIGRATE_B");
        let fixed =
            ["--config", &config, "migrate", &vm, "--from", "ssh://root@lab-a", "--to", "ssh://root@lab-b"];
        let goals =
            ["--migrate-address", &address, "--guest", "wire", "--longest-blackout", "4", "--as", "ganeti"];
        fixed.iter().chain(&goals).map(|word| (*word).to_owned()).collect()
    }

    fn recover(&self) -> crate::harness::Said {
        vmgate(&["--config", self.folder.path().join("vmgate.yaml").to_str().unwrap(), "recover"])
    }

    /// The site's own daemon asks on when vmgate does not.
    fn asks_on(&self) -> String {
        let asked = Command::new(self.folder.path().join("door"))
            .arg("progress")
            .stdin(std::process::Stdio::null())
            .output();
        String::from_utf8(asked.unwrap().stdout).unwrap()
    }

    /// QEMU processes of the VM on both hosts.
    fn processes(&self) -> [bool; 2] {
        ["a", "b"]
            .map(|host| on_host(host, &format!("kill -0 $(cat {}.pid)", self.qemu.socket), b"").code == 0)
    }
}

impl Drop for Door<'_> {
    fn drop(&mut self) {
        let socket = &self.qemu.socket;
        on_host(
            "b",
            &format!("kill $(cat {socket}.pid); sleep 0.5; ip link del gnt.com.0; rm -f {socket}*"),
            b"",
        );
    }
}

#[test]
#[ignore = "needs the lab: make lab-test"]
fn a_vm_without_libvirt_is_moved_by_its_managers_door_and_by_nobody_else() {
    let qemu = Qemu::of_ganeti("inst3.example.org", "idle");
    let door = Door::of(&qemu);
    let order = door.order();
    let to_libvirt: Vec<String> =
        order.iter().map(|word| word.replace("ssh://root@lab-b", "qemu+ssh://root@lab-b/system")).collect();
    vmgate(&words(&[], &to_libvirt))
        .exits(2)
        .says("write ssh://USER@HOST in place of qemu+ssh://root@lab-b/system");
    vmgate(&words(&[], &order[2..])).exits(2).says("gnt-instance migrate inst3.example.org");
    assert_eq!(door.processes(), [true, false]);

    // By a verdict that was signed before: it has the VM's UUID, and the order its monitor.
    let path = |name: &str| door.folder.path().join(name).to_str().unwrap().to_owned();
    let (key, trusted) = (path("site.key"), path("site.pem"));
    openssl(&["genpkey", "-algorithm", "ed25519", "-out", &key]);
    openssl(&["pkey", "-in", &key, "-pubout", "-out", &trusted]);
    let mut check =
        [order.clone(), vec!["--output".to_owned(), format!("json={}", path("verdict.json"))]].concat();
    "check".clone_into(&mut check[2]);
    vmgate(&words(&[], &check)).exits(0);
    let signed = vmgate(&["verdict", "sign", &path("verdict.json"), "--key", &key]).exits(0).stdout;
    fs::write(path("signed.json"), signed).unwrap();
    let saved = ["--verdict", &path("signed.json"), "--trusted-key", &trusted].map(str::to_owned).to_vec();
    vmgate(&words(&[], &[order, saved].concat())).exits(0).says("runs on lab-b and on no other host");
    assert_eq!(door.processes(), [false, true]);
}

#[test]
#[ignore = "needs the lab: make lab-test"]
fn after_a_kill_in_mid_move_recover_says_where_a_vm_without_libvirt_is() {
    let qemu = Qemu::of_ganeti("inst4.example.org", "idle");
    let door = Door::of(&qemu);
    let (_slow, any) = (SlowLink::at("60mbit"), AnyForecast::will_do());
    let order = [door.order(), vec!["--waivers".to_owned(), any.path().to_owned()]].concat();
    let mut vmgate = start_vmgate(&words(&[], &order))
        .wait_until("both hosts have it", || door.processes() == [true, true]);
    vmgate.child.kill().unwrap();
    vmgate.said();
    assert_eq!(door.processes(), [true, true]);
    door.recover().exits(31).says("is held paused by the migration").says("stays open");
    // Nobody starts a second move of it meanwhile.
    crate::harness::vmgate(&words(&[], &order)).exits(20);
    let over = std::iter::repeat_with(|| door.asks_on()).take(200).find(|state| !state.contains("running"));
    assert_eq!(over.unwrap().trim(), r#"{"state": "finished"}"#);
    door.recover().exits(0).says("the VM runs on the destination lab-b");
    assert_eq!(door.processes(), [false, true]);
}

#[test]
#[ignore = "needs the lab: make lab-test"]
fn an_abort_through_the_door_leaves_a_vm_without_libvirt_where_it_was() {
    let qemu = Qemu::of_ganeti("inst5.example.org", "idle");
    let door = Door::of(&qemu);
    let (_slow, any) = (SlowLink::at("60mbit"), AnyForecast::will_do());
    let order = [door.order(), vec!["--waivers".to_owned(), any.path().to_owned()]].concat();
    let vmgate = start_vmgate(&words(&[], &order))
        .wait_until("both hosts have it", || door.processes() == [true, true]);
    vmgate.interrupt();
    vmgate.said().exits(30).says("on request").says("still runs on lab-a");
    assert_eq!(door.processes(), [true, false]);
}
