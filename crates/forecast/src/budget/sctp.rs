//! SCTP budgets: the longest silence that the path in use and the association survive (RFC 9260 sections 6.3 and 8;
//! Linux net/sctp/sm_sideeffect.c, sctp_do_8_2_transport_strike).
//!
//! Each expiry of T3-rtx, and each heartbeat without an answer, is a strike. The path is given up when its strikes
//! exceed path_max_retrans, the association when its own exceed association_max_retrans. The RTO doubles at each
//! strike, up to rto_max.

use vmgate_facts::{Cause, Fact, SctpAssociation};

/// Settings and RTO that decide when an association ends.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SctpPath {
    /// RTO of the path in use.
    pub rto_seconds: f64,
    /// Greatest RTO.
    pub rto_max_seconds: f64,
    /// Consecutive failures that a path survives.
    pub path_max_retrans: u32,
    /// Consecutive failures that the association survives.
    pub association_max_retrans: u32,
}

/// Silence that an SCTP association survives, counted from the moment when data is sent and lost.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SctpBudget {
    /// Time until the path in use is given up, or the association if that is sooner.
    pub path_ends_seconds: f64,
    /// Time until the association ends.
    pub association_ends_seconds: f64,
    /// Longest silence that path and association survive: up to the last retransmission.
    pub survives_seconds: f64,
}

/// Computes the budget: each failure comes after the sum of the doubled time-outs before it.
pub fn sctp_budget(path: &SctpPath) -> SctpBudget {
    let most = path.rto_max_seconds.max(0.001);
    let strike_at = |strikes: u32| {
        let (mut at, mut rto) = (0.0, path.rto_seconds.clamp(0.001, most));
        for _ in 0..strikes.min(10_000) {
            at += rto;
            rto = (rto * 2.0).min(most);
        }
        at
    };
    // The failure after the last survived one is the end; the failure before it starts the last retransmission.
    let association = path.association_max_retrans.saturating_add(1);
    let last = path.path_max_retrans.saturating_add(1).min(association);
    // The association's failures continue at the pace of its path, as with a single path.
    SctpBudget {
        path_ends_seconds: strike_at(last),
        association_ends_seconds: strike_at(association),
        survives_seconds: strike_at(last.saturating_sub(1)),
    }
}

/// Fills in the budget of an SCTP association, unless it is known already.
pub fn fill_sctp(association: &mut SctpAssociation) {
    if association.budget_seconds.known().is_some() {
        return;
    }
    let count = |fact: &Fact<i64>| {
        fact.clone().and_then(|times| match u32::try_from(times) {
            Ok(times) => Fact::Known(times),
            Err(_) => {
                Fact::unknown(Cause::Malformed, format!("{times} is not a valid number of retransmissions"))
            }
        })
    };
    // Where the RTO is not known, the configured minimum is the worst case.
    let rto = match &association.rto_seconds {
        Fact::Known(rto) => Fact::Known(*rto),
        Fact::Unknown(_) => association.rto_min_seconds.clone(),
    };
    association.budget_seconds = rto.and_then(|rto_seconds| {
        association.rto_max_seconds.clone().and_then(|rto_max_seconds| {
            count(&association.path_max_retrans).and_then(|path_max_retrans| {
                count(&association.association_max_retrans).map(|association_max_retrans| {
                    let path =
                        SctpPath { rto_seconds, rto_max_seconds, path_max_retrans, association_max_retrans };
                    sctp_budget(&path).survives_seconds
                })
            })
        })
    });
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DEFAULT: SctpPath = SctpPath {
        rto_seconds: 1.0,
        rto_max_seconds: 60.0,
        path_max_retrans: 5,
        association_max_retrans: 10,
    };

    #[test]
    fn linux_defaults() {
        let budget = sctp_budget(&DEFAULT);
        // 1 + 2 + 4 + 8 + 16 (last try) + 32.
        assert!((budget.survives_seconds - 31.0).abs() < 1e-9);
        assert!((budget.path_ends_seconds - 63.0).abs() < 1e-9);
        // Five more strikes of 60 s.
        assert!((budget.association_ends_seconds - 363.0).abs() < 1e-9);
    }

    #[test]
    fn a_telecom_stack_is_far_tighter() {
        let tight = SctpPath {
            rto_seconds: 0.1,
            rto_max_seconds: 0.4,
            path_max_retrans: 2,
            association_max_retrans: 4,
        };
        let budget = sctp_budget(&tight);
        assert!((budget.survives_seconds - 0.3).abs() < 1e-9, "{budget:?}");
        assert!((budget.path_ends_seconds - 0.7).abs() < 1e-9);
        assert!((budget.association_ends_seconds - 1.5).abs() < 1e-9);
    }

    #[test]
    fn an_sctp_association_lasts_as_long_as_its_path() {
        let mut association = SctpAssociation {
            local: "10.0.0.5:36412".into(),
            remote: "10.0.0.7:36412".into(),
            path_max_retrans: Fact::Known(5),
            rto_seconds: Fact::default(),
            rto_min_seconds: Fact::Known(1.0),
            rto_max_seconds: Fact::Known(60.0),
            rto_initial_seconds: Fact::Known(3.0),
            heartbeat_seconds: Fact::Known(30.0),
            association_max_retrans: Fact::Known(10),
            budget_seconds: Fact::default(),
        };
        fill_sctp(&mut association);
        assert!((association.budget_seconds.known().unwrap() - 31.0).abs() < 1e-9);
        association.budget_seconds = Fact::default();
        association.rto_max_seconds = Fact::unknown(Cause::AgentForbids, "no files");
        fill_sctp(&mut association);
        assert_eq!(association.budget_seconds, Fact::unknown(Cause::AgentForbids, "no files"));
    }

    proptest! {
        #[test]
        fn more_of_anything_is_never_shorter(rto in 0.05..5.0_f64, max in 5.0..60.0_f64, path in 0_u32..12, more in 0_u32..12) {
            let one = SctpPath { rto_seconds: rto, rto_max_seconds: max, path_max_retrans: path, association_max_retrans: 10 };
            let budget = sctp_budget(&one);
            prop_assert!(budget.survives_seconds <= budget.path_ends_seconds);
            prop_assert!(budget.path_ends_seconds <= budget.association_ends_seconds);
            for other in [
                SctpPath { path_max_retrans: path + more, ..one },
                SctpPath { rto_seconds: rto * 1.5, ..one },
                SctpPath { association_max_retrans: 10 + more, ..one },
            ] {
                prop_assert!(sctp_budget(&other).survives_seconds >= budget.survives_seconds - 1e-9);
            }
        }
    }
}
