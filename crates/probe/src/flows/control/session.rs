//! Sessions gathered from statements: ends, direction, the guest's interval, and the time-out that its peers apply.

use std::{collections::HashMap, fmt, net::IpAddr};

use vmgate_facts::{Cause, ControlBasis, ControlSession, Fact, FlowDirection};

use super::{layers::Message, statement::Statement};

/// Most times between packets that are kept for the median.
const MOST_GAPS: usize = 64;

/// One end of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum End {
    Address(IpAddr, Option<u16>),
    Station([u8; 6]),
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address, None) => address.fmt(f),
            Self::Address(IpAddr::V6(address), Some(port)) => write!(f, "[{address}]:{port}"),
            Self::Address(address, Some(port)) => write!(f, "{address}:{port}"),
            Self::Station([a, b, c, d, e, g]) => {
                write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
            }
        }
    }
}

/// Key of a session in the table. The ends are the guest's and the other, whoever sent.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct SessionKey {
    protocol: &'static str,
    local: End,
    remote: End,
    vlan: Option<u16>,
    identity: String,
}

impl SessionKey {
    pub(super) fn new(message: &Message<'_>, statement: &Statement, from_guest: bool) -> Self {
        let port = |own: Option<u16>| own.filter(|port| statement.port == Some(*port));
        let [source_port, destination_port] = message.ports();
        let [from, to] = message.stations;
        let (sender, receiver) = match message.addresses {
            Some([source, destination]) => {
                (End::Address(source, port(source_port)), End::Address(destination, port(destination_port)))
            }
            None => (End::Station(from), End::Station(to)),
        };
        let (local, remote) = if from_guest { (sender, receiver) } else { (receiver, sender) };
        Self {
            protocol: statement.protocol,
            local,
            remote,
            vlan: message.vlan,
            identity: statement.identity.clone(),
        }
    }

    /// Identity of the group of sessions that one network shares.
    fn shared(&self) -> Shared {
        (self.protocol, self.vlan, self.identity.clone())
    }
}

