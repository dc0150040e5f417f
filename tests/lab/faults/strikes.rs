//! Faults of processes, links, disks and memory of the hosts, and their repair.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use super::bench::{Bench, NAME, PATIENCE, Side};
use crate::harness::{lab, on_host, vmgate};

/// Folders of a host with the definitions of its VMs, and with the files that QEMU needs to start.
pub(super) const DEFINITIONS: &str = "/etc/libvirt/qemu";
pub(super) const STARTING: &str = "/var/lib/libvirt/qemu";

impl Bench {
    pub(super) fn kill_vmgate(&mut self) {
        self.signal_vmgate(libc::SIGKILL);
    }

    pub(super) fn signal_vmgate(&mut self, signal: i32) {
        let pid = libc::pid_t::try_from(self.child.as_ref().unwrap().child.id()).unwrap();
        // SAFETY: kill(2) takes no pointers, and the child has not been waited for, so the pid is its own.
        assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
    }

    pub(super) fn signal_daemon(&mut self, side: Side, signal: &str) {
        let command = format!("kill -{signal} $(cat /run/libvirtd.pid)");
        lab(&["host", self.host(side), "sh", "-c", &command]).exits(0);
    }

    pub(super) fn stop_daemon(&mut self, side: Side, seconds: u64) {
        self.signal_daemon(side, "STOP");
        thread::sleep(Duration::from_secs(seconds));
        self.signal_daemon(side, "CONT");
    }

    pub(super) fn kill_qemu(&mut self, side: Side) {
        let command = format!("kill -9 $(cat /run/libvirt/qemu/{NAME}.pid)");
        lab(&["host", self.host(side), "sh", "-c", &command]).exits(0);
    }

    /// Cuts the migration link, or repairs it.
    pub(super) fn link(&mut self, up: bool) {
        let state = if up { "up" } else { "down" };
        lab(&["host", "a", "ip", "link", "set", "mig0", state]).exits(0);
    }

    pub(super) fn cut_management(&mut self, seconds: u64) {
        for state in ["down", "up"] {
            for host in ["a", "b"] {
                lab(&["run", "ip", "link", "set", &format!("mgmt-{host}"), state]).exits(0);
            }
            if state == "down" {
                thread::sleep(Duration::from_secs(seconds));
            }
        }
    }

    /// A second vmgate on the same VM must be refused, and must not disturb the first.
    pub(super) fn second_vmgate_is_refused(&mut self) {
        let change = self.folder.path().join("change.yaml").display().to_string();
        let ledger = self.ledger.display().to_string();
        let said = vmgate(&["migrate", "--change", &change, "--ledger", &ledger, "--timeout", "90"]);
        // By the ledger while the first has not begun to migrate; after that also by a rule.
        let refused =
            ["is being moved already", "not migrated"].iter().any(|text| said.stderr.contains(text));
        if said.code != 20 || !refused {
            self.failed_inside = Some(format!("the second vmgate ended with {}: {}", said.code, said.stderr));
        }
    }

    pub(super) fn fill_disk(&mut self) {
        let file = self.folder.path().join("disk/full");
        let mut text = Vec::new();
        // As much as there is, and not a byte less.
        while fs::write(&file, &text).is_ok() {
            text.resize(text.len() + 4096, 1_u8);
            if text.len() > 4 << 20 {
                break;
            }
        }
    }

    pub(super) fn free_disk(&mut self) {
        let _ = fs::remove_file(self.folder.path().join("disk/full"));
    }

    /// Fills the disk with this folder of a host.
    pub(super) fn fill_host_disk(&mut self, side: Side, folder: &str) {
        let script = format!(
            "mount -t tmpfs -o size=64k,mode=755 tmpfs {folder} && cat /dev/zero >{folder}/full 2>/dev/null; mountpoint -q {folder}"
        );
        on_host(self.host(side), &script, b"").exits(0);
    }

    /// Frees the disks of both hosts: by now the guest may be on either.
    pub(super) fn free_host_disks(&mut self) {
        for host in ["a", "b"] {
            let script = format!(
                "for folder in {DEFINITIONS} {STARTING}; do ! mountpoint -q $folder || umount -l $folder; done"
            );
            on_host(host, &script, b"").exits(0);
        }
    }

    /// Limits the memory of all processes that libvirtd starts from now on; the kernel kills those that exceed the limit.
    pub(super) fn take_memory(&mut self, side: Side, mebibytes: u32) {
        let script = format!(
            "set -e; mkdir -p /tmp/memory; mount -t cgroup -o memory cgroup /tmp/memory
            pid=$(cat /run/libvirtd.pid); sed -n 's/.*:memory://p' /proc/$pid/cgroup >/tmp/memory.was
            group=/tmp/memory/vmgate-lab-$(readlink /proc/1/ns/mnt | tr -dc 0-9); mkdir $group
            echo {mebibytes}M >$group/memory.limit_in_bytes; echo $pid >$group/cgroup.procs"
        );
        on_host(self.host(side), &script, b"").exits(0);
    }

    pub(super) fn give_memory(&mut self) {
        let script = "mountpoint -q /tmp/memory || exit 0; was=/tmp/memory$(cat /tmp/memory.was)
            group=/tmp/memory/vmgate-lab-$(readlink /proc/1/ns/mnt | tr -dc 0-9)
            for pid in $(cat $group/cgroup.procs); do echo $pid >$was/cgroup.procs; done
            sleep 1; rmdir $group; umount /tmp/memory";
        for host in ["a", "b"] {
            on_host(host, script, b"").exits(0);
        }
    }

    /// Stops the guest's agent from reading for this time.
    pub(super) fn deafen(&mut self, seconds: u64) {
        let script = format!(
            "setsid sh -c 'sleep 1; kill -STOP $(pidof qemu-ga); sleep {seconds}; kill -CONT $(pidof qemu-ga)' >/dev/null 2>&1 &"
        );
        Self::in_guest(&script).exits(0);
        thread::sleep(Duration::from_secs(2));
    }

    pub(super) fn wait_for_agent(&mut self) {
        let start = Instant::now();
        while Self::in_guest("true").code != 0 && start.elapsed() < PATIENCE {
            thread::sleep(Duration::from_secs(2));
        }
    }
}
