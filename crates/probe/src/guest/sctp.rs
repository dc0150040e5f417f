//! SCTP associations from /proc/net/sctp/{assocs,remaddr} and sysctl net.sctp (Linux net/sctp/proc.c).
//!
//! The kernel writes time-outs there in its own ticks, and does not say how many ticks make a second. If the heartbeat
//! interval of an association equals the sysctl's, their ratio tells; else the RTO is taken as the sysctl's minimum.

use vmgate_facts::{Cause, Fact, SctpAssociation, Unknown, text::plain};

use crate::guest::{GuestReader, MOST_SOCKETS, malformed};

const ASSOCIATIONS: &str = "/proc/net/sctp/assocs";
const PATHS: &str = "/proc/net/sctp/remaddr";
/// Ticks per second (CONFIG_HZ) that distributions build kernels with.
const TICKS_IN_USE: [f64; 4] = [100.0, 250.0, 300.0, 1000.0];

/// Values of sysctl net.sctp; times are in seconds.
struct SctpSysctls {
    rto_initial: Fact<f64>,
    rto_min: Fact<f64>,
    rto_max: Fact<f64>,
    heartbeat: Fact<f64>,
    path_max_retrans: Fact<i64>,
    association_max_retrans: Fact<i64>,
}

/// One line of /proc/net/sctp/assocs.
#[derive(Debug, PartialEq)]
struct AssociationLine {
    id: u32,
    local: Vec<String>,
    local_port: u16,
    /// Addresses of the peer, the one in use first.
    remote: Vec<String>,
    remote_port: u16,
    heartbeat_ticks: f64,
    max_retrans: i64,
}

/// One line of /proc/net/sctp/remaddr.
#[derive(Debug, PartialEq)]
struct PathLine {
    address: String,
    association: u32,
    rto_ticks: f64,
    max_retrans: i64,
}

/// The associations; an empty list if the kernel has no SCTP. The budget is derived later.
pub(super) fn look(reader: &dyn GuestReader) -> Result<Vec<SctpAssociation>, Unknown> {
    let table = match reader.read(ASSOCIATIONS) {
        Ok(table) => table,
        // The sctp module is not loaded, so no process uses SCTP.
        Err(why) if why.cause == Cause::NotSupported => return Ok(Vec::new()),
        Err(why) => return Err(why),
    };
    let lines = rows(&table, ASSOCIATIONS, line)?;
    if lines.is_empty() {
        return Ok(Vec::new());
    }
    let paths = reader.read(PATHS).and_then(|table| rows(&table, PATHS, path_line));
    let settings = settings(reader);
    Ok(lines.iter().map(|line| association(line, &paths, &settings)).collect())
}

fn settings(reader: &dyn GuestReader) -> SctpSysctls {
    let number = |name: &str| {
        let path = format!("/proc/sys/net/sctp/{name}");
        let parsed = reader.read(&path).and_then(|text| {
            let number = std::str::from_utf8(&text).ok().and_then(|text| text.trim().parse::<u32>().ok());
            number.ok_or_else(|| malformed(&path, "not a number"))
        });
        Fact::from(parsed)
    };
    let seconds = |name: &str| number(name).map(|milliseconds| f64::from(milliseconds) / 1e3);
    SctpSysctls {
        rto_initial: seconds("rto_initial"),
        rto_min: seconds("rto_min"),
        rto_max: seconds("rto_max"),
        heartbeat: seconds("hb_interval"),
        path_max_retrans: number("path_max_retrans").map(i64::from),
        association_max_retrans: number("association_max_retrans").map(i64::from),
    }
}

