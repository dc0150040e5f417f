//! Notification of the guest before and after a move, by executable hooks in a folder of the guest.

use std::time::Duration;

use vmgate_collect::HostedVm;
use vmgate_facts::text::shell_word;
use vmgate_judge::change::Notify;

use crate::hand::{ScriptResult, run_script};

/// Time limit of the hooks after a move: nothing important waits for them.
const AFTERWARDS: Duration = Duration::from_secs(30);

/// Notice of a move to the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MoveNotice {
    /// The guest is about to be moved; a hook may take time, or object.
    Before,
    /// The guest was moved.
    After,
    /// The guest was not moved and stays on the source.
    Stayed,
}

/// Answer of the guest to a notice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum GuestAnswer {
    /// No objection; with a note, for example if the guest could not be notified.
    Ready(Option<String>),
    /// A hook failed, so the guest objects to the move.
    Objects(String),
}

impl MoveNotice {
    fn word(self) -> &'static str {
        match self {
            Self::Before => "before",
            Self::After => "after",
            Self::Stayed => "stayed",
        }
    }
}

/// Runs the hooks of the guest. A guest that cannot be notified is moved all the same: the rules decide if it may be
/// moved without an agent.
pub(super) fn notify_guest(
    vm: &HostedVm,
    notify: &Notify,
    news: MoveNotice,
    leave: &dyn Fn() -> bool,
) -> GuestAnswer {
    let limit = match news {
        MoveNotice::Before => Duration::from_secs_f64(notify.longest_delay_seconds),
        MoveNotice::After | MoveNotice::Stayed => AFTERWARDS,
    };
    let note = |text: String| GuestAnswer::Ready(Some(text));
    match run_script(vm.clone(), &script(&notify.folder, news), limit, leave) {
        Ok(ScriptResult::Exited { code: 0, output }) if output.is_empty() => GuestAnswer::Ready(None),
        Ok(ScriptResult::Exited { code: 0, output }) => note(format!("the guest says: {output}")),
        Ok(ScriptResult::Exited { code, output }) => {
            GuestAnswer::Objects(format!("a hook in {} ended with {code}: {output}", notify.folder))
        }
        Ok(ScriptResult::StillRunning) => {
            note(format!("its hooks still run after {} s", limit.as_secs_f64()))
        }
        Ok(ScriptResult::Abandoned) => note("its hooks were not waited for".to_owned()),
        Err(why) => note(format!("it could not be told: {}", why.reason)),
    }
}

/// Shell script that runs the executable files of the folder in the order of their names, until one fails.
fn script(folder: &str, news: MoveNotice) -> String {
    format!(
        "exec 2>&1; [ -d {folder} ] || exit 0; for hook in {folder}/*; do \
         [ -f \"$hook\" ] && [ -x \"$hook\" ] || continue; \
         \"$hook\" {news} || {{ code=$?; echo \"${{hook##*/}} failed\"; exit $code; }}; done",
        folder = shell_word(folder),
        news = news.word()
    )
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _, process::Command};

    use super::*;

    #[test]
    fn hooks_run_in_order_with_the_news_and_the_first_that_fails_ends_it() {
        let folder = tempfile::tempdir().unwrap();
        let hooks = folder.path().join("it's a folder");
        let run = |news| {
            let output = Command::new("/bin/sh")
                .args(["-c", &script(hooks.to_str().unwrap(), news)])
                .output()
                .unwrap();
            (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
        };
        assert_eq!(
            run(MoveNotice::Before),
            (0, String::new()),
            "a guest without the folder has no objection"
        );
        fs::create_dir(&hooks).unwrap();
        let hook = |name: &str, text: &str, mode| {
            let path = hooks.join(name);
            fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        };
        hook("20-second", "echo second $1; [ $1 != before ] || exit 7", 0o755);
        hook("10-first", "echo first $1", 0o755);
        hook("15-off", "echo off", 0o644);
        hook("30-third", "echo third", 0o755);
        assert_eq!(
            run(MoveNotice::Before),
            (7, "first before\nsecond before\n20-second failed\n".to_owned())
        );
        assert_eq!(run(MoveNotice::After).0, 0);
        assert!(run(MoveNotice::Stayed).1.ends_with("third\n"));
    }
}
