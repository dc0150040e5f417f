//! Safe client of libvirt in which every call ends, and the XML of libvirt.
//!
//! Every call runs under a time limit, nothing ever prompts, and the traps of the `virt` crate (statistics that
//! leak or abort, states that swallow errors) are stepped around with libvirt's C functions. Nothing here changes
//! a VM but [`Domain::dirty_rate`], which measures; [`raw`] is the door for the executor. The only crate that links
//! libvirt (LGPL-2.1): `cargo deny` refuses `virt` elsewhere. For `vmgate_collect`, `vmgate_execute` and the command line.
//!
//! Walls, which the compiler keeps:
//!
//! ```compile_fail
//! use vmgate_execute::Pass;
//! ```

pub mod accounts;
mod agent;
mod blockers;
mod bulk;
pub mod capabilities;
mod configuration_check;
mod cpu;
mod dirty_rate;
mod domain;
pub mod domain_capabilities;
pub mod domain_xml;
mod error;
mod job;
mod limit;
pub mod network_xml;
mod params;
pub mod raw;
pub mod secret_xml;
mod session;
mod stops;
mod virtio_queues;
pub mod volume_xml;

use std::{path::PathBuf, sync::Arc, time::Duration};

pub use bulk::{GuestSummary, ask_each};
pub use cpu::{CpuComparison, CpuRequest};
pub use dirty_rate::DirtyRateSample;
pub use domain::{Domain, RunState};
pub use error::{LibvirtError, LibvirtErrorKind};
pub use job::{JobEnd, JobOperation, JobStats};
pub use raw::WatchedMove;
pub use stops::StopWatch;
use virt::{error::Error, sys};
use vmgate_facts::{HostMemory, Uri, Uuid, Version};

use crate::{
    error::{kind_of_connect_error, number},
    limit::CallLimit,
    session::{Kept, Session},
};

/// Most similar names that are proposed in place of an unknown VM.
const NEAR_NAMES: usize = 3;
/// A hypervisor host, reached through libvirt.
#[derive(Debug, Clone)]
pub struct Hypervisor {
    session: Arc<Session>,
    limit: CallLimit,
}

/// CPUs and memory of a host (virNodeGetInfo).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeInfo {
    /// Logical CPUs that are online.
    pub cpus: u32,
    /// Total memory.
    pub memory_bytes: u64,
}

impl Hypervisor {
    /// Connects to the hypervisor. No call on it, nor on its VMs, waits longer than `timeout`.
    pub fn open(uri: &Uri, timeout: Duration) -> Result<Self, LibvirtError> {
        Self::open_over(uri, || Ok(None::<(PathBuf, ())>), timeout)
    }

