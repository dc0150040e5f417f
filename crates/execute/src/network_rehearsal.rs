//! Rehearsal of the switchover on the networks of a VM: a throw-away interface moves from the source's bridge to the
//! destination's, and the time until it is reached there is measured.
//!
//! It touches no VM. On both hosts it makes interfaces that end with the process that made them, so that nothing is left
//! behind however it ends. An order has no constructor but the facts of a move.

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use vmgate_facts::{
    Bridge, BridgeController, BridgePort, Cause, Fact, Facts, Host, HostRole, NetworkOrder, NetworkRehearsal,
    RehearsedSettings, SwitchoverSeen, Unknown, VmNic,
};
use vmgate_reach::LastingRun;

use super::{HostConnection, Hosts};

/// Longest wait for the other side, and again for the network to follow: twice the longest forward delay of STP, and a
/// control plane's minute.
const LIMIT_SECONDS: f64 = 75.0;
/// Time limit of a whole run on a host, with the sending of the program.
const RUN_LIMIT: Duration = Duration::from_mins(5);
/// Time that the one side has to end after the other.
const PARTING: Duration = Duration::from_secs(3);
/// Time between two looks at the runs.
const LOOK: Duration = Duration::from_millis(50);

/// Order to rehearse the switchover on networks of one VM.
#[derive(Debug, Clone, PartialEq)]
pub struct NetworkRehearsalOrder {
    networks: Vec<RehearsedNetwork>,
}

/// Network with its port at each host.
#[derive(Debug, Clone, PartialEq)]
struct RehearsedNetwork {
    network: String,
    source: BridgePort,
    destination: BridgePort,
    /// Settings of the destination's bridge.
    settings: RehearsedSettings,
}

impl NetworkRehearsalOrder {
    /// Order for all networks of the VM that are bridges at both hosts. The error says why there is none.
    pub fn for_move(facts: &Facts) -> Result<Self, Unknown> {
        let nics = facts.vm.as_ref().and_then(|vm| vm.nics.as_ref());
        let nics = nics.into_result()?;
        let mut networks: Vec<RehearsedNetwork> = Vec::new();
        let mut why = None;
        for nic in nics.iter().filter(|nic| nic.link_up) {
            let (network, known) = (nic.network(), |one: &RehearsedNetwork| one.network == nic.network());
            let bridges = bridge_of(nic, &facts.source)
                .and_then(|here| Ok((here, bridge_of(nic, &facts.destination)?)));
            match bridges {
                Ok((here, there)) if !networks.iter().any(known) => networks.push(RehearsedNetwork {
                    network,
                    source: port(nic, &here),
                    destination: port(nic, &there),
                    settings: RehearsedSettings::of(&there),
                }),
                Ok(_) => {}
                Err(unknown) => why = why.or(Some(unknown)),
            }
        }
        match why {
            Some(why) if networks.is_empty() => Err(why),
            _ => Ok(Self { networks }),
        }
    }

    /// The order without networks that were rehearsed already.
    #[must_use]
    pub fn without(mut self, rehearsed: &[NetworkRehearsal]) -> Self {
        self.networks.retain(|one| !rehearsed.iter().any(|known| known.network == one.network));
        self
    }

    /// True if nothing is to be rehearsed.
    pub fn is_empty(&self) -> bool {
        self.networks.is_empty()
    }
}

/// Port of a bridge that an interface of the VM has, or will have.
fn port(nic: &VmNic, bridge: &Bridge) -> BridgePort {
    BridgePort { bridge: bridge.name.clone(), kind: bridge.kind, vlan: nic.vlan_tags.first().copied() }
}

/// Bridge of an interface of the VM at a host.
fn bridge_of(nic: &VmNic, host: &Fact<Host>) -> Result<Bridge, Unknown> {
    let host = host.as_ref().into_result()?;
    let not_there = |what: String| Unknown::new(Cause::NotSupported, format!("{what} cannot be rehearsed"));
    let name = match nic.kind.as_str() {
        "bridge" => nic.source.clone(),
        "network" => {
            let networks = host.virtual_networks.as_ref().into_result()?;
            let network = networks.iter().find(|network| Some(&network.name) == nic.source.as_ref());
            network.and_then(|network| network.bridge.clone())
        }
        _ => None,
    };
    let bridges = host.bridges.as_ref().into_result()?;
    let bridge = bridges.iter().find(|bridge| Some(&bridge.name) == name.as_ref());
    let bridge = bridge.ok_or_else(|| {
        not_there(format!("interface {} ({}), which is on no bridge,", nic.mac, nic.network()))
    })?;
    if matches!(bridge.controlled_by, Fact::Known(BridgeController::Ovn | BridgeController::Openflow)) {
        return Err(not_there(format!("bridge {}, whose controller knows no port but a VM's,", bridge.name)));
    }
    Ok(bridge.clone())
}

impl Hosts {
    /// Rehearses the switchover, one network after the other. Unknown if none could be rehearsed.
    pub fn rehearse_network(
        &self,
        order: &NetworkRehearsalOrder,
        stop: &AtomicBool,
    ) -> Fact<Vec<NetworkRehearsal>> {
        let (mut done, mut why) = (Vec::new(), None);
        for network in &order.networks {
            match self.rehearse_one(network, stop) {
                Ok(rehearsal) => done.push(rehearsal),
                Err(unknown) => {
                    tracing::warn!("{}: {}", network.network, unknown.reason);
                    why = why.or(Some(unknown));
                }
            }
        }
        match why {
            Some(why) if done.is_empty() => Fact::Unknown(why),
            _ => Fact::Known(done),
        }
    }

