//! Budgets of connections, computed from the facts of the guest.

use vmgate_facts::{Cause, Fact, Sysctl, Tcp, TcpConnection, TcpEvidence, TcpState, TcpTimer};

use super::{
    Budget, ConnectionState, KernelSettings, MODEL_RTO_SECONDS, Phase, TickRate, Traffic,
    model_timeout_seconds, tcp::power_of_two, tcp_budget,
};

/// RTO of a handshake before a round trip was measured (TCP_TIMEOUT_INIT), in seconds.
const INITIAL_RTO_SECONDS: f64 = 1.0;
/// Greatest RTO where the kernel has no setting for it (TCP_RTO_MAX), in seconds.
const RTO_MAX_SECONDS: f64 = 120.0;
/// Maximum of these settings: the kernel stores them in one byte.
const MOST_RETRIES: i64 = 255;
/// Factors by which the RTO may grow from its reading to the start of the silence: pre-copy fills the path, and round
/// trips grow. The end of a connection does not grow smoothly with the RTO, so each factor is tried.
const GROWTH: [f64; 6] = [1.0, 1.05, 1.1, 1.25, 1.5, 2.0];
/// RTOs assumed for a connection with unknown RTO, as multiples of the minimum.
const ANY_RTO: [f64; 9] = [1.0, 1.05, 1.1, 1.25, 1.5, 2.0, 4.0, 8.0, 16.0];
/// Resolution of /proc/net/tcp, which rounds down (USER_HZ).
const PROC_STEP_SECONDS: f64 = 0.01;

/// The kernel's time-out for an established connection with `retries` (net.ipv4.tcp_retries2), in seconds.
///
/// For n ≤ 9, (2^(n+1) − 1) × 0.2 s, and above 204.6 s + (n − 9) × 120 s.
pub fn established_timeout_seconds(retries: i64) -> f64 {
    model_timeout_seconds(bounded(retries), MODEL_RTO_SECONDS, RTO_MAX_SECONDS)
}

/// The kernel's time-out for a handshake with `retries` (net.ipv4.tcp_syn_retries, tcp_synack_retries), in seconds.
///
/// Like [`established_timeout_seconds`], from 1 s: for n ≤ 6, 2^(n+1) − 1 s.
pub fn handshake_timeout_seconds(retries: i64) -> f64 {
    model_timeout_seconds(bounded(retries), INITIAL_RTO_SECONDS, RTO_MAX_SECONDS)
}

fn bounded(retries: i64) -> u32 {
    u32::try_from(retries.clamp(0, MOST_RETRIES)).unwrap_or(0)
}

/// Longest silence that this end of the connection certainly survives, starting now, in seconds.
pub fn survived_silence_seconds(connection: &TcpConnection, sysctl: &Sysctl) -> Fact<f64> {
    tcp_connection_budget(connection, sysctl).map(|budget| budget.survives_seconds)
}

/// Fills in the budget of one connection by the kernel's arithmetic, unless the budget is known already from a facts
/// file.
pub fn fill_tcp(connection: &mut TcpConnection, sysctl: &Fact<Sysctl>) {
    if connection.budget_seconds.known().is_some() {
        return;
    }
    let budget = sysctl.as_ref().and_then(|sysctl| tcp_connection_budget(connection, sysctl));
    let seconds = |pick: fn(&Budget) -> f64| budget.as_ref().map(pick);
    set_if_unknown(&mut connection.budget_seconds, seconds(|budget| budget.survives_seconds));
    set_if_unknown(&mut connection.gives_up_after_seconds, seconds(|budget| budget.gives_up_after_seconds));
    set_if_unknown(&mut connection.actual_end_seconds, seconds(|budget| budget.actual_end_seconds));
    set_if_unknown(&mut connection.decided_by, budget.map(|budget| budget.decided_by));
}

/// Fills in the budgets of the peers' ends of the same connections, by the peers' own settings.
pub fn fill_peers(tcp: &mut Tcp) {
    let Fact::Known(peers) = &mut tcp.peers else { return };
    let mut ends: Vec<TcpConnection> = Vec::new();
    for peer in peers {
        let Fact::Known(theirs) = &mut peer.connections else { continue };
        for end in theirs {
            fill_tcp(end, &peer.sysctl);
            ends.push(end.clone());
        }
    }
    let Fact::Known(connections) = &mut tcp.connections else { return };
    for connection in connections {
        let other = ends.iter().find(|end| end.local == connection.remote && end.remote == connection.local);
        if let Some(other) = other {
            connection.peer_budget_seconds = other.budget_seconds.clone().map(Some);
        }
    }
}

