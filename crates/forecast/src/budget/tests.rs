//! The table of the arithmetic, and what always holds.

use proptest::prelude::*;

use super::*;

const PUNCTUAL: f64 = 1e-6;

fn near(left: f64, right: f64) -> bool {
    (left - right).abs() < 1e-3
}

fn with_retries2(retries2: u32) -> KernelSettings {
    KernelSettings { retries2, ticks: TickRate::PerSecond(250), ..KernelSettings::default() }
}

#[test]
fn the_modelled_timeout_is_that_of_ip_sysctl() {
    for (retries, seconds) in
        [(0, 0.2), (1, 0.6), (2, 1.4), (3, 3.0), (5, 12.6), (8, 102.2), (9, 204.6), (10, 324.6), (15, 924.6)]
    {
        assert!(near(model_timeout_seconds(retries, 0.2, 120.0), seconds), "{retries}");
    }
    // SYN: 1 s doubled, at most six times below 120 s.
    assert!(near(model_timeout_seconds(6, 1.0, 120.0), 127.0));
    assert!(near(model_timeout_seconds(7, 1.0, 120.0), 247.0));
    // tcp_rto_max_ms = 1000: two doublings, then a second each.
    assert!(near(model_timeout_seconds(5, 0.2, 1.0), 1.4 + 3.0));
}

/// Retransmissions follow the first one after 2, 6, 14, 30 … RTOs; the first comes two RTOs after the send.
#[test]
fn the_end_is_the_first_timer_after_the_modelled_timeout() {
    for (retries2, rto, end_in_rtos) in [
        (1, 0.204, 2 + 6),
        (2, 0.204, 2 + 14),
        (3, 0.204, 2 + 30),
        (3, 0.216, 2 + 14),
        (5, 0.204, 2 + 62),
        (8, 0.204, 2 + 510),
        (3, 0.5, 2 + 6),
        (3, 3.0, 2 + 2),
    ] {
        let budget = tcp_budget(&with_retries2(retries2), &ConnectionState::established(rto));
        let end = rto * f64::from(end_in_rtos);
        assert!(
            near(budget.actual_end_seconds, end),
            "{retries2} {rto}: {} not {end}",
            budget.actual_end_seconds
        );
        assert_eq!(budget.decided_by, DecidedBy::Retries2);
    }
}

#[test]
fn a_longer_rto_can_end_a_connection_sooner() {
    let end = |rto| tcp_budget(&with_retries2(3), &ConnectionState::established(rto)).actual_end_seconds;
    assert!(end(0.216) < end(0.204) - 3.0, "{} {}", end(0.216), end(0.204));
}

#[test]
fn a_loss_probe_delays_the_first_retransmission_by_one_rto() {
    let with = tcp_budget(&with_retries2(3), &ConnectionState::established(0.204));
    let without = tcp_budget(
        &KernelSettings { loss_probes: false, ..with_retries2(3) },
        &ConnectionState::established(0.204),
    );
    assert!(near(with.actual_end_seconds - without.actual_end_seconds, 0.204));
    assert!(
        near(with.survives_seconds, without.survives_seconds),
        "a probe is not certain, so it does not count"
    );
}

#[test]
fn user_timeout_counts_from_the_first_retransmission_and_is_met_to_the_tick() {
    let connection = ConnectionState { user_timeout_seconds: Some(2.0), ..ConnectionState::established(0.2) };
    let budget = tcp_budget(&with_retries2(15), &connection);
    assert_eq!(budget.decided_by, DecidedBy::UserTimeout);
    assert!(near(budget.gives_up_after_seconds, 2.0));
    assert!(near(budget.actual_end_seconds, 0.4 + 2.0));
    // Tries 0.4 and 1.2 s after the first; without the probe that is at 0.2.
    assert!(near(budget.survives_seconds, 0.2 + 1.2));
    assert!(budget.latest_end_seconds < 2.5, "{}", budget.latest_end_seconds);
}

