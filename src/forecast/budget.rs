//! How long a TCP connection survives silence, by the arithmetic of the Linux kernel.
//!
//! Source: net/ipv4/tcp_timer.c, `tcp_model_timeout` and `tcp_write_timeout`; Documentation/networking/ip-sysctl. The
//! figures are the least that the kernel grants: a connection whose own time-out has grown holds out longer. They are the
//! guest's; while it is stopped its peers' settings count, which are usually the same.

use crate::fact::{Cause, Fact, Sysctl, TcpConnection, TcpState};

/// First time-out that the kernel reckons with for a connection with data on its way (TCP_RTO_MIN), in seconds.
const RTO_MIN_SECONDS: f64 = 0.2;
/// First time-out of a handshake (TCP_TIMEOUT_INIT), in seconds.
const RTO_INITIAL_SECONDS: f64 = 1.0;
/// Longest time-out (TCP_RTO_MAX), in seconds.
const RTO_MAX_SECONDS: f64 = 120.0;
/// Retransmissions that an orphaned socket gets at most, where tcp_orphan_retries is 0, its default.
const ORPHAN_RETRIES: i64 = 8;
/// The kernel keeps these settings in a byte.
const MOST_RETRIES: i64 = 255;

/// How long an established connection survives with `retries` (net.ipv4.tcp_retries2), in seconds.
///
/// The time-out doubles with each retransmission until it reaches 120 s: for n ≤ 9, (2^(n+1) − 1) × 0.2 s, and above
/// 204.6 s + (n − 9) × 120 s.
pub fn established(retries: i64) -> f64 {
    backed_off(retries, RTO_MIN_SECONDS)
}

/// How long a handshake survives with `retries` (net.ipv4.tcp_syn_retries, tcp_synack_retries), in seconds.
///
/// As [`established`], from 1 s: for n ≤ 6, 2^(n+1) − 1 s. The linear time-outs that a SYN gets before the doubling since
/// Linux 6.5 are not counted.
pub fn handshake(retries: i64) -> f64 {
    backed_off(retries, RTO_INITIAL_SECONDS)
}

/// How much longer this connection survives: its budget less what its retransmissions so far have used up.
pub fn of_connection(connection: &TcpConnection, sysctl: &Sysctl) -> Fact<f64> {
    let (retries, budget): (Fact<i64>, fn(i64) -> f64) = match connection.state {
        TcpState::Established => (sysctl.tcp_retries2.clone(), established),
        TcpState::SynSent => (sysctl.tcp_syn_retries.clone(), handshake),
        TcpState::SynReceived => (sysctl.tcp_synack_retries.clone(), handshake),
        // May be an orphan, which the kernel gives fewer: the lesser of the two holds in either case.
        TcpState::Closing => (sysctl.tcp_retries2.clone().map(|n| n.min(ORPHAN_RETRIES)), established),
    };
    retries.and_then(|retries| {
        if !(0..=MOST_RETRIES).contains(&retries) {
            return Fact::unknown(Cause::Malformed, format!("{retries} is not a number of retransmissions"));
        }
        let used = if connection.retransmits > 0 { budget(connection.retransmits) } else { 0.0 };
        Fact::Known((budget(retries) - used).max(0.0))
    })
}

/// Time until a timer that starts at `first_seconds` and doubles up to [`RTO_MAX_SECONDS`] has fired `retries` + 1 times.
fn backed_off(retries: i64, first_seconds: f64) -> f64 {
    let retries = i32::try_from(retries.clamp(0, MOST_RETRIES)).unwrap_or_default();
    let doublings = doublings(first_seconds);
    let doubled = (2_f64.powi(retries.min(doublings) + 1) - 1.0) * first_seconds;
    doubled + f64::from((retries - doublings).max(0)) * RTO_MAX_SECONDS
}

