//! Elements of an LLDP frame (IEEE 802.1AB section 8.4).

use super::octets::Octets;

pub(crate) const CHASSIS: u16 = 1;
pub(crate) const PORT: u16 = 2;
pub(crate) const TIME_TO_LIVE: u16 = 3;
pub(crate) const PORT_DESCRIPTION: u16 = 4;
pub(crate) const SYSTEM_NAME: u16 = 5;
/// Of an organisation, which its first three octets name.
pub(crate) const ORGANISATION: u16 = 127;

/// Most elements of a frame that are read.
const MOST: usize = 200;

/// Types and values of the elements behind the Ethernet header, up to the first that is cut off.
pub(crate) fn elements(frame: Octets<'_>) -> impl Iterator<Item = (u16, Octets<'_>)> {
    let mut rest = Some(frame);
    let element = move || {
        let header = rest?.u16(0)?;
        let length = usize::from(header & 0x1ff);
        let value = rest?.0.get(2..2 + length)?;
        rest = rest?.from(2 + length);
        (header != 0).then_some((header >> 9, Octets(value)))
    };
    std::iter::from_fn(element).take(MOST)
}
