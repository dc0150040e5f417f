//! Traffic of the VM, watched on the host side of its interfaces, so that the guest need not cooperate.

use std::time::Duration;

use vmgate_facts::{Cause, Fact, Guest, Udp, UdpCapture, Unknown, VmState, Wire, text::plain};
use vmgate_probe::flows::{FlowProbe, InterfaceFlows, udp_capture, wire};

use super::{guest, transport::Transport, vm::FoundVm};
use crate::guest_probe::GuestAccess;

/// Most interfaces of one VM that are watched.
const MOST_TAPS: usize = 32;

/// Traffic of a VM in one window.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct WatchedTraffic {
    /// Flows of UDP.
    pub(super) udp: UdpCapture,
    /// Evidence from the packets.
    pub(super) wire: Fact<Wire>,
}

/// Interfaces of the host through which a VM's traffic passes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct WatchedInterfaces {
    /// Host interfaces (taps) that can be watched.
    taps: Vec<String>,
    /// Interfaces whose traffic is not seen, in words.
    unwatched: Vec<String>,
}

impl WatchedInterfaces {
    /// Interfaces of a VM. The error is the reason for which nothing can be watched.
    pub(super) fn of(vm: &FoundVm) -> Result<Self, Unknown> {
        if vm.state != VmState::Running {
            return Err(guest::not_running(vm.state));
        }
        if let Fact::Known(Some(job)) = &vm.facts.job {
            return Err(Unknown::new(
                Cause::NotAllowed,
                format!(
                    "vmgate does not measure while a {job} job runs on the VM: check again after the job has ended"
                ),
            ));
        }
        let (nics, host_devices) = match (&vm.facts.nics, &vm.facts.host_devices) {
            (Fact::Known(nics), Fact::Known(devices)) => (nics, devices),
            (Fact::Unknown(why), _) | (_, Fact::Unknown(why)) => return Err(why.clone()),
        };
        let mut found = Self { taps: Vec::new(), unwatched: Vec::new() };
        for nic in nics {
            match &nic.tap {
                Some(tap) if found.taps.len() < MOST_TAPS => found.taps.push(tap.clone()),
                Some(tap) => found.unwatched.push(format!(
                    "{tap} is not watched: vmgate watches at most {MOST_TAPS} interfaces of a VM"
                )),
                // Passed-through devices are added below.
                None if matches!(nic.kind.as_str(), "hostdev" | "vdpa") => {}
                None => found.unwatched.push(format!(
                    "the {} interface {} has no device on the host that could be watched",
                    nic.kind, nic.mac
                )),
            }
        }
        let passed_through = host_devices.iter().filter(|device| matches!(&*device.kind, "pci" | "vdpa"));
        found.unwatched.extend(passed_through.map(|device| {
            format!(
                "the host cannot see the traffic of the passed-through {} device {}",
                device.kind, device.address
            )
        }));
        if found.taps.is_empty() {
            let mut why = "the VM has no network interface that can be watched on the host".to_owned();
            if !found.unwatched.is_empty() {
                why = format!("{why}: {}", found.unwatched.join("; "));
            }
            return Err(Unknown::new(Cause::NotSupported, why));
        }
        Ok(found)
    }

    /// Watches the interfaces for `window`; the answer may take `limit` longer.
    pub(super) fn watch(
        self,
        way: &Transport,
        window: Duration,
        limit: Duration,
    ) -> Result<WatchedTraffic, Unknown> {
        let probe = way.watch_flows(&self.taps, window, limit)?;
        self.merge(probe)
    }

    /// Merges the captures of all interfaces into one, complete only where all of the VM's traffic was watched.
    fn merge(self, probe: FlowProbe) -> Result<WatchedTraffic, Unknown> {
        let (mut captures, mut failures) = (Vec::new(), Vec::new());
        for found in probe.interfaces {
            match found {
                InterfaceFlows::Captured(capture) => captures.push(*capture),
                InterfaceFlows::Failed { unknown, .. } => failures.push(unknown),
            }
        }
        let forgotten = |tap: &&String| !captures.iter().any(|capture| capture.interface == **tap);
        if failures.is_empty()
            && let Some(tap) = self.taps.iter().find(forgotten)
        {
            failures.push(Unknown::new(
                Cause::Malformed,
                format!("the host probe's answer lacks the interface {tap}"),
            ));
        }
        let Some(mut capture) = udp_capture(&captures) else {
            return Err(failures.into_iter().next().unwrap_or_else(|| {
                Unknown::new(Cause::Malformed, "the host probe watched no interface of the VM")
            }));
        };
        let holes: Vec<_> =
            failures.into_iter().map(|why| plain(&why.reason)).chain(self.unwatched).collect();
        let wire = wire(&captures).map(|mut wire| {
            wire.holes.extend(holes.iter().cloned());
            wire.complete &= wire.holes.is_empty();
            wire
        });
        capture.holes.extend(holes);
        capture.complete &= capture.holes.is_empty();
        let too_old =
            || Fact::unknown(Cause::NotSupported, "the host's probe is older and tells UDP flows only");
        Ok(WatchedTraffic { udp: capture, wire: wire.map_or_else(too_old, Fact::Known) })
    }
}

