//! The QEMU guest agent as access to the guest.
//!
//! An agent that may run a shell fetches everything with one command. With an agent that may only read files, vmgate reads
//! them one by one, and processes stay unknown. Without both permissions everything is unknown. Limits apply to each
//! answer, to all answers together, and to the time for them.

mod ask;
#[cfg(test)]
mod hostile;
mod script;
mod system;

use std::{
    cell::Cell,
    collections::BTreeSet,
    time::{Duration, Instant},
};

use vmgate_facts::{Cause, Unknown};
use vmgate_probe::guest::{
    FILE_LIMIT, GuestHints, GuestReader, RawProcess, TOTAL_LIMIT,
    ask::{Answers, Question},
};
use vmgate_reach::agent::{Agent, AgentChannel};

/// Bytes asked for in one guest-file-read.
const CHUNK: usize = 256 << 10;
/// Most reads of one file: four times what [`FILE_LIMIT`] takes in whole chunks.
const MOST_READS: usize = 4 * FILE_LIMIT / CHUNK;
/// Longest wait for the answer to one of the first commands.
const PING_PATIENCE: Duration = Duration::from_secs(3);

/// A guest whose agent has answered.
pub struct AgentGuest<C> {
    agent: Agent<C>,
    deadline: Instant,
    spent: Cell<usize>,
    /// Files and processes that a shell in the guest printed, or the reason why there are none.
    gathered: Result<script::ScriptOutput, Unknown>,
    told: GuestHints,
    /// Reason why no file can be read in it, where it is no Linux.
    foreign: Option<Unknown>,
}

/// Method by which the agent gave the facts, for provenance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AgentMethod {
    /// A shell command that the agent ran.
    Exec,
    /// Files that the agent read.
    Files,
}

impl<C: AgentChannel> AgentGuest<C> {
    /// Connects to the agent and, where the agent may run a shell, collects everything with one script. `timeout` is for
    /// the whole guest.
    pub fn open(channel: C, timeout: Duration) -> Result<Self, Unknown> {
        let deadline = Instant::now() + timeout;
        let agent = Agent::connect(channel, PING_PATIENCE.min(timeout))?;
        let mut system = system::GuestSystem::ask(&agent, PING_PATIENCE.min(timeout));
        let foreign = system.foreign();
        let mut told = None;
        let gathered = match &foreign {
            Some(why) => Err(why.clone()),
            None => script::gather(&agent, deadline, || told = Some(system.hints(&agent))),
        };
        let spent = gathered.as_ref().map_or(0, |gathered| gathered.bytes);
        Ok(Self {
            deadline,
            spent: Cell::new(spent),
            gathered,
            told: told.unwrap_or_else(|| system.hints(&agent)),
            agent,
            foreign,
        })
    }

    /// Method by which the facts were obtained.
    pub fn method(&self) -> AgentMethod {
        if self.gathered.is_ok() { AgentMethod::Exec } else { AgentMethod::Files }
    }

    fn read_file(&self, path: &str) -> Result<Vec<u8>, Unknown> {
        if let Some(why) = &self.foreign {
            return Err(why.clone());
        }
        let patience = self.patience()?;
        let handle = self.agent.open_file(path, patience)?;
        let content = self.read_open(handle, path);
        // A handle that stays open costs the agent a file; an agent that has gone silent is not asked again.
        if !matches!(&content, Err(why) if why.cause == Cause::TimedOut) {
            let _ = self.agent.close_file(handle, patience);
        }
        content
    }

    fn read_open(&self, handle: i64, path: &str) -> Result<Vec<u8>, Unknown> {
        let mut content = Vec::new();
        for _ in 0..MOST_READS {
            let chunk = self.agent.read_file(handle, CHUNK, self.patience()?)?;
            self.spent.set(self.spent.get().saturating_add(chunk.bytes.len()));
            content.extend_from_slice(&chunk.bytes);
            if content.len() > FILE_LIMIT || self.spent.get() > TOTAL_LIMIT {
                return Err(Unknown::new(
                    Cause::Malformed,
                    format!(
                        "{path} in the guest is too large: vmgate reads at most {} MiB of a file and {} MiB in all",
                        FILE_LIMIT >> 20,
                        TOTAL_LIMIT >> 20
                    ),
                ));
            }
            if chunk.end {
                return Ok(content);
            }
        }
        Err(Unknown::new(
            Cause::Malformed,
            format!("the guest agent sends {path} in very small pieces and does not finish"),
        ))
    }

    /// Time that is left for this guest.
    fn patience(&self) -> Result<Duration, Unknown> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Unknown::new(
                Cause::TimedOut,
                "the guest agent did not give all answers within the time limit",
            ));
        }
        Ok(left)
    }
}

