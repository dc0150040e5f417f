//! Facts about what in the guest depends on the machine beneath it: VMs of its own, watchdogs, hardware clocks.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{CollectionMethod, Fact, Names};

/// Parts of the machine that the guest uses and a move may disturb.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub struct GuestMachine {
    /// Hardware virtualisation that the guest's processor offers, as /proc/cpuinfo names it: vmx or svm; absent where it offers none.
    #[schemars(example = &"vmx", extend("x-names" = Names::FREE))]
    pub virtualisation: Fact<Option<String>>,
    /// VMs that run in the guest with KVM.
    #[schemars(example = 0, extend("x-learnt-by" = CollectionMethod::GUEST_PROGRAMS))]
    pub running_vms: Fact<u64>,
    /// Watchdog timers that are armed: each resets the guest if nothing feeds it in time.
    pub watchdogs: Fact<Vec<GuestWatchdog>>,
    /// Names of the hardware clocks of the Precision Time Protocol, as their drivers give them.
    #[schemars(example = vec!["KVM virtual PTP"])]
    pub ptp_clocks: Fact<Vec<String>>,
}

/// Armed watchdog timer of the guest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct GuestWatchdog {
    /// Device of the watchdog.
    #[schemars(example = &"watchdog0")]
    pub device: String,
    /// Name that its driver gives it.
    #[schemars(example = &"i6300ESB timer")]
    pub identity: String,
    /// Time without feeding after which it resets the guest.
    #[schemars(example = 30.0)]
    pub timeout_seconds: f64,
}
