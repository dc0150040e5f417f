//! The guest's clock: the source from sysfs, its state from chronyc, timedatectl or adjtimex.

use vmgate_facts::{Cause, Fact, GuestClock, Process, Unknown, text::plain};

use crate::guest::{
    ask::{Answers, Question},
    malformed,
};

const CURRENT: &str = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
const AVAILABLE: &str = "/sys/devices/system/clocksource/clocksource0/available_clocksource";
/// Command for the synchronisation state: the first tool that works answers.
const STATE: &str = "chronyc -c tracking || timedatectl show -p NTPSynchronized || adjtimex";

/// Process names (comm) of programs that synchronise the clock.
const SYNCHRONISERS: [&str; 8] =
    ["chronyd", "ntpd", "systemd-timesyn", "openntpd", "ntpd-rs", "ntp-daemon", "phc2sys", "ptp4l"];

/// Configuration files of time servers, where distributions have them.
const SERVERS: [&str; 4] =
    ["/etc/chrony/chrony.conf", "/etc/chrony.conf", "/etc/ntp.conf", "/etc/ntpsec/ntp.conf"];

/// Directives that spread a correction over the clients: of chrony two, of ntpd one.
const SMEARING: [&str; 3] = ["smoothtime", "leapsecmode slew", "leapsmearinterval"];

/// Status bit of adjtimex(2): the clock is not synchronised.
const STA_UNSYNC: u64 = 0x40;

pub(super) fn questions() -> impl Iterator<Item = Question> {
    let files = [CURRENT, AVAILABLE].into_iter().chain(SERVERS).filter_map(Question::file);
    files.chain([Question::Command(STATE.to_owned())])
}

pub(super) fn facts(answers: &Answers, processes: &Fact<Vec<Process>>) -> GuestClock {
    let line = |path: &'static str| {
        let answer = Question::file(path).and_then(|question| answers.get(&question).cloned());
        let text =
            answer.unwrap_or_else(|| Err(Unknown::new(Cause::NotCollected, format!("{path} was not read"))));
        text.and_then(|text| {
            let text = String::from_utf8_lossy(&text).trim().to_owned();
            // Names of clock sources are words of the kernel.
            let words =
                text.chars().all(|c| c.is_ascii_alphanumeric() || " _-".contains(c)) && text.len() <= 256;
            if words && !text.is_empty() {
                Ok(plain(&text))
            } else {
                Err(malformed(path, "the text does not name clock sources"))
            }
        })
    };
    let state = match answers.get(&Question::Command(STATE.to_owned())) {
        Some(Ok(text)) => Ok(String::from_utf8_lossy(text).into_owned()),
        Some(Err(why)) if why.cause != Cause::NotSupported => Err(why.clone()),
        _ => Err(Unknown::new(
            Cause::NotSupported,
            "none of chronyc, timedatectl and adjtimex reports the clock's state in the guest",
        )),
    };
    let chrony = state.as_ref().ok().and_then(|text| text.lines().find_map(tracking));
    let synchronised = state.and_then(|text| {
        let said = chrony.map(|(synchronised, _)| synchronised);
        said.or_else(|| text.lines().find_map(yes_or_no))
            .or_else(|| kernel_status(&text))
            .ok_or_else(|| malformed("the clock's state", "vmgate does not know this output format"))
    });
    GuestClock {
        source: line(CURRENT).into(),
        available: line(AVAILABLE).map(|text| text.split_whitespace().map(str::to_owned).collect()).into(),
        synchroniser: processes.as_ref().map(|processes| {
            let known = |process: &&Process| SYNCHRONISERS.contains(&process.name.as_str());
            processes.iter().find(known).map(|process| process.name.clone())
        }),
        synchronised: synchronised.into(),
        offset_seconds: match chrony {
            Some((true, offset)) => Fact::Known(offset),
            Some((false, _)) => Fact::unknown(Cause::NotSupported, "chronyd is not synchronised"),
            None => Fact::unknown(Cause::NotSupported, "chronyc does not answer in the guest"),
        },
        smearing: smearing(answers).into(),
    }
}

/// The first directive of a time server's configuration that smears.
fn smearing(answers: &Answers) -> Result<Option<String>, Unknown> {
    for path in SERVERS {
        let Some(question) = Question::file(path) else { continue };
        let not_asked = || Err(Unknown::new(Cause::NotCollected, format!("{path} was not read")));
        let text = match answers.get(&question).cloned().unwrap_or_else(not_asked) {
            Ok(text) => String::from_utf8_lossy(&text).into_owned(),
            Err(why) if why.cause == Cause::NotSupported => continue,
            Err(why) => return Err(why),
        };
        let mut words = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
        let smears = |line: String| {
            SMEARING.into_iter().find(|directive| {
                line.strip_prefix(directive).is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
            })
        };
        if let Some(directive) = words.find_map(smears) {
            return Ok(Some(format!("{directive} in {path}")));
        }
    }
    Ok(None)
}