    /// Connects as [`Self::open`], by a program in place of ssh, or not for ssh's own reason. The wait for the program is within
    /// the time limit. What comes with the program is kept for as long as the connection.
    pub fn open_over<K: Send + Sync + 'static>(
        uri: &Uri,
        ssh: impl FnOnce() -> Result<Option<(PathBuf, K)>, String> + Send + 'static,
        timeout: Duration,
    ) -> Result<Self, LibvirtError> {
        let limit = CallLimit { host: uri.host_for_people().to_owned(), timeout };
        let action = format!("connect to {uri}");
        if !uri.names_libvirt() {
            return Err(limit.error(&action, LibvirtErrorKind::NoLibvirt));
        }
        let uri = uri.clone();
        let open = move || {
            let ssh = ssh().map_err(|why| kind_of_connect_error(number::SYSTEM_ERROR, &why))?;
            let (program, kept) = ssh.map(|(program, kept)| (program, Arc::new(kept) as Kept)).unzip();
            Session::open(&uri.for_libvirt(program.as_deref()), kept)
                .map_err(|error: Error| kind_of_connect_error(error.code().to_raw(), error.message()))
        };
        let session = limit.run(&action, open)?.map_err(|kind| limit.error(&action, kind))?;
        Ok(Self { session: Arc::new(session), limit })
    }

    /// Name of the host in the URI, for messages.
    pub fn name(&self) -> &str {
        &self.limit.host
    }

    /// True if libvirt lets this user only read: its VMs cannot be migrated, and their agents cannot be asked.
    pub fn is_read_only(&self) -> bool {
        self.session.is_read_only()
    }

    /// The same connection with another time limit.
    #[must_use]
    pub fn with_timeout(&self, timeout: Duration) -> Self {
        let limit = CallLimit { host: self.limit.host.clone(), timeout };
        Self { session: Arc::clone(&self.session), limit }
    }

    /// Runs a call on the connection under the time limit.
    fn call<T: Send + 'static>(
        &self,
        action: &str,
        work: impl FnOnce(&Session) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, LibvirtError> {
        let session = Arc::clone(&self.session);
        self.limit.call(action, move || work(&session))
    }

    /// Finds the VM of that name or UUID. The error for an unknown one proposes similar names.
    pub fn domain(&self, name_or_uuid: &str) -> Result<Domain, LibvirtError> {
        let action = format!("find the VM `{name_or_uuid}`");
        let wanted = name_or_uuid.to_owned();
        let uuid = wanted.parse::<Uuid>().ok();
        let found = self.call(&action, move |session| {
            let connect = session.connect();
            if let Some(uuid) = &uuid
                && let Ok(domain) = connect.lookup_domain_by_uuid_string(uuid.as_str())
            {
                return Ok(domain);
            }
            connect.lookup_domain_by_name(&wanted)
        });
        match found {
            Ok(domain) => Ok(Domain::new(domain, &self.session, &self.limit)),
            Err(LibvirtError { kind: LibvirtErrorKind::NoSuchVm(_), .. }) => {
                let near =
                    self.vm_names().map(|names| similar_names(name_or_uuid, &names)).unwrap_or_default();
                Err(self.limit.error(&action, LibvirtErrorKind::NoSuchVm(near)))
            }
            Err(error) => Err(error),
        }
    }

    /// Names of all VMs, running or not.
    pub fn vm_names(&self) -> Result<Vec<String>, LibvirtError> {
        self.call("list the VMs", |session| {
            let domains = session.connect().list_all_domains(0)?;
            let mut names: Vec<String> = domains.iter().filter_map(|domain| domain.name().ok()).collect();
            names.sort();
            Ok(names)
        })
    }

    /// UUID of the host, as its capabilities name it.
    pub fn uuid(&self) -> Result<Uuid, LibvirtError> {
        let xml = self.capabilities_xml()?;
        capabilities::parse(&xml).ok().and_then(|known| known.uuid).ok_or_else(|| {
            let missing = "libvirt does not report the host's UUID".to_owned();
            self.limit.error("read the host's UUID", LibvirtErrorKind::Other(missing))
        })
    }

    /// UUIDs of the VMs that run now.
    pub fn active_vm_uuids(&self) -> Result<Vec<Uuid>, LibvirtError> {
        self.call("list the running VMs", |session| {
            let domains = session.connect().list_all_domains(sys::VIR_CONNECT_LIST_DOMAINS_ACTIVE)?;
            let mut uuids: Vec<Uuid> =
                domains.iter().filter_map(|domain| domain.uuid_string().ok()?.parse().ok()).collect();
            uuids.sort();
            Ok(uuids)
        })
    }

    /// First job that runs on any of this host's VMs, as `VM: operation`. Asks each VM in turn.
    pub fn running_job(&self) -> Result<Option<String>, LibvirtError> {
        let domains = self.call("list the running VMs", |session| {
            session.connect().list_all_domains(sys::VIR_CONNECT_LIST_DOMAINS_ACTIVE)
        })?;
        for raw in domains {
            let domain = Domain::new(raw, &self.session, &self.limit);
            if let Some(job) = domain.job_info()? {
                return Ok(Some(format!("{}: {}", domain.name()?, job.operation.name())));
            }
        }
        Ok(None)
    }

    /// XML of the libvirt networks that are active.
    pub fn active_network_xmls(&self) -> Result<Vec<String>, LibvirtError> {
        self.call("read the networks", |session| {
            let networks = session.connect().list_all_networks(sys::VIR_CONNECT_LIST_NETWORKS_ACTIVE)?;
            Ok(networks.iter().filter_map(|network| network.xml_desc(0).ok()).collect())
        })
    }

    /// Names of libvirt's network filters.
    pub fn network_filters(&self) -> Result<Vec<String>, LibvirtError> {
        self.call("list the network filters", |session| {
            let filters = session.connect().list_all_nw_filters(0)?;
            let mut names: Vec<String> = filters.iter().filter_map(|filter| filter.name().ok()).collect();
            names.sort();
            Ok(names)
        })
    }

    /// XML of all secrets, without their values. The `virt` crate's own reading of a secret's usage frees libvirt's memory.
    pub fn secret_xmls(&self) -> Result<Vec<String>, LibvirtError> {
        self.call("list the secrets", |session| {
            let secrets = session.connect().list_all_secrets(0)?;
            Ok(secrets.iter().filter_map(|secret| secret.xml_desc(0).ok()).collect())
        })
    }

    /// Names of the storage pools that are active.
    pub fn active_storage_pools(&self) -> Result<Vec<String>, LibvirtError> {
        self.call("list the storage pools", |session| {
            let active = sys::VIR_CONNECT_LIST_STORAGE_POOLS_ACTIVE;
            let pools = session.connect().list_all_storage_pools(active)?;
            let mut names: Vec<String> = pools.iter().filter_map(|pool| pool.name().ok()).collect();
            names.sort();
            Ok(names)
        })
    }

    /// XML of a volume of a storage pool.
    pub fn volume_xml(&self, pool: &str, volume: &str) -> Result<String, LibvirtError> {
        let (pool, volume) = (pool.to_owned(), volume.to_owned());
        self.call("find a volume of a storage pool", move |session| {
            let pool = session.connect().lookup_storage_pool_by_name(&pool)?;
            pool.lookup_storage_vol_by_name(&volume)?.xml_desc(0)
        })
    }

    /// Domain capabilities: the offer of a QEMU to VMs of a machine type (virConnectGetDomainCapabilities).
    pub fn domain_capabilities_xml(
        &self,
        emulator: Option<&str>,
        request: &CpuRequest,
    ) -> Result<String, LibvirtError> {
        let (emulator, request) = (emulator.map(str::to_owned), request.clone());
        self.call("read the domain capabilities of its QEMU", move |session| {
            session.connect().domain_capabilities(
                emulator.as_deref(),
                request.arch.as_deref(),
                request.machine.as_deref(),
                request.virt_type.as_deref(),
                0,
            )
        })
    }

    /// The host's own name.
    pub fn hostname(&self) -> Result<String, LibvirtError> {
        self.call("read the host name", |session| session.connect().hostname())
    }

    /// Version of the QEMU that is installed on the host.
    pub fn hypervisor_version(&self) -> Result<Version, LibvirtError> {
        self.call("read the QEMU version", |session| session.connect().hyp_version())
            .map(Version::from_libvirt)
    }

    /// Version of the libvirt daemon.
    pub fn libvirt_version(&self) -> Result<Version, LibvirtError> {
        self.call("read the libvirt version", |session| session.connect().lib_version())
            .map(Version::from_libvirt)
    }

    /// The host's capabilities: UUID, CPU model, machine types by architecture.
    pub fn capabilities_xml(&self) -> Result<String, LibvirtError> {
        self.call("read the host's capabilities", |session| session.connect().capabilities())
    }

    /// CPUs and memory as libvirt counts them.
    pub fn node_info(&self) -> Result<NodeInfo, LibvirtError> {
        self.call("read the number of CPUs and the memory of the host", |session| {
            let info = session.connect().node_info()?;
            Ok(NodeInfo { cpus: info.cpus, memory_bytes: info.memory.saturating_mul(1024) })
        })
    }

    /// Memory of the host; available is what is free, buffered or cached.
    pub fn memory(&self) -> Result<HostMemory, LibvirtError> {
        let stats = self.call("read the host's memory", memory_stats)?;
        let of = |name: &str| {
            stats.iter().find(|(field, _)| field == name).map(|(_, kib)| kib.saturating_mul(1024))
        };
        let (Some(total_bytes), Some(free)) = (of("total"), of("free")) else {
            let kind = LibvirtErrorKind::NotSupported("libvirt reports neither total nor free memory".into());
            return Err(self.limit.error("read the host's memory", kind));
        };
        let cached = of("buffers").unwrap_or(0).saturating_add(of("cached").unwrap_or(0));
        Ok(HostMemory { total_bytes, available_bytes: free.saturating_add(cached).min(total_bytes) })
    }
}

