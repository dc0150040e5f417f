//! Rehearsals of a VM with UEFI, Secure Boot and a TPM, also between hosts that take VMs over TLS only.

use std::process::Command;

use crate::harness::{Said, a_to_b, lab, on_host, vmgate, words};

/// VM that is never run.
const NAME: &str = "secure-twin";
const XML: &str = "<domain type='qemu'><name>secure-twin</name>
  <uuid>5e7c9b3e-6a0e-4c2e-9a53-0d6f5a5c9d78</uuid><memory unit='MiB'>128</memory><vcpu>1</vcpu>
  <os><type arch='x86_64' machine='pc-q35-7.2'>hvm</type>
    <loader readonly='yes' secure='yes' type='pflash'>/usr/share/OVMF/OVMF_CODE_4M.secboot.fd</loader>
    <nvram template='/usr/share/OVMF/OVMF_VARS_4M.ms.fd'/></os>
  <features><acpi/><apic/><smm state='on'/></features>
  <cpu mode='custom' match='exact' check='none'><model fallback='forbid'>Nehalem</model></cpu>
  <devices><tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm>
    <interface type='bridge'><source bridge='br0'/><model type='virtio'/></interface>
    <memballoon model='virtio'/></devices></domain>";

const RESTART_LIBVIRTD: &str =
    "p=$(cat /run/libvirtd.pid); kill $p; while [ -e /proc/$p ]; do sleep 0.1; done";
/// Traces that a rehearsal could leave on a host.
const LEFT: &str = "virsh -q list --all --name; find /var/lib/libvirt/swtpm /var/lib/libvirt/qemu/nvram -mindepth 1 2>/dev/null; ls -l /dev/zero | cut -c1-30";

/// Both hosts with a change of their settings, which is taken back in the end.
struct Hosts;

impl Hosts {
    /// A TPM's socket and state are another user's: libvirt gives them to QEMU's, unless it is told not to, as the lab does.
    fn with(script: &str, input: &[u8]) -> Self {
        let hosts = Self;
        let own = "sed -i 's/^dynamic_ownership.*/dynamic_ownership = 1/' /etc/libvirt/qemu.conf";
        for host in ["a", "b"] {
            on_host(host, &format!("{own}; {script}; {RESTART_LIBVIRTD}"), input).exits(0);
        }
        lab(&["up", "a", "b"]).exits(0);
        on_host("a", "cat >/tmp/secure.xml; virsh -q create /tmp/secure.xml --paused", XML.as_bytes())
            .exits(0);
        hosts
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        let undo = "virsh -q destroy secure-twin; rm -rf /etc/pki/qemu; \
                    sed -i '/^migrate_tls_force/d; s/^dynamic_ownership.*/dynamic_ownership = 0/' /etc/libvirt/qemu.conf";
        for host in ["a", "b"] {
            on_host(host, &format!("{undo}; {RESTART_LIBVIRTD}"), b"");
        }
        lab(&["up", "a", "b"]);
    }
}

fn left() -> [String; 2] {
    ["a", "b"].map(|host| on_host(host, LEFT, b"").stdout)
}

fn rehearse() -> Said {
    vmgate(&words(&["rehearse", NAME], &a_to_b()[..6]))
}

#[test]
#[ignore = "needs the lab: make lab-test"]
fn a_vm_with_secure_boot_and_a_tpm_is_rehearsed_and_leaves_no_state() {
    let _hosts = Hosts::with("true", b"");
    let before = left();
    let said = rehearse().exits(0).says("and back in").says("not rehearsed: UEFI's variables (nvram)");
    println!("{}", said.stdout);
    assert_eq!(left(), before);
}

#[test]
#[ignore = "needs the lab: make lab-test"]
fn a_twin_goes_by_tls_where_the_hosts_take_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let made = Command::new("sh").args(["-ec", CERTIFICATES]).current_dir(folder.path()).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let put = "mkdir -p /etc/pki/qemu && cd /etc/pki/qemu && tar x && chown -R libvirt-qemu . && chmod 755 /etc/pki . && \
               echo 'migrate_tls_force = 1' >>/etc/libvirt/qemu.conf";
    let _hosts = Hosts::with(put, &made.stdout);
    let plain = "virsh migrate --live secure-twin qemu+tcp://lab-b/system";
    let refused = on_host("a", plain, b"");
    assert!(refused.stderr.contains("TLS"), "a move without TLS is refused: {}", refused.stderr);
    let before = left();
    rehearse().exits(0).says("and back in");
    assert_eq!(left(), before);
}

/// One certificate for both hosts, as the files that QEMU reads.
const CERTIFICATES: &str = "
key='-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes'
openssl req -x509 $key -keyout ca-key.pem -out ca-cert.pem -subj /CN=lab -days 9
openssl req $key -keyout server-key.pem -out request.pem -subj /CN=lab-a
echo 'subjectAltName=DNS:lab-a,DNS:lab-b,IP:10.77.1.1,IP:10.77.1.2' >extensions
openssl x509 -req -in request.pem -CA ca-cert.pem -CAkey ca-key.pem -CAcreateserial -days 9 -extfile extensions -out server-cert.pem
cp server-key.pem client-key.pem; cp server-cert.pem client-cert.pem
tar c ca-cert.pem server-key.pem server-cert.pem client-key.pem client-cert.pem";
