//! Rehearsal of the switchover. The source has a stand-in of the guest and a witness beside it, the destination a witness.
//! Once the destination's witness and both at the source have answered each other, the stand-in disappears there and
//! appears at the destination; the time until an answer of the source's witness reaches it is what a guest's peers see.
//! One clock measures: the destination's. All agreement is by frames over the guest's network itself.

use std::{
    thread,
    time::{Duration, Instant},
};

use vmgate_facts::{BridgePort, HostRole, SwitchoverSeen};

use super::{
    Ended,
    frame::{Frame, Mac, Meaning},
    station::Station,
};

/// Time between two looks at what has arrived.
const LOOK: Duration = Duration::from_millis(2);
/// Time between two frames while both sides look for each other.
const MEETING: Duration = Duration::from_millis(100);
/// The same after the switchover: at first as often as QEMU's announcements may be missed, then sparingly.
const FOLLOWING: [Duration; 2] = [Duration::from_millis(10), Duration::from_millis(50)];
/// Time after which a network that learns from announcements would have followed.
const AT_FIRST: Duration = Duration::from_secs(1);
/// Longest wait for an answer of the source to the order to leave.
const LEAVING: Duration = Duration::from_secs(10);
/// Longest time that one side waits in each step.
const LIMIT: (f64, f64) = (1.0, 600.0);
/// Frames that end the rehearsal, one of which will arrive.
const LAST_FRAMES: usize = 5;

/// Parts of a rehearsal, each with an address of its own.
#[derive(Clone, Copy)]
enum Part {
    Guest = 1,
    AtSource = 2,
    AtDestination = 3,
}

/// One side of a rehearsal.
pub(super) struct Rehearsal<'a> {
    port: &'a BridgePort,
    session: u64,
    limit: Duration,
    ended: &'a Ended,
}

/// A reminder that comes back after a while.
struct Ticker(Instant);

impl Ticker {
    fn is_due(&mut self, every: Duration) -> bool {
        let due = Instant::now() >= self.0;
        if due {
            self.0 = Instant::now() + every;
        }
        due
    }
}

impl<'a> Rehearsal<'a> {
    pub(super) fn new(port: &'a BridgePort, session: u64, limit_seconds: f64, ended: &'a Ended) -> Self {
        let limit = Duration::from_secs_f64(limit_seconds.clamp(LIMIT.0, LIMIT.1));
        Self { port, session, limit, ended }
    }

    pub(super) fn play(&self, role: HostRole) -> Result<SwitchoverSeen, String> {
        match role {
            HostRole::Source => self.at_source(),
            HostRole::Destination => self.at_destination(),
        }
    }

    /// Locally administered address of a part in this rehearsal.
    fn mac(&self, part: Part) -> Mac {
        let [a, b, c, ..] = self.session.to_be_bytes();
        [0x02, 0x76, a, b, c, part as u8]
    }

    fn open(&self, part: Part) -> Result<Station, String> {
        Station::open(self.port, self.mac(part), self.session)
    }

    /// Gives way until `deadline` or the end of the input; false when it is over.
    fn goes_on(&self, deadline: Instant) -> bool {
        thread::sleep(LOOK);
        !self.ended.is_set() && Instant::now() < deadline
    }

    fn at_source(&self) -> Result<SwitchoverSeen, String> {
        let witness = self.open(Part::AtSource)?;
        let mut guest = Some(self.open(Part::Guest)?);
        let mut seen = SwitchoverSeen { met: false, dark_seconds: None };
        let mut ticker = Ticker(Instant::now());
        let deadline = Instant::now() + self.limit * 2 + LEAVING * 2;
        while self.goes_on(deadline) {
            if ticker.is_due(MEETING) {
                witness.hello();
                guest.iter().for_each(Station::hello);
            }
            while let Some(frame) = guest.as_ref().and_then(Station::receive) {
                if let Some(guest) = &guest {
                    answer(guest, &frame);
                }
            }
            while let Some(frame) = witness.receive() {
                match frame.meaning {
                    Meaning::Leave => {
                        (guest, seen.met) = (None, true);
                        witness.send(frame.from, Meaning::Gone);
                    }
                    Meaning::Done => return Ok(seen),
                    // The stand-in on the same bridge is no proof of the network.
                    Meaning::Hello if guest.as_ref().is_none_or(|guest| guest.mac() != frame.from) => {
                        answer(&witness, &frame);
                    }
                    _ => {}
                }
            }
        }
        Ok(seen)
    }

    fn at_destination(&self) -> Result<SwitchoverSeen, String> {
        let witness = self.open(Part::AtDestination)?;
        let source = self.mac(Part::AtSource);
        if !self.meets(&witness) || !self.leaves(&witness) {
            return Ok(SwitchoverSeen { met: false, dark_seconds: None });
        }
        let guest = self.open(Part::Guest)?;
        let dark_seconds = self.follows(&guest, source);
        for _ in 0..LAST_FRAMES {
            witness.send(source, Meaning::Done);
            thread::sleep(LOOK);
        }
        Ok(SwitchoverSeen { met: true, dark_seconds })
    }

    /// True once both at the source have answered.
    fn meets(&self, witness: &Station) -> bool {
        let wanted = [Part::AtSource, Part::Guest].map(|part| self.mac(part));
        let mut met = [false; 2];
        let mut ticker = Ticker(Instant::now());
        let deadline = Instant::now() + self.limit;
        while !met.iter().all(|met| *met) {
            if ticker.is_due(MEETING) {
                witness.hello();
            }
            while let Some(frame) = witness.receive() {
                answer(witness, &frame);
                for (met, _) in met.iter_mut().zip(wanted).filter(|(_, mac)| *mac == frame.from) {
                    *met |= frame.meaning == Meaning::Answer;
                }
            }
            if !self.goes_on(deadline) {
                return false;
            }
        }
        true
    }

    /// True once the stand-in is gone from the source.
    fn leaves(&self, witness: &Station) -> bool {
        let mut ticker = Ticker(Instant::now());
        let deadline = Instant::now() + LEAVING;
        loop {
            if ticker.is_due(MEETING) {
                witness.send(self.mac(Part::AtSource), Meaning::Leave);
            }
            while let Some(frame) = witness.receive() {
                if frame.meaning == Meaning::Gone {
                    return true;
                }
            }
            if !self.goes_on(deadline) {
                return false;
            }
        }
    }

    /// Time until the network reaches the stand-in at its new place.
    fn follows(&self, guest: &Station, source: Mac) -> Option<f64> {
        let made = Instant::now();
        let mut ticker = Ticker(made);
        loop {
            let [often, seldom] = FOLLOWING;
            if ticker.is_due(if made.elapsed() < AT_FIRST { often } else { seldom }) {
                guest.hello();
            }
            while let Some(frame) = guest.receive() {
                if frame.meaning == Meaning::Answer && frame.from == source {
                    return Some(made.elapsed().as_secs_f64());
                }
            }
            if !self.goes_on(made + self.limit) {
                return None;
            }
        }
    }
}

fn answer(station: &Station, frame: &Frame) {
    if frame.meaning == Meaning::Hello {
        station.send(frame.from, Meaning::Answer);
    }
}
