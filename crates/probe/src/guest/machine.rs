//! Parts of the machine that the guest uses: VMs inside, armed watchdogs, PTP clocks. All but the VMs is read from files, for agents that run
//! nothing.

use vmgate_facts::{Cause, GuestMachine, GuestWatchdog, Unknown, text::plain};

use crate::guest::{
    ask::{Answers, Question},
    malformed,
};

const CPU: &str = "/proc/cpuinfo";
/// Count of the VMs that processes hold open: KVM gives each a file of this name.
const VMS: &str = "ls -l /proc/[0-9]*/fd 2>/dev/null | grep -c ' anon_inode:kvm-vm$'";
/// Most devices of one kind that are asked for.
const MOST: usize = 4;

fn watchdog(number: usize, attribute: &str) -> String {
    format!("/sys/class/watchdog/watchdog{number}/{attribute}")
}

fn ptp(number: usize) -> String {
    format!("/sys/class/ptp/ptp{number}/clock_name")
}

pub(super) fn questions() -> impl Iterator<Item = Question> {
    let devices = (0..MOST).flat_map(|number| {
        ["identity", "timeout", "state"]
            .map(|attribute| watchdog(number, attribute))
            .into_iter()
            .chain([ptp(number)])
    });
    let files = std::iter::once(CPU.to_owned()).chain(devices).filter_map(Question::file);
    files.chain([Question::Command(VMS.to_owned())])
}

pub(super) fn facts(answers: &Answers) -> GuestMachine {
    let virtualisation =
        read(answers, CPU).and_then(|text| virtualisation(text.as_deref().unwrap_or_default()));
    // Without the hardware there is no VM, whoever may look.
    let running_vms = match &virtualisation {
        Ok(None) => Ok(0),
        _ => answer(answers, &Question::Command(VMS.to_owned())).and_then(|text| {
            text.trim().parse().map_err(|_| malformed("the count of VMs", "this is no number"))
        }),
    };
    let watchdogs: Result<Vec<_>, Unknown> =
        (0..MOST).filter_map(|number| armed(answers, number).transpose()).collect();
    let clocks: Result<Vec<_>, Unknown> =
        (0..MOST).filter_map(|number| read(answers, &ptp(number)).transpose()).collect();
    GuestMachine {
        virtualisation: virtualisation.into(),
        running_vms: running_vms.into(),
        watchdogs: watchdogs.into(),
        ptp_clocks: clocks.into(),
    }
}

/// The watchdog of a number, if there is one and it is armed. Unknown where its kernel does not tell.
fn armed(answers: &Answers, number: usize) -> Result<Option<GuestWatchdog>, Unknown> {
    let Some(identity) = read(answers, &watchdog(number, "identity"))? else { return Ok(None) };
    match read(answers, &watchdog(number, "state"))?.as_deref() {
        Some("inactive") => return Ok(None),
        Some("active") => {}
        _ => {
            return Err(malformed(
                &watchdog(number, "state"),
                "the kernel does not tell if the watchdog is armed",
            ));
        }
    }
    let path = watchdog(number, "timeout");
    let timeout_seconds = read(answers, &path)?.and_then(|text| text.parse::<u32>().ok()).map(f64::from);
    let timeout_seconds = timeout_seconds.ok_or_else(|| malformed(&path, "this is no time in seconds"))?;
    Ok(Some(GuestWatchdog { device: format!("watchdog{number}"), identity, timeout_seconds }))
}

/// Hardware virtualisation among the processor's flags.
fn virtualisation(text: &str) -> Result<Option<String>, Unknown> {
    // Processors of Arm and others name no such flags; their guests offer no VMs of their own by default.
    let lines = text.lines().filter(|line| line.starts_with("flags") || line.starts_with("Features"));
    let mut flags = lines.take(1).flat_map(str::split_whitespace).peekable();
    if flags.peek().is_none() {
        return Err(malformed(CPU, "it names no flags of the processor"));
    }
    Ok(flags.find(|flag| ["vmx", "svm"].contains(flag)).map(str::to_owned))
}

