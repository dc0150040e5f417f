//! Network interfaces of the host: addresses by netlink, everything else from /sys/class/net.

use std::{fs, path::Path};

use vmgate_facts::{Cause, Fact, Nic, NicKind, Unknown, text::plain};

use crate::{
    host::{bond, not_read},
    netlink::{self, Interface},
};

const CLASS_NET: &str = "/sys/class/net";
/// Bytes per second in one Mbit/s.
const MBIT: u64 = 125_000;
/// Nominal speed that the kernel gives every veth (drivers/net/veth.c).
const VETH_MBIT: i64 = 10_000;

/// Every interface, by name.
pub(super) fn look() -> Result<Vec<Nic>, Unknown> {
    let entries = fs::read_dir(CLASS_NET).map_err(|error| not_read(CLASS_NET, &error))?;
    let interfaces =
        netlink::interfaces().map_err(|error| not_read("the list of network interfaces", &error))?;
    let mut nics: Vec<Nic> = entries
        .flatten()
        // The folder also holds files such as bonding_masters.
        .filter(|entry| entry.path().join("ifindex").exists())
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            Some(nic(&entry.path(), &name, &interfaces))
        })
        .collect();
    nics.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(nics)
}

fn nic(folder: &Path, name: &str, interfaces: &[Interface]) -> Nic {
    let interface = interfaces.iter().find(|given| given.name == name);
    let addresses = interface.map(|interface| interface.addresses.as_slice()).unwrap_or_default();
    let kind = kind(folder);
    Nic {
        name: plain(name),
        kind,
        duplex: attribute(folder, "duplex").and_then(|word| bond::duplex(&word)),
        vlan_id: (kind == NicKind::Vlan).then(|| vlan_id(name)).flatten(),
        bond: (kind == NicKind::Bond).then(|| bond::look(name)).flatten(),
        drops: counted(folder, &["rx_dropped", "tx_dropped"]),
        up: interface.is_some_and(|interface| interface.up && interface.running),
        speed_bytes_per_second: speed(folder),
        mtu_bytes: attribute(folder, "mtu").and_then(|mtu| mtu.parse().ok()).unwrap_or(0),
        master: fs::read_link(folder.join("master")).ok().and_then(|link| last_name(&link)),
        lower: lower(folder),
        addresses: addresses.iter().map(|(address, prefix)| format!("{address}/{prefix}")).collect(),
        errors: ["rx_errors", "tx_errors", "rx_missed_errors"]
            .iter()
            .filter_map(|counter| attribute(&folder.join("statistics"), counter)?.parse::<u64>().ok())
            .sum(),
    }
}

/// The sum of counters; unknown if the driver lacks one of them.
fn counted(folder: &Path, counters: &[&str]) -> Fact<u64> {
    let statistics = folder.join("statistics");
    let numbers = counters.iter().map(|counter| attribute(&statistics, counter)?.parse::<u64>().ok());
    match numbers.sum::<Option<u64>>() {
        Some(sum) => Fact::Known(sum),
        None => Fact::unknown(Cause::NotSupported, "the interface does not count dropped packets"),
    }
}

/// The id of a VLAN, from the table of the 8021q module: name, id and lower interface, separated by bars.
fn vlan_id(name: &str) -> Option<u16> {
    vlan_in(&fs::read_to_string("/proc/net/vlan/config").ok()?, name)
}

fn vlan_in(table: &str, name: &str) -> Option<u16> {
    let mut rows = table.lines().map(|line| line.split('|').map(str::trim));
    rows.find_map(|mut row| (row.next() == Some(name)).then(|| row.next()?.parse().ok())?)
}

/// Kind of an interface, from its sysfs folder. A veth has no mark of its own: as one of a pair it links to another
/// interface that is not its lower one, or it has the speed that only veths have.
fn kind(folder: &Path) -> NicKind {
    let devtype = attribute(folder, "uevent").unwrap_or_default();
    let devtype = devtype.split_whitespace().find_map(|line| line.strip_prefix("DEVTYPE="));
    let has = |name: &str| folder.join(name).exists();
    let differs = || attribute(folder, "iflink") != attribute(folder, "ifindex");
    match devtype {
        Some("bridge") => NicKind::Bridge,
        Some("bond" | "team") => NicKind::Bond,
        Some("vlan") => NicKind::Vlan,
        _ if has("bridge") => NicKind::Bridge,
        _ if has("bonding") => NicKind::Bond,
        _ if has("tun_flags") => NicKind::Tap,
        // ARPHRD_LOOPBACK in linux/if_arp.h.
        _ if attribute(folder, "type").as_deref() == Some("772") => NicKind::Loopback,
        _ if has("device") => NicKind::Physical,
        _ if lower(folder).is_empty() && (differs() || megabits(folder) == Some(VETH_MBIT)) => NicKind::Veth,
        _ => NicKind::Virtual,
    }
}

