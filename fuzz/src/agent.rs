//! A guest agent that answers anything: the answers are the lines of the input, in turn.

use std::{cell::Cell, collections::BTreeSet, time::Duration};

use vmgate_collect::agent::AgentGuest;
use vmgate_probe::guest::{GuestReader, ask::Question};
use vmgate_reach::agent::{AgentChannel, AgentFailure};

struct Lines<'a> {
    lines: Vec<&'a str>,
    next: Cell<usize>,
    left: Cell<usize>,
}

impl AgentChannel for Lines<'_> {
    fn command(&self, json: &str, _: Duration) -> Result<String, AgentFailure> {
        // A greeting is answered, so that the rest is reached; after some answers the agent has gone.
        if json.contains("guest-ping") {
            return Ok(r#"{"return": {}}"#.to_owned());
        }
        if json.contains("guest-info") && !self.lines.len().is_multiple_of(4) {
            let names =
                ["guest-exec", "guest-exec-status", "guest-file-open", "guest-file-read", "guest-file-close"];
            let from = if self.lines.len() % 4 == 1 { 2 } else { 0 };
            let commands: Vec<String> = names[from..]
                .iter()
                .map(|name| format!(r#"{{"name": "{name}", "enabled": true}}"#))
                .collect();
            return Ok(format!(r#"{{"return": {{"supported_commands": [{}]}}}}"#, commands.join(",")));
        }
        if self.left.get() == 0 {
            return Err(AgentFailure::Silent("gone".to_owned()));
        }
        self.left.set(self.left.get() - 1);
        let at = self.next.get();
        self.next.set(at + 1);
        let line = self.lines[at % self.lines.len()];
        match line.strip_prefix('!') {
            Some(words) => Err(AgentFailure::Refused(words.to_owned())),
            None => Ok(line.to_owned()),
        }
    }
}

/// Asks the agent.
pub(crate) fn ask(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let lines: Vec<&str> = text.split('\n').collect();
    let channel = Lines { lines, next: Cell::new(0), left: Cell::new(60) };
    // Not all of what is looked at: that waits a second between two looks at the memory.
    if let Ok(guest) = AgentGuest::open(channel, Duration::from_millis(5)) {
        let questions: BTreeSet<Question> =
            [Question::file("/etc/corosync/corosync.conf"), Some(Question::Command("chronyc".into()))]
                .into_iter()
                .flatten()
                .collect();
        assert_eq!(guest.ask(&questions).len(), 2);
        for why in [guest.read("/proc/net/tcp").err(), guest.processes().err()].into_iter().flatten() {
            assert!(!why.reason.chars().any(char::is_control), "{why:?}");
        }
    }
}