/// How often a time-out doubles before it would pass the longest: the kernel's `ilog2(TCP_RTO_MAX / rto_base)`.
fn doublings(first_seconds: f64) -> i32 {
    let fits = |n: &i32| first_seconds * 2_f64.powi(n + 1) <= RTO_MAX_SECONDS;
    (0..32).take_while(fits).last().map_or(0, |n| n + 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sysctl(retries2: i64, syn: i64, synack: i64) -> Sysctl {
        Sysctl {
            tcp_retries2: Fact::Known(retries2),
            tcp_syn_retries: Fact::Known(syn),
            tcp_synack_retries: Fact::Known(synack),
            ..Sysctl::default()
        }
    }

    fn connection(state: TcpState, retransmits: i64) -> TcpConnection {
        TcpConnection {
            local: "10.0.0.5:1".into(),
            remote: "10.0.0.7:2".into(),
            state,
            retransmits,
            budget_seconds: Fact::default(),
            owner: Fact::default(),
        }
    }

    fn known(fact: &Fact<f64>) -> f64 {
        *fact.known().unwrap()
    }

    #[test]
    fn the_budgets_are_those_of_the_kernel() {
        for (retries, seconds) in [
            (0, 0.2),
            (1, 0.6),
            (3, 3.0),
            (5, 12.6),
            (8, 102.2),
            (9, 204.6),
            (10, 324.6),
            (15, 924.6),
            (16, 1044.6),
        ] {
            assert!((established(retries) - seconds).abs() < 1e-9, "{retries}: {}", established(retries));
        }
        for (retries, seconds) in [(0, 1.0), (1, 3.0), (2, 7.0), (5, 63.0), (6, 127.0), (7, 247.0)] {
            assert!((handshake(retries) - seconds).abs() < 1e-9, "{retries}: {}", handshake(retries));
        }
    }

    #[test]
    fn each_state_has_its_own_setting() {
        let settings = sysctl(15, 6, 5);
        let budget = |state| known(&of_connection(&connection(state, 0), &settings));
        assert!((budget(TcpState::Established) - 924.6).abs() < 1e-9);
        assert!((budget(TcpState::SynSent) - 127.0).abs() < 1e-9);
        assert!((budget(TcpState::SynReceived) - 63.0).abs() < 1e-9);
        assert!((budget(TcpState::Closing) - 102.2).abs() < 1e-9);
    }

    #[test]
    fn retransmissions_so_far_use_up_the_budget() {
        let settings = sysctl(3, 6, 5);
        let left =
            |retransmits| known(&of_connection(&connection(TcpState::Established, retransmits), &settings));
        assert!((left(0) - 3.0).abs() < 1e-9);
        assert!((left(1) - 2.4).abs() < 1e-9);
        assert!((left(2) - 1.6).abs() < 1e-9);
        assert_eq!(left(3).to_bits(), 0.0_f64.to_bits());
        assert_eq!(left(9).to_bits(), 0.0_f64.to_bits());
    }

    #[test]
    fn a_setting_that_is_not_known_or_not_possible_gives_no_budget() {
        let unknown = of_connection(&connection(TcpState::Established, 0), &Sysctl::default());
        assert_eq!(unknown, Fact::default());
        let impossible = of_connection(&connection(TcpState::Established, 0), &sysctl(-1, 6, 5));
        assert_eq!(impossible, Fact::unknown(Cause::Malformed, "-1 is not a number of retransmissions"));
    }

    proptest! {
        #[test]
        fn more_retries_never_shorten_a_budget(retries in 0_i64..255) {
            prop_assert!(established(retries + 1) > established(retries));
            prop_assert!(handshake(retries + 1) > handshake(retries));
        }

        #[test]
        fn more_retransmissions_never_lengthen_it(retries in 0_i64..=255, so_far in 0_i64..300) {
            let settings = sysctl(retries, 6, 5);
            let left = |n| known(&of_connection(&connection(TcpState::Established, n), &settings));
            prop_assert!(left(so_far + 1) <= left(so_far));
            prop_assert!(left(so_far) >= 0.0);
        }

        #[test]
        fn no_number_panics(retries in any::<i64>(), so_far in any::<i64>()) {
            prop_assert!(established(retries).is_finite() && handshake(retries).is_finite());
            let _ = of_connection(&connection(TcpState::SynSent, so_far), &sysctl(retries, retries, retries));
        }
    }
}
