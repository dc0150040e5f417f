//! Sessions of control protocols in captured frames: who watches the guest, and how long they wait for it.
//!
//! A parser turns one packet into a [`Statement`]; a [`Session`] gathers statements and the times between them. Parsers
//! exist where a time stands in the packets; all other protocols are recognised by their port. Nothing here allocates
//! for payload, the number of sessions is bounded, and no octet is read that was not captured.

mod bfd;
mod cluster;
mod first_hop;
mod layers;
mod link;
mod routing;
mod rtp;
mod session;
mod statement;
mod telecom;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use layers::{Carrier, Message};
use rtp::MediaTable;
use session::{Session, SessionKey};
use statement::Statement;
use vmgate_facts::ControlSession;

use crate::flows::packet::Packet;

/// Most sessions of one capture; a router has some hundred neighbours.
const MOST_SESSIONS: usize = 1024;

/// Sessions of one capture.
#[derive(Debug, Default)]
pub(crate) struct ControlTable {
    sessions: HashMap<SessionKey, Session>,
    media: MediaTable,
    no_room: u64,
    /// Time of the newest frame, in seconds from the window's start.
    now: f64,
}

impl ControlTable {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Takes in a packet. `now` is in seconds from the window's start.
    pub(super) fn observe(&mut self, packet: &Packet<'_>, now: f64) {
        self.now = self.now.max(now);
        let Some(message) = Message::of(packet) else { return };
        let from_guest = packet.from_guest;
        match read(&message) {
            Some(statement) => {
                let key = SessionKey::new(&message, &statement, from_guest);
                self.add(key, &statement, from_guest, now);
            }
            None => self.media.observe(&message, from_guest, now),
        }
    }

    fn add(&mut self, key: SessionKey, statement: &Statement, from_guest: bool, now: f64) {
        let known = self.sessions.len();
        match self.sessions.get_mut(&key) {
            Some(session) => session.add(statement, from_guest, now),
            None if known < MOST_SESSIONS => {
                self.sessions.entry(key).or_default().add(statement, from_guest, now);
            }
            None => self.no_room = self.no_room.saturating_add(1),
        }
    }

    /// Packets of sessions that did not fit into the table.
    pub(crate) fn no_room(&self) -> u64 {
        self.no_room
    }

    /// The sessions, in a stable order.
    pub(crate) fn finish(self) -> Vec<ControlSession> {
        let heard = session::shortest_patience(&self.sessions);
        let mut found: Vec<ControlSession> =
            self.sessions.into_iter().map(|(key, session)| session.finish(&key, &heard, self.now)).collect();
        found.extend(self.media.finish());
        found.sort_by(|a, b| {
            (&a.protocol, &a.local, &a.remote, &a.identity, a.vlan).cmp(&(
                &b.protocol,
                &b.local,
                &b.remote,
                &b.identity,
                b.vlan,
            ))
        });
        found
    }
}

/// Statement of a packet; none if it belongs to no control protocol.
fn read(message: &Message<'_>) -> Option<Statement> {
    match message.carrier {
        Carrier::Ethernet(kind) => link::of_ethertype(kind, message.payload),
        Carrier::Llc => link::of_llc(message.payload).or_else(|| routing::isis(message.payload)),
        Carrier::Ip(protocol) => first_hop::of_ip(protocol, message.payload)
            .or_else(|| routing::of_ip(protocol, message.payload))
            .or_else(|| telecom::of_ip(protocol, message.payload)),
        Carrier::Udp(ports) => bfd::of_udp(ports, message.payload)
            .or_else(|| first_hop::of_udp(ports, message.payload))
            .or_else(|| routing::of_udp(ports, message.payload))
            .or_else(|| link::of_udp(ports, message.payload))
            .or_else(|| telecom::of_udp(ports, message.payload))
            .or_else(|| cluster::of_udp(ports)),
        Carrier::Tcp(ports) => routing::of_tcp(ports, message.payload)
            .or_else(|| telecom::of_tcp(ports, message.payload))
            .or_else(|| cluster::of_tcp(ports, message.payload)),
    }
}
