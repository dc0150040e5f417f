//! The migration path, computed from both hosts' facts about their networks and each other. No I/O.

mod address;
mod certificates;
mod limit;
mod measured;
mod nic;
pub mod ports;
mod wire;

use std::net::IpAddr;

pub use address::host_of_address;
use vmgate_facts::{
    Cause, Change, Fact, MigrationPath, MigrationTransport, Nic, PathNic, PathRoute, Route, Unknown, Uri,
};

use crate::host::{HostProbe, NetworkProbe, PeerProbe};

/// Facts of one end of the path.
#[derive(Debug, Clone)]
pub struct PathEnd<'a> {
    /// Interfaces of the host.
    pub nics: &'a Fact<Vec<Nic>>,
    /// Routes of the host.
    pub routes: &'a Fact<Vec<Route>>,
    /// Other facts of its probe about the network.
    pub network: NetworkProbe,
    /// Addresses of the other end's name, as this end resolves it.
    pub resolved: Fact<Vec<IpAddr>>,
    /// Facts of its probe about the path to the other end.
    pub peer: Fact<PeerProbe>,
    /// Host name that the certificate of this end's libvirtd must have; none where libvirt is not reached by TLS.
    pub tls_name: Option<&'a str>,
}

impl<'a> PathEnd<'a> {
    /// An end with the answer of its probe; without an answer everything is unknown for that reason.
    pub fn of(
        probe: Result<&HostProbe, &Unknown>,
        nics: &'a Fact<Vec<Nic>>,
        routes: &'a Fact<Vec<Route>>,
        peer: Fact<PeerProbe>,
    ) -> Self {
        let (network, resolved) = match probe {
            Ok(probe) => (probe.network.clone(), probe.resolved.clone()),
            Err(why) => (NetworkProbe::unknown(why), Fact::Unknown(why.clone())),
        };
        Self { nics, routes, network, resolved, peer, tls_name: None }
    }

    /// The same end, with the URI by which libvirt reaches it: over TLS, the certificate must be for the URI's host.
    #[must_use]
    pub fn reached_by(self, uri: &'a Uri) -> Self {
        let is_tls = match uri.transport.as_deref() {
            Some(transport) => transport == "tls",
            // libvirt's default for a URI with a host and without a transport.
            None => true,
        };
        Self { tls_name: uri.host.as_deref().filter(|_| is_tls), ..self }
    }

    fn with_peer<T>(&self, part: impl FnOnce(&PeerProbe) -> Fact<T>) -> Fact<T> {
        self.peer.as_ref().and_then(part)
    }
}

/// Computes the path. `address` is the target of the source QEMU's connection, `libvirt_limit` libvirt's limit for this
/// VM's migrations, `cap_bytes_per_second` the cap of a measuring stream, or the reason for which there was none.
pub fn path(
    address: Fact<IpAddr>,
    source: &PathEnd,
    destination: &PathEnd,
    change: &Change,
    libvirt_limit: Fact<Option<u64>>,
    cap_bytes_per_second: Result<u64, Unknown>,
) -> MigrationPath {
    let (source_nic, destination_nic) = interfaces(&address, source, destination);
    let certificates = certificates::of(source, destination);
    let goodput = measured::goodput(source, destination, cap_bytes_per_second);
    MigrationPath {
        bandwidth_bytes_per_second: limit::bandwidth(&source_nic, &destination_nic, change, &libvirt_limit),
        limit_bytes_per_second: limit::limit(&source_nic, &destination_nic, change, &libvirt_limit),
        libvirt_limit_bytes_per_second: libvirt_limit,
        source_address: source.network.route.as_ref().map(|route| route.from.to_string()),
        route_there: source.network.route.as_ref().map(|found| found.route.clone()),
        route_back: route_back(destination),
        mtu_bytes: measured::mtu(source, destination),
        ports: ports::of(source, destination),
        destination_name_addresses: texts(&source.resolved),
        source_name_addresses: texts(&destination.resolved),
        certificates,
        rtt_seconds: measured::rtt(source),
        goodput_bytes_per_second: goodput.as_ref().map(|goodput| goodput.mean_bytes_per_second),
        goodput,
        destination_address: address.map(|address| address.to_string()),
        transport: Fact::Known(MigrationTransport::Tcp),
        source_nic,
        destination_nic,
        guest_network: Fact::unknown(
            Cause::NotCollected,
            "derived with the forecast, from the bridges of both hosts",
        ),
        network_rehearsals: Fact::unknown(
            Cause::NotCollected,
            "nobody asked for a rehearsal of the network (--probe-network)",
        ),
    }
}

/// Interfaces at both ends of the path.
pub fn interfaces(
    address: &Fact<IpAddr>,
    source: &PathEnd,
    destination: &PathEnd,
) -> (Fact<PathNic>, Fact<PathNic>) {
    let source_nic = address.as_ref().and_then(|address| nic::source_nic(*address, source));
    let destination_nic = address.as_ref().and_then(|address| nic::destination_nic(*address, destination));
    (source_nic, destination_nic)
}

fn route_back(destination: &PathEnd) -> Fact<PathRoute> {
    destination.with_peer(|peer| peer.route.as_ref().map(|found| found.route.clone()))
}

fn texts(addresses: &Fact<Vec<IpAddr>>) -> Fact<Vec<String>> {
    addresses.as_ref().map(|addresses| addresses.iter().map(ToString::to_string).collect())
}

#[cfg(test)]
mod tests;
