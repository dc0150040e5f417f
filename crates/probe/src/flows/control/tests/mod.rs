//! Tests of the control protocols: packets of real daemons, hand-made packets, and bounds.

mod bounds;
mod daemons;
mod packets;

use vmgate_facts::ControlSession;

use super::ControlTable;
use crate::flows::packet::Packet;

/// Ethernet addresses of the guest and of its peer, in captures and in made packets.
const GUEST: [u8; 6] = [0x52, 0x54, 0, 0, 0, 1];
const PEER: [u8; 6] = [0x52, 0x54, 0, 0, 0, 2];

/// Catalogue that completes what the capture finds.
const CATALOGUE: &str = include_str!("../../../../../../rules/catalogues/control-protocols.yaml");

fn observe(table: &mut ControlTable, frame: &[u8], from_guest: bool, now: f64) {
    if let Some(packet) = Packet::of(frame, from_guest) {
        table.observe(&packet, now);
    }
}

/// Sessions of frames, each with its time in seconds; the guest sent what the peer did not.
fn sessions<'a>(frames: impl IntoIterator<Item = (f64, &'a [u8])>) -> Vec<ControlSession> {
    let mut table = ControlTable::new();
    for (now, frame) in frames {
        observe(&mut table, frame, frame.get(6..12) != Some(&PEER[..]), now);
    }
    assert_eq!(table.no_room(), 0);
    let found = table.finish();
    for session in &found {
        let entry = format!("\n  - id: {}\n", session.protocol);
        assert!(CATALOGUE.contains(&entry), "{} is not in the catalogue", session.protocol);
    }
    found
}

/// Packets of one second each, all of them of one session.
fn session(frames: &[Vec<u8>]) -> ControlSession {
    let found = sessions((0_u32..).map(f64::from).zip(frames.iter().map(Vec::as_slice)));
    assert_eq!(found.len(), 1, "{found:?}");
    found.into_iter().next().unwrap()
}