fn set_if_unknown<T>(fact: &mut Fact<T>, derived: Fact<T>) {
    if fact.known().is_none() {
        *fact = derived;
    }
}

/// Budget with the shortest survival over all RTOs that the connection may have when the silence begins; the other
/// figures are those of the RTO as read.
fn tcp_connection_budget(connection: &TcpConnection, sysctl: &Sysctl) -> Fact<Budget> {
    let (kernel, phase) = match kernel_and_phase(connection, sysctl) {
        Fact::Known(both) => both,
        Fact::Unknown(why) => return Fact::Unknown(why),
    };
    let retransmits = u32::try_from(connection.retransmits).unwrap_or(0);
    let opening = matches!(phase, Phase::SynSent | Phase::SynReceived);
    let least = if opening { INITIAL_RTO_SECONDS } else { least_rto(connection, sysctl) };
    let (rto, factors): (f64, &[f64]) = match connection.rto_seconds.known() {
        Some(&rto) if rto.is_finite() && rto > 0.0 => (rto, if opening { &[1.0] } else { &GROWTH }),
        _ if opening => (backed_off(least, retransmits, kernel.rto_max_seconds), &[1.0]),
        _ => (backed_off(least, retransmits, kernel.rto_max_seconds), &ANY_RTO),
    };
    let backoff = connection.backoff.known().and_then(|&times| u32::try_from(times).ok());
    let now = ConnectionState {
        phase,
        traffic: Traffic::MaySend,
        rto_seconds: rto,
        backoff: backoff.unwrap_or(retransmits),
        retransmits,
        timer_seconds: None,
        user_timeout_seconds: connection.user_timeout_seconds.known().copied().flatten(),
        keepalive: connection.keepalive.known().copied().flatten(),
        idle_seconds: None,
    };
    let mut budget = tcp_budget(&kernel, &now);
    // A value that was rounded down may be one step longer.
    let rounded = connection.evidence == TcpEvidence::Proc;
    for factor in factors {
        let step = if rounded { PROC_STEP_SECONDS } else { 0.0 };
        for longer in [rto * factor, (rto + step) * factor] {
            let other = tcp_budget(&kernel, &ConnectionState { rto_seconds: longer, ..now });
            budget.survives_seconds = budget.survives_seconds.min(other.survives_seconds);
        }
    }
    Fact::Known(budget)
}

fn backed_off(rto: f64, times: u32, most: f64) -> f64 {
    (rto * power_of_two(times)).min(most)
}

/// Minimum RTO of a connection: of its route, else of its kernel.
fn least_rto(connection: &TcpConnection, sysctl: &Sysctl) -> f64 {
    let of_route = connection.rto_min_seconds.known().copied().flatten();
    let of_kernel = sysctl.tcp_rto_min_seconds.known().copied().flatten();
    of_route.or(of_kernel).filter(|rto| rto.is_finite() && *rto > 0.0).unwrap_or(MODEL_RTO_SECONDS)
}

