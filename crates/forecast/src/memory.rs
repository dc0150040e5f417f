//! Memory that a migration sends for the first time: what the guest has touched, as far as the host tells.
//!
//! A page that the guest never touched is zero and costs nine bytes. QEMU's resident set bounds those pages from above;
//! of the resident ones some are zero too (the kernel hands out memory in larger pieces than the guest writes).

use vmgate_facts::{Accelerator, Fact, Vm, trace::PAGE_BYTES};

use super::{
    precopy::as_f64,
    replay::{Interval, synthetic_trace::PageGroup},
};

/// Resident memory of QEMU that is not the guest's: at least this much was measured for a small VM.
const OWN_BYTES: f64 = 40.0e6;
/// Share of zero pages in the guest's resident memory: 0.07 to 0.15 were measured under KVM, more where huge pages are
/// handed out to a guest that uses little.
const RESIDENT_ZERO: Interval = Interval { low: 0.0, high: 0.25 };
/// The same under emulation, where QEMU keeps the translated code in its own memory, too.
const RESIDENT_ZERO_EMULATED: Interval = Interval { low: 0.0, high: 0.6 };
/// The same where nothing tells what the guest has touched.
const UNTOLD_ZERO: Interval = Interval { low: 0.0, high: 0.9 };

/// Pages of a guest's RAM by what is known of their content without a trace.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct TouchedMemory {
    /// All RAM that a migration looks at, what a balloon took included.
    pub(super) ram_bytes: u64,
    /// Share of the RAM that the guest never touched.
    pub(super) untouched_ratio: f64,
    /// Share of zero pages among the others.
    pub(super) resident_zero_ratio: Interval,
}

impl TouchedMemory {
    /// Memory of this VM, as far as it is known; none where its size is not known.
    pub(super) fn of(vm: &Vm) -> Option<Self> {
        let ram_bytes = *vm.memory_max_bytes.known().or(vm.memory_bytes.known())?;
        let Some(resident) = vm.resident_bytes.known().copied().flatten() else {
            return Some(Self { ram_bytes, untouched_ratio: 0.0, resident_zero_ratio: UNTOLD_ZERO });
        };
        let touched = (as_f64(resident) - OWN_BYTES).max(0.0).min(as_f64(ram_bytes));
        let resident_zero_ratio = match vm.accelerator {
            Fact::Known(Accelerator::Kvm) => RESIDENT_ZERO,
            _ => RESIDENT_ZERO_EMULATED,
        };
        let untouched_ratio = 1.0 - touched / as_f64(ram_bytes.max(1));
        Some(Self { ram_bytes, untouched_ratio, resident_zero_ratio })
    }

    /// Share of the untouched memory in what these groups of written pages leave.
    pub(super) fn untouched_ratio_beside(&self, groups: &[PageGroup]) -> f64 {
        let written = groups.iter().map(|group| group.pages).sum::<f64>() * as_f64(PAGE_BYTES);
        let others = (1.0 - written / as_f64(self.ram_bytes.max(1))).max(1e-9);
        (self.untouched_ratio / others).min(1.0)
    }

    /// Memory that the guest can have touched.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a part of the RAM")]
    pub(super) fn touched_bytes(&self) -> u64 {
        self.most_bytes() as u64
    }

    /// Most bytes that a pass over the memory sends.
    pub(super) fn most_bytes(&self) -> f64 {
        as_f64(self.ram_bytes) * (1.0 - self.untouched_ratio)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn vm(memory: u64, most: u64, resident: Fact<Option<u64>>) -> Vm {
        Vm {
            memory_bytes: Fact::Known(memory),
            memory_max_bytes: Fact::Known(most),
            resident_bytes: resident,
            accelerator: Fact::Known(Accelerator::Kvm),
            ..Vm::default()
        }
    }

    fn touched(memory: u64, most: u64, resident: Fact<Option<u64>>) -> TouchedMemory {
        TouchedMemory::of(&vm(memory, most, resident)).unwrap()
    }

    #[test]
    fn the_resident_set_bounds_what_is_sent() {
        let eight = touched(8 * GIB, 8 * GIB, Fact::Known(Some(2 * GIB)));
        assert!((eight.untouched_ratio - 0.755).abs() < 0.01, "{eight:?}");
        assert!(eight.most_bytes() < as_f64(2 * GIB));
        // QEMU's own memory comes on top of a guest that has touched everything.
        let full = touched(GIB, GIB, Fact::Known(Some(GIB + GIB / 8)));
        assert!(full.untouched_ratio.abs() < 1e-9, "{full:?}");
    }

    #[test]
    fn a_balloon_gives_memory_back_and_a_migration_still_looks_at_all_of_it() {
        let ballooned = touched(2 * GIB, 8 * GIB, Fact::Known(Some(2 * GIB)));
        assert_eq!(ballooned.ram_bytes, 8 * GIB);
        assert!(ballooned.most_bytes() <= as_f64(2 * GIB));
    }

    #[test]
    fn shared_and_merged_memory_is_resident_like_any_other() {
        // libvirt's figure is the RSS of /proc/PID/stat: pages of a memfd count in it, and pages that KSM merged stay mapped.
        let shared = touched(4 * GIB, 4 * GIB, Fact::Known(Some(4 * GIB)));
        assert!((shared.most_bytes() / as_f64(4 * GIB) - 1.0).abs() < 0.02, "{shared:?}");
        // KSM's own zero page is not resident, and goes as a zero page.
        let merged_zero = touched(4 * GIB, 4 * GIB, Fact::Known(Some(GIB)));
        assert!(merged_zero.most_bytes() < as_f64(GIB), "{merged_zero:?}");
    }

    #[test]
    fn huge_preallocated_and_untold_memory_may_be_anything_between_empty_and_full() {
        for untold in [Fact::Known(None), Fact::default()] {
            let memory = touched(8 * GIB, 8 * GIB, untold);
            assert!(memory.untouched_ratio.abs() < 1e-9);
            assert_eq!(memory.resident_zero_ratio, UNTOLD_ZERO);
        }
        assert_eq!(TouchedMemory::of(&Vm::default()), None);
    }
}
