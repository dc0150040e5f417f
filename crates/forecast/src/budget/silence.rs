//! Effect of a move's silence on a connection. The peer's timers run through blackout and dark time, the guest's own
//! timers through the dark time alone.
//!
//! While the guest is stopped its timers stand still and those of its peers run. After the resume the network may stay
//! dark until switches have learnt the guest's new port; in that time both run.

use super::Budget;

/// Silence caused by a move.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Silence {
    /// Blackout: time for which the guest is stopped.
    pub blackout_seconds: f64,
    /// Dark time: time after the blackout for which the network does not reach the guest.
    pub dark_seconds: f64,
}

/// One of the two ends of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionEnd {
    /// The VM that moves (guest).
    Guest,
    /// The other end (peer).
    Peer,
}

/// Survival of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Survival {
    /// The connection certainly survives.
    Certain,
    /// Survival depends on timer lateness, or on the other end sending data in time.
    Possible,
    /// The connection is given up before the network returns.
    Lost,
}

/// Expected effect of a silence on a connection.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SurvivalEstimate {
    /// Survival of the connection.
    pub survival: Survival,
    /// End with the least margin, which decides.
    pub decided_by: ConnectionEnd,
    /// Margin at that end in seconds; negative where survival is not certain.
    pub spare_seconds: f64,
    /// Time until data sent at the start of the silence arrives, which is the silence that the service sees; absent
    /// where lost.
    pub repaired_after_seconds: Option<f64>,
}

impl Silence {
    /// Length of the silence in the time of one end's timers.
    pub fn seconds_for(self, side: ConnectionEnd) -> f64 {
        match side {
            ConnectionEnd::Guest => self.dark_seconds,
            ConnectionEnd::Peer => self.blackout_seconds + self.dark_seconds,
        }
    }

    /// Estimates the effect on a connection with these budgets.
    pub fn survival_estimate(self, guest: &Budget, peer: &Budget) -> SurvivalEstimate {
        let spare = |side: ConnectionEnd, budget: &Budget| budget.survives_seconds - self.seconds_for(side);
        let (decided_by, budget) = if spare(ConnectionEnd::Guest, guest) < spare(ConnectionEnd::Peer, peer) {
            (ConnectionEnd::Guest, guest)
        } else {
            (ConnectionEnd::Peer, peer)
        };
        let spare_seconds = spare(decided_by, budget);
        let lost = |side: ConnectionEnd, budget: &Budget| self.seconds_for(side) >= budget.latest_end_seconds;
        let survival = if spare_seconds >= 0.0 {
            Survival::Certain
        } else if lost(ConnectionEnd::Guest, guest) || lost(ConnectionEnd::Peer, peer) {
            Survival::Lost
        } else {
            Survival::Possible
        };
        // The guest's clock begins again after the blackout.
        let repaired = |side: ConnectionEnd, budget: &Budget| {
            let silence = self.seconds_for(side);
            let stopped = self.blackout_seconds + self.dark_seconds - silence;
            budget.repaired_after_seconds(silence).map(|at| stopped + at)
        };
        let repaired_after_seconds = match survival {
            Survival::Lost => None,
            _ => match (repaired(ConnectionEnd::Guest, guest), repaired(ConnectionEnd::Peer, peer)) {
                (Some(guest), Some(peer)) => Some(guest.max(peer)),
                (one, other) => one.or(other),
            },
        };
        SurvivalEstimate { survival, decided_by, spare_seconds, repaired_after_seconds }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::budget::{ConnectionState, KernelSettings, tcp_budget};

    fn budget(retries2: u32) -> Budget {
        tcp_budget(
            &KernelSettings { retries2, ..KernelSettings::default() },
            &ConnectionState::established(0.204),
        )
    }

    #[test]
    fn the_peer_decides_a_blackout_and_the_guest_a_dark_network() {
        let (weak, strong) = (budget(3), budget(15));
        let blackout = Silence { blackout_seconds: 10.0, dark_seconds: 0.2 };
        let estimate = blackout.survival_estimate(&strong, &weak);
        assert_eq!((estimate.survival, estimate.decided_by), (Survival::Lost, ConnectionEnd::Peer));
        assert_eq!(estimate.repaired_after_seconds, None);
        // The same blackout with the weak settings in the guest: its clock stands still.
        let estimate = blackout.survival_estimate(&weak, &strong);
        assert_eq!((estimate.survival, estimate.decided_by), (Survival::Certain, ConnectionEnd::Guest));
        let dark = Silence { blackout_seconds: 0.2, dark_seconds: 10.0 };
        let estimate = dark.survival_estimate(&weak, &strong);
        assert_eq!((estimate.survival, estimate.decided_by), (Survival::Lost, ConnectionEnd::Guest));
    }

    #[test]
    fn between_the_last_try_and_the_end_nothing_is_certain() {
        let peer = budget(3);
        let silence = Silence { blackout_seconds: 4.0, dark_seconds: 0.0 };
        assert!(peer.survives_seconds < 4.0 && 4.0 < peer.actual_end_seconds);
        assert_eq!(silence.survival_estimate(&budget(15), &peer).survival, Survival::Possible);
    }

    #[test]
    fn the_repair_comes_with_the_first_try_after_the_silence() {
        let (guest, peer) = (budget(15), budget(15));
        let estimate = Silence { blackout_seconds: 2.0, dark_seconds: 0.0 }.survival_estimate(&guest, &peer);
        // Tries at 0.408, 0.816, 1.632 and 3.264 s; the guest's own at its 0.408 s, which is 2.408 s.
        assert!((estimate.repaired_after_seconds.unwrap() - 3.264).abs() < 1e-6);
    }

    proptest! {
        #[test]
        fn a_longer_silence_never_does_better(
            blackout in 0.0..60.0_f64, dark in 0.0..60.0_f64, more in 0.0..30.0_f64, guest in 0_u32..12, peer in 0_u32..12,
        ) {
            let (guest, peer) = (budget(guest), budget(peer));
            let short = Silence { blackout_seconds: blackout, dark_seconds: dark }.survival_estimate(&guest, &peer);
            for long in [
                Silence { blackout_seconds: blackout + more, dark_seconds: dark },
                Silence { blackout_seconds: blackout, dark_seconds: dark + more },
            ] {
                let long = long.survival_estimate(&guest, &peer);
                prop_assert!(long.spare_seconds <= short.spare_seconds);
                prop_assert!(!(short.survival == Survival::Lost && long.survival == Survival::Certain));
            }
        }
    }
}