fn association(
    line: &AssociationLine,
    paths: &Result<Vec<PathLine>, Unknown>,
    settings: &SctpSysctls,
) -> SctpAssociation {
    let ends = |addresses: &[String], port: u16| format!("{}:{port}", addresses.join(","));
    let in_use = paths.as_ref().ok().and_then(|paths| {
        let of_this = |path: &&PathLine| path.association == line.id;
        let first = line.remote.first();
        paths
            .iter()
            .filter(of_this)
            .find(|path| Some(&path.address) == first)
            .or_else(|| paths.iter().find(of_this))
    });
    let ticks = settings.heartbeat.known().and_then(|&heartbeat| {
        let ticks = line.heartbeat_ticks / heartbeat;
        TICKS_IN_USE.into_iter().find(|in_use| (ticks - in_use).abs() < 0.01 * in_use)
    });
    let unclear = || {
        Fact::unknown(
            Cause::NotSupported,
            "the kernel reports this time in ticks of unknown length; the minimum RTO is used instead",
        )
    };
    let rto = match (in_use, ticks) {
        (Some(path), Some(ticks)) if path.rto_ticks > 0.0 => Fact::Known(path.rto_ticks / ticks),
        _ => unclear(),
    };
    let max_retrans = in_use.map(|path| path.max_retrans);
    SctpAssociation {
        local: ends(&line.local, line.local_port),
        remote: ends(&line.remote, line.remote_port),
        path_max_retrans: max_retrans.map_or_else(|| settings.path_max_retrans.clone(), Fact::Known),
        rto_seconds: rto,
        rto_min_seconds: settings.rto_min.clone(),
        rto_max_seconds: settings.rto_max.clone(),
        rto_initial_seconds: settings.rto_initial.clone(),
        heartbeat_seconds: ticks.map_or_else(unclear, |ticks| Fact::Known(line.heartbeat_ticks / ticks)),
        association_max_retrans: if line.max_retrans >= 0 {
            Fact::Known(line.max_retrans)
        } else {
            settings.association_max_retrans.clone()
        },
        budget_seconds: Fact::default(),
    }
}

/// The rows of a table below its header; one row that does not parse makes the whole table unknown.
fn rows<T>(table: &[u8], path: &str, parse: fn(&str) -> Option<T>) -> Result<Vec<T>, Unknown> {
    let text = std::str::from_utf8(table).map_err(|_| malformed(path, "not text"))?;
    if !text.is_empty() && !text.ends_with('\n') {
        return Err(malformed(path, "the text ends in the middle of a line"));
    }
    let lines: Vec<&str> = text.lines().skip(1).filter(|line| !line.trim().is_empty()).collect();
    if lines.len() > MOST_SOCKETS {
        return Err(malformed(path, &format!("more than {MOST_SOCKETS} lines")));
    }
    let bad = |line: &str| {
        let short: String = line.chars().take(60).collect();
        malformed(path, &format!("cannot parse the line `{}`", plain(&short)))
    };
    lines.into_iter().map(|line| parse(line).ok_or_else(|| bad(line))).collect()
}

/// Parses ASSOC SOCK STY SST ST HBKT ASSOC-ID TX_QUEUE RX_QUEUE UID INODE LPORT RPORT LADDRS <-> RADDRS HBINT INS OUTS
/// MAXRT …
fn line(text: &str) -> Option<AssociationLine> {
    let (before, after) = text.split_once("<->")?;
    let mut before = before.split_ascii_whitespace();
    let id = before.nth(6)?.parse().ok()?;
    let local_port = before.nth(4)?.parse().ok()?;
    let remote_port = before.next()?.parse().ok()?;
    let local = addresses(&mut before.peekable());
    let mut after = after.split_ascii_whitespace().peekable();
    let remote = addresses(&mut after);
    let heartbeat: u32 = after.next()?.parse().ok()?;
    let max_retrans = after.nth(2)?.parse().ok()?;
    let complete = !local.is_empty() && !remote.is_empty();
    complete.then_some(AssociationLine {
        id,
        local,
        local_port,
        remote,
        remote_port,
        heartbeat_ticks: heartbeat.into(),
        max_retrans,
    })
}

/// Parses ADDR ASSOC_ID HB_ACT RTO MAX_PATH_RTX REM_ADDR_RTX START STATE
fn path_line(text: &str) -> Option<PathLine> {
    let mut fields = text.split_ascii_whitespace();
    let address = fields.next()?.parse::<std::net::IpAddr>().ok()?.to_canonical().to_string();
    let association = fields.next()?.parse().ok()?;
    let rto: u32 = fields.nth(1)?.parse().ok()?;
    let max_retrans = fields.next()?.parse().ok()?;
    Some(PathLine { address, association, rto_ticks: rto.into(), max_retrans })
}

