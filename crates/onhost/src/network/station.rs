//! A throw-away interface at a port of a bridge. The kernel removes it with this process, however the process ends.

use std::{fs, path::Path, process::Command};

use tappers::{Interface, Tap};
use vmgate_facts::{BridgeKind, BridgePort, text::plain};

use super::frame::{EVERYBODY, Frame, Mac, Meaning};

/// Name of the interface; the kernel puts a number in.
const NAME: &str = "vmgate%d";
/// Mark of a port in the database of Open vSwitch, which keeps a port when its interface is gone.
const OVS_MARK: &str = "external_ids:vmgate=network-rehearsal";
/// Largest frame of a rehearsal, and more.
const BUFFER: usize = 256;

/// Interface with a hardware address of its own.
pub(super) struct Station {
    tap: Tap,
    mac: Mac,
    session: u64,
    /// Name of the port in the database of Open vSwitch, which is to be removed.
    ovs_port: Option<String>,
}

impl Station {
    /// Makes the interface and attaches it as libvirt would attach a VM's.
    pub(super) fn open(port: &BridgePort, mac: Mac, session: u64) -> Result<Self, String> {
        let bridge = &port.bridge;
        let why = |error: std::io::Error| format!("no interface can be made for bridge {bridge}: {error}");
        let mut tap = Interface::new(NAME).and_then(Tap::new_named).map_err(why)?;
        tap.set_nonblocking(true).map_err(why)?;
        let name = tap.name().map_err(why)?.name().to_string_lossy().into_owned();
        let mut station = Self { tap, mac, session, ovs_port: None };
        station.attach(&name, port)?;
        Ok(station)
    }

    fn attach(&mut self, name: &str, port: &BridgePort) -> Result<(), String> {
        let bridge = checked(&port.bridge)?;
        let mtu = fs::read_to_string(Path::new("/sys/class/net").join(bridge).join("mtu"));
        let mtu = mtu.map_err(|error| format!("bridge {bridge} has no MTU: {error}"))?;
        // A bridge takes the lowest address and the least MTU of its ports, unless it has its own: fe is what libvirt begins
        // the address of a tap with, and no network card.
        let [_, rest @ ..] = self.mac;
        let address = rest.iter().fold("fe".to_owned(), |address, byte| address + &format!(":{byte:02x}"));
        run("ip", &["link", "set", "dev", name, "address", &address, "mtu", mtu.trim()])?;
        match port.kind {
            BridgeKind::Linux => {
                run("ip", &["link", "set", "dev", name, "master", bridge])?;
                if let Some(vlan) = port.vlan.map(|vlan| vlan.to_string()) {
                    run("bridge", &["vlan", "add", "dev", name, "vid", &vlan, "pvid", "untagged"])?;
                    if vlan != "1" {
                        // The bridge's own VLAN, where a new port is in it.
                        let _ = run("bridge", &["vlan", "del", "dev", name, "vid", "1"]);
                    }
                }
            }
            BridgeKind::OpenVswitch => {
                clear_ovs()?;
                let tag = port.vlan.map(|vlan| format!("tag={vlan}"));
                let mut words = vec!["--timeout=10", "add-port", bridge, name];
                words.extend(tag.as_deref());
                words.extend(["--", "set", "Interface", name, OVS_MARK]);
                self.ovs_port = Some(name.to_owned());
                run("ovs-vsctl", &words)?;
            }
        }
        run("ip", &["link", "set", "dev", name, "up"])
    }

    pub(super) fn mac(&self) -> Mac {
        self.mac
    }

    pub(super) fn hello(&self) {
        self.send(EVERYBODY, Meaning::Hello);
    }

    pub(super) fn send(&self, to: Mac, meaning: Meaning) {
        let frame = Frame { to, from: self.mac, session: self.session, meaning };
        // A frame that the port does not take yet is sent again.
        let _ = self.tap.send(&frame.to_bytes());
    }

    /// Next frame of this rehearsal that has arrived here for this station.
    pub(super) fn receive(&self) -> Option<Frame> {
        let mut buffer = [0; BUFFER];
        while let Ok(length) = self.tap.recv(&mut buffer) {
            let frame = buffer.get(..length).and_then(Frame::from_bytes);
            let ours =
                |frame: &Frame| frame.session == self.session && [self.mac, EVERYBODY].contains(&frame.to);
            if let Some(frame) = frame.filter(ours) {
                return Some(frame);
            }
        }
        None
    }
}

impl Drop for Station {
    fn drop(&mut self) {
        if let Some(name) = &self.ovs_port {
            let _ = run("ovs-vsctl", &["--timeout=10", "--if-exists", "del-port", name]);
        }
    }
}

/// Removes ports from the database of Open vSwitch that an earlier rehearsal left there, because it was killed.
fn clear_ovs() -> Result<(), String> {
    let found = output(
        "ovs-vsctl",
        &[
            "--timeout=10",
            "--format=csv",
            "--data=bare",
            "--no-headings",
            "--columns=name",
            "find",
            "Interface",
            OVS_MARK,
        ],
    )?;
    let gone = |name: &&str| checked(name).is_ok() && !Path::new("/sys/class/net").join(name).exists();
    for name in found.lines().map(str::trim).filter(gone) {
        run("ovs-vsctl", &["--timeout=10", "--if-exists", "del-port", name])?;
    }
    Ok(())
}

/// A name that no program takes for an option.
fn checked(name: &str) -> Result<&str, String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "._-@".contains(c);
    let good = (1..=15).contains(&name.len()) && name.chars().all(fits) && !name.starts_with(['-', '.']);
    if good { Ok(name) } else { Err(format!("`{}` is no name of an interface", plain(name))) }
}

fn run(program: &str, words: &[&str]) -> Result<(), String> {
    output(program, words).map(drop)
}

fn output(program: &str, words: &[&str]) -> Result<String, String> {
    let done = Command::new(program).args(words).output().map_err(|error| {
        format!("{program} could not be started ({error}): install it there, and rehearse as root")
    })?;
    if done.status.success() {
        return Ok(String::from_utf8_lossy(&done.stdout).into_owned());
    }
    let said = plain(String::from_utf8_lossy(&done.stderr).trim());
    Err(format!("`{program} {}` failed: {said}", words.join(" ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_interfaces_reach_a_program() {
        for name in ["br0", "br-int", "vmbr1.42"] {
            assert_eq!(checked(name), Ok(name));
        }
        for name in ["", "-br0", "..", "br0 up", "br0;reboot", "sixteen-letters-", "br/0"] {
            assert!(checked(name).is_err(), "{name}");
        }
    }
}
