//! Switch ports that this host has heard of by LLDP, from lldpd (`lldpcli`), else from systemd-networkd.
//!
//! A host without either knows no switch: nothing follows from what is not listed.

use std::{
    fs, io,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use serde_json::Value;
use vmgate_facts::{SwitchPort, text::plain};
use vmgate_process::run;

use crate::{
    flows::{lldp, octets::Octets},
    netlink::interfaces,
};

/// Neighbours of each interface: frames as they came, each behind its length in eight octets (sd-network's link_lldp_save).
const NETWORKD: &str = "/run/systemd/netif/lldp";

/// Longest wait for lldpd, and most bytes of its answer.
const LIMIT: Duration = Duration::from_secs(2);
const ANSWER: usize = 1 << 20;
/// Most bytes of a file of networkd.
const MOST: usize = 1 << 16;

const ETHERNET_HEADER: usize = 14;
const VLAN_NAME: [u8; 4] = [0x00, 0x80, 0xc2, 3];

/// All switch ports that the host knows.
pub(super) fn switch_ports() -> Vec<SwitchPort> {
    let mut command = Command::new("lldpcli");
    command.args(["-f", "json0", "show", "neighbors", "details"]).stdin(Stdio::null());
    match run(command, io::empty(), LIMIT, ANSWER) {
        Ok(output) => of_lldpd(&output.stdout),
        Err(_) => of_networkd(Path::new(NETWORKD)),
    }
}

/// The neighbours in the answer of lldpcli, in which every element is a list.
fn of_lldpd(answer: &[u8]) -> Vec<SwitchPort> {
    let answer: Value = serde_json::from_slice(answer).unwrap_or_default();
    list(&answer, "lldp").flat_map(|lldp| list(lldp, "interface")).filter_map(neighbour_of_lldpd).collect()
}

fn list<'a>(of: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> {
    of.get(name).and_then(Value::as_array).into_iter().flatten()
}

fn neighbour_of_lldpd(neighbour: &Value) -> Option<SwitchPort> {
    let chassis = list(neighbour, "chassis").next()?;
    let port = list(neighbour, "port").next()?;
    let element = |of: &Value, name: &str| list(of, name).next().cloned().unwrap_or_default();
    let value = |element: &Value| element.get("value").and_then(Value::as_str).map(plain);
    let id = element(port, "id");
    let is_address = id.get("type").is_some_and(|kind| kind == "mac");
    let vlan = |vlan: &Value| vlan.get("value").and(vlan.get("vlan-id")?.as_str()?.parse().ok());
    Some(SwitchPort {
        nic: plain(neighbour.get("name")?.as_str()?),
        switch: value(&element(chassis, "name")).or_else(|| value(&element(chassis, "id")))?,
        port: named(is_address, value(&id), value(&element(port, "descr")))?,
        vlans: list(neighbour, "vlan").filter_map(vlan).collect(),
    })
}

/// Name of a port: its id, unless that is an address and a description is there.
fn named(id_is_address: bool, id: Option<String>, description: Option<String>) -> Option<String> {
    if id_is_address { description.or(id) } else { id.or(description) }
}

fn of_networkd(folder: &Path) -> Vec<SwitchPort> {
    if !folder.is_dir() {
        return Vec::new();
    }
    let ports = interfaces().unwrap_or_default().into_iter().flat_map(|interface| {
        let saved = fs::read(folder.join(interface.index.to_string())).unwrap_or_default();
        saved_neighbours(&interface.name, saved.get(..MOST).unwrap_or(&saved))
    });
    ports.collect()
}

fn saved_neighbours(nic: &str, mut saved: &[u8]) -> Vec<SwitchPort> {
    let mut found = Vec::new();
    while let Some((length, rest)) = saved.split_first_chunk() {
        let length = usize::try_from(u64::from_le_bytes(*length)).unwrap_or(usize::MAX);
        let Some((frame, rest)) = rest.split_at_checked(length) else { break };
        found.extend(neighbour_of_frame(nic, frame));
        saved = rest;
    }
    found
}

