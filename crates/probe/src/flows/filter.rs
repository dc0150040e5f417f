//! Filter of the packet capture: a classic BPF program that passes packets that may be UDP, headers only.
//!
//! The filter is coarse, since classic BPF cannot walk IPv6 extension headers: such packets pass, and `parse` decides.

use libc::sock_filter;

use crate::flows::parse::{DEEPEST_TAGS, EXTENSIONS, IPV6_AH, IPV6_FRAGMENT, TAGS, UDP};

/// Bytes of each frame that reach the process: more headers than any sane packet has.
pub(crate) const SNAP_BYTES: u32 = 512;

const LOAD_BYTE: u16 = 0x30;
const LOAD_HALF: u16 = 0x28;
const JUMP_EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;

/// Jump target of a comparison; resolved once the length of its block is known.
#[derive(Clone, Copy)]
enum JumpTarget {
    Next,
    Network,
    Tag,
    NextBlock,
    Accept,
    Reject,
}

/// The filter program that passes packets that may be UDP.
pub(crate) fn may_be_udp() -> Vec<sock_filter> {
    (0..=DEEPEST_TAGS).flat_map(block).collect()
}

/// The instructions for a frame with at least `tags` VLAN tags. A further tag continues in the next block.
fn block(tags: usize) -> Vec<sock_filter> {
    let header = 14 + 4 * u32::try_from(tags).unwrap_or(0);
    let ipv6: Vec<u8> = [UDP, IPV6_FRAGMENT, IPV6_AH].into_iter().chain(EXTENSIONS).collect();
    // A packet behind a deeper tag may be UDP: it passes, and is counted as too deep.
    let deeper = if tags < DEEPEST_TAGS { JumpTarget::NextBlock } else { JumpTarget::Accept };

    let mut steps = vec![
        (LOAD_HALF, header - 2, JumpTarget::Next, JumpTarget::Next),
        (JUMP_EQUAL, 0x0800, JumpTarget::Next, JumpTarget::Network),
        (LOAD_BYTE, header + 9, JumpTarget::Next, JumpTarget::Next),
        (JUMP_EQUAL, u32::from(UDP), JumpTarget::Accept, JumpTarget::Reject),
    ];
    let network = steps.len();
    steps.push((JUMP_EQUAL, 0x86dd, JumpTarget::Next, JumpTarget::Tag));
    steps.push((LOAD_BYTE, header + 6, JumpTarget::Next, JumpTarget::Next));
    let last = ipv6.len() - 1;
    for (index, protocol) in ipv6.into_iter().enumerate() {
        let other = if index == last { JumpTarget::Reject } else { JumpTarget::Next };
        steps.push((JUMP_EQUAL, u32::from(protocol), JumpTarget::Accept, other));
    }
    let tag = steps.len();
    for tag in TAGS {
        steps.push((JUMP_EQUAL, u32::from(tag), deeper, JumpTarget::Next));
    }
    let reject = steps.len();
    steps.push((RETURN, 0, JumpTarget::Next, JumpTarget::Next));
    steps.push((RETURN, SNAP_BYTES, JumpTarget::Next, JumpTarget::Next));

    let distance = |at: usize, to: JumpTarget| {
        let target = match to {
            JumpTarget::Next => at + 1,
            JumpTarget::Network => network,
            JumpTarget::Tag => tag,
            JumpTarget::Reject => reject,
            JumpTarget::Accept => reject + 1,
            JumpTarget::NextBlock => reject + 2,
        };
        u8::try_from(target.saturating_sub(at + 1)).unwrap_or(0)
    };
    steps
        .iter()
        .enumerate()
        .map(|(at, &(code, k, yes, no))| sock_filter { code, k, jt: distance(at, yes), jf: distance(at, no) })
        .collect()
}

/// A program that passes nothing: it ends a capture without closing the socket.
pub(crate) fn accept_nothing() -> Vec<sock_filter> {
    vec![sock_filter { code: RETURN, jt: 0, jf: 0, k: 0 }]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::flows::{
        filter::*,
        parse::{Frame, ParsedFrame, parse},
        tests::{ethernet, hostile, ipv4},
    };

    /// Interprets the few instructions used here, as the kernel does.
    fn run(code: &[sock_filter], frame: &[u8]) -> u32 {
        let (mut accumulator, mut at) = (0, 0);
        loop {
            let step = code[at];
            let offset = step.k as usize;
            at += 1;
            match step.code {
                RETURN => return step.k,
                JUMP_EQUAL => at += usize::from(if accumulator == step.k { step.jt } else { step.jf }),
                LOAD_BYTE => match frame.get(offset) {
                    Some(byte) => accumulator = u32::from(*byte),
                    None => return 0,
                },
                _ => match frame.get(offset..offset + 2) {
                    Some(half) => accumulator = u32::from(half[0]) << 8 | u32::from(half[1]),
                    None => return 0,
                },
            }
        }
    }

    #[test]
    fn what_is_not_udp_stays_in_the_kernel() {
        let tcp = ipv4(([10, 0, 0, 5], [10, 0, 0, 9]), 6, &[], None, &[0; 40]);
        for tags in [&[][..], &[(0x8100, 7)], &[(0x88a8, 7), (0x8100, 9)]] {
            assert_eq!(run(&may_be_udp(), &ethernet(true, tags, 0x0800, &tcp)), 0);
            assert_eq!(run(&may_be_udp(), &ethernet(true, tags, 0x0806, &tcp)), 0);
        }
        assert_eq!(run(&accept_nothing(), &tcp), 0);
    }

    proptest! {
        #[test]
        fn whatever_the_parser_counts_passes(bytes in hostile()) {
            let frame =
                Frame { bytes: &bytes, length: bytes.len(), from_guest: true, tag: None, segment_bytes: 0 };
            if !matches!(parse(frame), ParsedFrame::Other | ParsedFrame::Malformed) {
                prop_assert_eq!(run(&may_be_udp(), &bytes), SNAP_BYTES);
            }
        }
    }
}
