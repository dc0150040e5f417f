//! Frames of a rehearsal: raw Ethernet with the type that IEEE 802 keeps for experiments, so that no host takes them for
//! its own.

/// Hardware address.
pub(super) type Mac = [u8; 6];

/// Address of all stations.
pub(super) const EVERYBODY: Mac = [0xff; 6];
/// EtherType for local experiments (IEEE 802, 88-B5).
const ETHERTYPE: [u8; 2] = [0x88, 0xb5];
const MARK: &[u8; 6] = b"vmgate";
/// Shortest frame that Ethernet carries, without its check sum.
const SHORTEST: usize = 60;

/// Meanings of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    /// "I am here", to everybody.
    Hello = 1,
    /// Answer to a hello, to its sender alone: it arrives only where the network knows the sender's place.
    Answer = 2,
    /// Request to take the guest's stand-in away.
    Leave = 3,
    /// The stand-in is gone.
    Gone = 4,
    /// The rehearsal is over.
    Done = 5,
}

impl Meaning {
    fn from_byte(byte: u8) -> Option<Self> {
        [Self::Hello, Self::Answer, Self::Leave, Self::Gone, Self::Done]
            .into_iter()
            .find(|meaning| *meaning as u8 == byte)
    }
}

/// A frame of one rehearsal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) to: Mac,
    pub(super) from: Mac,
    pub(super) session: u64,
    pub(super) meaning: Meaning,
}

impl Frame {
    pub(super) fn to_bytes(self) -> Vec<u8> {
        let mut bytes = [&self.to[..], &self.from, &ETHERTYPE, MARK, &self.session.to_be_bytes()].concat();
        bytes.push(self.meaning as u8);
        bytes.resize(SHORTEST, 0);
        bytes
    }

    /// The frame in these bytes; none for all that other people send.
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (to, rest) = bytes.split_first_chunk()?;
        let (from, rest) = rest.split_first_chunk()?;
        let rest = rest.strip_prefix(&ETHERTYPE)?.strip_prefix(MARK)?;
        let (session, rest) = rest.split_first_chunk()?;
        let meaning = Meaning::from_byte(*rest.first()?)?;
        Some(Self { to: *to, from: *from, session: u64::from_be_bytes(*session), meaning })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_comes_back_and_others_are_not_read() {
        for meaning in [Meaning::Hello, Meaning::Answer, Meaning::Leave, Meaning::Gone, Meaning::Done] {
            let frame = Frame { to: EVERYBODY, from: [2, 0, 0, 0, 0, 1], session: 7, meaning };
            let bytes = frame.to_bytes();
            assert_eq!((bytes.len(), Frame::from_bytes(&bytes)), (SHORTEST, Some(frame)));
            for short in 0..29 {
                assert_eq!(Frame::from_bytes(&bytes[..short]), None, "{short} bytes");
            }
            let mut arp = bytes;
            arp[12..14].copy_from_slice(&[0x08, 0x06]);
            assert_eq!(Frame::from_bytes(&arp), None);
        }
    }
}