fn neighbour_of_frame(nic: &str, frame: &[u8]) -> Option<SwitchPort> {
    let elements: Vec<_> = lldp::elements(Octets(frame).from(ETHERNET_HEADER)?).collect();
    let first = |kind| elements.iter().find(|(of, _)| *of == kind).map(|(_, value)| *value);
    let text = |value: Octets<'_>| plain(&String::from_utf8_lossy(value.0));
    // An id of subtype `address` is six octets, others are taken for text.
    let id = |value: Octets<'_>, address: u8| {
        let octets = value.from(1)?;
        let hex = |octets: [u8; 6]| octets.map(|octet| format!("{octet:02x}")).join(":");
        Some(if value.u8(0)? == address { hex(octets.array(0)?) } else { text(octets) })
    };
    let (chassis, port) = (first(lldp::CHASSIS)?, first(lldp::PORT)?);
    let vlans = elements.iter().filter_map(|(kind, value)| {
        (*kind == lldp::ORGANISATION && value.begins_with(&VLAN_NAME)).then(|| value.u16(4)).flatten()
    });
    Some(SwitchPort {
        nic: plain(nic),
        switch: first(lldp::SYSTEM_NAME).map(text).or_else(|| id(chassis, 4))?,
        port: named(port.u8(0) == Some(3), id(port, 3), first(lldp::PORT_DESCRIPTION).map(text))?,
        vlans: vlans.map(u32::from).collect(),
    })
}

#[cfg(feature = "fuzzing")]
pub(super) fn fuzz(bytes: &[u8]) {
    let _ = (of_lldpd(bytes), saved_neighbours("eth0", bytes));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(nic: &str) -> SwitchPort {
        SwitchPort { nic: nic.into(), switch: "sw2".into(), port: "e1".into(), vlans: vec![42, 7] }
    }

    /// Of lldpd 1.0.16, shortened.
    #[test]
    fn lldpd_tells_switch_port_and_vlans() {
        let answer = br#"{"lldp": [{"interface": [{"name": "e0", "via": "LLDP", "rid": "1",
            "chassis": [{"id": [{"type": "mac", "value": "da:d8:0d:2a:06:1c"}], "name": [{"value": "sw2"}]}],
            "port": [{"id": [{"type": "mac", "value": "da:d8:0d:2a:06:1c"}], "descr": [{"value": "e1"}]}],
            "vlan": [{"vlan-id": "42", "pvid": false, "value": "vlan42"}, {"vlan-id": "7", "pvid": false, "value": "vlan7"},
                     {"vlan-id": "1", "pvid": true}]}]}]}"#;
        assert_eq!(of_lldpd(answer), [port("e0")]);
        for (nobody, answer) in [&b"{}"[..], b"", b"[1]", br#"{"lldp": [{}]}"#].into_iter().enumerate() {
            assert_eq!(of_lldpd(answer), [], "{nobody}");
        }
    }

    #[test]
    fn networkd_saves_the_frames_that_it_heard() {
        // The frame of the same lldpd.
        let frame = "0180c200000e5a63e1120de188cc0207045a63e1120de10407035a63e1120de1060200040a037377320c037377320e04009c0080\
                     101811 02fe80000000000000 5863e1fffe120de1020000000200 08026531fe0900120f030100000000fe0900120f01008000\
                     0036fe060080c2010001fe0d0080c203002a06766c616e3432fe0c0080c203000705766c616e370000";
        let digits: Vec<char> = frame.chars().filter(char::is_ascii_hexdigit).collect();
        let octet = |pair: &[char]| u8::from_str_radix(&pair.iter().collect::<String>(), 16).unwrap();
        let frame: Vec<u8> = digits.chunks(2).map(octet).collect();
        let one = [&u64::try_from(frame.len()).unwrap().to_le_bytes()[..], &frame].concat();
        let saved = [one.clone(), one].concat();
        assert_eq!(saved_neighbours("eth0", &saved), [port("eth0"), port("eth0")]);
        for cut in 0..saved.len() {
            assert!(saved_neighbours("eth0", &saved[..cut]).len() < 2);
        }
    }
}
