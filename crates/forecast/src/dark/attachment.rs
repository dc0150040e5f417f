//! The dark time that follows from the attachments of an interface at both hosts.
//!
//! QEMU announces each interface at the start and after 50, 200, 450 and 800 ms (announce-initial, -step, -rounds) by RARP,
//! and lets a virtio driver that can do it announce the guest's addresses as well, so that a network that learns from packets
//! follows at once. What makes it slower: a bridge with a spanning tree, whose new port does not forward for twice the
//! forward delay (Linux br_make_forwarding; the port is new when the destination prepares, so that the copy runs
//! meanwhile); a control plane that must be told (EVPN, OVN, OpenFlow, a routing daemon); and an attachment past which
//! nothing can be seen. The second and third are unknown unless somebody measured them.

use vmgate_facts::{
    Bridge, BridgeController, BridgeKind, Cause, Fact, Host, Quantiles, SpanningTree, SwitchPort, Unknown,
    Uplink, VmNic, text::ShownCommand,
};

/// Dark time of a network that learns from QEMU's announcements: the first is sent with the start, and where it is lost the
/// second comes 50 ms later.
pub(super) const ANNOUNCED: Quantiles = Quantiles { p5: 0.0, p50: 0.01, p95: 0.05 };

/// Time after the start for which the guest is announced: what begins to forward later has missed it.
const ANNOUNCES_SECONDS: f64 = 0.8;

/// Time from a silence's begin until a neighbour that sends to the guest's old place asks everybody. Linux believes an address for
/// 15 to 45 s after the last sign of life (half to three halves of base_reachable_time), waits 5 s, and asks three times there
/// (neighbour.c). One that was about to ask anyway does so at once.
const NEIGHBOURS_ASK: Quantiles = Quantiles { p5: 0.0, p50: 38.0, p95: 53.0 };

/// Cause of a dark time that comes from announcements alone.
pub(super) const LEARNT: &str = "switches learn the guest's new port from QEMU's announcements";

/// Fate of a guest whose announcements are over before the port forwards, and that was not seen to speak.
const QUIET: &str = "; unless the guest speaks first, it is found when its neighbours ask anew, at a random time of 23 to 53 s";

/// Dark time of macvtap: neighbours on the source host are led to the source's interface for as long as libvirt keeps it, which
/// is until it has heard from the destination that the guest runs there.
const MACVTAP: Quantiles = Quantiles { p5: 0.0, p50: 0.05, p95: 0.5 };

/// Dark time of one interface, as derived.
pub(super) struct Derived {
    pub(super) dark_seconds: Fact<Quantiles>,
    /// Part of the network that decides, in words.
    pub(super) because: String,
    /// True if the time runs from the making of the port, and not from the guest's start.
    pub(super) runs_during_copy: bool,
}

impl Derived {
    fn known(dark_seconds: Quantiles, because: impl Into<String>) -> Self {
        Self { dark_seconds: Fact::Known(dark_seconds), because: because.into(), runs_during_copy: false }
    }
}

impl From<Unknown> for Derived {
    fn from(why: Unknown) -> Self {
        Self { because: why.reason.clone(), dark_seconds: Fact::Unknown(why), runs_during_copy: false }
    }
}

/// Attachment of an interface at a host.
enum Attachment {
    /// Port of a bridge, in a VLAN.
    Bridge {
        bridge: Bridge,
        vlan: Option<u32>,
        /// True for a network of each host's own, isolated or behind its NAT: no port leads out of it.
        own: bool,
    },
    /// Macvtap on an interface of the host.
    Macvtap,
}

/// The copy and the guest's own packets, beside which a port waits.
#[derive(Clone, Copy)]
pub(super) struct Meanwhile<'a> {
    /// Duration of the migration.
    pub(super) copy: &'a Fact<Quantiles>,
    /// Time between two packets that the guest sends unasked; none where it was not seen to.
    pub(super) speaks_every_seconds: Option<f64>,
}