/// Parses addresses up to the first other field; the primary one, marked with an asterisk, comes first.
fn addresses<'a>(fields: &mut std::iter::Peekable<impl Iterator<Item = &'a str>>) -> Vec<String> {
    let mut found = Vec::new();
    while let Some(field) = fields.peek() {
        let (bare, primary) = field.strip_prefix('*').map_or((*field, false), |bare| (bare, true));
        let Ok(address) = bare.parse::<std::net::IpAddr>() else { break };
        let address = address.to_canonical().to_string();
        let place = if primary { 0 } else { found.len() };
        found.insert(place, address);
        fields.next();
    }
    found
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use crate::guest::{RawProcess, sctp::*};

    const ASSOCS: &str = " ASSOC     SOCK   STY SST ST HBKT ASSOC-ID TX_QUEUE RX_QUEUE UID INODE LPORT RPORT LADDRS <-> RADDRS HBINT INS OUTS MAXRT T1X T2X RTXC wmema wmemq sndbuf rcvbuf\n\
        0000000012345678 0000000087654321 2   1   3  0       7        0        0       0 20001 36412 36413  10.0.0.5 *10.1.0.5 <-> 10.0.0.7 *10.1.0.7 \t    7500    10    10   10    0    0        0        1        0   212992   212992\n";
    const REMADDR: &str = "ADDR ASSOC_ID HB_ACT RTO MAX_PATH_RTX REM_ADDR_RTX START STATE\n\
        10.0.0.7  7 1 250 5 0 0 2\n10.1.0.7  7 1 300 3 0 0 2\n";

    struct Files(BTreeMap<&'static str, String>);

    impl GuestReader for Files {
        fn read(&self, path: &str) -> Result<Vec<u8>, Unknown> {
            let text = self.0.get(path).map(|text| text.clone().into_bytes());
            text.ok_or_else(|| Unknown::new(Cause::NotSupported, "no such file"))
        }

        fn processes(&self) -> Result<Vec<RawProcess>, Unknown> {
            Ok(Vec::new())
        }
    }

    fn files(assocs: &str) -> Files {
        Files(BTreeMap::from([
            (ASSOCIATIONS, assocs.to_owned()),
            (PATHS, REMADDR.to_owned()),
            ("/proc/sys/net/sctp/rto_min", "1000\n".to_owned()),
            ("/proc/sys/net/sctp/rto_max", "60000\n".to_owned()),
            ("/proc/sys/net/sctp/hb_interval", "30000\n".to_owned()),
        ]))
    }

    #[test]
    fn an_association_is_read_with_the_path_in_use() {
        let found = look(&files(ASSOCS)).unwrap();
        let [association] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!(association.local, "10.1.0.5,10.0.0.5:36412");
        assert_eq!(association.remote, "10.1.0.7,10.0.0.7:36413");
        // 7500 ticks are 30 s: 250 a second.
        assert_eq!(association.rto_seconds, Fact::Known(1.2));
        assert_eq!(association.heartbeat_seconds, Fact::Known(30.0));
        assert_eq!(association.path_max_retrans, Fact::Known(3));
        assert_eq!(association.association_max_retrans, Fact::Known(10));
    }

    #[test]
    fn ticks_of_unknown_length_are_not_guessed() {
        let own_heartbeat = ASSOCS.replace("7500", "1234");
        let found = look(&files(&own_heartbeat)).unwrap();
        assert_eq!((found[0].rto_seconds.known(), found[0].heartbeat_seconds.known()), (None, None));
        assert_eq!(found[0].rto_min_seconds, Fact::Known(1.0));
    }

    #[test]
    fn without_the_module_there_is_no_association_and_garbage_is_unknown() {
        assert_eq!(look(&Files(BTreeMap::new())), Ok(Vec::new()));
        assert_eq!(look(&files("garbage\n\u{1b}[2J <-> x\n")).unwrap_err().cause, Cause::Malformed);
        assert_eq!(look(&files(&ASSOCS[..ASSOCS.len() - 9])).unwrap_err().cause, Cause::Malformed);
    }

    #[test]
    fn what_linux_6_1_writes_is_understood() {
        let assocs = format!(
            "{}\n{}",
            ASSOCS.lines().next().unwrap(),
            "6ecd5311 e73ebc37 2   1   3  0       3        0        0       0 10313 59878  5000  127.0.0.1 10.77.2.14 <-> *127.0.0.1 \t    7500    10    10   10    0    0        0        1        0   212992   212992\n"
        );
        let mut files = files(&assocs);
        files.0.insert(
            PATHS,
            "ADDR ASSOC_ID HB_ACT RTO MAX_PATH_RTX REM_ADDR_RTX START STATE\n127.0.0.1  3 1 750 5 0 0 2\n"
                .into(),
        );
        let found = look(&files).unwrap();
        assert_eq!(found[0].local, "127.0.0.1,10.77.2.14:59878");
        assert_eq!((&found[0].rto_seconds, &found[0].path_max_retrans), (&Fact::Known(3.0), &Fact::Known(5)));
    }

    proptest! {
        #[test]
        fn no_table_panics(text in "[ -~\n]{0,300}", numbers in "[0-9.*: <>-]{0,200}") {
            let _ = look(&files(&text));
            let _ = look(&files(&format!("h\n{numbers}\n")));
        }
    }
}
