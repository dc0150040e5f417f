//! Filter of the packet capture: a classic BPF program that passes, headers only, packets that may be UDP or belong to a
//! control protocol, and of TCP and all the rest one in [`SAMPLED`] at random.
//!
//! The filter is coarse, since classic BPF cannot walk IPv6 extension headers: such packets pass, and `parse` decides.

use libc::sock_filter;

use crate::flows::parse::{
    CONTROL_PROTOCOLS, DEEPEST_TAGS, EXTENSIONS, IPV6_AH, IPV6_FRAGMENT, SCTP, TAGS, UDP,
};

/// Bytes of each frame that reach the process: more headers than any sane packet has.
pub(crate) const SNAP_BYTES: u32 = 512;

/// One in so many packets that are neither UDP nor of a control protocol passes.
pub(crate) const SAMPLED: u32 = 32;
/// Ancillary load of a random number (SKF_AD_OFF + SKF_AD_RANDOM).
const RANDOM_AT: u32 = (-0x1000_i32 + 56).cast_unsigned();
const LOAD_WORD: u16 = 0x20;
const AND: u16 = 0x54;
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
    Sample,
}

/// The filter program.
pub(crate) fn worth_reading() -> Vec<sock_filter> {
    (0..=DEEPEST_TAGS).flat_map(block).collect()
}

/// The instructions for a frame with at least `tags` VLAN tags. A further tag continues in the next block.
fn block(tags: usize) -> Vec<sock_filter> {
    let header = 14 + 4 * u32::try_from(tags).unwrap_or(0);
    let ipv4: Vec<u8> = [UDP, SCTP].into_iter().chain(CONTROL_PROTOCOLS).collect();
    let ipv6: Vec<u8> = ipv4.iter().copied().chain([IPV6_FRAGMENT, IPV6_AH]).chain(EXTENSIONS).collect();
    // A packet behind a deeper tag may be UDP: it passes, and is counted as too deep.
    let deeper = if tags < DEEPEST_TAGS { JumpTarget::NextBlock } else { JumpTarget::Accept };

    let mut steps = vec![
        (LOAD_HALF, header - 2, JumpTarget::Next, JumpTarget::Next),
        (JUMP_EQUAL, 0x0800, JumpTarget::Next, JumpTarget::Network),
        (LOAD_BYTE, header + 9, JumpTarget::Next, JumpTarget::Next),
    ];
    let protocols = |steps: &mut Vec<(u16, u32, JumpTarget, JumpTarget)>, protocols: &[u8]| {
        for (index, protocol) in protocols.iter().enumerate() {
            let other = if index + 1 == protocols.len() { JumpTarget::Sample } else { JumpTarget::Next };
            steps.push((JUMP_EQUAL, u32::from(*protocol), JumpTarget::Accept, other));
        }
    };
    protocols(&mut steps, &ipv4);
    let network = steps.len();
    steps.push((JUMP_EQUAL, 0x86dd, JumpTarget::Next, JumpTarget::Tag));
    steps.push((LOAD_BYTE, header + 6, JumpTarget::Next, JumpTarget::Next));
    protocols(&mut steps, &ipv6);
    let tag = steps.len();
    for (index, tag) in TAGS.into_iter().enumerate() {
        // What is not IP passes: ARP, and the control protocols of links.
        let other = if index + 1 == TAGS.len() { JumpTarget::Accept } else { JumpTarget::Next };
        steps.push((JUMP_EQUAL, u32::from(tag), deeper, other));
    }
    let sample = steps.len();
    steps.push((LOAD_WORD, RANDOM_AT, JumpTarget::Next, JumpTarget::Next));
    steps.push((AND, SAMPLED - 1, JumpTarget::Next, JumpTarget::Next));
    steps.push((JUMP_EQUAL, 0, JumpTarget::Accept, JumpTarget::Next));
    steps.push((RETURN, 0, JumpTarget::Next, JumpTarget::Next));
    let accept = steps.len();
    steps.push((RETURN, SNAP_BYTES, JumpTarget::Next, JumpTarget::Next));

    let distance = |at: usize, to: JumpTarget| {
        let target = match to {
            JumpTarget::Next => at + 1,
            JumpTarget::Network => network,
            JumpTarget::Tag => tag,
            JumpTarget::Sample => sample,
            JumpTarget::Accept => accept,
            JumpTarget::NextBlock => accept + 1,
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
                // The random number of this interpreter never passes the sample.
                LOAD_WORD => accumulator = 1,
                AND => accumulator &= step.k,
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
    fn most_of_tcp_stays_in_the_kernel_and_control_protocols_pass() {
        let tcp = ipv4(([10, 0, 0, 5], [10, 0, 0, 9]), 6, &[], None, &[0; 40]);
        for tags in [&[][..], &[(0x8100, 7)], &[(0x88a8, 7), (0x8100, 9)]] {
            assert_eq!(run(&worth_reading(), &ethernet(true, tags, 0x0800, &tcp)), 0);
            assert_eq!(run(&worth_reading(), &ethernet(true, tags, 0x0806, &tcp)), SNAP_BYTES);
            let vrrp = ipv4(([10, 0, 0, 5], [224, 0, 0, 18]), 112, &[], None, &[0; 40]);
            assert_eq!(run(&worth_reading(), &ethernet(true, tags, 0x0800, &vrrp)), SNAP_BYTES);
        }
        assert_eq!(run(&accept_nothing(), &tcp), 0);
    }

    proptest! {
        #[test]
        fn what_the_parser_counts_as_udp_passes(bytes in hostile()) {
            let frame =
                Frame { bytes: &bytes, length: bytes.len(), from_guest: true, tag: None, segment_bytes: 0 };
            if !matches!(parse(frame), ParsedFrame::Other | ParsedFrame::Malformed | ParsedFrame::Stream(..)) {
                prop_assert_eq!(run(&worth_reading(), &bytes), SNAP_BYTES);
            }
        }
    }
}