/// Derives the dark time of an interface.
pub(super) fn derive(
    nic: &VmNic,
    source: &Fact<Host>,
    destination: &Fact<Host>,
    meanwhile: Meanwhile<'_>,
) -> Derived {
    let there = match attachment(nic, destination) {
        Ok(there) => there,
        Err(why) => return why.into(),
    };
    // The source's bridge must learn that the guest has left: one that is told, and does not learn, is waited for as well.
    let here = match attachment(nic, source) {
        Ok(Attachment::Bridge { bridge, .. }) => Some(bridge),
        _ => None,
    };
    if let Some(Err(why)) = here.as_ref().map(|bridge| learns(bridge, &host_name(source, "the source"))) {
        return why.into();
    }
    let host = host_name(destination, "the destination");
    match there {
        Attachment::Bridge { bridge, vlan, own } => {
            let uplinks = bridge.uplinks.known().filter(|_| !own).map(Vec::as_slice);
            let open = uplinks.map_or(Ok(()), |uplinks| leads_out(&bridge, uplinks, vlan, &host));
            let learnt = learnt(here.as_ref(), &bridge);
            learns(&bridge, &host)
                .and(open)
                .and_then(|()| of_bridge(&bridge, &host, learnt, meanwhile))
                .unwrap_or_else(Derived::from)
        }
        Attachment::Macvtap => Derived::known(
            MACVTAP,
            format!("{LEARNT}; neighbours on {} do when its copy has ended", host_name(source, "the source")),
        ),
    }
}

fn attachment(nic: &VmNic, host: &Fact<Host>) -> Result<Attachment, Unknown> {
    let named = host;
    let host = host.as_ref().into_result()?;
    let source = nic.source.as_deref().unwrap_or_default();
    let mac = &nic.mac;
    if let Some(port) = nic.virtual_port.as_deref().filter(|port| *port != "openvswitch") {
        return Err(nobody_measured(&format!(
            "interface {mac}, whose virtual port ({port}) a controller connects"
        )));
    }
    let (name, own) = match nic.kind.as_str() {
        "bridge" => (source.to_owned(), false),
        "network" => match network(nic, host, source)? {
            Some(bridge) => bridge,
            None => return Ok(Attachment::Macvtap),
        },
        // libvirt's default mode is vepa.
        "direct" => {
            return match nic.direct_mode.as_deref() {
                None | Some("vepa" | "bridge" | "private") => Ok(Attachment::Macvtap),
                Some(mode) => Err(nobody_measured(&format!(
                    "interface {mac}, which has {source} for itself (macvtap, mode {mode})"
                ))),
            };
        }
        kind => return Err(nobody_measured(&format!("interface {mac} of kind {kind}: {}", beyond(kind)))),
    };
    let bridges = host.bridges.as_ref().into_result()?;
    let bridge = bridges.iter().find(|bridge| bridge.name == name).cloned().ok_or_else(|| {
        let host = host_name(named, "the host");
        Unknown::new(Cause::NetworkNotConnected, format!("{host} has no bridge {name} for interface {mac}"))
    })?;
    let vlan = nic.vlan_tags.first().copied().or(bridge.default_vlan);
    Ok(Attachment::Bridge { bridge, vlan, own })
}

/// Party that decides what kinds of attachment mean that vmgate cannot see past.
fn beyond(kind: &str) -> &'static str {
    match kind {
        "hostdev" => "an adapter's own switch (SR-IOV) or the physical one forwards to it",
        "vdpa" => "an adapter's own switch forwards to it",
        "vhostuser" => "a switch in user space (OVS-DPDK, VPP) forwards to it",
        "ethernet" => "a program other than libvirt connects its tap, and routes or a controller lead to it",
        "user" => "a process of the source host translates its addresses, so that its connections end",
        _ => "vmgate does not know what forwards to it",
    }
}

/// Announcements of an interface from its new place, in words. QEMU sends its own whatever the guest does.
pub(super) fn announcements(nic: &VmNic) -> &'static str {
    match (nic.kind.as_str(), nic.model.as_deref()) {
        ("hostdev" | "vdpa", _) => {
            "none of QEMU's: the adapter or the guest's driver announces it, or nobody"
        }
        ("vhostuser", _) => {
            "QEMU's RARP by the switch in user space, if that can; else the guest's virtio driver's, if that can"
        }
        (_, Some("virtio")) => {
            "QEMU's RARP, five times within 0.8 s; gratuitous ARP and unsolicited neighbour advertisements by the guest's virtio \
             driver, if that can"
        }
        _ => "QEMU's RARP, five times within 0.8 s; none by the guest",
    }
}

