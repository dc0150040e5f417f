//! Compact text form of page positions and tick lengths: LEB128 numbers in base64, positions as gaps between them.

use std::ops::Deref;

use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use schemars::JsonSchema;

use super::{MOST_PAGES, MOST_TICKS};

/// Appends a number as LEB128: seven bits a byte, the lowest first, the high bit set on all but the last.
pub(super) fn put_leb128(out: &mut Vec<u8>, mut number: u64) {
    loop {
        let low = (number & 0x7f) as u8;
        number >>= 7;
        if number == 0 {
            out.push(low);
            return;
        }
        out.push(low | 0x80);
    }
}

/// Reads a LEB128 number from the front; `None` if it is cut off or too large.
pub(super) fn take_leb128(from: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = from.split_first()?;
        *from = rest;
        let low = u64::from(byte & 0x7f);
        if low.leading_zeros() < shift {
            return None;
        }
        number |= low << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

/// Writes a type as its packed bytes in base64, by its methods `pack` and `unpack`.
macro_rules! serde_by_base64 {
    ($name:ident, $content:literal) => {
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&STANDARD_NO_PAD.encode(self.pack()))
            }
        }

        impl std::str::FromStr for $name {
            type Err = &'static str;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let bytes = STANDARD_NO_PAD.decode(text).ok();
                bytes.and_then(|bytes| Self::unpack(&bytes)).ok_or(concat!("not ", $content, " in base64"))
            }
        }

        crate::serde_by_text!($name);
    };
}
pub(super) use serde_by_base64;

/// Rising page numbers. Written as base64 of the gaps between them (LEB128), from the first page's number on.
#[derive(Debug, Clone, PartialEq, Eq, Default, JsonSchema)]
#[schemars(with = "String", inline, extend("contentEncoding" = "base64"))]
pub struct Positions(Vec<u64>);

impl Positions {
    /// Creates positions from page numbers; sorts them and removes duplicates.
    pub fn new(mut positions: Vec<u64>) -> Self {
        positions.sort_unstable();
        positions.dedup();
        Self(positions)
    }

    /// Page numbers, rising.
    pub fn as_slice(&self) -> &[u64] {
        &self.0
    }

    fn unpack(mut gaps: &[u8]) -> Option<Self> {
        let mut positions = Vec::new();
        let mut next = 0_u64;
        while !gaps.is_empty() && positions.len() <= MOST_PAGES {
            let at = next.checked_add(take_leb128(&mut gaps)?)?;
            positions.push(at);
            next = at.checked_add(1)?;
        }
        gaps.is_empty().then_some(Self(positions))
    }

    fn pack(&self) -> Vec<u8> {
        let (mut out, mut next) = (Vec::new(), 0);
        for &at in &self.0 {
            put_leb128(&mut out, at - next);
            next = at + 1;
        }
        out
    }
}

serde_by_base64!(Positions, "the gaps between page numbers");

/// Lengths of ticks in microseconds. Written as base64 of LEB128 numbers.
#[derive(Debug, Clone, PartialEq, Eq, Default, JsonSchema)]
#[schemars(with = "String", inline, extend("contentEncoding" = "base64"))]
pub struct TickLengths(Vec<u32>);

impl From<Vec<u32>> for TickLengths {
    fn from(microseconds: Vec<u32>) -> Self {
        Self(microseconds)
    }
}

impl Deref for TickLengths {
    type Target = [u32];

    fn deref(&self) -> &[u32] {
        &self.0
    }
}

impl TickLengths {
    fn unpack(mut bytes: &[u8]) -> Option<Self> {
        let mut ticks = Vec::new();
        while !bytes.is_empty() && ticks.len() <= MOST_TICKS {
            ticks.push(u32::try_from(take_leb128(&mut bytes)?).ok()?);
        }
        bytes.is_empty().then_some(Self(ticks))
    }

    fn pack(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.0.iter().for_each(|tick| put_leb128(&mut out, (*tick).into()));
        out
    }
}

serde_by_base64!(TickLengths, "the lengths of ticks");