#[test]
fn what_is_lost_already_counts() {
    let fresh = tcp_budget(&with_retries2(3), &ConnectionState::established(0.2));
    let backed_off = ConnectionState {
        rto_seconds: 1.6,
        backoff: 3,
        retransmits: 3,
        timer_seconds: Some(0.6),
        ..ConnectionState::established(0.2)
    };
    let budget = tcp_budget(&with_retries2(3), &backed_off);
    // The timer fires 14 RTOs after the first retransmission, short of 3 s, so there is one try more.
    assert!(near(budget.tries_seconds[0], 0.6) && near(budget.actual_end_seconds, 0.6 + 3.2));
    assert!(budget.actual_end_seconds < fresh.actual_end_seconds);
    let unknown = tcp_budget(&with_retries2(3), &ConnectionState { timer_seconds: None, ..backed_off });
    assert!(unknown.survives_seconds <= budget.survives_seconds);
    let spent = ConnectionState { retransmits: 4, backoff: 4, rto_seconds: 3.2, ..backed_off };
    assert!(near(tcp_budget(&with_retries2(3), &spent).survives_seconds, 0.0), "the next timer is the end");
}

#[test]
fn opening_a_connection() {
    let syn = ConnectionState { phase: Phase::SynSent, ..ConnectionState::established(1.0) };
    let budget = tcp_budget(&KernelSettings::default(), &syn);
    assert!(near(budget.actual_end_seconds, 127.0) && near(budget.survives_seconds, 63.0), "{budget:?}");
    assert_eq!(budget.decided_by, DecidedBy::SynRetries);
    // Documentation/networking/ip-sysctl, tcp_syn_linear_timeouts: 67 s to the last SYN, 131 s to the end.
    let linear = tcp_budget(&KernelSettings { syn_linear_timeouts: 4, ..KernelSettings::default() }, &syn);
    assert!(near(linear.actual_end_seconds, 131.0), "{linear:?}");
    assert!(near(*linear.tries_seconds.last().unwrap(), 67.0));
    let synack = ConnectionState { phase: Phase::SynReceived, ..syn };
    let budget = tcp_budget(&KernelSettings::default(), &synack);
    assert!(near(budget.actual_end_seconds, 63.0) && near(budget.survives_seconds, 31.0), "{budget:?}");
    assert_eq!(budget.decided_by, DecidedBy::SynackRetries);
}

#[test]
fn a_closed_window_is_probed_as_often_as_retries2_says() {
    let window = ConnectionState { phase: Phase::ZeroWindow, ..ConnectionState::established(0.2) };
    let budget = tcp_budget(&with_retries2(3), &window);
    // Probes after 0.2, 0.6 and 1.4 s; the timer at 3.0 s is the end.
    assert!(near(budget.actual_end_seconds, 3.0) && near(budget.survives_seconds, 1.4), "{budget:?}");
    assert_eq!(budget.decided_by, DecidedBy::ZeroWindowProbe);
    let long_closed = tcp_budget(&with_retries2(3), &ConnectionState { backoff: 3, ..window });
    // Four timers of 1.6 s: it doubles no further than three times.
    assert!(near(long_closed.actual_end_seconds, 6.4), "probes that were answered have slowed down");
}

#[test]
fn an_orphan_gets_eight_unless_the_setting_says_else() {
    let orphan = ConnectionState { phase: Phase::Orphan, ..ConnectionState::established(0.204) };
    let budget = tcp_budget(&with_retries2(15), &orphan);
    assert!(near(budget.gives_up_after_seconds, 102.2));
    assert_eq!(budget.decided_by, DecidedBy::Orphan);
    let one = tcp_budget(&KernelSettings { orphan_retries: 1, ..with_retries2(15) }, &orphan);
    assert!(near(one.gives_up_after_seconds, 0.6));
}