/// Bridge of a libvirt network, and whether it is each host's own; none for a pool of interfaces for macvtap.
fn network(nic: &VmNic, host: &Host, name: &str) -> Result<Option<(String, bool)>, Unknown> {
    let networks = host.virtual_networks.as_ref().into_result()?;
    let network = networks.iter().find(|network| network.name == name).ok_or_else(|| {
        Unknown::new(Cause::NetworkNotConnected, format!("a host of the move has no active network {name}"))
    })?;
    let forward = network.forward.as_ref().into_result()?;
    match (forward.as_str(), &network.bridge) {
        ("bridge", Some(bridge)) => Ok(Some((bridge.clone(), false))),
        ("nat" | "isolated", Some(bridge)) => Ok(Some((bridge.clone(), true))),
        ("bridge" | "vepa" | "private", None) => Ok(None),
        ("route" | "open", _) => Err(nobody_measured(&format!(
            "network {name} with forward mode {forward} (interface {}): routes must lead to the destination",
            nic.mac
        ))),
        (mode, _) => Err(nobody_measured(&format!("network {name} with forward mode {mode}"))),
    }
}

/// Fails for a bridge that somebody else tells where to forward.
fn learns(bridge: &Bridge, host: &str) -> Result<(), Unknown> {
    let told =
        |plane: &str| format!("bridge {} of {host}, which {plane} tells where to forward", bridge.name);
    match bridge.controlled_by.as_ref().into_result()? {
        BridgeController::Itself => Ok(()),
        // Some moves are followed at once, and others after many seconds: a rehearsal proves nothing.
        BridgeController::Echo => Err(nobody_measured(&format!(
            "bridge {} of {host}, one of whose tunnels floods to the host's own address, so that announcements come back (`bridge fdb \
             show` lists it, `bridge fdb del` takes it out)",
            bridge.name
        ))),
        BridgeController::Evpn => Err(unmeasured_bridge(&told("EVPN"))),
        // A port that is no VM's gets no flows: nothing else than a VM can try it.
        BridgeController::Ovn => Err(nobody_measured(&told("OVN"))),
        BridgeController::Openflow => Err(nobody_measured(&told("an OpenFlow controller"))),
    }
}

/// The switches that learn of the guest's new place, by the names that switches told the hosts.
fn learnt(here: Option<&Bridge>, there: &Bridge) -> String {
    let port =
        |bridge: &Bridge| bridge.uplinks.known()?.iter().find_map(|up| up.switch_ports.first()).cloned();
    match (here.and_then(port), port(there)) {
        (Some(here), Some(there)) if here.switch == there.switch => {
            format!(
                "switch {} learns the guest's new port {} from QEMU's announcements",
                there.switch, there.port
            )
        }
        (Some(here), Some(there)) => format!(
            "switches {} and {} (port {}) learn the guest's new port from QEMU's announcements",
            here.switch, there.switch, there.port
        ),
        _ => LEARNT.to_owned(),
    }
}

fn of_bridge(
    bridge: &Bridge,
    host: &str,
    learnt: String,
    meanwhile: Meanwhile<'_>,
) -> Result<Derived, Unknown> {
    let name = &bridge.name;
    let delay = match bridge.spanning_tree.as_ref().into_result()? {
        SpanningTree::None => return Ok(Derived::known(ANNOUNCED, learnt)),
        SpanningTree::Stp => *bridge.forward_delay_seconds.as_ref().into_result()?,
        SpanningTree::Rstp => {
            let delay = bridge.forward_delay_seconds.as_ref().into_result()?;
            return Err(unmeasured_bridge(&format!(
                "bridge {name} of {host}, where RSTP lets a new port wait for up to 2 × {delay} s unless it is an edge port"
            )));
        }
    };
    let dark = meanwhile.after_copy(2.0 * delay);
    let unheard = dark.p95 > ANNOUNCES_SECONDS && meanwhile.speaks_every_seconds.is_none();
    let quiet = if unheard { QUIET } else { "" };
    Ok(Derived {
        dark_seconds: Fact::Known(dark),
        because: format!("bridge {name} of {host} learns for 2 × {delay} s, STP{quiet}"),
        runs_during_copy: true,
    })
}

