//! Commands of the guest agent (qemu/qga/qapi-schema.json) as functions with checked answers.

use std::{collections::BTreeSet, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};
use vmgate_facts::{Cause, Unknown, text::plain};

/// Longest answer that is parsed: the largest output of a shell, in base64.
const ANSWER_LIMIT: usize = 24 << 20;

/// A channel to a guest agent, for one command at a time.
pub trait AgentChannel {
    /// Sends a command and waits for its answer, both JSON, for at most `patience`.
    fn command(&self, json: &str, patience: Duration) -> Result<String, AgentFailure>;
}

/// Error of an agent command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AgentFailure {
    /// Nothing answers: no channel, no agent, or it hangs.
    Silent(String),
    /// The agent answered with an error.
    Refused(String),
    /// The agent cannot be reached, for this reason.
    Unavailable(Unknown),
}

/// An agent that has answered, and what it may do.
pub struct Agent<C> {
    channel: C,
    enabled: BTreeSet<String>,
}

/// A piece of a file.
pub struct Chunk {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// True at the end of the file.
    pub end: bool,
}

/// Progress of a command that the agent runs.
pub enum Execution {
    /// The command runs.
    Running,
    /// The command has ended. `code` is absent if a signal ended it.
    Done {
        /// Standard output, as far as the agent kept it.
        output: Vec<u8>,
        /// True if the agent cut the output off.
        truncated: bool,
        /// Exit code.
        code: Option<i64>,
    },
}

#[derive(Deserialize)]
struct Answer<T> {
    #[serde(rename = "return")]
    content: T,
}

#[derive(Deserialize)]
struct Info {
    #[serde(default)]
    supported_commands: Vec<Supported>,
}

#[derive(Deserialize)]
struct Supported {
    name: String,
    #[serde(default)]
    enabled: bool,
}

#[derive(Deserialize)]
struct Read {
    #[serde(rename = "buf-b64", default)]
    content: String,
    eof: bool,
}

#[derive(Deserialize)]
struct Started {
    pid: i64,
}

#[derive(Deserialize)]
struct Status {
    exited: bool,
    #[serde(rename = "out-data", default)]
    output: String,
    #[serde(rename = "out-truncated", default)]
    truncated: bool,
    #[serde(default)]
    exitcode: Option<i64>,
}

impl<C: AgentChannel> Agent<C> {
    /// Asks for a sign of life and for what the agent may do.
    pub fn connect(channel: C, patience: Duration) -> Result<Self, Unknown> {
        let mut agent = Self { channel, enabled: BTreeSet::new() };
        // An agent that hangs from the start is as good as none, and the way out is the same.
        let info: Info = agent.ask("guest-info", &json!({}), patience).map_err(|why| match why.cause {
            Cause::TimedOut => Unknown { cause: Cause::NoGuestAgent, ..why },
            _ => why,
        })?;
        agent.enabled = info
            .supported_commands
            .into_iter()
            .filter(|command| command.enabled)
            .map(|command| command.name)
            .collect();
        Ok(agent)
    }

    /// Refuses at once what the agent has said that it refuses.
    pub fn require_enabled(&self, commands: &[&str]) -> Result<(), Unknown> {
        let missing: Vec<&str> =
            commands.iter().filter(|command| !self.enabled.contains(**command)).copied().collect();
        if missing.is_empty() {
            return Ok(());
        }
        let verb = if missing.len() == 1 { "is" } else { "are" };
        Err(Unknown::new(
            Cause::AgentForbids,
            format!("{} {verb} not enabled in the guest agent", missing.join(", ")),
        ))
    }

    /// Opens a file for reading; returns its handle.
    pub fn open_file(&self, path: &str, patience: Duration) -> Result<i64, Unknown> {
        self.require_enabled(&["guest-file-open", "guest-file-read", "guest-file-close"])?;
        self.ask("guest-file-open", &json!({"path": path, "mode": "r"}), patience)
    }

    /// Reads at most `count` bytes from where the last read ended.
    pub fn read_file(&self, handle: i64, count: usize, patience: Duration) -> Result<Chunk, Unknown> {
        let read: Read = self.ask("guest-file-read", &json!({"handle": handle, "count": count}), patience)?;
        Ok(Chunk { bytes: decode("guest-file-read", &read.content)?, end: read.eof })
    }

    /// Closes a handle.
    pub fn close_file(&self, handle: i64, patience: Duration) -> Result<(), Unknown> {
        let _: Value = self.ask("guest-file-close", &json!({"handle": handle}), patience)?;
        Ok(())
    }

    /// Starts a shell with a script and gives its process id.
    pub fn start_shell(&self, script: &str, patience: Duration) -> Result<i64, Unknown> {
        self.require_enabled(&["guest-exec", "guest-exec-status"])?;
        let arguments = json!({"path": "/bin/sh", "arg": ["-c", script], "capture-output": true});
        let started: Started = self.ask("guest-exec", &arguments, patience)?;
        Ok(started.pid)
    }

    /// Asks for the progress of a shell.
    pub fn shell_status(&self, pid: i64, patience: Duration) -> Result<Execution, Unknown> {
        let status: Status = self.ask("guest-exec-status", &json!({"pid": pid}), patience)?;
        if !status.exited {
            return Ok(Execution::Running);
        }
        Ok(Execution::Done {
            output: decode("guest-exec-status", &status.output)?,
            truncated: status.truncated,
            code: status.exitcode,
        })
    }

    /// Sends a command and reads its answer as `T`.
    pub fn ask<T: DeserializeOwned>(
        &self,
        command: &str,
        arguments: &Value,
        patience: Duration,
    ) -> Result<T, Unknown> {
        let request = json!({"execute": command, "arguments": arguments}).to_string();
        let answer = self.channel.command(&request, patience).map_err(|failure| explain(command, failure))?;
        if answer.len() > ANSWER_LIMIT {
            return Err(malformed(command, &format!("is longer than {} MiB", ANSWER_LIMIT >> 20)));
        }
        serde_json::from_str::<Answer<T>>(&answer)
            .map(|answer| answer.content)
            .map_err(|_| malformed(command, "has an unexpected format"))
    }
}

fn malformed(command: &str, how: &str) -> Unknown {
    Unknown::new(Cause::Malformed, format!("the guest agent's answer to {command} {how}"))
}

fn decode(command: &str, text: &str) -> Result<Vec<u8>, Unknown> {
    STANDARD.decode(text).map_err(|_| malformed(command, "is not valid base64"))
}

/// Reason of the unknown fact for a command that failed.
fn explain(command: &str, failure: AgentFailure) -> Unknown {
    match failure {
        AgentFailure::Unavailable(why) => why,
        AgentFailure::Silent(words) => Unknown::new(Cause::NoGuestAgent, plain(&words)),
        AgentFailure::Refused(words) => {
            let words = plain(&words);
            let says = |needle: &str| words.to_ascii_lowercase().contains(needle);
            let cause = if says("no such file") {
                Cause::NotSupported
            } else if says("permission denied") {
                Cause::PermissionDenied
            } else {
                Cause::AgentForbids
            };
            let words: String = words.chars().take(200).collect();
            Unknown::new(cause, format!("the guest agent refused {command}: {words}"))
        }
    }
}