/// Adds the traffic to the guest's facts. Of a guest that cannot be looked into, nothing else is known.
pub(super) fn into_guest(
    guest: Result<Guest, Unknown>,
    traffic: Result<WatchedTraffic, Unknown>,
    access: &GuestAccess,
) -> Fact<Guest> {
    let guest = match (guest, &traffic) {
        (Ok(guest), _) => guest,
        (Err(why), Ok(_)) => Guest::unknown(&why),
        (Err(why), Err(_)) => return Fact::Unknown(why),
    };
    let sockets = match guest.udp {
        Fact::Known(udp) => udp.sockets,
        Fact::Unknown(why) => Fact::Unknown(why),
    };
    let (flows, wire) = match traffic {
        Ok(WatchedTraffic { udp, wire }) => match access {
            // The operator wants to know nothing of the guest.
            GuestAccess::None(why) => (Fact::Known(udp), Fact::unknown(Cause::NotAllowed, why.clone())),
            _ => (Fact::Known(udp), wire),
        },
        Err(why) => (Fact::Unknown(why.clone()), Fact::Unknown(why)),
    };
    Fact::Known(Guest { udp: Fact::Known(Udp { sockets, flows }), wire, ..guest })
}

#[cfg(test)]
mod tests {
    use vmgate_facts::Vm;
    use vmgate_probe::flows::FlowCapture;

    use super::*;
    use crate::vm;

    fn found(devices: &str) -> FoundVm {
        let xml = format!("<domain type='kvm'><devices>{devices}</devices></domain>");
        let config = vm::configuration(&xml);
        let (nics, host_devices) = (
            config.as_ref().map(|config| config.nics.clone()),
            config.as_ref().map(|config| config.host_devices.clone()),
        );
        FoundVm {
            facts: Vm { job: Fact::Known(None), nics, host_devices, ..Vm::default() },
            config: config.known().cloned(),
            migratable_xml: Ok(xml),
            state: VmState::Running,
            uuid: None,
            monitored: None,
        }
    }

    fn tap(name: &str) -> String {
        format!("<interface type='bridge'><source bridge='br0'/><target dev='{name}'/></interface>")
    }

    fn captured(interface: &str) -> InterfaceFlows {
        let text = format!(
            r#"{{"interface":"{interface}","method":"kernel-counted","kernel_refused":null,"window_seconds":1.0,
            "frames":9,"drops":0,"table_full_packets":0,"stray_fragments":0,"stray_fragment_bytes":0,
            "unreadable_packets":0,"malformed_packets":0,"interrupted":false,"complete":true,"flows":[]}}"#
        );
        InterfaceFlows::Captured(Box::new(serde_json::from_str::<FlowCapture>(&text).unwrap()))
    }

    fn failed(interface: &str) -> InterfaceFlows {
        let unknown = Unknown::new(Cause::PermissionDenied, format!("may not open {interface}"));
        InterfaceFlows::Failed { interface: interface.into(), unknown }
    }

    #[test]
    fn every_interface_is_watched_or_the_capture_has_a_hole() {
        let whole = WatchedInterfaces::of(&found(&tap("vnet1"))).unwrap();
        let capture = whole.merge(FlowProbe { interfaces: vec![captured("vnet1")] }).unwrap().udp;
        assert!(capture.complete && capture.holes.is_empty());

        let two = WatchedInterfaces::of(&found(&(tap("vnet1") + &tap("vnet2")))).unwrap();
        let half = FlowProbe { interfaces: vec![captured("vnet1"), failed("vnet2")] };
        let capture = two.clone().merge(half).unwrap().udp;
        assert_eq!((capture.complete, capture.holes), (false, vec!["may not open vnet2".to_owned()]));
        let silent = FlowProbe { interfaces: vec![captured("vnet1")] };
        assert!(!two.clone().merge(silent).unwrap().udp.complete);
        let none = FlowProbe { interfaces: vec![failed("vnet1"), failed("vnet2")] };
        assert_eq!(two.merge(none).unwrap_err().cause, Cause::PermissionDenied);

        let bypassed = tap("vnet1") + "<interface type='user'/>";
        let capture = WatchedInterfaces::of(&found(&bypassed))
            .unwrap()
            .merge(FlowProbe { interfaces: vec![captured("vnet1")] });
        assert!(!capture.unwrap().udp.complete, "the second interface is not seen");
    }

    #[test]
    fn without_a_tap_flows_are_unknown_for_that_reason() {
        let why = WatchedInterfaces::of(&found("<interface type='user'/>")).unwrap_err();
        assert_eq!(why.cause, Cause::NotSupported);
        let paused = FoundVm { state: VmState::Paused, ..found(&tap("vnet1")) };
        assert_eq!(WatchedInterfaces::of(&paused).unwrap_err().cause, Cause::GuestNotRunning);
        let mut busy = found(&tap("vnet1"));
        busy.facts.job = Fact::Known(Some("backup".into()));
        assert_eq!(WatchedInterfaces::of(&busy).unwrap_err().cause, Cause::NotAllowed);
    }

    #[test]
    fn a_guest_without_an_agent_has_its_flows_and_no_more() {
        let no_agent = || Unknown::new(Cause::NoGuestAgent, "no agent");
        let whole = WatchedInterfaces::of(&found(&tap("vnet1"))).unwrap();
        let capture = whole.merge(FlowProbe { interfaces: vec![captured("vnet1")] }).unwrap();
        let guest = into_guest(Err(no_agent()), Ok(capture), &GuestAccess::Agent).known().unwrap().clone();
        let udp = guest.udp.known().unwrap();
        assert!(udp.flows.known().is_some());
        assert_eq!(udp.sockets, Fact::Unknown(no_agent()));
        assert_eq!(guest.processes, Fact::Unknown(no_agent()));
        let nothing = into_guest(Err(no_agent()), Err(no_agent()), &GuestAccess::Agent);
        assert_eq!(nothing, Fact::Unknown(no_agent()));
    }
}
