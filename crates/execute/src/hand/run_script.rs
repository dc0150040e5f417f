//! Shell scripts that change something in a guest, run by the guest agent, with their exit codes.

use std::{
    thread,
    time::{Duration, Instant},
};

use vmgate_facts::{Unknown, text::plain_bytes};
use vmgate_reach::agent::{Agent, AgentChannel, Execution};

/// Pause between two looks at a script that runs.
const POLL: Duration = Duration::from_millis(100);
/// Longest wait for one answer of the agent: a guest has just been moved, or has much to do.
const ANSWER_PATIENCE: Duration = Duration::from_secs(15);
/// Longest output that is kept, in characters.
const WORDS: usize = 400;

/// Result of a script in the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ScriptResult {
    /// It ended with this code; -1 where a signal ended it.
    Exited {
        /// The exit code.
        code: i64,
        /// The last part of the output, harmless to a terminal.
        output: String,
    },
    /// The script still ran at its time limit, and goes on in the guest.
    StillRunning,
    /// vmgate stopped waiting before the time limit; the script goes on in the guest.
    Abandoned,
}

/// Runs a shell script in the guest and waits for its end, for at most `limit`, or until `leave` says so.
pub(crate) fn run_script<C: AgentChannel>(
    channel: C,
    script: &str,
    limit: Duration,
    abandon: &dyn Fn() -> bool,
) -> Result<ScriptResult, Unknown> {
    let deadline = Instant::now() + limit;
    let agent = Agent::connect(channel, ANSWER_PATIENCE.min(limit))?;
    let pid = agent.start_shell(script, ANSWER_PATIENCE)?;
    loop {
        thread::sleep(POLL);
        let status = agent.shell_status(pid, ANSWER_PATIENCE);
        if let Err(why) = &status
            && Instant::now() >= deadline
        {
            return Err(why.clone());
        }
        if let Ok(Execution::Done { output, code, .. }) = status {
            let text = plain_bytes(output.trim_ascii());
            let skipped = text.chars().count().saturating_sub(WORDS);
            return Ok(ScriptResult::Exited {
                code: code.unwrap_or(-1),
                output: text.chars().skip(skipped).collect(),
            });
        }
        if abandon() {
            return Ok(ScriptResult::Abandoned);
        }
        if Instant::now() >= deadline {
            return Ok(ScriptResult::StillRunning);
        }
    }
}

#[cfg(test)]
mod tests {
    use vmgate_reach::canned::Canned;

    use super::*;

    const INFO: &str = r#"{"return":{"supported_commands":[
        {"name":"guest-exec","enabled":true},{"name":"guest-exec-status","enabled":true}]}}"#;

    fn guest(status: &[&str]) -> Canned {
        Canned::new(&[
            ("guest-ping", &[r#"{"return":{}}"#]),
            ("guest-info", &[INFO]),
            ("guest-exec", &[r#"{"return":{"pid":7}}"#]),
            ("guest-exec-status", status),
        ])
    }

    #[test]
    fn an_order_ends_with_its_code_and_words_that_cannot_drive_a_terminal() {
        let running = r#"{"return":{"exited":false}}"#;
        // `no` and an escape sequence.
        let ended = r#"{"return":{"exited":true,"exitcode":3,"out-data":"bm8bWzJK"}}"#;
        let result = run_script(guest(&[running, ended]), "x", Duration::from_secs(5), &|| false).unwrap();
        assert_eq!(result, ScriptResult::Exited { code: 3, output: "no?[2J".to_owned() });
    }

    #[test]
    fn an_order_that_does_not_end_costs_its_time_or_until_it_is_left() {
        let running = [r#"{"return":{"exited":false}}"#];
        let wait = |limit, abandon: bool| run_script(guest(&running), "x", limit, &|| abandon).unwrap();
        assert_eq!(wait(Duration::from_millis(250), false), ScriptResult::StillRunning);
        assert_eq!(wait(Duration::from_mins(10), true), ScriptResult::Abandoned);
    }
}