#[test]
fn keepalive_ends_idle_connections_only() {
    let keepalive = Some(KeepAlive { idle_seconds: 10.0, interval_seconds: 2.0, probes: 3 });
    let idle =
        ConnectionState { traffic: Traffic::StaysIdle, keepalive, ..ConnectionState::established(0.204) };
    let budget = tcp_budget(&KernelSettings::default(), &idle);
    assert_eq!(budget.decided_by, DecidedBy::Keepalive);
    // First probe as the silence begins, then after 2 and 4 s; the end after 6 s.
    assert!(near(budget.survives_seconds, 4.0) && near(budget.actual_end_seconds, 6.0), "{budget:?}");
    let heard_just_now =
        tcp_budget(&KernelSettings::default(), &ConnectionState { idle_seconds: Some(1.0), ..idle });
    assert!(near(heard_just_now.actual_end_seconds, 9.0 + 6.0));
    let off = ConnectionState { keepalive: None, ..idle };
    assert_eq!(tcp_budget(&KernelSettings::default(), &off), Budget::endless());
    let busy = tcp_budget(&with_retries2(1), &ConnectionState { traffic: Traffic::MaySend, ..idle });
    assert_eq!(busy.decided_by, DecidedBy::Retries2, "the sooner of the two");
    let by_user = ConnectionState { user_timeout_seconds: Some(1.0), ..idle };
    let budget = tcp_budget(&KernelSettings::default(), &by_user);
    assert!(
        near(budget.actual_end_seconds, 2.0) && budget.decided_by == DecidedBy::UserTimeout,
        "{budget:?}"
    );
}

/// Measured: an idle lab guest with Linux 6.1, and network namespaces on Linux 6.18. See docs/truth-tcp.md for more.
#[test]
fn measured_ends_lie_between_the_earliest_and_the_latest() {
    let usual = with_retries2(3);
    for (kernel, rto, measured) in [
        (with_retries2(1), 0.204, 1.683),
        (with_retries2(2), 0.204, 3.338),
        (usual, 0.204, 6.736),
        (usual, 0.204, 6.808),
        // A longer RTO, and half the time: route with rto_min 215 ms.
        (usual, 0.220, 3.586),
        // Routes with rto_min 20 and 50 ms: the model still reckons with 200 ms.
        (usual, 0.056, 3.692),
        (with_retries2(1), 0.024, 0.809),
        (with_retries2(4), 0.056, 7.306),
        // tcp_rto_max_ms = 1000.
        (KernelSettings { rto_max_seconds: 1.0, ..with_retries2(5) }, 0.204, 5.784),
    ] {
        let budget = tcp_budget(&kernel, &ConnectionState::established(rto));
        let predicted = budget.earliest_end_seconds..=budget.latest_end_seconds;
        assert!(predicted.contains(&measured), "{rto}: {measured} not in {predicted:?}");
        assert!(budget.actual_end_seconds <= measured && measured <= budget.actual_end_seconds * 1.08);
    }
    let syn = ConnectionState { phase: Phase::SynSent, ..ConnectionState::established(1.0) };
    for (syn_retries, syn_linear_timeouts, measured) in
        [(1, 4, 3.071), (2, 4, 7.141), (2, 0, 7.163), (3, 0, 15.360)]
    {
        let budget = tcp_budget(&KernelSettings { syn_retries, syn_linear_timeouts, ..usual }, &syn);
        assert!((budget.actual_end_seconds..budget.latest_end_seconds).contains(&measured), "{budget:?}");
    }
    // Two probes had been sent since the window closed, one of them unanswered; the timer had 708 ms to run.
    let window = ConnectionState {
        phase: Phase::ZeroWindow,
        rto_seconds: 0.208,
        backoff: 2,
        retransmits: 1,
        timer_seconds: Some(0.708),
        ..ConnectionState::established(0.208)
    };
    let budget = tcp_budget(&usual, &window);
    assert!((budget.actual_end_seconds..budget.latest_end_seconds).contains(&4.143), "{budget:?}");
    let keepalive = Some(KeepAlive { idle_seconds: 2.0, interval_seconds: 1.0, probes: 3 });
    let idle = ConnectionState {
        keepalive,
        idle_seconds: Some(0.0),
        traffic: Traffic::StaysIdle,
        ..ConnectionState::established(0.204)
    };
    for (user_timeout_seconds, measured) in [(None, 5.078), (Some(2.5), 3.033)] {
        let budget = tcp_budget(&usual, &ConnectionState { user_timeout_seconds, ..idle });
        assert!((budget.actual_end_seconds..budget.latest_end_seconds).contains(&measured), "{budget:?}");
    }
}