/// Nominal speed in bytes per second; the kernel reports an error or -1 if there is none.
fn speed(folder: &Path) -> Option<u64> {
    u64::try_from(megabits(folder)?).ok().filter(|&megabits| megabits > 0)?.checked_mul(MBIT)
}

fn megabits(folder: &Path) -> Option<i64> {
    attribute(folder, "speed")?.parse().ok()
}

/// Interfaces below a bond, VLAN or bridge.
fn lower(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some(plain(entry.file_name().to_str()?.strip_prefix("lower_")?)))
        .collect();
    names.sort();
    names
}

fn attribute(folder: &Path, name: &str) -> Option<String> {
    fs::read_to_string(folder.join(name)).ok().map(|text| text.trim().to_owned())
}

fn last_name(link: &Path) -> Option<String> {
    link.file_name()?.to_str().map(plain)
}

#[cfg(test)]
mod tests {
    use crate::host::nic::*;

    /// A folder in the form of /sys/class/net.
    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        folder
    }

    #[test]
    fn kinds_are_told_by_what_the_kernel_shows() {
        let is = |files: &[(&str, &str)]| kind(folder(files).path());
        assert_eq!(is(&[("uevent", "DEVTYPE=bridge\nINTERFACE=br0\n")]), NicKind::Bridge);
        assert_eq!(is(&[("uevent", "DEVTYPE=vlan\n"), ("lower_eth0", "")]), NicKind::Vlan);
        assert_eq!(is(&[("bonding/mode", "x")]), NicKind::Bond);
        assert_eq!(is(&[("tun_flags", "0x1002"), ("iflink", "5"), ("ifindex", "5")]), NicKind::Tap);
        assert_eq!(is(&[("type", "772\n")]), NicKind::Loopback);
        assert_eq!(is(&[("device/vendor", "0x8086")]), NicKind::Physical);
        assert_eq!(is(&[("iflink", "9"), ("ifindex", "5")]), NicKind::Veth);
        assert_eq!(
            is(&[("iflink", "2"), ("ifindex", "2"), ("speed", "10000")]),
            NicKind::Veth,
            "peer elsewhere"
        );
        assert_eq!(is(&[("iflink", "9"), ("ifindex", "5"), ("lower_eth0", "")]), NicKind::Virtual, "macvlan");
        assert_eq!(is(&[("iflink", "3"), ("ifindex", "3")]), NicKind::Virtual, "dummy");
    }

    #[test]
    fn a_vlan_has_the_number_that_the_table_says() {
        let table = "VLAN Dev name\t | VLAN ID\nName-Type: VLAN_NAME_TYPE_RAW_PLUS_VID_NO_PAD\n\
                     bond0.110      | 110  | bond0\nbond0.11       | 11  | bond0\n";
        assert_eq!(vlan_in(table, "bond0.11"), Some(11));
        assert_eq!(vlan_in(table, "bond0.110"), Some(110));
        assert_eq!(vlan_in(table, "bond0"), None);
    }

    #[test]
    fn a_nic_carries_what_was_counted() {
        let folder = folder(&[
            ("speed", "25000"),
            ("mtu", "9000"),
            ("statistics/rx_errors", "2"),
            ("statistics/tx_errors", "3"),
            ("lower_eth3", ""),
            ("lower_eth2", ""),
        ]);
        let nic = nic(folder.path(), "bond0", &[]);
        assert_eq!(nic.speed_bytes_per_second, Some(3_125_000_000));
        assert_eq!((nic.mtu_bytes, nic.errors, nic.up), (9000, 5, false));
        assert_eq!(nic.lower, ["eth2", "eth3"]);
        assert_eq!(speed(folder_with_speed("-1").path()), None);
    }

    fn folder_with_speed(speed: &str) -> tempfile::TempDir {
        folder(&[("speed", speed)])
    }
}
