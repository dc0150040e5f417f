//! Parser of netlink messages and attributes from untrusted bytes: a length that does not fit ends the parsing.

use vmgate_facts::text::plain_bytes;

/// One netlink message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Message<'a> {
    /// nlmsg_type.
    pub(crate) kind: u16,
    /// Bytes after the header.
    pub(crate) payload: &'a [u8],
}

/// Error for bytes that are not valid netlink.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("cannot parse the kernel's netlink answer")]
pub(crate) struct NetlinkParseError;

const HEADER: usize = 16;
const ATTRIBUTE_HEADER: usize = 4;

/// The messages of one datagram.
pub(crate) fn messages(bytes: &[u8]) -> impl Iterator<Item = Result<Message<'_>, NetlinkParseError>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let found = (|| {
            let length = usize::try_from(number32(rest, 0)?).ok()?;
            let message = rest.get(..length).filter(|_| length >= HEADER)?;
            let kind = number16(message, 4)?;
            rest = rest.get(aligned(length)..).unwrap_or(&[]);
            Some(Message { kind, payload: message.get(HEADER..)? })
        })();
        if found.is_none() {
            rest = &[];
        }
        Some(found.ok_or(NetlinkParseError))
    })
}

/// The attributes in a payload from `offset` on: kind and value.
pub(crate) fn attributes(payload: &[u8], offset: usize) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = payload.get(offset..).unwrap_or(&[]);
    std::iter::from_fn(move || {
        let length = usize::from(number16(rest, 0)?);
        // The two highest bits are flags (NLA_F_NESTED, NLA_F_NET_BYTEORDER).
        let kind = number16(rest, 2)? & 0x3fff;
        let value = rest.get(ATTRIBUTE_HEADER..length)?;
        rest = rest.get(aligned(length)..).unwrap_or(&[]);
        Some((kind, value))
    })
}

/// A number in the machine's own order.
fn number16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..)?.first_chunk().copied()?))
}

/// A number in the machine's own order.
pub(crate) fn number32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..)?.first_chunk().copied()?))
}

/// A number in the machine's own order.
pub(crate) fn number64(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(bytes.get(at..)?.first_chunk().copied()?))
}

/// The first attribute of that kind in a payload from `offset` on.
pub(crate) fn attribute(payload: &[u8], offset: usize, wanted: u16) -> Option<&[u8]> {
    attributes(payload, offset).find(|(kind, _)| *kind == wanted).map(|(_, value)| value)
}

/// Text of a value that ends with a NUL, without control characters.
pub(crate) fn text(value: &[u8]) -> String {
    plain_bytes(value.split(|&byte| byte == 0).next().unwrap_or_default())
}

fn aligned(length: usize) -> usize {
    length.saturating_add(3) & !3
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::netlink::message::*;

    #[test]
    fn messages_follow_one_another_aligned() {
        let mut bytes = Vec::new();
        for (kind, payload) in [(20_u16, &b"abc"[..]), (3, b"")] {
            bytes.extend(u32::try_from(16 + payload.len()).unwrap().to_ne_bytes());
            bytes.extend(kind.to_ne_bytes());
            bytes.extend([0; 10]);
            bytes.extend(payload);
            bytes.resize(aligned(bytes.len()), 0);
        }
        let found: Vec<_> = messages(&bytes).map(Result::unwrap).collect();
        assert_eq!(found, [Message { kind: 20, payload: b"abc" }, Message { kind: 3, payload: b"" }]);
        assert!(messages(&bytes[..18]).any(|message| message.is_err()), "cut off");
    }

    proptest! {
        #[test]
        fn no_bytes_panic_or_hang(bytes in prop::collection::vec(any::<u8>(), 0..300), offset in 0..400_usize) {
            prop_assert!(messages(&bytes).count() <= bytes.len());
            prop_assert!(attributes(&bytes, offset).count() <= bytes.len());
        }
    }
}