/// Settings and phase of a connection. The setting that decides must be known; the others have defaults that nearly
/// every kernel uses.
fn kernel_and_phase(connection: &TcpConnection, sysctl: &Sysctl) -> Fact<(KernelSettings, Phase)> {
    let or = |fact: &Fact<i64>, default: u32| fact.known().map_or(default, |&value| bounded(value));
    let optional = |fact: &Fact<Option<i64>>| fact.known().copied().flatten().map_or(0, bounded);
    let usual = KernelSettings::default();
    let early_retrans = or(&sysctl.tcp_early_retrans, 3);
    let rto_max = sysctl.tcp_rto_max_seconds.known().copied().flatten().filter(|most| most.is_finite());
    let mut kernel = KernelSettings {
        retries2: usual.retries2,
        syn_retries: usual.syn_retries,
        syn_linear_timeouts: optional(&sysctl.tcp_syn_linear_timeouts),
        synack_retries: usual.synack_retries,
        orphan_retries: or(&sysctl.tcp_orphan_retries, 0),
        rto_max_seconds: rto_max.unwrap_or(RTO_MAX_SECONDS),
        loss_probes: matches!(early_retrans, 3 | 4),
        ticks: TickRate::Unknown,
    };
    let checked = |setting: &Fact<i64>| {
        setting.clone().and_then(|retries| match u32::try_from(retries) {
            Ok(valid) if retries <= MOST_RETRIES => Fact::Known(valid),
            _ => Fact::unknown(
                Cause::Malformed,
                format!("{retries} is not a valid number of retransmissions (0 to {MOST_RETRIES})"),
            ),
        })
    };
    // A user time-out replaces the setting.
    let user_timeout = connection.user_timeout_seconds.known().copied().flatten().is_some();
    let retries2 = match checked(&sysctl.tcp_retries2) {
        Fact::Unknown(_) if user_timeout => Fact::Known(usual.retries2),
        other => other,
    };
    let phase = match (connection.state, &connection.timer) {
        (TcpState::SynSent, _) => Phase::SynSent,
        (TcpState::SynReceived, _) => Phase::SynReceived,
        (_, Fact::Known(TcpTimer::ZeroWindowProbe)) => Phase::ZeroWindow,
        (TcpState::Established, _) => Phase::Established,
        // No process holds the socket any more: an orphan.
        (TcpState::Closing, _) => match connection.owner.known() {
            Some(Some(_)) => Phase::Established,
            Some(None) => Phase::Orphan,
            None => match &retries2 {
                // Not known which of the two applies: the shorter one counts.
                Fact::Known(retries) if *retries < effective_orphan_retries(kernel.orphan_retries) => {
                    Phase::Established
                }
                _ => Phase::Orphan,
            },
        },
    };
    let known = match phase {
        Phase::SynSent => checked(&sysctl.tcp_syn_retries).map(|retries| kernel.syn_retries = retries),
        Phase::SynReceived => {
            checked(&sysctl.tcp_synack_retries).map(|retries| kernel.synack_retries = retries)
        }
        Phase::Orphan => Fact::Known(()),
        Phase::Established | Phase::ZeroWindow => retries2.map(|retries| kernel.retries2 = retries),
    };
    known.map(|()| (kernel, phase))
}

