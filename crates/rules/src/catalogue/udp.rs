//! Catalogue of UDP services: the fate of datagrams that are lost while a guest is silent.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use vmgate_facts::{Fact, LossTolerance, UdpFlow, UdpService, UdpSocket};

use super::{Catalogues, PortRange, Reference, check::EntryCheck};

/// One UDP service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UdpEntry {
    /// Id in rules and reports.
    pub id: String,
    /// Name for people.
    pub title: String,
    /// Ports of the service.
    #[serde(default)]
    pub ports: Vec<PortRange>,
    /// Names of processes that offer the service, as the kernel has them.
    #[serde(default)]
    pub processes: Vec<String>,
    /// True if the port matches only together with the process, as in a port range that many programs use.
    #[serde(default)]
    pub with_process: bool,
    /// Effect of lost datagrams.
    pub loss: LossTolerance,
    /// Reason, in one sentence.
    pub why: String,
    /// Documents that prove it, if it is not common knowledge.
    #[serde(default)]
    pub references: Vec<Reference>,
}

/// Strength of a match between an entry and a socket, weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum MatchStrength {
    Port,
    Process,
    ProcessAndPort,
}

/// First port that needs no privilege; lower ports belong to the service that they are assigned to.
const FIRST_UNPRIVILEGED_PORT: u16 = 1024;

impl UdpEntry {
    fn matches(&self, socket: &UdpSocket) -> Option<MatchStrength> {
        let ports = [Some(socket.port), socket.remote.as_deref().and_then(port_of)];
        let port =
            ports.into_iter().flatten().find(|port| self.ports.iter().any(|range| range.contains(*port)));
        let owner = socket.owner.known().and_then(Option::as_deref);
        let process = owner.is_some_and(|owner| self.processes.iter().any(|name| name == owner));
        match (process, port) {
            (true, Some(_)) => Some(MatchStrength::ProcessAndPort),
            (true, None) => Some(MatchStrength::Process),
            (false, Some(port)) => {
                let plausible =
                    port < FIRST_UNPRIVILEGED_PORT || self.processes.is_empty() || owner.is_none();
                (plausible && !self.with_process).then_some(MatchStrength::Port)
            }
            (false, None) => None,
        }
    }
}

/// Checks an entry for problems that its types cannot express.
pub(super) fn check(check: &mut EntryCheck<'_>) {
    check.recognisable(&["ports", "processes"]);
    check.ports();
    check.names("processes");
    if let Some(node) = check.entry.get("with_process").cloned()
        && node.to_json() == true
        && check.items("processes").is_empty()
    {
        let help = "add `processes`, or leave `with_process` out";
        check.at(&node, "`with_process` is true, but the entry names no process", "nothing can match", help);
    }
}

impl Catalogues {
    /// Service of a socket; none if no entry matches.
    pub fn classify(&self, socket: &UdpSocket) -> Option<UdpService> {
        let entries = self.udp_services().iter();
        let mut best: Option<(MatchStrength, &UdpEntry)> = None;
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
    /// Service of a flow, by the ports of both ends and by the owner of the guest's end, if known.
    pub fn classify_flow(&self, flow: &UdpFlow, owner: Fact<Option<String>>) -> Option<UdpService> {
        self.classify(&UdpSocket {
            local: flow.local.clone(),
            port: port_of(&flow.local)?,
            remote: Some(flow.remote.clone()),
            drops: Fact::default(),
            owner,
            service: Fact::default(),
        })
    }
}

/// Port of `10.0.0.9:514` or `[::1]:514`.
fn port_of(address: &str) -> Option<u16> {
    address.rsplit_once(':')?.1.parse().ok()
}
