//! Speed of reading large domains, and of judging VMs with thousands of devices, between two ideal hosts.
//!
//! `cargo bench --bench domain`. libvirt carries at most 4 MiB of XML; a longer domain is refused by its size.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_precision_loss,
    missing_docs,
    reason = "a benchmark that cannot begin should stop"
)]

#[path = "../tests/corpus/ideal.rs"]
mod ideal;

use std::{
    fmt::Write as _,
    time::{Duration, Instant},
};

use vmgate_forecast::derive;
use vmgate_libvirt::domain_xml;
use vmgate_rules::{Pack, ParamOverrides, RuleSource, catalogue::Catalogues};
use vmgate_verdict::Status;

/// Bytes of the longest domain that libvirt carries.
const LONGEST: usize = 4 << 20;

fn domain_with(devices: usize) -> String {
    let mut xml = "<domain type='kvm'><name>many</name><memory unit='GiB'>4</memory><vcpu>4</vcpu>
        <os><type arch='x86_64' machine='pc-q35-10.0'>hvm</type></os><devices>"
        .to_owned();
    for at in 0..devices {
        let _ = write!(
            xml,
            "<disk type='file' device='disk'><driver name='qemu' type='qcow2' cache='none'/><source file='/srv/{at}.qcow2'/>
            <target dev='vd{at}' bus='virtio'/></disk>
            <interface type='bridge'><mac address='52:54:00:00:{:02x}:{:02x}'/><source bridge='br{at}'/><model type='virtio'/></interface>",
            at / 256 % 256,
            at % 256
        );
    }
    xml + "</devices></domain>"
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let done = work();
    (done, start.elapsed())
}

fn main() {
    let pack = Pack::load(&[RuleSource::Builtin]).unwrap();
    let pack = pack.with_parameters(Some("standard"), &ParamOverrides::new()).unwrap();
    let catalogues = Catalogues::shipped().unwrap();
    println!(
        "{:>9} {:>9} {:>11} {:>11} {:>9} {:>9}",
        "devices", "MB", "read ms", "judge ms", "outcomes", "unknown"
    );
    for devices in [20, 200, 2_000, 20_000] {
        let xml = domain_with(devices / 2);
        let (config, reading) = timed(|| domain_xml::parse(&xml).unwrap());
        let facts = ideal::facts_of(&config);
        let now = facts.collected_at;
        let (outcomes, judging) = timed(|| {
            let (facts, forecast) = derive(facts, &catalogues);
            pack.evaluate(&facts, &forecast, now)
        });
        let unknown = outcomes.iter().filter(|outcome| outcome.status == Status::Unknown).count();
        println!(
            "{devices:>9} {:>9.2} {:>11.2} {:>11.1} {:>9} {unknown:>9}",
            xml.len() as f64 / 1e6,
            reading.as_secs_f64() * 1e3,
            judging.as_secs_f64() * 1e3,
            outcomes.len()
        );
    }
    let long = format!("<domain><description>{}</description></domain>", "x".repeat(10 << 20));
    let (refused, reading) = timed(|| domain_xml::parse(&long).is_err());
    assert!(refused && long.len() > LONGEST);
    println!(
        "a domain of {:.1} MB is refused in {:.3} ms",
        long.len() as f64 / 1e6,
        reading.as_secs_f64() * 1e3
    );
}