/// Parses `chronyc -c tracking`, comma-separated: field five is the offset from NTP time, the last the leap status.
fn tracking(text: &str) -> Option<(bool, f64)> {
    let fields: Vec<&str> = text.trim().split(',').collect();
    let offset: f64 = fields.get(4)?.parse().ok()?;
    let leap = *fields.get(13)?;
    offset.is_finite().then_some((leap != "Not synchronised", offset))
}

fn yes_or_no(text: &str) -> Option<bool> {
    match text.trim().strip_prefix("NTPSynchronized=")? {
        "yes" => Some(true),
        "no" => Some(false),
        _ => None,
    }
}

/// The status line of busybox's and the Debian package's adjtimex: `status: 64` or `status: 0x40 (…)`.
fn kernel_status(text: &str) -> Option<bool> {
    let line = text
        .lines()
        .find_map(|line| line.trim().trim_start_matches('-').trim_start().strip_prefix("status:"))?;
    let word = line.split_whitespace().next()?;
    let status = match word.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok()?,
        None => word.parse().ok()?,
    };
    Some(status & STA_UNSYNC == 0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::guest::clock::*;

    const TRACKING: &str = "C0A80001,ntp1,3,1700000000.123,0.000012,-0.000003,0.000021,-12.3,0.001,0.05,0.01,0.002,64.2,Normal\n";

    fn clock(pairs: &[(&str, &str)]) -> GuestClock {
        let answers = pairs.iter().map(|(name, text)| {
            let question = if name.starts_with('/') {
                Question::file(*name).unwrap()
            } else {
                Question::Command((*name).into())
            };
            (question, Ok(text.as_bytes().to_vec()))
        });
        facts(&answers.collect(), &Fact::Known(Vec::new()))
    }

    #[test]
    fn the_state_is_taken_from_whoever_tells_it() {
        let found =
            clock(&[(CURRENT, "kvm-clock\n"), (AVAILABLE, "kvm-clock tsc acpi_pm \n"), (STATE, TRACKING)]);
        assert_eq!(found.source, Fact::Known("kvm-clock".into()));
        assert_eq!(found.available.known().unwrap().len(), 3);
        assert_eq!((found.synchronised, found.offset_seconds), (Fact::Known(true), Fact::Known(0.000_012)));
        let lost =
            clock(&[(STATE, "00000000,,0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,1.0,1.0,0.0,Not synchronised\n")]);
        assert_eq!(lost.synchronised, Fact::Known(false));
        assert_eq!(
            clock(&[(STATE, "506 Cannot talk to daemon\nNTPSynchronized=no\n")]).synchronised,
            Fact::Known(false)
        );
        assert_eq!(
            clock(&[(STATE, "    mode:         0\n-o  offset:       0 us\n    status:       64 (UNSYNC)\n")])
                .synchronised,
            Fact::Known(false)
        );
        assert_eq!(clock(&[(STATE, "  status: 0x2001\n")]).synchronised, Fact::Known(true));
        assert_eq!(clock(&[]).synchronised.known(), None);
        assert_eq!(clock(&[(CURRENT, "\u{1b}[2Jevil")]).source.known(), None);
    }

    #[test]
    fn a_time_server_that_smears_is_found_by_its_own_file() {
        let missing = || Unknown::new(Cause::NotSupported, "there is no such file");
        let smearing = |text: &str| {
            let mut answers: Answers = questions().map(|question| (question, Err(missing()))).collect();
            answers.insert(Question::file(SERVERS[1]).unwrap(), Ok(text.as_bytes().to_vec()));
            facts(&answers, &Fact::Known(Vec::new())).smearing
        };
        let known = |text: &str| Fact::Known(Some(text.to_owned()));
        assert_eq!(
            smearing("# smoothtime 400 0.01\npool ntp.example\nleapsecmode system\n"),
            Fact::Known(None)
        );
        assert_eq!(smearing("  leapsecmode   slew\n"), known("leapsecmode slew in /etc/chrony.conf"));
        assert_eq!(smearing("smoothtime 400 0.001 leaponly"), known("smoothtime in /etc/chrony.conf"));
        assert_eq!(smearing("smoothtimes"), Fact::Known(None));
        assert_eq!(clock(&[]).smearing.known(), None);
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,80}", near in "(status:|0x|[0-9,.]|yes|\n){0,40}") {
            for text in [&text, &near] {
                let _ = clock(&[(STATE, text), (CURRENT, text)]);
            }
        }
    }
}
