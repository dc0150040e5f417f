//! Bit vector, written to a document as run lengths, so that long runs of equal bits take little space.

use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use schemars::JsonSchema;

use super::leb128::{put_leb128, serde_by_base64, take_leb128};

/// Most bits that are read, 16 MiB of them: fifty times those of the longest trace of the largest sample.
const MOST_BITS: usize = 1 << 27;

/// Bit vector. Written as base64 of run lengths (LEB128), clear and set in turn, clear first; the length comes first.
#[derive(Debug, Clone, PartialEq, Eq, Default, JsonSchema)]
#[schemars(with = "String", inline, extend("contentEncoding" = "base64"))]
pub struct Bits {
    words: Vec<u64>,
    len: usize,
}

impl Bits {
    /// Creates `len` clear bits.
    pub fn clear(len: usize) -> Self {
        Self { words: vec![0; len.div_ceil(64)], len }
    }

    /// Number of bits.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True if there are no bits.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Sets one bit; ignores a bit beyond the end.
    pub fn set(&mut self, at: usize) {
        if at < self.len
            && let Some(word) = self.words.get_mut(at / 64)
        {
            *word |= 1 << (at % 64);
        }
    }

    /// True if the bit is set; false beyond the end.
    pub fn get(&self, at: usize) -> bool {
        self.words.get(at / 64).is_some_and(|word| word >> (at % 64) & 1 == 1)
    }

    /// Number of set bits.
    pub fn ones(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Positions of the set bits from `begin` up to `end`, rising.
    pub fn ones_between(&self, begin: usize, end: usize) -> impl Iterator<Item = usize> + '_ {
        let end = end.min(self.len);
        let mut at = begin;
        std::iter::from_fn(move || {
            at = self.end_of_run(at, false);
            (at < end).then(|| {
                at += 1;
                at - 1
            })
        })
    }

    fn pack(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_leb128(&mut out, self.len as u64);
        let (mut value, mut begin) = (false, 0);
        // The last run is written only where it is of set bits: the length says the rest.
        while begin < self.len {
            let end = self.end_of_run(begin, value);
            if end < self.len || value {
                put_leb128(&mut out, (end - begin) as u64);
            }
            (value, begin) = (!value, end);
        }
        out
    }

    /// End of the run of bits with value `value` that begins at `at`.
    fn end_of_run(&self, at: usize, value: bool) -> usize {
        let mut skip = at % 64;
        for (number, word) in self.words.iter().enumerate().skip(at / 64) {
            let other = (if value { !word } else { *word }) & (u64::MAX << skip);
            if other != 0 {
                return (number * 64 + other.trailing_zeros() as usize).min(self.len);
            }
            skip = 0;
        }
        self.len
    }

    fn unpack(mut runs: &[u8]) -> Option<Self> {
        let len = usize::try_from(take_leb128(&mut runs)?).ok().filter(|len| *len <= MOST_BITS)?;
        // All runs are read before any bit costs memory.
        let mut set = Vec::new();
        let (mut at, mut value) = (0_usize, false);
        while !runs.is_empty() {
            let run = usize::try_from(take_leb128(&mut runs)?).ok()?;
            let end = at.checked_add(run).filter(|end| *end <= len)?;
            if value {
                set.push(at..end);
            }
            (at, value) = (end, !value);
        }
        let mut bits = Self::clear(len);
        set.into_iter().flatten().for_each(|at| bits.set(at));
        Some(bits)
    }
}

serde_by_base64!(Bits, "the run lengths of bits");