/// Memory figures in KiB by name.
fn memory_stats(session: &Session) -> Result<Vec<(String, u64)>, Error> {
    let mut count = 0;
    // SAFETY: with a null array libvirt only says how many figures there are.
    params::checked(unsafe {
        sys::virNodeGetMemoryStats(
            session.as_ptr(),
            sys::VIR_NODE_MEMORY_STATS_ALL_CELLS,
            std::ptr::null_mut(),
            &raw mut count,
            0,
        )
    })?;
    let room = usize::try_from(count).unwrap_or(0);
    let mut stats = vec![sys::virNodeMemoryStats { field: [0; 80], value: 0 }; room];
    // SAFETY: the array has room for `count` figures, and libvirt writes no more than that.
    params::checked(unsafe {
        sys::virNodeGetMemoryStats(
            session.as_ptr(),
            sys::VIR_NODE_MEMORY_STATS_ALL_CELLS,
            stats.as_mut_ptr(),
            &raw mut count,
            0,
        )
    })?;
    let written = usize::try_from(count).unwrap_or(0).min(room);
    let name = |stat: &sys::virNodeMemoryStats| {
        let bytes = stat.field.iter().map(|&byte| byte.cast_unsigned()).take_while(|&byte| byte != 0);
        String::from_utf8_lossy(&bytes.collect::<Vec<u8>>()).into_owned()
    };
    Ok(stats.iter().take(written).map(|stat| (name(stat), stat.value)).collect())
}

