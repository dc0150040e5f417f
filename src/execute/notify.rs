//! The guest is told before and after a move, by hooks in a folder of its own.

use std::time::Duration;

use crate::{
    change::Notify,
    collect::{
        agent::{ScriptResult, run_script},
        libvirt::Domain,
    },
};

/// How long hooks may take when it is over: nothing waits for them that matters.
const AFTERWARDS: Duration = Duration::from_secs(30);

/// What the guest is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum News {
    /// It is about to be moved; it may take its time, or object.
    Before,
    /// It was moved.
    After,
    /// It was not moved after all.
    Stayed,
}

/// What came of telling it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// It has no objection; or it could not be told, for this reason.
    Ready(Option<String>),
    /// A hook failed.
    Objects(String),
}

impl News {
    fn word(self) -> &'static str {
        match self {
            Self::Before => "before",
            Self::After => "after",
            Self::Stayed => "stayed",
        }
    }
}

/// Runs the hooks of the guest. A guest that cannot be told is moved all the same: the rules decide whether it may be
/// moved without an agent.
pub(super) fn tell(domain: &Domain, notify: &Notify, news: News, leave: &dyn Fn() -> bool) -> Answer {
    let limit = match news {
        News::Before => Duration::from_secs_f64(notify.longest_delay_seconds),
        News::After | News::Stayed => AFTERWARDS,
    };
    let note = |text: String| Answer::Ready(Some(text));
    match run_script(domain.clone(), &script(&notify.folder, news), limit, leave) {
        Ok(ScriptResult::Exited { code: 0, output }) if output.is_empty() => Answer::Ready(None),
        Ok(ScriptResult::Exited { code: 0, output }) => note(format!("the guest says: {output}")),
        Ok(ScriptResult::Exited { code, output }) => {
            Answer::Objects(format!("a hook in {} ended with {code}: {output}", notify.folder))
        }
        Ok(ScriptResult::StillRunning) => {
            note(format!("its hooks still run after {} s", limit.as_secs_f64()))
        }
        Ok(ScriptResult::Abandoned) => note("its hooks were not waited for".to_owned()),
        Err(why) => note(format!("it could not be told: {}", why.reason)),
    }
}

/// Runs what is executable in the folder in the order of the names; stops at the first that fails.
fn script(folder: &str, news: News) -> String {
    format!(
        "exec 2>&1; [ -d {folder} ] || exit 0; for hook in {folder}/*; do \
         [ -f \"$hook\" ] && [ -x \"$hook\" ] || continue; \
         \"$hook\" {news} || {{ code=$?; echo \"${{hook##*/}} failed\"; exit $code; }}; done",
        folder = quoted(folder),
        news = news.word()
    )
}

/// A text as one word of a shell.
pub(super) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
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
        assert_eq!(run(News::Before), (0, String::new()), "a guest without the folder has no objection");
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
        assert_eq!(run(News::Before), (7, "first before\nsecond before\n20-second failed\n".to_owned()));
        assert_eq!(run(News::After).0, 0);
        assert!(run(News::Stayed).1.ends_with("third\n"));
    }
}
