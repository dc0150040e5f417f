//! Captured octets, read by offset: what lies outside is absent.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Octets of a packet, as far as they were captured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Octets<'a>(pub(crate) &'a [u8]);

impl Octets<'_> {
    pub(crate) fn array<const N: usize>(self, at: usize) -> Option<[u8; N]> {
        self.0.get(at..)?.first_chunk().copied()
    }

    pub(crate) fn u8(self, at: usize) -> Option<u8> {
        self.0.get(at).copied()
    }

    pub(crate) fn u16(self, at: usize) -> Option<u16> {
        self.array(at).map(u16::from_be_bytes)
    }

    pub(crate) fn u32(self, at: usize) -> Option<u32> {
        self.array(at).map(u32::from_be_bytes)
    }

    pub(crate) fn v4(self, at: usize) -> Option<IpAddr> {
        self.array(at).map(|octets| Ipv4Addr::from(octets).into())
    }

    pub(crate) fn v6(self, at: usize) -> Option<IpAddr> {
        self.array(at).map(|octets| Ipv6Addr::from(octets).into())
    }

    pub(crate) fn len(self) -> usize {
        self.0.len()
    }

    /// The octets from an offset on.
    pub(crate) fn from(self, at: usize) -> Option<Self> {
        self.0.get(at..).map(Self)
    }

    pub(crate) fn begins_with(self, start: &[u8]) -> bool {
        self.0.starts_with(start)
    }
}