/// Names most similar to the wanted one.
fn similar_names(wanted: &str, names: &[String]) -> Vec<String> {
    let mut scored: Vec<(f64, &String)> = names
        .iter()
        .map(|name| (strsim::jaro_winkler(wanted, name), name))
        .filter(|(score, _)| *score > 0.7)
        .collect();
    scored.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    scored.into_iter().take(NEAR_NAMES).map(|(_, name)| name.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mock() -> Hypervisor {
        Hypervisor::open(
            &vmgate_facts::Uri::from_operator("test:///default").unwrap(),
            Duration::from_secs(10),
        )
        .unwrap()
    }

    #[test]
    fn the_mock_hypervisor_answers() {
        let host = mock();
        assert_eq!(host.vm_names().unwrap(), ["test"]);
        assert_eq!(host.active_vm_uuids().unwrap().len(), 1);
        assert!(host.active_network_xmls().unwrap()[0].contains("<name>default</name>"));
        assert!(host.libvirt_version().unwrap() >= "6.0".parse().unwrap());
        assert!(host.hypervisor_version().is_ok());
        assert!(!host.hostname().unwrap().is_empty());
        assert!(host.capabilities_xml().unwrap().contains("<host>"));
        assert!(host.node_info().unwrap().memory_bytes > 0);
    }

    #[test]
    fn an_unknown_vm_offers_near_names() {
        let error = mock().domain("tset").unwrap_err();
        assert_eq!(error.kind, LibvirtErrorKind::NoSuchVm(vec!["test".into()]));
        assert_eq!(
            error.to_string(),
            "this machine: cannot find the VM `tset`: the host has no such VM. Did you mean test?"
        );
        let error = mock().domain("6695eb01-f6a4-8304-79aa-97f2502e193e").unwrap_err();
        assert_eq!(error.kind, LibvirtErrorKind::NoSuchVm(vec![]));
    }

    #[test]
    fn a_nul_in_a_name_is_an_error_not_a_crash() {
        assert!(mock().domain("a\0b").is_err());
    }

    #[test]
    fn an_unreachable_host_is_told_with_the_way_out() {
        let uri = Uri::from_operator("qemu+unix:///system?socket=/nonexistent/libvirt-sock").unwrap();
        let error = Hypervisor::open(&uri, Duration::from_secs(10)).unwrap_err();
        assert!(matches!(error.kind, LibvirtErrorKind::Unreachable(_)), "{error}");
        assert!(error.to_string().contains("vmgate doctor HOST"), "{error}");
    }

    #[test]
    fn a_daemon_that_accepts_and_says_nothing_costs_its_time_limit() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let uri =
            Uri::from_operator(&format!("qemu+tcp://{}/system", listener.local_addr().unwrap())).unwrap();
        let start = std::time::Instant::now();
        let error = Hypervisor::open(&uri, Duration::from_millis(200)).unwrap_err();
        assert_eq!(error.kind, LibvirtErrorKind::TimedOut(Duration::from_millis(200)));
        assert!(start.elapsed() < Duration::from_secs(5));
    }

    #[test]
    fn opening_and_closing_many_times_leaves_nothing_behind() {
        let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
        drop(mock());
        let before = open();
        for _ in 0..200 {
            drop(mock().domain("test").unwrap());
        }
        assert!(open() <= before + 16, "{} file descriptors were {before}", open());
    }
}
