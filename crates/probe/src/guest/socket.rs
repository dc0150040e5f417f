//! Sockets from /proc/net/{tcp,tcp6,udp,udp6}.
//!
//! `procfs-core` reads addresses, state and inode; the columns that it leaves out (retransmissions, drops) are read
//! here. Each line is checked and parsed alone, so that a crafted line can neither cause a panic nor corrupt its table
//! unnoticed: a line that does not parse makes the whole table unknown.

use std::net::{IpAddr, SocketAddr};

use procfs_core::{
    ExplicitSystemInfo, FromBufReadSI,
    net::{TcpNetEntries, TcpState as State, UdpNetEntries},
};
use vmgate_facts::{Fact, Listener, TcpConnection, TcpState, UdpSocket, Unknown};

use crate::guest::{MOST_SOCKETS, Owners, Table, malformed, tcp::fill_from_columns};

/// System parameters that `procfs-core` asks for; only the byte order is used for tables of sockets.
const SYSTEM: ExplicitSystemInfo =
    ExplicitSystemInfo { boot_time_secs: 0, ticks_per_second: 100, page_size: 4096, is_little_endian: true };

/// Positions in a line after splitting at blanks (net/ipv4/tcp_ipv4.c, udp.c: seq_printf formats).
mod column {
    pub(super) const RETRANSMITS: usize = 6;
    pub(super) const INODE: usize = 9;
    pub(super) const DROPS: usize = 12;
}

/// Connections and listeners, none over loopback.
pub(super) fn tcp(
    tables: &[Table],
    owners: &Result<Owners, Unknown>,
) -> Result<(Vec<TcpConnection>, Vec<Listener>), Unknown> {
    let (mut connections, mut listeners) = (Vec::new(), Vec::new());
    for table in tables {
        for line in lines(table)? {
            let bad = || malformed(table.path, &format!("not a socket: `{}`", excerpt(line)));
            let entry = TcpNetEntries::from_buf_read(with_header(line).as_slice(), &SYSTEM)
                .ok()
                .and_then(|mut entries| entries.0.pop())
                .ok_or_else(bad)?;
            let (local, remote) = (canonical(entry.local_address), canonical(entry.remote_address));
            let state = match entry.state {
                State::Listen => {
                    if !local.ip().is_loopback() {
                        let owner = Owners::name(owners, entry.inode);
                        listeners.push(Listener { local: local.to_string(), port: local.port(), owner });
                    }
                    continue;
                }
                State::Established => TcpState::Established,
                State::SynSent => TcpState::SynSent,
                State::SynRecv | State::NewSynRecv => TcpState::SynReceived,
                State::TimeWait | State::Close => continue,
                State::FinWait1 | State::FinWait2 | State::CloseWait | State::LastAck | State::Closing => {
                    TcpState::Closing
                }
            };
            if stays_inside(local.ip(), remote.ip()) {
                continue;
            }
            let mut connection = TcpConnection {
                retransmits: hex_field(line, column::RETRANSMITS).ok_or_else(bad)?,
                owner: Owners::name(owners, entry.inode),
                // The peer's budget is not visible from this guest.
                peer_budget_seconds: Fact::Known(None),
                ..TcpConnection::new(local.to_string(), remote.to_string(), state)
            };
            fill_from_columns(&mut connection, line);
            connections.push(connection);
        }
    }
    Ok((connections, listeners))
}

/// UDP sockets of both families, none bound to loopback.
pub(super) fn udp(tables: &[Table], owners: &Result<Owners, Unknown>) -> Result<Vec<UdpSocket>, Unknown> {
    let mut sockets = Vec::new();
    for table in tables {
        for line in lines(table)? {
            let bad = || malformed(table.path, &format!("not a socket: `{}`", excerpt(line)));
            let entry = UdpNetEntries::from_buf_read(with_header(line).as_slice(), &SYSTEM)
                .ok()
                .and_then(|mut entries| entries.0.pop())
                .ok_or_else(bad)?;
            let (local, remote) = (canonical(entry.local_address), canonical(entry.remote_address));
            let connected = !remote.ip().is_unspecified() || remote.port() != 0;
            if local.ip().is_loopback() || connected && stays_inside(local.ip(), remote.ip()) {
                continue;
            }
            sockets.push(UdpSocket {
                local: local.to_string(),
                port: local.port(),
                remote: connected.then(|| remote.to_string()),
                drops: field(line, column::DROPS)
                    .and_then(|drops| drops.parse().ok())
                    .map(Fact::Known)
                    .ok_or_else(bad)?,
                owner: Owners::name(owners, entry.inode),
                service: Fact::default(),
            });
        }
    }
    Ok(sockets)
}

