//! `vmgate audit` through the real binary, on libvirt's mock driver: 100 VMs on one host, two possible destinations.

#![cfg(feature = "libvirt")]
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

use std::{
    fmt::Write as _,
    fs,
    path::Path,
    process::{Command, Output},
    time::{Duration, Instant},
};

const VMS: usize = 100;

/// Writes a file that libvirt's mock driver reads as a host with this many VMs; returns its URI.
fn host(folder: &Path, name: &str, vms: usize) -> String {
    let mut node = String::from("<node>");
    for n in 0..vms {
        write!(
            node,
            "<domain type='test'><name>{name}{n:03}</name><memory unit='MiB'>1024</memory><vcpu>2</vcpu>\
             <os><type arch='x86_64' machine='pc-q35-7.2'>hvm</type></os><devices>\
             <disk type='file' device='disk'><driver name='qemu' cache='none'/><source file='/srv/{name}{n}.img'/>\
             <target dev='vda' bus='virtio'/></disk><shmem name='s'><size unit='M'>1</size></shmem></devices></domain>"
        )
        .unwrap();
    }
    node.push_str("</node>");
    let file = folder.join(format!("{name}.xml"));
    fs::write(&file, node).unwrap();
    format!("test://{}", file.display())
}

fn audit(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_vmgate"))
        .arg("audit")
        .args(arguments)
        .env("NO_COLOR", "1")
        .output()
        .unwrap()
}

#[test]
fn every_vm_of_a_host_is_told_with_the_reason_that_keeps_it() {
    let folder = tempfile::tempdir().unwrap();
    let (full, other) = (host(folder.path(), "a", VMS), host(folder.path(), "b", 0));
    let said = audit(&[&full, &other, "--output", "json"]);
    assert_eq!(said.status.code(), Some(20), "{}", String::from_utf8_lossy(&said.stderr));
    let document: serde_json::Value = serde_json::from_slice(&said.stdout).unwrap();
    let vms = document["vms"].as_array().unwrap();
    assert_eq!(vms.len(), VMS);
    for vm in vms {
        let destination = &vm["destinations"][0];
        assert_eq!(destination["answer"], "no", "{vm:#}");
        let rules: Vec<_> =
            destination["because"].as_array().unwrap().iter().map(|why| &why["rule"]).collect();
        assert_eq!(rules, ["devices-migratable"], "{vm:#}");
    }
    let table = audit(&[&full, &other]);
    let table = String::from_utf8_lossy(&table.stdout);
    assert!(table.contains("100 VMs"), "VMs of which the same is said share a row:\n{table}");
}

#[test]
fn a_host_that_is_no_host_is_a_mistake_with_a_way_out() {
    let said = audit(&["qemu+ssh:/hv9"]);
    assert_eq!(said.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&said.stderr).contains("qemu+ssh://"));
}

#[test]
#[ignore = "a measurement: run it on a quiet machine"]
fn a_hundred_vms_are_audited_in_less_than_five_seconds() {
    let folder = tempfile::tempdir().unwrap();
    let (full, other) = (host(folder.path(), "a", VMS), host(folder.path(), "b", 0));
    let begin = Instant::now();
    audit(&[&full, &other]);
    let took = begin.elapsed();
    println!("{VMS} VMs: {took:?}");
    assert!(took < Duration::from_secs(5), "{took:?}");
}
