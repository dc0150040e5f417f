//! The migration path as seen from this host: route to the peer host, traffic that shares it, obstacles on it.

pub(super) mod certificate;
pub(super) mod firewall;
pub(crate) mod ports;
pub(super) mod route;
pub(super) mod storage;
pub(super) mod traffic;

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

pub use certificate::CertificateFile;
pub use firewall::Firewall;
pub use ports::MigrationConfig;
pub use route::RouteTo;
pub(super) use route::interface_names;
use serde::{Deserialize, Serialize};
pub use storage::RemoteStorage;
pub use traffic::Traffic;
use vmgate_facts::{Cause, Fact, Nic, Unknown};

use crate::host::{
    shaper::{self, Shapers},
    trial::{self, Trial, TrialResult},
};

/// Network facts that every host probe collects, besides interfaces and routes.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct NetworkProbe {
    /// The route to the address in the question, or to the first address of the name.
    pub route: Fact<RouteTo>,
    /// Rate limits on that route.
    pub shapers: Fact<Shapers>,
    /// Remote storage and the interface that it is reached by.
    pub storage: Fact<Vec<RemoteStorage>>,
    /// Firewall chains that could block a migration.
    pub firewall: Fact<Firewall>,
    /// Migration settings of qemu.conf.
    pub config: Fact<MigrationConfig>,
    /// Ports of the migration range that are in use.
    pub taken_ports: Fact<Vec<u16>>,
    /// Certificates.
    pub certificates: Fact<Vec<CertificateFile>>,
}

impl NetworkProbe {
    /// All facts unknown, for a probe that did not answer.
    pub fn unknown(why: &Unknown) -> Self {
        Self {
            route: Fact::Unknown(why.clone()),
            shapers: Fact::Unknown(why.clone()),
            storage: Fact::Unknown(why.clone()),
            firewall: Fact::Unknown(why.clone()),
            config: Fact::Unknown(why.clone()),
            taken_ports: Fact::Unknown(why.clone()),
            certificates: Fact::Unknown(why.clone()),
        }
    }
}

/// Questions about the path to the peer host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerQuestions {
    /// Address of the peer host on the path.
    pub address: IpAddr,
    /// Time for which the interfaces' traffic is measured.
    #[serde(rename = "window_seconds", with = "crate::wire::seconds")]
    pub window: Duration,
    /// The path test to run; none sends no packet.
    pub trial: Option<Trial>,
}

/// The answers to [`PeerQuestions`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PeerProbe {
    /// The route to the peer host.
    pub route: Fact<RouteTo>,
    /// Traffic of each interface, by name.
    pub traffic: Fact<BTreeMap<String, Traffic>>,
    /// The largest packet that reached the peer host without fragmentation.
    pub largest_packet_bytes: Fact<u32>,
    /// Result of the path test.
    pub tried: Fact<TrialResult>,
}

/// Collects the facts that need no peer host. `to` is the destination address of the migration, if known.
pub(super) fn look(to: &Fact<IpAddr>) -> NetworkProbe {
    let config = ports::config();
    let folder = config.as_ref().ok().and_then(|config| config.certificates.clone());
    let range =
        config.as_ref().map_or(ports::FIRST..=ports::LAST, |config| config.first_port..=config.last_port);
    NetworkProbe {
        route: to.as_ref().and_then(|address| route::to(*address).into()),
        shapers: shaper::look(to.known().copied()).into(),
        storage: storage::look().into(),
        firewall: firewall::look().into(),
        taken_ports: ports::taken(&range).into(),
        certificates: certificate::look(folder.as_deref()).into(),
        config: config.into(),
    }
}

/// Reads the route to the peer host, measures the traffic, and runs the path test if it is allowed.
pub(super) fn peer(questions: &PeerQuestions, nics: &Fact<Vec<Nic>>) -> PeerProbe {
    let route = Fact::from(route::to(questions.address));
    let traffic = traffic::measure(questions.window);
    let not_allowed =
        || Unknown::new(Cause::NotAllowed, "no packet was sent on the path: --probe-path allows this test");
    let (largest, tried) = match &questions.trial {
        None => (Err(not_allowed()), Err(not_allowed())),
        Some(trial) => {
            let largest = mtu(&route, nics).and_then(|mtu| trial::largest_packet(questions.address, mtu));
            (largest, trial::run(questions.address, trial))
        }
    };
    PeerProbe { route, traffic: traffic.into(), largest_packet_bytes: largest.into(), tried: tried.into() }
}

/// MTU of the route's interface, in bytes.
fn mtu(route: &Fact<RouteTo>, nics: &Fact<Vec<Nic>>) -> Result<u32, Unknown> {
    let mtu = route.as_ref().and_then(|route| {
        nics.as_ref().and_then(|nics| match nics.iter().find(|nic| nic.name == route.route.nic) {
            Some(nic) => Fact::Known(nic.mtu_bytes),
            None => Fact::unknown(Cause::NotSupported, "the interface of the route no longer exists"),
        })
    });
    match mtu {
        Fact::Known(mtu) => Ok(mtu),
        Fact::Unknown(why) => Err(why),
    }
}

impl PeerQuestions {
    /// Longest time for the answers, beyond that of the probe itself.
    pub fn longest(&self) -> Duration {
        let stream = self.trial.and_then(|trial| trial.stream).map_or(Duration::ZERO, |stream| stream.length);
        self.window + self.trial.map_or(Duration::ZERO, |_| trial::PATIENCE * 4) + stream
    }
}
