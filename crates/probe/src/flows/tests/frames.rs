//! Frames for tests, put together header by header.

/// The guest's Ethernet address and its peer's.
pub(super) const GUEST_MAC: [u8; 6] = [0x52, 0x54, 0, 0, 0, 1];
pub(super) const PEER_MAC: [u8; 6] = [0x52, 0x54, 0, 0, 0, 2];

/// Ethernet header, tags as (EtherType, id), and the payload with its EtherType.
pub(crate) fn ethernet(from_guest: bool, tags: &[(u16, u16)], kind: u16, payload: &[u8]) -> Vec<u8> {
    let (to, from) = if from_guest { (PEER_MAC, GUEST_MAC) } else { (GUEST_MAC, PEER_MAC) };
    let mut frame = [to, from].concat();
    for (tag, id) in tags {
        frame.extend(tag.to_be_bytes());
        frame.extend(id.to_be_bytes());
    }
    frame.extend(kind.to_be_bytes());
    frame.extend(payload);
    frame
}

/// An IPv4 packet; `fragment` is (identification, offset in 8 bytes, more fragments follow).
pub(crate) fn ipv4(
    (source, destination): ([u8; 4], [u8; 4]),
    protocol: u8,
    options: &[u8],
    fragment: Option<(u16, u16, bool)>,
    payload: &[u8],
) -> Vec<u8> {
    let header = 20 + options.len();
    let (id, offset, more) = fragment.unwrap_or((0, 0, false));
    let mut packet = vec![0x40 | u8::try_from(header / 4).unwrap(), 0];
    packet.extend(u16::try_from(header + payload.len()).unwrap().to_be_bytes());
    packet.extend(id.to_be_bytes());
    packet.extend((offset | u16::from(more) << 13).to_be_bytes());
    packet.extend([64, protocol, 0, 0]);
    packet.extend(source);
    packet.extend(destination);
    packet.extend(options);
    let sum = checksum(&packet);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend(payload);
    packet
}

fn checksum(header: &[u8]) -> u16 {
    let mut sum: u32 = header.chunks(2).map(|two| u32::from(two[0]) << 8 | u32::from(two[1])).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap()
}

/// An IPv6 packet; extension headers as (their number, their bytes, whose first byte is filled in here).
pub(super) fn ipv6(
    (source, destination): ([u8; 16], [u8; 16]),
    extensions: &[(u8, Vec<u8>)],
    last: u8,
    payload: &[u8],
) -> Vec<u8> {
    let numbers: Vec<u8> = extensions.iter().map(|(number, _)| *number).chain([last]).collect();
    let chain: Vec<u8> = extensions
        .iter()
        .zip(&numbers[1..])
        .flat_map(|((_, bytes), next)| [&[*next], &bytes[1..]].concat())
        .collect();
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(u16::try_from(chain.len() + payload.len()).unwrap().to_be_bytes());
    packet.extend([numbers[0], 64]);
    packet.extend(source);
    packet.extend(destination);
    packet.extend(chain);
    packet.extend(payload);
    packet
}

/// An extension header of the common form with a length of `bytes`, a multiple of 8.
pub(super) fn options(bytes: usize) -> Vec<u8> {
    let mut header = vec![0; bytes];
    header[1] = u8::try_from(bytes / 8 - 1).unwrap();
    header
}

/// An IPv6 fragment header.
pub(super) fn fragment(id: u32, offset: u16, more: bool) -> Vec<u8> {
    let mut header = vec![0, 0];
    header.extend((offset << 3 | u16::from(more)).to_be_bytes());
    header.extend(id.to_be_bytes());
    header
}

/// A UDP datagram without a checksum.
pub(super) fn udp(source: u16, destination: u16, payload: usize) -> Vec<u8> {
    let mut datagram = Vec::new();
    datagram.extend(source.to_be_bytes());
    datagram.extend(destination.to_be_bytes());
    datagram.extend(u16::try_from(8 + payload).unwrap().to_be_bytes());
    datagram.extend([0, 0]);
    datagram.resize(8 + payload, b'x');
    datagram
}

pub(super) fn v6(last: u8) -> [u8; 16] {
    let mut address = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    address[15] = last;
    address
}
