//! Settings of libvirt's QEMU driver for incoming migrations, and the migration ports in use on this host.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};
use vmgate_facts::Unknown;

use crate::host::{procfs_error, qemu_conf::QemuConf};

/// libvirt's default range (src/qemu/qemu_conf.c).
pub(crate) const FIRST: u16 = 49152;
pub(crate) const LAST: u16 = 49215;

/// Migration settings of qemu.conf.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MigrationConfig {
    /// First port (migration_port_min).
    pub first_port: u16,
    /// Last port (migration_port_max).
    pub last_port: u16,
    /// The name or address that this host announces to sources (migration_host); none for its host name.
    pub host: Option<String>,
    /// The address that QEMU listens on (migration_address); none for all.
    pub address: Option<String>,
    /// The folder of the certificates for migrations (migrate_tls_x509_cert_dir, default_tls_x509_cert_dir).
    pub certificates: Option<String>,
}

impl Default for MigrationConfig {
    fn default() -> Self {
        Self { first_port: FIRST, last_port: LAST, host: None, address: None, certificates: None }
    }
}

/// Reads qemu.conf; settings that are absent have their default.
pub(crate) fn config() -> Result<MigrationConfig, Unknown> {
    QemuConf::read().map(|conf| in_conf(&conf))
}

pub(in crate::host) fn in_conf(conf: &QemuConf) -> MigrationConfig {
    let port = |wanted, default| conf.get(wanted).and_then(|port| port.parse().ok()).unwrap_or(default);
    MigrationConfig {
        first_port: port("migration_port_min", FIRST),
        last_port: port("migration_port_max", LAST),
        host: conf.get("migration_host"),
        address: conf.get("migration_address"),
        certificates: conf.get("migrate_tls_x509_cert_dir").or_else(|| conf.get("default_tls_x509_cert_dir")),
    }
}

/// Ports of the range that a TCP socket of this host uses, in any state.
pub(crate) fn taken(range: &RangeInclusive<u16>) -> Result<Vec<u16>, Unknown> {
    let mut sockets = procfs::net::tcp().map_err(|error| procfs_error(&error))?;
    // A kernel without IPv6 has no such file.
    sockets.extend(procfs::net::tcp6().unwrap_or_default());
    let mut ports: Vec<u16> = sockets
        .iter()
        .map(|socket| socket.local_address.port())
        .filter(|port| range.contains(port))
        .collect();
    ports.sort_unstable();
    ports.dedup();
    Ok(ports)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use crate::host::path::ports::*;

    #[test]
    fn what_is_set_counts_and_comments_do_not() {
        let text = "# migration_port_min = 1\nmigration_port_min = 50000\n\
                    migration_host = \"hv2-mig\" # the fast one\nmigration_address = \"\"\n";
        let config = in_conf(&text.into());
        assert_eq!((config.first_port, config.last_port), (50000, LAST));
        assert_eq!((config.host.as_deref(), config.address), (Some("hv2-mig"), None));
        assert_eq!(in_conf(&"".into()), MigrationConfig::default());
        assert_eq!(in_conf(&"migration_port_max = many\n".into()).last_port, LAST);
    }

    #[test]
    fn a_port_that_is_listened_on_is_taken() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_eq!(taken(&(port..=port)).unwrap(), [port]);
        drop(listener);
        assert!(taken(&(port..=port)).unwrap().is_empty());
    }
}