/// The lines of a table without its header.
fn lines<'a>(table: &'a Table) -> Result<Vec<&'a str>, Unknown> {
    let text = std::str::from_utf8(&table.text).map_err(|_| malformed(table.path, "not text"))?;
    let mut lines = text.lines();
    if !lines.next().is_some_and(|header| header.trim_start().starts_with("sl ")) {
        return Err(malformed(table.path, "not a table of sockets"));
    }
    let lines: Vec<&str> = lines.filter(|line| !line.trim().is_empty()).collect();
    if lines.len() > MOST_SOCKETS {
        return Err(malformed(table.path, &format!("more than {MOST_SOCKETS} sockets")));
    }
    // The kernel ends every line with a newline, so a last line without one was cut off.
    if !lines.is_empty() && !text.ends_with('\n') {
        return Err(malformed(table.path, "the text ends in the middle of a line"));
    }
    match lines.iter().find(|line| !has_shape(line)) {
        Some(line) => Err(malformed(table.path, &format!("not a socket: `{}`", excerpt(line)))),
        None => Ok(lines),
    }
}

/// True if a line has all columns that are read, each in the expected characters.
fn has_shape(line: &str) -> bool {
    let hex = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let address = |text: &str| {
        text.split_once(':')
            .is_some_and(|(ip, port)| hex(ip) && hex(port) && matches!(ip.len(), 8 | 32) && port.len() == 4)
    };
    let mut fields = line.split_ascii_whitespace();
    fields.next().is_some_and(|slot| slot.ends_with(':'))
        && fields.next().is_some_and(address)
        && fields.next().is_some_and(address)
        && fields.next().is_some_and(|state| state.len() == 2 && hex(state))
        && field(line, column::INODE).is_some_and(|inode| inode.bytes().all(|byte| byte.is_ascii_digit()))
}

/// A line below an empty header line, as `procfs-core` expects.
fn with_header(line: &str) -> Vec<u8> {
    let mut text = Vec::with_capacity(line.len() + 2);
    text.push(b'\n');
    text.extend_from_slice(line.as_bytes());
    text.push(b'\n');
    text
}

fn field(line: &str, column: usize) -> Option<&str> {
    line.split_ascii_whitespace().nth(column)
}

fn hex_field(line: &str, column: usize) -> Option<i64> {
    i64::from_str_radix(field(line, column)?, 16).ok()
}

fn excerpt(line: &str) -> String {
    let short: String = line.chars().take(60).collect();
    vmgate_facts::text::plain(&short)
}

