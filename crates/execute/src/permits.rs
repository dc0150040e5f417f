//! Permits: signed verdicts that wait at a destination with vmgate's hook, where each lets its VM in once.
//!
//! The way to the hook belongs to the command line. Here is when it is told what: the verdict of the recheck just before the
//! migration, and the withdrawal when that verdict is not used or a later one is NO-GO.

use vmgate_verdict::{Decision, Verdict};

/// The hook of a destination, as far as a move needs it. Where there is none, nothing is sent and nothing waits.
///
/// No failure stops a move: the hook refuses a VM without a permit, and a permit that could not be withdrawn expires. Both
/// are logged by who implements this.
pub trait PermitDesk {
    /// Signs the verdict and sends it. Returns the permit's digest if it waits there now.
    fn grant(&self, verdict: &Verdict) -> Option<String>;

    /// Withdraws one permit, if it still waits.
    fn withdraw(&self, permit: &str);

    /// Withdraws all permits of the VM with this UUID or name.
    fn withdraw_all(&self, vm: &str);
}

/// Cancels what waits for the VM of a NO-GO: an earlier GO no longer holds.
pub fn cancel_after(verdict: &Verdict, permits: &dyn PermitDesk) {
    if let (Decision::NoGo(_), Some(vm)) = (verdict.decision, &verdict.moved.vm.uuid) {
        permits.withdraw_all(vm.as_str());
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use vmgate_verdict::sample;

    use super::*;

    #[derive(Default)]
    struct Desk {
        withdrawn: RefCell<Vec<String>>,
    }

    impl PermitDesk for Desk {
        fn grant(&self, _: &Verdict) -> Option<String> {
            None
        }

        fn withdraw(&self, permit: &str) {
            self.withdrawn.borrow_mut().push(permit.to_owned());
        }

        fn withdraw_all(&self, vm: &str) {
            self.withdrawn.borrow_mut().push(format!("all of {vm}"));
        }
    }

    #[test]
    fn a_no_go_cancels_what_waits_for_its_vm_and_a_go_cancels_nothing() {
        let desk = Desk::default();
        let (mut go, mut no_go) = (sample::go(), sample::no_go());
        go.moved.vm.uuid = Some("5e7c9b3e-6a0e-4c2e-9a53-0d6f5a5c9d11".parse().unwrap());
        cancel_after(&go, &desk);
        assert!(desk.withdrawn.borrow().is_empty());
        no_go.moved.vm.uuid = None;
        cancel_after(&no_go, &desk);
        assert!(desk.withdrawn.borrow().is_empty(), "no VM is named");
        no_go.moved.vm.uuid = Some("5e7c9b3e-6a0e-4c2e-9a53-0d6f5a5c9d12".parse().unwrap());
        cancel_after(&no_go, &desk);
        assert_eq!(*desk.withdrawn.borrow(), ["all of 5e7c9b3e-6a0e-4c2e-9a53-0d6f5a5c9d12"]);
    }
}
