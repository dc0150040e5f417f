//! UDP services: what becomes of datagrams that are lost while a guest is silent.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Catalogues, PortRange, Reference, check::Check};
use vmgate_facts::{Fact, LossTolerance, UdpFlow, UdpService, UdpSocket};

/// A catalogue file of UDP services.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UdpCatalogue {
    /// Names this format.
    pub schema: UdpSchema,
    /// The services.
    pub entries: Vec<UdpEntry>,
}

/// The names of this format that this version reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum UdpSchema {
    /// The first format.
    #[serde(rename = "vmgate/catalogue/udp-services/v1")]
    V1,
}

impl UdpCatalogue {
    /// The name of this format.
    pub const SCHEMA: &'static str = "vmgate/catalogue/udp-services/v1";
}

/// One UDP service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UdpEntry {
    /// Its id in rules and reports.
    pub id: String,
    /// Its name for people.
    pub title: String,
    /// Ports it is found on.
    #[serde(default)]
    pub ports: Vec<PortRange>,
    /// The kernel's names of processes that offer it.
    #[serde(default)]
    pub processes: Vec<String>,
    /// Whether the port proves nothing without the process, as in a range that everybody uses.
    #[serde(default)]
    pub with_process: bool,
    /// What becomes of datagrams that are lost.
    pub loss: LossTolerance,
    /// Why, in one sentence.
    pub why: String,
    /// Where that can be checked, if it is not common knowledge.
    #[serde(default)]
    pub references: Vec<Reference>,
}

/// How sure an entry is about a socket, the surest last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Match {
    Port,
    Process,
    ProcessAndPort,
}

/// Ports below this one need privilege, and belong to the service that they are assigned to.
const FIRST_UNPRIVILEGED_PORT: u16 = 1024;

impl UdpEntry {
    fn matches(&self, socket: &UdpSocket) -> Option<Match> {
        let ports = [Some(socket.port), socket.remote.as_deref().and_then(port_of)];
        let port =
            ports.into_iter().flatten().find(|port| self.ports.iter().any(|range| range.contains(*port)));
        let owner = socket.owner.known().and_then(Option::as_deref);
        let process = owner.is_some_and(|owner| self.processes.iter().any(|name| name == owner));
        match (process, port) {
            (true, Some(_)) => Some(Match::ProcessAndPort),
            (true, None) => Some(Match::Process),
            (false, Some(port)) => {
                let plausible =
                    port < FIRST_UNPRIVILEGED_PORT || self.processes.is_empty() || owner.is_none();
                (plausible && !self.with_process).then_some(Match::Port)
            }
            (false, None) => None,
        }
    }
}

/// What is wrong with an entry beyond its shape.
pub(super) fn check(check: &mut Check<'_>) {
    check.recognisable(&["ports", "processes"]);
    check.ports();
    check.names("processes");
    if let Some(node) = check.entry.get("with_process").cloned()
        && node.to_json() == true
        && check.items("processes").is_empty()
    {
        let help = "name the processes, or leave `with_process` out";
        check.at(&node, "`with_process` is set and no process is named", "nothing can match", help);
    }
}

impl Catalogues {
    /// The service of a socket; nothing where no entry fits.
    pub fn classify(&self, socket: &UdpSocket) -> Option<UdpService> {
        let entries = self.udp_services().iter();
        let mut best: Option<(Match, &UdpEntry)> = None;
        for (matched, entry) in entries.filter_map(|entry| Some((entry.matches(socket)?, entry))) {
            if best.is_none_or(|(so_far, _)| matched > so_far) {
                best = Some((matched, entry));
            }
        }
        let (_, entry) = best?;
        Some(UdpService { id: entry.id.clone(), loss: entry.loss, why: entry.why.clone() })
    }
}

impl Catalogues {
    /// The service of a flow, by the ports of both ends and by who owns the guest's end where that is known.
    pub fn classify_flow(&self, flow: &UdpFlow, owner: Fact<Option<String>>) -> Option<UdpService> {
        self.classify(&UdpSocket {
            local: flow.local.clone(),
            port: port_of(&flow.local)?,
            remote: Some(flow.remote.clone()),
            drops: 0,
            owner,
            service: Fact::default(),
        })
    }
}

/// The port of `10.0.0.9:514` or `[::1]:514`.
fn port_of(address: &str) -> Option<u16> {
    address.rsplit_once(':')?.1.parse().ok()
}
