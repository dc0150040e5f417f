//! What this host knows of the migration path: the way to the other host, what shares it, what could stop it.

pub(super) mod certificate;
pub(super) mod firewall;
pub(crate) mod ports;
pub(super) mod route;
pub(super) mod storage;
pub(super) mod traffic;

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use serde::{Deserialize, Serialize};

pub use certificate::CertificateFile;
pub use firewall::Firewall;
pub use ports::MigrationConfig;
pub use route::RouteTo;
pub(super) use route::names;
pub use storage::RemoteStorage;
pub use traffic::Traffic;

use super::{
    shaper::{self, Shapers},
    trial::{self, Role, Trial, Tried},
};
use vmgate_facts::{Cause, Fact, Nic, Unknown};

/// What every look at a host tells of its network, beside interfaces and routes.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct NetworkProbe {
    /// The way to the address that was asked for, or that the name resolved to.
    pub route: Fact<RouteTo>,
    /// What holds traffic back, as seen by packets on that way.
    pub shapers: Fact<Shapers>,
    /// Remote storage and how it is reached.
    pub storage: Fact<Vec<RemoteStorage>>,
    /// Whether the firewall could stop a migration.
    pub firewall: Fact<Firewall>,
    /// What qemu.conf says.
    pub config: Fact<MigrationConfig>,
    /// Ports of the migration range that are taken.
    pub taken_ports: Fact<Vec<u16>>,
    /// Certificates.
    pub certificates: Fact<Vec<CertificateFile>>,
}

impl NetworkProbe {
    /// What is known where the probe did not answer.
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

/// What is asked once it is known who the other host is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerQuestions {
    /// The other host's end of the path.
    pub address: IpAddr,
    /// How long the interfaces are watched; written as seconds.
    #[serde(rename = "window_seconds", with = "crate::wire::seconds")]
    pub window: Duration,
    /// What is tried; none sends no packet.
    pub trial: Option<Trial>,
}

/// The answers to those.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PeerProbe {
    /// The way to the other host.
    pub route: Fact<RouteTo>,
    /// What each interface carried.
    pub traffic: Fact<BTreeMap<String, Traffic>>,
    /// The largest packet that reached the other host in one piece.
    pub largest_packet_bytes: Fact<u32>,
    /// What came of the trial.
    pub tried: Fact<Tried>,
}

/// Looks at what needs no other host. `to` is where the migration goes, where that is known.
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

/// Looks at the way to the other host, watches, and tries what is allowed.
pub(super) fn peer(questions: &PeerQuestions, nics: &Fact<Vec<Nic>>) -> PeerProbe {
    let route = Fact::from(route::to(questions.address));
    let traffic = window::watch(questions.window);
    let not_allowed =
        || Unknown::new(Cause::NotAllowed, "no packet was sent on the path: --probe-path allows it");
    let (largest, tried) = match &questions.trial {
        None => (Err(not_allowed()), Err(not_allowed())),
        Some(trial) => {
            let largest = mtu(&route, nics).and_then(|mtu| trial::largest_packet(questions.address, mtu));
            (largest, trial::run(questions.address, trial))
        }
    };
    PeerProbe { route, traffic: traffic.into(), largest_packet_bytes: largest.into(), tried: tried.into() }
}

/// What the interface of the route takes at the most.
fn mtu(route: &Fact<RouteTo>, nics: &Fact<Vec<Nic>>) -> Result<u32, Unknown> {
    let mtu = route.as_ref().and_then(|route| {
        nics.as_ref().and_then(|nics| match nics.iter().find(|nic| nic.name == route.route.nic) {
            Some(nic) => Fact::Known(nic.mtu_bytes),
            None => Fact::unknown(Cause::NotSupported, "the route's interface is gone"),
        })
    });
    match mtu {
        Fact::Known(mtu) => Ok(mtu),
        Fact::Unknown(why) => Err(why),
    }
}

impl PeerQuestions {
    /// How long answering may take at the most, beyond what every look takes.
    pub fn longest(&self) -> Duration {
        let stream = self.trial.and_then(|trial| trial.stream).map_or(Duration::ZERO, |stream| stream.length);
        self.window + self.trial.map_or(Duration::ZERO, |_| trial::PATIENCE * 4) + stream
    }
}