    fn rehearse_one(
        &self,
        network: &RehearsedNetwork,
        stop: &AtomicBool,
    ) -> Result<NetworkRehearsal, Unknown> {
        let session = RandomState::new().build_hasher().finish();
        let (source, destination) = (&network.source, &network.destination);
        let at = Timestamp::now();
        let there = begin(&self.destination, HostRole::Destination, destination, session)?;
        let here = begin(&self.source, HostRole::Source, source, session)?;
        wait(&here, &there, stop);
        // The end of their input ends both; what they made ends with them.
        let (here, there) = (here.end(), there.end());
        if stop.load(Ordering::Relaxed) {
            return Err(not_made("it was aborted"));
        }
        seen(&here, &self.source)?;
        let seen = seen(&there, &self.destination)?;
        if !seen.met {
            return Err(not_made(&format!(
                "bridge {} of {} and bridge {} of {} did not hear each other within {LIMIT_SECONDS:.0} s, so that there is no \
                 network between them to rehearse",
                source.bridge,
                self.source.name(),
                destination.bridge,
                self.destination.name(),
            )));
        }
        Ok(NetworkRehearsal {
            at,
            network: network.network.clone(),
            source_bridge: source.bridge.clone(),
            destination_bridge: destination.bridge.clone(),
            settings: network.settings.clone(),
            dark_seconds: seen.dark_seconds,
            waited_seconds: LIMIT_SECONDS,
        })
    }
}

fn begin(
    host: &HostConnection,
    role: HostRole,
    port: &BridgePort,
    session: u64,
) -> Result<LastingRun, Unknown> {
    let order = NetworkOrder::Rehearse { role, port: port.clone(), session, limit_seconds: LIMIT_SECONDS };
    start(host, &order).map_err(|why| not_made(&why))
}

/// Starts the on-host program with an order about a guest's network.
pub(super) fn start(host: &HostConnection, order: &NetworkOrder) -> Result<LastingRun, String> {
    let mut line = serde_json::to_vec(order).map_err(|error| error.to_string())?;
    line.push(b'\n');
    Ok(host.shell().clone().start(&["network".to_owned()], &line, RUN_LIMIT))
}

/// Waits until both sides are done, one of them has failed, or an abort is asked for.
fn wait(here: &LastingRun, there: &LastingRun, stop: &AtomicBool) {
    let mut one_ended: Option<Instant> = None;
    while !(stop.load(Ordering::Relaxed) || here.is_finished() && there.is_finished()) {
        if here.is_finished() || there.is_finished() {
            let since = *one_ended.get_or_insert_with(Instant::now);
            if since.elapsed() > PARTING {
                return;
            }
        }
        thread::sleep(LOOK);
    }
}

fn seen(
    answer: &Result<Vec<u8>, vmgate_reach::ShellError>,
    host: &HostConnection,
) -> Result<SwitchoverSeen, Unknown> {
    let failed = |why: String| not_made(&format!("{}: {why}", host.name()));
    let answer = answer.as_ref().map_err(|error| failed(error.to_string()))?;
    serde_json::from_slice(answer).map_err(|error| failed(format!("its answer cannot be read: {error}")))
}

fn not_made(why: &str) -> Unknown {
    Unknown::new(Cause::NotCollected, format!("the network was not rehearsed: {why}"))
}

#[cfg(test)]
mod tests {
    use vmgate_facts::BridgeKind;

    use super::*;

    fn facts(change: impl Fn(&mut Facts)) -> Facts {
        let text = std::fs::read_to_string(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../rules/fixtures/idle-vm.yaml"
        ));
        let mut facts: Facts = serde_yaml::from_str(&text.unwrap()).unwrap();
        change(&mut facts);
        facts
    }

    fn nic(facts: &mut Facts) -> &mut VmNic {
        let Fact::Known(vm) = &mut facts.vm else { panic!("no VM") };
        let Fact::Known(nics) = &mut vm.nics else { panic!("no interfaces") };
        &mut nics[0]
    }

    #[test]
    fn the_ports_are_those_of_the_vm() {
        let order = NetworkRehearsalOrder::for_move(&facts(|facts| nic(facts).vlan_tags = vec![42])).unwrap();
        let port = BridgePort { bridge: "br0".into(), kind: BridgeKind::Linux, vlan: Some(42) };
        assert_eq!(order.networks[0].source, port);
        assert_eq!(order.networks[0].destination, port);
        let known = NetworkRehearsal {
            at: Timestamp::UNIX_EPOCH,
            network: order.networks[0].network.clone(),
            source_bridge: "br0".into(),
            destination_bridge: "br0".into(),
            settings: order.networks[0].settings.clone(),
            dark_seconds: Some(0.02),
            waited_seconds: 75.0,
        };
        assert!(order.without(&[known]).is_empty());
    }

    #[test]
    fn what_is_on_no_bridge_or_belongs_to_a_controller_is_not_rehearsed() {
        let direct = NetworkRehearsalOrder::for_move(&facts(|facts| nic(facts).kind = "direct".into()));
        assert!(direct.unwrap_err().reason.contains("on no bridge, cannot be rehearsed"));
        let ovn = NetworkRehearsalOrder::for_move(&facts(|facts| {
            let Fact::Known(host) = &mut facts.destination else { panic!("no destination") };
            let Fact::Known(bridges) = &mut host.bridges else { panic!("no bridges") };
            bridges[0].controlled_by = Fact::Known(BridgeController::Ovn);
        }));
        assert!(ovn.unwrap_err().reason.contains("controller"));
        let unlinked = NetworkRehearsalOrder::for_move(&facts(|facts| nic(facts).link_up = false));
        assert!(unlinked.unwrap().is_empty());
    }
}
