//! The columns of /proc/net/tcp about timers (net/ipv4/tcp_ipv4.c, get_tcp4_sock).

use vmgate_facts::{Cause, Fact, TcpConnection, TcpTimer};

use crate::guest::tcp::timer;

/// Positions in a line after splitting at blanks.
mod column {
    pub(super) const QUEUES: usize = 4;
    pub(super) const TIMER: usize = 5;
    pub(super) const PROBES: usize = 8;
    pub(super) const RTO: usize = 12;
}

/// Ticks per second in every file under /proc (USER_HZ), independent of the kernel's own tick (CONFIG_HZ).
const TICKS_PER_SECOND: f64 = 100.0;
/// Largest RTO of any kernel (TCP_RTO_MAX): a greater number is not an RTO.
const RTO_MAX_SECONDS: f64 = 120.0;

/// Sets the facts that a line holds; the others stay unknown.
pub(crate) fn fill(connection: &mut TcpConnection, line: &str) {
    let field = |column: usize| line.split_ascii_whitespace().nth(column);
    let hex = |text: &str| u64::from_str_radix(text, 16).ok();
    let sent = field(column::QUEUES).and_then(|queues| hex(queues.split_once(':')?.0));
    if let Some(bytes) = sent {
        connection.unacknowledged = Fact::Known(bytes > 0);
    }
    let running = field(column::TIMER)
        .and_then(|text| text.split_once(':'))
        .and_then(|(number, _)| timer(u8::try_from(hex(number)?).ok()?));
    if let Some(running) = running {
        connection.timer = Fact::Known(running);
        match running {
            // The retransmission timer hides the keepalive timer; if no timer runs, there is no keepalive.
            TcpTimer::Off => connection.keepalive = Fact::Known(None),
            TcpTimer::ZeroWindowProbe => {
                let probes = field(column::PROBES).and_then(|text| text.parse::<u32>().ok());
                connection.retransmits = probes.map_or(connection.retransmits, i64::from);
            }
            TcpTimer::Retransmission | TcpTimer::Keepalive => {}
        }
    }
    let rto = field(column::RTO)
        .and_then(|text| text.parse::<u32>().ok())
        .map(|ticks| f64::from(ticks) / TICKS_PER_SECOND)
        .filter(|seconds| *seconds > 0.0 && *seconds <= RTO_MAX_SECONDS);
    if let Some(rto) = rto {
        connection.rto_seconds = Fact::Known(rto);
    }
    connection.backoff = if connection.retransmits == 0 && running != Some(TcpTimer::ZeroWindowProbe) {
        Fact::Known(0)
    } else {
        Fact::unknown(Cause::NotSupported, "/proc/net/tcp does not say how often the time-out was doubled")
    };
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use vmgate_facts::{TcpEvidence, TcpState};

    use crate::guest::tcp::columns::*;

    fn filled(line: &str) -> TcpConnection {
        let mut connection = TcpConnection::new("10.0.0.5:1", "10.0.0.7:2", TcpState::Established);
        fill(&mut connection, line);
        connection
    }

    #[test]
    fn a_line_tells_timer_queue_and_rto() {
        // Linux 6.1, one request on its way.
        let busy = filled(
            "1: 0500000A:A35E 0700000A:1538 01 0000000F:00000000 01:00000014 00000000 0 0 20001 2 0 20 4 30 10 -1",
        );
        assert_eq!(busy.timer, Fact::Known(TcpTimer::Retransmission));
        assert_eq!((&busy.unacknowledged, &busy.rto_seconds), (&Fact::Known(true), &Fact::Known(0.2)));
        assert_eq!((&busy.backoff, busy.evidence), (&Fact::Known(0), TcpEvidence::Proc));
        assert!(busy.keepalive.known().is_none(), "hidden by the retransmission timer");
        let idle = filled("1: 0:1 0:2 01 00000000:00000000 00:00000000 00000000 0 0 20001 1 0 20 4 30 10 -1");
        assert_eq!(idle.keepalive, Fact::Known(None));
        let window =
            filled("1: 0:1 0:2 01 00000001:00000000 04:00000014 00000000 0 3 20001 2 0 20 4 30 10 -1");
        assert_eq!((window.retransmits, window.backoff.known()), (3, None));
    }

    #[test]
    fn half_open_connections_have_no_rto() {
        let half_open = filled("3: 0:16 0:1 03 00000000:00000000 01:00000060 00000002 0 0 0 0 0");
        assert_eq!(half_open.rto_seconds.known(), None);
        assert_eq!(half_open.timer, Fact::Known(TcpTimer::Retransmission));
    }

    proptest! {
        #[test]
        fn no_line_panics(line in "[ -~]{0,200}", numbers in "[0-9A-F: ]{0,200}") {
            filled(&line);
            prop_assert!(filled(&numbers).rto_seconds.known().is_none_or(|rto| *rto <= RTO_MAX_SECONDS));
        }
    }
}
