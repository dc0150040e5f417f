//! A listener on a bridge: when frames of one guest arrive there, and how long none did.

use std::{
    fs,
    io::{self, ErrorKind},
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use vmgate_facts::HeardGuest;

use crate::{
    flows::{PacketSocket, WaitResult},
    netlink::interfaces,
};

/// Hardware address.
type Mac = [u8; 6];

/// Longest Ethernet header and ARP message that is read.
const BUFFER: usize = 128;

/// Listener for the frames of one guest.
pub struct Listener {
    socket: PacketSocket,
    own: Mac,
    guest: Mac,
    first: Option<Instant>,
    last: Option<Instant>,
    heard: HeardGuest,
}

impl Listener {
    /// Listens on the host's own interface of a bridge, to the guest with this hardware address.
    pub fn on(bridge: &str, guest: &str) -> io::Result<Self> {
        let unknown = || io::Error::new(ErrorKind::NotFound, "there is no such interface with an address");
        let all = interfaces()?;
        let interface = all.iter().find(|one| one.name == bridge).ok_or_else(unknown)?;
        let own = fs::read_to_string(format!("/sys/class/net/{}/address", interface.name))?;
        let socket = PacketSocket::new()?;
        socket.bind(interface)?;
        let heard = HeardGuest {
            frames: 0,
            heard_for_seconds: 0.0,
            longest_silence_seconds: 0.0,
            silent_since_seconds: 0.0,
        };
        let (own, guest) = (parsed(&own).ok_or_else(unknown)?, parsed(guest).ok_or_else(unknown)?);
        Ok(Self { socket, own, guest, first: None, last: None, heard })
    }

    /// Asks the guest for its addresses. The sender's address is left out, as RFC 5227 has it for a probe: no neighbour learns
    /// anything from that.
    pub fn ask(&self, addresses: &[Ipv4Addr]) -> io::Result<()> {
        for address in addresses {
            match self.socket.send(&request(self.own, self.guest, *address)) {
                // A bridge that is down for a moment, or has no room: the next question follows soon.
                Err(error) if matches!(error.raw_os_error(), Some(libc::ENETDOWN | libc::ENOBUFS)) => {}
                other => other?,
            }
        }
        Ok(())
    }

    /// Listens for a while.
    pub fn hear(&mut self, length: Duration) -> io::Result<()> {
        let deadline = Instant::now() + length;
        while self.socket.wait(true, deadline)? == WaitResult::Readable {
            let mut buffer = [0; BUFFER];
            let length = self.socket.receive(&mut buffer)?;
            let from = buffer.get(..length).and_then(|frame| frame.get(6..12));
            if from == Some(&self.guest[..]) {
                self.note(Instant::now());
            }
        }
        Ok(())
    }

    fn note(&mut self, now: Instant) {
        let silence = self.last.map_or(0.0, |last| (now - last).as_secs_f64());
        self.heard.longest_silence_seconds = self.heard.longest_silence_seconds.max(silence);
        self.heard.frames += 1;
        self.first.get_or_insert(now);
        self.last = Some(now);
    }

    /// True if the guest was heard once, and not lately.
    pub fn is_waiting(&self, lately: Duration) -> bool {
        self.last.is_some_and(|last| last.elapsed() > lately)
    }

    /// Everything that was heard.
    pub fn heard(&self) -> HeardGuest {
        let since = |at: Option<Instant>| at.map_or(0.0, |at| at.elapsed().as_secs_f64());
        let (heard_for_seconds, silent_since_seconds) = (since(self.first), since(self.last));
        HeardGuest { heard_for_seconds, silent_since_seconds, ..self.heard }
    }
}

/// ARP request to one host (RFC 826).
fn request(own: Mac, guest: Mac, address: Ipv4Addr) -> Vec<u8> {
    const ARP: [u8; 2] = [0x08, 0x06];
    const ETHERNET_IPV4_REQUEST: [u8; 8] = [0, 1, 8, 0, 6, 4, 0, 1];
    [&guest[..], &own, &ARP, &ETHERNET_IPV4_REQUEST, &own, &[0; 4], &[0; 6], &address.octets()].concat()
}

fn parsed(mac: &str) -> Option<Mac> {
    let mut bytes = mac.trim().split(':').map(|byte| u8::from_str_radix(byte, 16).ok());
    let mut next = || bytes.next().flatten();
    let mac = [next()?, next()?, next()?, next()?, next()?, next()?];
    bytes.next().is_none().then_some(mac)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_an_arp_request_without_a_sender() {
        let (own, guest) = ([2, 0, 0, 0, 0, 1], parsed("52:54:00:12:34:56").unwrap());
        let frame = request(own, guest, Ipv4Addr::new(10, 0, 0, 5));
        assert_eq!((frame.len(), &frame[..6], &frame[12..14]), (42, &guest[..], &[8, 6][..]));
        assert_eq!((&frame[28..32], &frame[38..]), (&[0; 4][..], &[10, 0, 0, 5][..]));
        for bad in ["", "52:54:00:12:34", "52:54:00:12:34:56:78", "zz:54:00:12:34:56"] {
            assert_eq!(parsed(bad), None, "{bad}");
        }
    }
}