type Shared = (&'static str, Option<u16>, String);

/// Shortest patience of those that only the guest hears, by protocol and network: routers state in their hellos to a
/// group how long they wait for the guest's hellos to the group.
pub(super) fn shortest_patience(sessions: &HashMap<SessionKey, Session>) -> HashMap<Shared, f64> {
    let mut shortest = HashMap::new();
    for (key, session) in sessions.iter().filter(|(_, session)| session.guest.packets == 0) {
        if let Some(patience) = session.peers.patience {
            shortest
                .entry(key.shared())
                .and_modify(|least: &mut f64| *least = least.min(patience))
                .or_insert(patience);
        }
    }
    shortest
}

/// Packets of one direction.
#[derive(Debug, Clone, Default)]
struct Side {
    packets: u64,
    keepalives: u64,
    last: Option<f64>,
    last_keepalive: Option<f64>,
    /// The newest times between two packets.
    gaps: Vec<f64>,
    longest_gap: f64,
    shortest_between_keepalives: Option<f64>,
    role: Option<&'static str>,
    active: bool,
    interval: Option<f64>,
    least_interval: Option<f64>,
    multiplier: Option<u32>,
    timeout: Option<f64>,
    patience: Option<f64>,
}

impl Side {
    /// Takes over what the packet states; what an earlier one stated stays, as many state times only when they begin.
    fn add(&mut self, statement: &Statement, now: f64) {
        if let Some(last) = self.last {
            let gap = (now - last).max(0.0);
            let slot = usize::try_from(self.packets).unwrap_or(0) % MOST_GAPS;
            match self.gaps.get_mut(slot) {
                Some(oldest) => *oldest = gap,
                None => self.gaps.push(gap),
            }
            self.longest_gap = self.longest_gap.max(gap);
        }
        if statement.keepalive {
            self.keepalives = self.keepalives.saturating_add(1);
            if let Some(last) = self.last_keepalive.replace(now) {
                let between = (now - last).max(0.0);
                self.shortest_between_keepalives =
                    Some(self.shortest_between_keepalives.map_or(between, |shortest| shortest.min(between)));
            }
        }
        self.packets = self.packets.saturating_add(1);
        self.last = Some(now);
        self.role = statement.role.or(self.role);
        self.active = statement.active;
        self.interval = statement.interval.or(self.interval);
        self.least_interval = statement.least_interval.or(self.least_interval);
        self.multiplier = statement.multiplier.or(self.multiplier);
        self.timeout = statement.timeout.or(self.timeout);
        self.patience = statement.patience.or(self.patience);
    }

    /// Time between two keep-alives as far as the window shows it; the interval is hardly shorter. Beside a single packet
    /// stands the time without another. 0 where other traffic hides the rhythm.
    fn keepalive_gap(&self, end: f64) -> f64 {
        match (self.packets, self.last) {
            (1, Some(only)) if self.keepalives == 1 => only.max(end - only),
            (packets, _) if packets == self.keepalives => self.longest_gap,
            _ => self.shortest_between_keepalives.unwrap_or(0.0),
        }
    }

    fn median_gap(&self) -> Option<f64> {
        let mut gaps = self.gaps.clone();
        gaps.sort_by(f64::total_cmp);
        gaps.get(gaps.len() / 2).copied()
    }
}

/// A session under observation.
#[derive(Debug, Clone, Default)]
pub(super) struct Session {
    guest: Side,
    peers: Side,
    reference: &'static str,
}

impl Session {
    pub(super) fn add(&mut self, statement: &Statement, from_guest: bool, now: f64) {
        self.reference = statement.reference;
        let side = if from_guest { &mut self.guest } else { &mut self.peers };
        side.add(statement, now);
    }

    /// The fact; `end` is the end of the window.
    pub(super) fn finish(self, key: &SessionKey, heard: &HashMap<Shared, f64>, end: f64) -> ControlSession {
        let Self { guest, peers, reference } = &self;
        let sends = guest.packets > 0;
        let patience = peers.patience.or_else(|| heard.get(&key.shared()).copied());
        let (timeout, source) = if sends { self.timeout(patience) } else { (None, String::new()) };
        let interval = guest.interval.map(|own| own.max(peers.least_interval.unwrap_or(0.0)));
        ControlSession {
            protocol: key.protocol.to_owned(),
            title: String::new(),
            role: guest.role.map(str::to_owned),
            local: key.local.to_string(),
            remote: key.remote.to_string(),
            identity: key.identity.clone(),
            vlan: key.vlan,
            direction: match (sends, peers.packets > 0) {
                (true, true) => FlowDirection::Both,
                (true, false) => FlowDirection::FromGuest,
                (false, _) => FlowDirection::ToGuest,
            },
            packets_from_guest: guest.packets,
            packets_to_guest: peers.packets,
            active: if sends { guest.active } else { peers.active },
            interval_seconds: interval.or_else(|| guest.median_gap()).map_or_else(
                || Fact::unknown(Cause::NotSupported, "fewer than two packets of the guest were seen"),
                Fact::Known,
            ),
            keepalive_gap_seconds: guest.keepalive_gap(end),
            multiplier: guest.multiplier,
            basis: if timeout.is_some() { ControlBasis::Packet } else { ControlBasis::None },
            timeout_seconds: match timeout {
                Some(seconds) => Fact::Known(seconds),
                None if sends => {
                    Fact::unknown(Cause::NotSupported, "its packets in the window state no time-out")
                }
                None => Fact::unknown(Cause::NotSupported, "the guest sends nothing in this session"),
            },
            source: if source.is_empty() {
                (*reference).to_owned()
            } else {
                format!("{source} ({reference})")
            },
            ..ControlSession::default()
        }
    }

    /// Time-out that the peers apply to the guest, as the packets of both state it, and its calculation.
    fn timeout(&self, patience: Option<f64>) -> (Option<f64>, String) {
        let Self { guest, peers, .. } = self;
        let stated = match (guest.timeout, patience) {
            (Some(own), Some(theirs)) => Some(own.min(theirs)),
            (one, other) => one.or(other),
        };
        if let Some(seconds) = stated {
            return (Some(seconds), format!("{seconds} s stated in the packets"));
        }
        let interval = guest.interval.map(|own| own.max(peers.least_interval.unwrap_or(0.0)));
        match (guest.multiplier, interval) {
            (Some(multiplier), Some(interval)) => {
                let seconds = f64::from(multiplier) * interval;
                (Some(seconds), format!("{multiplier} × {interval} s"))
            }
            _ => (None, String::new()),
        }
    }
}