fn connection() -> impl Strategy<Value = ConnectionState> {
    (0.2..5.0_f64, 0_u32..8, prop::option::of(0.1..60.0_f64)).prop_map(|(rto, lost, user_timeout_seconds)| {
        ConnectionState {
            rto_seconds: (rto * 2_f64.powf(f64::from(lost))).min(120.0),
            backoff: lost,
            retransmits: lost,
            user_timeout_seconds,
            ..ConnectionState::established(rto)
        }
    })
}

fn ticks() -> impl Strategy<Value = TickRate> {
    prop_oneof![
        Just(TickRate::Unknown),
        prop::sample::select(vec![100, 250, 300, 1000]).prop_map(TickRate::PerSecond)
    ]
}

proptest! {
    #[test]
    fn the_figures_are_in_order(retries2 in 0_u32..20, ticks in ticks(), connection in connection()) {
        let budget = tcp_budget(&KernelSettings { retries2, ticks, ..KernelSettings::default() }, &connection);
        prop_assert!(budget.survives_seconds <= budget.earliest_end_seconds + PUNCTUAL, "{budget:?}");
        prop_assert!(budget.earliest_end_seconds <= budget.actual_end_seconds + PUNCTUAL);
        prop_assert!(budget.actual_end_seconds <= budget.latest_end_seconds + PUNCTUAL);
        prop_assert!(budget.tries_seconds.windows(2).all(|pair| pair[0] <= pair[1]));
    }

    #[test]
    fn more_retries_never_survive_less(retries2 in 0_u32..20, more in 0_u32..10, ticks in ticks(), connection in connection()) {
        let few = tcp_budget(&KernelSettings { retries2, ticks, ..KernelSettings::default() }, &connection);
        let many = tcp_budget(&KernelSettings { retries2: retries2 + more, ticks, ..KernelSettings::default() }, &connection);
        prop_assert!(few.survives_seconds <= many.survives_seconds + PUNCTUAL);
        prop_assert!(few.actual_end_seconds <= many.actual_end_seconds + PUNCTUAL);
        prop_assert!(few.gives_up_after_seconds <= many.gives_up_after_seconds + PUNCTUAL);
    }

    /// Whatever the RTO: the last try comes no sooner than half the modelled time-out, less what late timers cost.
    #[test]
    fn half_the_modelled_timeout_is_always_survived(
        retries2 in 0_u32..16, rto in 0.2..60.0_f64, ticks in ticks(), loss_probes: bool,
    ) {
        let budget = tcp_budget(&KernelSettings { retries2, loss_probes, ticks, ..KernelSettings::default() }, &ConnectionState::established(rto));
        let late = 1.0 + 8.0 / 63.0;
        prop_assert!(budget.survives_seconds >= budget.gives_up_after_seconds / 2.0 / late - 0.2, "{budget:?}");
        prop_assert!(budget.earliest_end_seconds >= budget.gives_up_after_seconds);
    }

    #[test]
    fn with_the_same_number_of_tries_a_longer_rto_survives_longer(retries2 in 0_u32..16, rto in 0.2..2.0_f64, more in 1.0..1.5_f64) {
        let short = tcp_budget(&with_retries2(retries2), &ConnectionState::established(rto));
        let long = tcp_budget(&with_retries2(retries2), &ConnectionState::established(rto * more));
        prop_assert!(long.tries_seconds.len() <= short.tries_seconds.len());
        if long.tries_seconds.len() == short.tries_seconds.len() {
            prop_assert!(long.actual_end_seconds >= short.actual_end_seconds - PUNCTUAL);
        }
    }

    #[test]
    fn no_input_panics_or_hangs(
        rto in prop::num::f64::ANY, timer in prop::option::of(prop::num::f64::ANY), user in prop::option::of(prop::num::f64::ANY),
        retransmits: u32, backoff: u32, retries2: u32, rto_max in prop::num::f64::ANY, phase in 0..5_usize,
    ) {
        let phase = [Phase::Established, Phase::SynSent, Phase::SynReceived, Phase::ZeroWindow, Phase::Orphan][phase];
        let connection = ConnectionState {
            phase, retransmits, backoff, timer_seconds: timer, user_timeout_seconds: user, ..ConnectionState::established(rto)
        };
        let _ = tcp_budget(&KernelSettings { retries2, rto_max_seconds: rto_max, ..KernelSettings::default() }, &connection);
    }
}