impl<C: AgentChannel> GuestReader for AgentGuest<C> {
    fn read(&self, path: &str) -> Result<Vec<u8>, Unknown> {
        // A file that the script did not ask for is read by itself.
        let files = self.gathered.as_ref().ok().and_then(|gathered| gathered.files.as_ref());
        files.and_then(|files| files.read(path)).unwrap_or_else(|| self.read_file(path))
    }

    fn began_at(&self) -> Instant {
        let gathered = self.gathered.as_ref().ok().filter(|gathered| gathered.files.is_some());
        gathered.map_or_else(Instant::now, |gathered| gathered.began)
    }

    fn processes(&self) -> Result<Vec<RawProcess>, Unknown> {
        match &self.gathered {
            Ok(gathered) => gathered.processes.clone(),
            Err(why) => Err(why.clone()),
        }
    }

    fn ask(&self, questions: &BTreeSet<Question>) -> Answers {
        self.answers(questions)
    }

    fn hints(&self) -> GuestHints {
        self.told.clone()
    }
}

#[cfg(test)]
mod tests {
    use vmgate_facts::Fact;
    use vmgate_probe::guest::look;
    use vmgate_reach::canned::Canned;

    use super::*;

    const INFO_FILES: &str = r#"{"return":{"version":"7.2","supported_commands":[
        {"name":"guest-file-open","enabled":true},{"name":"guest-file-read","enabled":true},
        {"name":"guest-file-close","enabled":true},{"name":"guest-exec","enabled":false}]}}"#;
    const TIME: Duration = Duration::from_secs(5);

    fn files(read: &[&str]) -> AgentGuest<Canned> {
        let canned = Canned::new(&[
            ("guest-ping", &[r#"{"return":{}}"#]),
            ("guest-info", &[INFO_FILES]),
            ("guest-file-open", &[r#"{"return":1000}"#]),
            ("guest-file-read", read),
            ("guest-file-close", &[r#"{"return":{}}"#]),
        ]);
        AgentGuest::open(canned, TIME).unwrap()
    }

    #[test]
    fn an_agent_without_exec_gives_files_and_no_processes() {
        let guest = files(&[
            r#"{"return":{"count":4,"buf-b64":"d2Vi","eof":false}}"#,
            r#"{"return":{"count":2,"buf-b64":"MQo=","eof":true}}"#,
        ]);
        assert_eq!(guest.method(), AgentMethod::Files);
        assert_eq!(guest.read("/proc/sys/kernel/hostname").unwrap(), b"web1\n");
        assert_eq!(guest.processes().unwrap_err().cause, Cause::AgentForbids);
    }

    #[test]
    fn a_hostile_agent_yields_unknowns_and_no_crash() {
        for answer in [
            "",
            "{",
            "[]",
            "null",
            r#"{"return":{}}"#,
            r#"{"return":{"count":1000000000,"buf-b64":"////","eof":false}}"#,
            r#"{"return":{"count":-1,"buf-b64":"!!!","eof":true}}"#,
            r#"{"return":{"count":0,"buf-b64":"","eof":false}}"#,
            r#"{"return":{"count":3,"buf-b64":"G1szMW0=","eof":true}}"#,
            r#"{"error":{"class":"GenericError","desc":"no"}}"#,
        ] {
            let found = look(&files(&[answer]));
            let tcp = found.tcp.known().unwrap();
            assert!(tcp.connections.known().is_none(), "{answer}");
            assert!(found.udp.known().unwrap().sockets.known().is_none(), "{answer}");
            assert!(found.sysctl.known().unwrap().tcp_retries2.known().is_none(), "{answer}");
            if let Fact::Known(name) = found.hostname {
                assert!(!name.contains('\u{1b}'));
            }
        }
    }

    #[test]
    fn an_agent_that_sends_without_end_is_cut_off() {
        let chunk =
            format!(r#"{{"return":{{"count":196608,"buf-b64":"{}","eof":false}}}}"#, "AAAA".repeat(65_536));
        let guest = files(&[&chunk]);
        let why = guest.read("/proc/net/tcp").unwrap_err();
        assert_eq!((why.cause, why.reason.contains("too large")), (Cause::Malformed, true));
    }

    #[test]
    fn an_agent_that_forbids_everything_is_told_from_one_that_is_not_there() {
        let forbids = Canned::new(&[
            ("guest-ping", &[r#"{"return":{}}"#]),
            ("guest-info", &[r#"{"return":{"version":"9","supported_commands":[]}}"#]),
        ]);
        let found = look(&AgentGuest::open(forbids, TIME).unwrap());
        let cause = |fact: &Fact<String>| match fact {
            Fact::Unknown(why) => why.cause,
            Fact::Known(_) => panic!("known"),
        };
        assert_eq!(cause(&found.hostname), Cause::AgentForbids);
        let silent = AgentGuest::open(Canned::new(&[]), TIME).err().unwrap();
        assert_eq!(silent.cause, Cause::AgentForbids);
    }
}
