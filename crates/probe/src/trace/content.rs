//! Size of changed pages on the wire: as differences (XBZRLE), or compressed.

use std::collections::BTreeMap;

use vmgate_facts::trace::Deltas;

use crate::trace::hash::PAGE;

/// Most pages whose earlier content is kept.
const KEPT: usize = 256;
/// Age at which a kept page is compared and replaced: about one pre-copy round of a migration.
const LAG_SECONDS: f64 = 1.0;
/// Most pages that are tested for compressibility.
const COMPRESSED: u32 = 128;

/// Earlier content of some pages, and the sums of the comparisons.
#[derive(Debug, Default)]
pub(super) struct ContentSample {
    kept: BTreeMap<usize, (f64, Vec<u8>)>,
    compared: u32,
    overflowed: u32,
    delta_bytes: u64,
    lag_seconds: f64,
    compressed: u32,
    compressed_bytes: f64,
}

impl ContentSample {
    /// Adds a page that is not zero, at its first read.
    pub(super) fn first_seen(&mut self, page: &[u8]) {
        if self.compressed < COMPRESSED {
            self.compressed += 1;
            self.compressed_bytes += compressed_bytes(page);
        }
    }

    /// Adds a page that changed since the last read; `now` in seconds.
    pub(super) fn changed(&mut self, number: usize, page: &[u8], now: f64) {
        let room = self.kept.len() < KEPT;
        match self.kept.get_mut(&number) {
            Some((since, old)) if now - *since >= LAG_SECONDS => {
                self.compared += 1;
                self.lag_seconds += now - *since;
                match delta_bytes(old, page) {
                    Some(bytes) => self.delta_bytes += bytes as u64,
                    None => self.overflowed += 1,
                }
                *since = now;
                old.clear();
                old.extend_from_slice(page);
            }
            None if room => {
                self.kept.insert(number, (now, page.to_vec()));
            }
            Some(_) | None => {}
        }
    }

    pub(super) fn deltas(&self) -> Option<Deltas> {
        let fitted = self.compared - self.overflowed;
        (self.compared > 0).then(|| Deltas {
            lag_seconds: self.lag_seconds / f64::from(self.compared),
            mean_bytes: if fitted > 0 { self.delta_bytes as f64 / f64::from(fitted) } else { PAGE as f64 },
            overflow_ratio: f64::from(self.overflowed) / f64::from(self.compared),
            compared: self.compared,
        })
    }

    pub(super) fn compressed_ratio(&self) -> Option<f64> {
        (self.compressed > 0).then(|| self.compressed_bytes / (f64::from(self.compressed) * PAGE as f64))
    }
}

/// Size of the difference as QEMU's xbzrle.c encodes it: runs of equal bytes and of new bytes in turn, each after its
/// length (one byte below 128, else two). `None` if the result is not smaller than the page.
pub(super) fn delta_bytes(old: &[u8], new: &[u8]) -> Option<usize> {
    let length_bytes = |run: usize| if run < 128 { 1 } else { 2 };
    let mut size = 0;
    let mut same = 0;
    let mut differ = 0;
    for (old, new) in old.iter().zip(new) {
        if old == new {
            if differ > 0 {
                size += length_bytes(differ) + differ;
                differ = 0;
            }
            same += 1;
        } else {
            if differ == 0 {
                size += length_bytes(same);
                same = 0;
            }
            differ += 1;
        }
    }
    if differ > 0 {
        size += length_bytes(differ) + differ;
    }
    (size < PAGE).then_some(size)
}

/// Estimate of a page's size after a fast compressor: words seen a little earlier cost one byte, others the entropy of
/// their bytes.
fn compressed_bytes(page: &[u8]) -> f64 {
    let (words, _) = page.as_chunks::<8>();
    let mut seen = [0_u64; 256];
    let mut counts = [0_u32; 256];
    let (mut repeated, mut bytes) = (0_u32, 0_u32);
    for word in words {
        let value = u64::from_le_bytes(*word);
        let slot = (value.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as usize;
        let Some(slot) = seen.get_mut(slot) else { continue };
        if *slot == value {
            repeated += 1;
            continue;
        }
        *slot = value;
        bytes += 8;
        for byte in word {
            if let Some(count) = counts.get_mut(usize::from(*byte)) {
                *count += 1;
            }
        }
    }
    let entropy: f64 = counts
        .iter()
        .filter(|count| **count > 0)
        .map(|count| {
            let share = f64::from(*count) / f64::from(bytes);
            -share.log2() * f64::from(*count) / 8.0
        })
        .sum();
    (entropy + f64::from(repeated)).min(PAGE as f64)
}

#[cfg(test)]
mod tests {
    use crate::trace::content::*;

    #[test]
    fn a_difference_is_as_long_as_its_runs() {
        let old = [7_u8; PAGE];
        let mut new = old;
        assert_eq!(delta_bytes(&old, &new), Some(0));
        new[100..108].fill(1);
        assert_eq!(delta_bytes(&old, &new), Some(1 + 1 + 8));
        new[4000..4008].fill(2);
        assert_eq!(delta_bytes(&old, &new), Some(1 + 1 + 8 + 2 + 1 + 8));
        let all = [9_u8; PAGE];
        assert_eq!(delta_bytes(&old, &all), None);
    }

    #[test]
    fn text_compresses_and_noise_does_not() {
        let text = b"the quick brown fox jumps over the lazy dog and ".repeat(90);
        let mut state = 1_u64;
        let mut byte = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 24) as u8
        };
        let noise: Vec<u8> = (0..PAGE).map(|_| byte()).collect();
        assert!(compressed_bytes(&text[..PAGE]) < PAGE as f64 * 0.5);
        assert!(compressed_bytes(&noise) > PAGE as f64 * 0.85);
    }

    #[test]
    fn pages_are_compared_once_they_are_old_enough() {
        let mut content = ContentSample::default();
        let mut page = vec![0_u8; PAGE];
        content.changed(3, &page, 0.0);
        page[8] = 1;
        content.changed(3, &page, 0.5);
        assert_eq!(content.deltas(), None);
        content.changed(3, &page, 1.1);
        let deltas = content.deltas().unwrap();
        assert_eq!((deltas.compared, deltas.mean_bytes as u32), (1, 3));
    }
}