/// First line of a small file; none if the guest has no such file.
fn read(answers: &Answers, path: &str) -> Result<Option<String>, Unknown> {
    let Some(question) = Question::file(path) else { return Ok(None) };
    match answer(answers, &question) {
        Ok(text) if path == CPU => Ok(Some(text)),
        Ok(text) => Ok(Some(plain(text.lines().next().unwrap_or_default().trim()))),
        Err(why) if why.cause == Cause::NotSupported => Ok(None),
        Err(why) => Err(why),
    }
}

fn answer(answers: &Answers, question: &Question) -> Result<String, Unknown> {
    let not_asked = || Err(Unknown::new(Cause::NotCollected, format!("{} was not read", question.name())));
    let bytes = answers.get(question).cloned().unwrap_or_else(not_asked)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use vmgate_facts::Fact;

    use crate::guest::machine::*;

    /// A guest with these files and VMs, and no others.
    fn machine(files: &[(&str, &str)], vms: &str) -> GuestMachine {
        let answers = questions().map(|question| {
            let text = match &question {
                Question::Command(_) => Some(vms),
                Question::File(path) => {
                    files.iter().find(|(name, _)| *name == path.as_str()).map(|(_, text)| *text)
                }
            };
            let text = text.map(|text| text.as_bytes().to_vec());
            let missing = || Unknown::new(Cause::NotSupported, "there is no such file");
            (question, text.ok_or_else(missing))
        });
        facts(&answers.collect())
    }

    #[test]
    fn an_ordinary_guest_has_nothing_of_it_even_where_nothing_can_be_run() {
        let mut answers: Answers = questions()
            .map(|question| (question, Err(Unknown::new(Cause::NotSupported, "there is no such file"))))
            .collect();
        answers.insert(Question::file(CPU).unwrap(), Ok(b"processor: 0\nflags\t\t: fpu vme sse2\n".to_vec()));
        answers.remove(&Question::Command(VMS.to_owned()));
        let found = facts(&answers);
        assert_eq!((found.virtualisation, found.running_vms), (Fact::Known(None), Fact::Known(0)));
        assert_eq!((found.watchdogs, found.ptp_clocks), (Fact::Known(vec![]), Fact::Known(vec![])));
    }

    #[test]
    fn vms_armed_watchdogs_and_clocks_are_found() {
        let found = machine(
            &[
                (CPU, "flags\t\t: fpu vmx sse2\nflags\t\t: fpu svm\n"),
                ("/sys/class/watchdog/watchdog0/identity", "i6300ESB timer\n"),
                ("/sys/class/watchdog/watchdog0/state", "active\n"),
                ("/sys/class/watchdog/watchdog0/timeout", "30\n"),
                ("/sys/class/watchdog/watchdog1/identity", "Software Watchdog\n"),
                ("/sys/class/watchdog/watchdog1/state", "inactive\n"),
                ("/sys/class/ptp/ptp0/clock_name", "KVM virtual PTP\n"),
            ],
            "2\n",
        );
        assert_eq!(
            (found.virtualisation, found.running_vms),
            (Fact::Known(Some("vmx".into())), Fact::Known(2))
        );
        let Fact::Known(watchdogs) = found.watchdogs else { panic!("{:?}", found.watchdogs) };
        assert_eq!((watchdogs.len(), watchdogs[0].identity.as_str()), (1, "i6300ESB timer"));
        assert!((watchdogs[0].timeout_seconds - 30.0).abs() < f64::EPSILON);
        assert_eq!(found.ptp_clocks, Fact::Known(vec!["KVM virtual PTP".to_owned()]));
    }

    #[test]
    fn what_is_not_told_is_unknown_and_not_none() {
        let silent = machine(
            &[(CPU, "flags: vmx"), ("/sys/class/watchdog/watchdog0/identity", "iTCO_wdt")],
            "no\u{1b}number",
        );
        assert!(silent.watchdogs.known().is_none() && silent.running_vms.known().is_none());
        let found = facts(&Answers::new());
        assert!(found.running_vms.known().is_none() && found.ptp_clocks.known().is_none());
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,80}", flags in "(flags|:| |vmx|\n){0,20}") {
            let _ = machine(&[(CPU, &flags), ("/sys/class/watchdog/watchdog0/state", &text), ("/sys/class/watchdog/watchdog0/identity", &text)], &text);
        }
    }
}