/// Fails for a bridge that has no port to the network which forwards in the interface's VLAN.
fn leads_out(bridge: &Bridge, uplinks: &[Uplink], vlan: Option<u32>, host: &str) -> Result<(), Unknown> {
    let carries = |uplink: &&Uplink| match (&uplink.vlans, vlan) {
        (Some(vlans), Some(vlan)) => vlans.contains(&vlan),
        _ => true,
    };
    let (name, mut carriers) = (&bridge.name, uplinks.iter().filter(carries));
    let no_way = |why: String| Err(Unknown::new(Cause::NetworkNotConnected, why));
    match (uplinks, vlan) {
        ([], _) => Err(nobody_measured(&format!(
            "bridge {name} of {host}, which has no port but guests': routes must lead to the destination"
        ))),
        ([first, ..], Some(vlan)) if carriers.clone().next().is_none() => {
            let command =
                ShownCommand::new("bridge vlan add dev").operand(&first.name).words("vid").value(vlan);
            let how = match bridge.kind {
                BridgeKind::Linux => format!("such as with `{command}`"),
                BridgeKind::OpenVswitch => format!("by the tag or the trunks of {} (ovs-vsctl)", first.name),
            };
            no_way(format!(
                "no port of bridge {name} of {host} carries VLAN {vlan} to the network: let one, {how}"
            ))
        }
        ([first, ..], _) if !carriers.any(|uplink| uplink.forwards) => no_way(format!(
            "no port of bridge {name} of {host} forwards to the network now ({}): wait until one does, or connect it",
            first.name
        )),
        _ => {
            // Untagged, its packets are in the VLAN that the switch has for them.
            let tag = vlan.filter(|vlan| Some(*vlan) != bridge.default_vlan);
            let forwarding = uplinks.iter().filter(carries).filter(|uplink| uplink.forwards);
            let mut ways = forwarding.map(|uplink| switch_carries(uplink, uplink.tag.or(tag), host));
            ways.clone().find(Result::is_ok).or_else(|| ways.next()).unwrap_or(Ok(()))
        }
    }
}

/// Fails where the switch names the VLANs of its port, and the one in which the guest's packets leave the host is not among them.
fn switch_carries(uplink: &Uplink, vlan: Option<u32>, host: &str) -> Result<(), Unknown> {
    let missing =
        |port: &&SwitchPort| !port.vlans.is_empty() && vlan.is_some_and(|vlan| !port.vlans.contains(&vlan));
    let (Some(port), Some(vlan)) = (uplink.switch_ports.iter().find(missing), vlan) else { return Ok(()) };
    let SwitchPort { nic, switch, port, .. } = port;
    Err(Unknown::new(
        Cause::NetworkNotConnected,
        format!(
            "switch {switch} names the VLANs of its port {port}, which leads to {nic} of {host}, and the guest's VLAN {vlan} is not \
             among them: let it carry VLAN {vlan}, or show with --probe-network that it does"
        ),
    ))
}

impl Meanwhile<'_> {
    /// Rest of a time that runs from the making of the port: what the copy takes is over when the guest starts. A guest that speaks
    /// is found with its next packet; one that only answers has missed its announcements, and waits for its neighbours.
    pub(super) fn after_copy(self, from_port: f64) -> Quantiles {
        let copy = self.copy.known().copied().unwrap_or(Quantiles { p5: 0.0, p50: 0.0, p95: 0.0 });
        let found = |forwards: f64, announced: f64, speaks: f64, neighbours_ask: f64| {
            if forwards <= ANNOUNCES_SECONDS {
                return forwards.max(announced);
            }
            self.speaks_every_seconds
                .map_or(f64::INFINITY, |every| forwards + speaks * every)
                .min(forwards.max(neighbours_ask))
        };
        Quantiles {
            p5: found(from_port - copy.p95, ANNOUNCED.p5, 0.0, NEIGHBOURS_ASK.p5),
            p50: found(from_port - copy.p50, ANNOUNCED.p50, 0.5, NEIGHBOURS_ASK.p50),
            p95: found(from_port - copy.p5, ANNOUNCED.p95, 1.0, NEIGHBOURS_ASK.p95),
        }
    }
}

fn nobody_measured(what: &str) -> Unknown {
    let why = format!("nobody measured how soon the network follows a VM on {what}");
    Unknown::new(Cause::NetworkNotMeasured, why)
}

/// The same for a bridge on which an interface can stand in for the VM's.
fn unmeasured_bridge(what: &str) -> Unknown {
    let why = nobody_measured(what);
    Unknown { reason: format!("{}: --probe-network can", why.reason), ..why }
}

pub(super) fn host_name(host: &Fact<Host>, otherwise: &str) -> String {
    let name = host.known().and_then(|host| host.hostname.known());
    name.map_or(otherwise, |name| name.split('.').next().unwrap_or(name)).to_owned()
}
