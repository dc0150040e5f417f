//! Compact text form of page positions and tick lengths: LEB128 numbers in base64, positions as gaps between them.

use std::{borrow::Cow, ops::Deref};

use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

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

pub(super) fn to_base64(bytes: &[u8]) -> String {
    STANDARD_NO_PAD.encode(bytes)
}

pub(super) fn from_base64(text: &str) -> Option<Vec<u8>> {
    STANDARD_NO_PAD.decode(text).ok()
}

/// Rising page numbers. Written as base64 of the gaps between them (LEB128), from the first page's number on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
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
}

impl Serialize for Positions {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut out = Vec::new();
        let mut next = 0;
        for &at in &self.0 {
            put_leb128(&mut out, at - next);
            next = at + 1;
        }
        serializer.serialize_str(&to_base64(&out))
    }
}

impl<'de> Deserialize<'de> for Positions {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        from_base64(&text)
            .and_then(|gaps| Self::unpack(&gaps))
            .ok_or_else(|| D::Error::custom("not the gaps between page numbers in base64"))
    }
}

impl JsonSchema for Positions {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Positions".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "contentEncoding": "base64", "description": "Page numbers as gaps" })
    }
}

/// Lengths of ticks in microseconds. Written as base64 of LEB128 numbers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
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
}

impl Serialize for TickLengths {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut out = Vec::new();
        self.0.iter().for_each(|tick| put_leb128(&mut out, (*tick).into()));
        serializer.serialize_str(&to_base64(&out))
    }
}

impl<'de> Deserialize<'de> for TickLengths {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        from_base64(&text)
            .and_then(|bytes| Self::unpack(&bytes))
            .ok_or_else(|| D::Error::custom("not the lengths of ticks in base64"))
    }
}

impl JsonSchema for TickLengths {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "TickLengths".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "contentEncoding": "base64", "description": "Lengths of ticks" })
    }
}
