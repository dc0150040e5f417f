//! A fast hash of one page, to detect changes of its content.
//!
//! Eight lanes of multiply and rotate, so that the CPU works on all in parallel. Not secure against an adversary: a
//! guest that forges equal hashes only makes its own forecast wrong.

use vmgate_facts::trace::PAGE_BYTES;

/// Size of a page in bytes, as an index.
pub(super) const PAGE: usize = PAGE_BYTES as usize;

const LANES: usize = 8;
const MULTIPLY: u64 = 0x9e37_79b9_7f4a_7c15;
const SEEDS: [u64; LANES] = [
    0x243f_6a88_85a3_08d3,
    0x1319_8a2e_0370_7344,
    0xa409_3822_299f_31d0,
    0x082e_fa98_ec4e_6c89,
    0x4528_21e6_38d0_1377,
    0xbe54_66cf_34e9_0c6c,
    0xc0ac_29b7_c97c_50dd,
    0x3f84_d5b5_b547_0917,
];

/// Hash of a page's content.
pub(super) fn of(page: &[u8]) -> u64 {
    let mut lanes = SEEDS;
    let (blocks, _) = page.as_chunks::<{ LANES * 8 }>();
    for block in blocks {
        let (words, _) = block.as_chunks::<8>();
        for (lane, word) in lanes.iter_mut().zip(words) {
            *lane = (*lane ^ u64::from_le_bytes(*word)).wrapping_mul(MULTIPLY).rotate_left(29);
        }
    }
    lanes.iter().fold(MULTIPLY, |all, lane| (all ^ lane).wrapping_mul(MULTIPLY).rotate_left(31))
}

/// Hash of a page of zeros.
pub(super) fn of_zeros() -> u64 {
    of(&[0; PAGE])
}

#[cfg(test)]
mod tests {
    use crate::trace::hash::*;

    #[test]
    fn each_byte_of_a_page_counts() {
        let zeros = of_zeros();
        let mut page = [0_u8; PAGE];
        for at in 0..PAGE {
            page[at] = 1;
            assert_ne!(of(&page), zeros, "byte {at}");
            page[at] = 0;
        }
        assert_eq!(of(&page), zeros);
    }

    #[test]
    fn words_that_change_places_change_the_hash() {
        let mut one = [0_u8; PAGE];
        let mut other = one;
        (one[0], one[64], other[0], other[64]) = (1, 2, 2, 1);
        assert_ne!(of(&one), of(&other));
    }
}