/// The address with IPv4-mapped IPv6 turned into IPv4.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// True if traffic between the two addresses never leaves the guest.
fn stays_inside(local: IpAddr, remote: IpAddr) -> bool {
    local.is_loopback() || remote.is_loopback() || local == remote
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use vmgate_facts::Cause;

    use crate::guest::socket::*;

    const TCP: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
        0: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 15083 1 0 100 0 0 10 0\n   \
        1: 0100007F:0CEA 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 15099 1 0 100 0 0 10 0\n   \
        2: 0500000A:A35E 0700000A:1538 01 00000000:00000000 01:00000014 00000003     0        0 20001 2 0 20 4 30 10 -1\n   \
        3: 0500000A:A35F 0500000A:1538 01 00000000:00000000 00:00000000 00000000     0        0 20002 1 0 20 4 30 10 -1\n   \
        4: 0500000A:A360 0700000A:1538 06 00000000:00000000 03:00000000 00000000     0        0 0 3 0\n";
    const TCP6: &str = "  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
        0: 0000000000000000FFFF00000500000A:0050 0000000000000000FFFF00000700000A:C350 08 00000000:00000000 00:00000000 00000000  33 0 20003 1 0 20 4 0 10 -1\n";
    const UDP: &str = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n  \
        100: 00000000:151D 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 30001 2 0000000000000000 17\n  \
        101: 0500000A:9C40 0900000A:0202 01 00000000:00000000 00:00000000 00000000     0        0 30002 2 0000000000000000 0\n  \
        102: 0100007F:0035 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 30003 2 0000000000000000 0\n";

    fn table<'a>(path: &'a str, text: &str) -> Table<'a> {
        Table { path, text: text.as_bytes().to_vec() }
    }

    fn nobody() -> Owners {
        Owners { names: [(20001, "postgres".to_owned())].into(), complete: true }
    }

    #[test]
    fn connections_and_listeners_are_told_apart_and_loopback_is_left_out() {
        let tables = [table("/proc/net/tcp", TCP), table("/proc/net/tcp6", TCP6)];
        let (connections, listeners) = tcp(&tables, &Ok(nobody())).unwrap();
        assert_eq!(listeners.len(), 1);
        assert_eq!((listeners[0].local.as_str(), listeners[0].port), ("0.0.0.0:22", 22));
        assert_eq!(connections.len(), 2, "not the one to itself, not the one in time-wait");
        assert_eq!(connections[0].local, "10.0.0.5:41822");
        assert_eq!(connections[0].remote, "10.0.0.7:5432");
        assert_eq!(connections[0].retransmits, 3);
        assert_eq!(connections[0].owner, Fact::Known(Some("postgres".into())));
        assert_eq!(connections[1].local, "10.0.0.5:80", "IPv4 in IPv6 is IPv4");
        assert_eq!((connections[1].state, &connections[1].owner), (TcpState::Closing, &Fact::Known(None)));
    }

    #[test]
    fn udp_sockets_carry_their_drops() {
        let sockets = udp(&[table("/proc/net/udp", UDP)], &Ok(nobody())).unwrap();
        assert_eq!(sockets.len(), 2);
        assert_eq!(
            (sockets[0].port, &sockets[0].drops, sockets[0].remote.as_deref()),
            (5405, &Fact::Known(17), None)
        );
        assert_eq!(sockets[1].remote.as_deref(), Some("10.0.0.9:514"));
    }

    #[test]
    fn what_is_cut_off_or_crafted_is_unknown_and_never_an_empty_list() {
        let header = TCP.lines().next().unwrap();
        for text in [
            String::new(),
            "garbage".to_owned(),
            "\0\0\0\0".to_owned(),
            TCP[..TCP.len() - 20].to_owned(),
            format!("{header}\n 0: 00000000 00000000:0000 0A\n"),
            format!("{header}\n 0: 0000:0016 00000000:0000 0A 0:0 00:0 0 0 0 1 1 0\n"),
            format!("{header}\n 0: 00000000:0016 00000000:0000 FF 0:0 00:0 0 0 0 1 1 0\n"),
            format!("{header}\n{}", format!("{}\n", TCP.lines().nth(1).unwrap()).repeat(MOST_SOCKETS + 1)),
        ] {
            let why = tcp(&[table("/proc/net/tcp", &text)], &Ok(nobody())).err().unwrap();
            assert_eq!(why.cause, Cause::Malformed);
            assert!(why.reason.len() < 200 && !why.reason.contains('\u{1b}'), "{}", why.reason);
        }
        let only_header = tcp(&[table("/proc/net/tcp", &format!("{header}\n"))], &Ok(nobody())).unwrap();
        assert!(only_header.0.is_empty());
    }

    #[test]
    fn owners_that_could_not_be_listed_are_unknown() {
        let forbidden = Err(Unknown::new(Cause::AgentForbids, "guest-exec is disabled"));
        let (connections, _) = tcp(&[table("/proc/net/tcp", TCP)], &forbidden).unwrap();
        assert_eq!(connections[0].owner, Fact::unknown(Cause::AgentForbids, "guest-exec is disabled"));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[ -~\n]{0,400}", tail in "[0-9A-F: ]{0,200}") {
            let tables = [table("t", &format!("  sl  \n{tail}\n")), table("t", &text)];
            let _ = tcp(&tables, &Ok(nobody()));
            let _ = udp(&tables, &Ok(nobody()));
        }
    }
}
