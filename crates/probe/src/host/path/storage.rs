//! Remote storage that this host uses, with the interface that leads to it: NFS, CIFS, Ceph and Gluster mounts, and
//! iSCSI sessions.

use std::{
    collections::BTreeSet,
    fs,
    net::{IpAddr, SocketAddr},
    path::Path,
};

use procfs::MountEntry;
use serde::{Deserialize, Serialize};
use vmgate_facts::{Unknown, text::plain};

use crate::host::{path::route, procfs_error};

const ISCSI: &str = "/sys/class/iscsi_connection";
/// Most addresses whose route is queried.
const MOST_ADDRESSES: usize = 256;

/// One address of remote storage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteStorage {
    /// Kind and name, such as `nfs 10.77.1.9:/images`.
    pub what: String,
    /// Its address.
    pub address: IpAddr,
    /// The interface of the route to it.
    pub nic: String,
}

/// Every address of remote storage, each with its interface. An address without a route is left out.
pub(crate) fn look() -> Result<Vec<RemoteStorage>, Unknown> {
    let mounts = procfs::mounts().map_err(|error| procfs_error(&error))?;
    let mut found: BTreeSet<(String, IpAddr)> = BTreeSet::new();
    for mount in &mounts {
        for address in addresses(mount) {
            found.insert((format!("{} {}", mount.fs_vfstype, plain(&mount.fs_spec)), address));
        }
    }
    for (target, address) in iscsi(Path::new(ISCSI)) {
        found.insert((format!("iscsi {target}"), address));
    }
    let with_way = found.into_iter().take(MOST_ADDRESSES).filter_map(|(what, address)| {
        let nic = route::to(address).ok()?.route.nic;
        Some(RemoteStorage { what, address, nic })
    });
    Ok(with_way.collect())
}

/// Server addresses of a mount: NFS and CIFS name them in an option (`addr=`), Ceph and Gluster in the source.
fn addresses(mount: &MountEntry) -> Vec<IpAddr> {
    match mount.fs_vfstype.as_str() {
        "nfs" | "nfs4" | "cifs" | "smb3" => {
            let address = mount.fs_mntops.get("addr").cloned().flatten();
            address.and_then(|text| text.parse().ok()).into_iter().collect()
        }
        "ceph" => {
            // Old: `10.0.0.1:6789,10.0.0.2:6789:/path`; new: `user@fsid.name=/path` with the option mon_addr=A/B.
            let monitors = mount.fs_mntops.get("mon_addr").cloned().flatten();
            let source = mount.fs_spec.split_once(":/").map_or("", |(monitors, _)| monitors).to_owned();
            let list = monitors.unwrap_or(source);
            list.split([',', '/']).filter_map(with_port).collect()
        }
        "fuse.glusterfs" => {
            let server = mount.fs_spec.split_once(':').map_or("", |(server, _)| server);
            with_port(server).into_iter().collect()
        }
        _ => Vec::new(),
    }
}

/// An address with or without a port.
fn with_port(text: &str) -> Option<IpAddr> {
    let bare = || text.trim_start_matches('[').trim_end_matches(']').parse().ok();
    text.parse::<SocketAddr>().map(|socket| socket.ip()).ok().or_else(bare)
}

/// Addresses of iSCSI sessions, by connection.
fn iscsi(folder: &Path) -> Vec<(String, IpAddr)> {
    let connections = fs::read_dir(folder).into_iter().flatten().flatten();
    let found = connections.filter_map(|entry| {
        let address = fs::read_to_string(entry.path().join("address")).ok()?.trim().parse().ok()?;
        Some((plain(entry.file_name().to_str()?), address))
    });
    found.collect()
}

#[cfg(test)]
mod tests {
    use crate::host::path::storage::*;

    fn mount(kind: &str, source: &str, options: &str) -> MountEntry {
        let options = options.split(',').filter(|option| !option.is_empty());
        MountEntry {
            fs_spec: source.into(),
            fs_file: "/mnt".into(),
            fs_vfstype: kind.into(),
            fs_mntops: options
                .map(|option| match option.split_once('=') {
                    Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                    None => (option.to_owned(), None),
                })
                .collect(),
            fs_freq: 0,
            fs_passno: 0,
        }
    }

    #[test]
    fn servers_are_found_where_each_file_system_names_them() {
        let of = |kind, source, options| {
            let found = addresses(&mount(kind, source, options));
            found.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(of("nfs4", "nas:/images", "rw,vers=4.2,addr=10.77.1.9"), ["10.77.1.9"]);
        assert_eq!(of("nfs4", "[fd00::9]:/i", "rw,addr=fd00::9"), ["fd00::9"]);
        assert_eq!(of("ceph", "10.0.0.1:6789,10.0.0.2:6789:/vms", "rw"), ["10.0.0.1", "10.0.0.2"]);
        assert_eq!(of("ceph", "[fd00::1]:6789:/", ""), ["fd00::1"]);
        assert_eq!(of("ceph", "a@1.fs=/", "mon_addr=10.0.0.3:3300/10.0.0.4:3300"), ["10.0.0.3", "10.0.0.4"]);
        assert_eq!(of("fuse.glusterfs", "10.0.0.7:/gv0", ""), ["10.0.0.7"]);
        assert!(of("ext4", "/dev/vda1", "addr=10.0.0.9").is_empty());
    }

    #[test]
    fn iscsi_sessions_are_those_of_sysfs() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("connection1:0")).unwrap();
        fs::write(folder.path().join("connection1:0/address"), "10.77.1.8\n").unwrap();
        fs::create_dir(folder.path().join("connection2:0")).unwrap();
        assert_eq!(iscsi(folder.path()), [("connection1:0".to_owned(), "10.77.1.8".parse().unwrap())]);
        assert!(iscsi(Path::new("/no/such/folder")).is_empty());
    }
}