fn effective_orphan_retries(setting: u32) -> u32 {
    if setting == 0 { 8 } else { setting }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use vmgate_facts::{DecidedBy, KeepAlive, TcpPeer};

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
        TcpConnection { retransmits, ..TcpConnection::new("10.0.0.5:1", "10.0.0.7:2", state) }
    }

    fn known(fact: &Fact<f64>) -> f64 {
        *fact.known().unwrap()
    }

    #[test]
    fn the_timeouts_are_those_of_the_kernel() {
        for (retries, seconds) in
            [(0, 0.2), (1, 0.6), (3, 3.0), (5, 12.6), (8, 102.2), (15, 924.6), (16, 1044.6)]
        {
            assert!(
                (established_timeout_seconds(retries) - seconds).abs() < 1e-9,
                "{retries}: {}",
                established_timeout_seconds(retries)
            );
        }
        for (retries, seconds) in [(0, 1.0), (1, 3.0), (2, 7.0), (5, 63.0), (6, 127.0), (7, 247.0)] {
            assert!(
                (handshake_timeout_seconds(retries) - seconds).abs() < 1e-9,
                "{retries}: {}",
                handshake_timeout_seconds(retries)
            );
        }
    }

    #[test]
    fn each_state_has_its_own_setting() {
        let settings = Fact::Known(sysctl(15, 6, 5));
        let filled = |state, owner: Option<&str>| {
            let mut end = connection(state, 0);
            end.owner = Fact::Known(owner.map(str::to_owned));
            fill_tcp(&mut end, &settings);
            (known(&end.gives_up_after_seconds), *end.decided_by.known().unwrap())
        };
        assert_eq!(filled(TcpState::Established, Some("postgres")).1, DecidedBy::Retries2);
        assert!((filled(TcpState::Established, None).0 - 924.6).abs() < 1e-9);
        assert!((filled(TcpState::SynSent, Some("curl")).0 - 127.0).abs() < 1e-9);
        assert_eq!(filled(TcpState::SynReceived, None).1, DecidedBy::SynackRetries);
        assert!((filled(TcpState::Closing, None).0 - 102.2).abs() < 1e-9);
        assert_eq!(filled(TcpState::Closing, Some("nginx")).1, DecidedBy::Retries2);
    }

    #[test]
    fn a_budget_that_a_facts_file_gives_stays() {
        let mut end = connection(TcpState::Established, 0);
        end.budget_seconds = Fact::Known(7.0);
        fill_tcp(&mut end, &Fact::Known(sysctl(15, 6, 5)));
        assert_eq!(end.budget_seconds, Fact::Known(7.0));
    }

    #[test]
    fn without_an_rto_the_worst_of_all_counts() {
        let settings = sysctl(3, 6, 5);
        let unknown = known(&survived_silence_seconds(&connection(TcpState::Established, 0), &settings));
        assert!((1.25..=1.7).contains(&unknown), "{unknown}: not below half of 3 s by much");
        let end = TcpConnection {
            rto_seconds: Fact::Known(0.204),
            evidence: TcpEvidence::InetDiag,
            ..connection(TcpState::Established, 0)
        };
        assert!(known(&survived_silence_seconds(&end, &settings)) >= unknown);
    }

    #[test]
    fn options_of_the_socket_decide_before_settings() {
        let user = TcpConnection {
            user_timeout_seconds: Fact::Known(Some(1.0)),
            ..connection(TcpState::Established, 0)
        };
        let mut filled = user.clone();
        fill_tcp(&mut filled, &Fact::Known(Sysctl::default()));
        assert_eq!(
            filled.decided_by,
            Fact::Known(DecidedBy::UserTimeout),
            "even where tcp_retries2 is not known"
        );
        assert!(known(&filled.budget_seconds) < 2.0);
        let mut tight = TcpConnection {
            keepalive: Fact::Known(Some(KeepAlive { idle_seconds: 5.0, interval_seconds: 1.0, probes: 2 })),
            ..connection(TcpState::Established, 0)
        };
        fill_tcp(&mut tight, &Fact::Known(sysctl(15, 6, 5)));
        assert_eq!(tight.decided_by, Fact::Known(DecidedBy::Keepalive));
        assert!((known(&tight.budget_seconds) - 1.0).abs() < 1e-9);
    }

    #[test]
    fn a_setting_that_is_not_known_or_not_possible_gives_no_budget() {
        let unknown = survived_silence_seconds(&connection(TcpState::Established, 0), &Sysctl::default());
        assert_eq!(unknown, Fact::default());
        let impossible = survived_silence_seconds(&connection(TcpState::Established, 0), &sysctl(-1, 6, 5));
        assert_eq!(
            impossible,
            Fact::unknown(Cause::Malformed, "-1 is not a valid number of retransmissions (0 to 255)")
        );
    }

    #[test]
    fn the_peers_budget_is_that_of_its_own_end() {
        let far = TcpConnection::new("10.0.0.7:2", "10.0.0.5:1", TcpState::Established);
        let peer = |sysctl| TcpPeer { vm: "db1".into(), sysctl, connections: Fact::Known(vec![far.clone()]) };
        let tcp = |peer| {
            let own = vec![
                connection(TcpState::Established, 0),
                TcpConnection::new("10.0.0.5:9", "10.0.0.8:2", TcpState::Established),
            ];
            let mut tcp =
                Tcp { connections: Fact::Known(own), peers: Fact::Known(vec![peer]), ..Tcp::default() };
            fill_peers(&mut tcp);
            tcp.connections.known().unwrap().clone()
        };
        let settings = sysctl(3, 6, 5);
        let budget = known(&survived_silence_seconds(&far, &settings));
        let connections = tcp(peer(Fact::Known(settings)));
        assert_eq!(connections[0].peer_budget_seconds, Fact::Known(Some(budget)));
        assert_eq!(connections[1].peer_budget_seconds, Fact::default());
        let hidden = Fact::unknown(Cause::AgentForbids, "no files");
        assert_eq!(tcp(peer(hidden.clone()))[0].peer_budget_seconds, hidden.map(|_: Sysctl| None));
    }

    proptest! {
        #[test]
        fn more_retries_never_shorten_a_budget(retries in 0_i64..255, rto in prop::option::of(0.2..10.0_f64)) {
            prop_assert!(established_timeout_seconds(retries + 1) > established_timeout_seconds(retries));
            prop_assert!(handshake_timeout_seconds(retries + 1) > handshake_timeout_seconds(retries));
            let mut end = connection(TcpState::Established, 0);
            end.rto_seconds = rto.map_or_else(Fact::default, Fact::Known);
            let budget = |n| known(&survived_silence_seconds(&end, &sysctl(n, 6, 5)));
            prop_assert!(budget(retries + 1) >= budget(retries) - 1e-9);
        }

        #[test]
        fn no_number_panics(retries: i64, so_far: i64, rto in prop::num::f64::ANY, backoff: i64) {
            prop_assert!(established_timeout_seconds(retries).is_finite() && handshake_timeout_seconds(retries).is_finite());
            let end = TcpConnection {
                rto_seconds: Fact::Known(rto), backoff: Fact::Known(backoff), ..connection(TcpState::SynSent, so_far)
            };
            let _ = survived_silence_seconds(&end, &sysctl(retries, retries, retries));
        }
    }
}
