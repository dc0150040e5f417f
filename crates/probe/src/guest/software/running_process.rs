//! A process that may be a cluster member, with its raw command line, secrets included: it never leaves this module.

use crate::guest::{RawProcess, ask::Question};

/// Length in bytes from which a command line may have been cut.
const CUT: usize = 4000;
/// Most bytes of a command line that are read.
const MOST: usize = 128 << 10;

/// One process. The default has no pid: only configuration at default paths is read for it.
#[derive(Debug, Clone, Default)]
pub(super) struct RunningProcess {
    pub(super) pid: Option<u32>,
    pub(super) name: String,
    arguments: Vec<String>,
    length: usize,
}

impl RunningProcess {
    pub(super) fn of(process: &RawProcess) -> Self {
        let mut running = Self { pid: process.pid(), name: process.name(), ..Self::default() };
        running.set_command(&process.command);
        running
    }

    pub(super) fn set_command(&mut self, command: &[u8]) {
        let command = command.get(..MOST).unwrap_or(command);
        self.length = command.len();
        self.arguments = command
            .split(|&byte| byte == 0)
            .filter(|argument| !argument.is_empty())
            .map(|argument| String::from_utf8_lossy(argument).into_owned())
            .collect();
    }

    pub(super) fn may_be_cut(&self) -> bool {
        self.length >= CUT
    }

    /// The question for the whole command line.
    pub(super) fn full_command_line(&self) -> Option<Question> {
        Question::file(format!("/proc/{}/cmdline", self.pid?))
    }

    /// The question for the environment.
    pub(super) fn environment(&self) -> Option<Question> {
        Question::file(format!("/proc/{}/environ", self.pid?))
    }

    pub(super) fn arguments(&self) -> impl Iterator<Item = &str> {
        self.arguments.iter().map(String::as_str)
    }

    /// True if a text occurs in one of the arguments.
    pub(super) fn has_argument_with(&self, text: &str) -> bool {
        self.arguments.iter().any(|argument| argument.contains(text))
    }

    /// The last value of an option, `--name value` or `--name=value`; `name` with its dashes.
    pub(super) fn option(&self, name: &str) -> Option<&str> {
        let next = self.arguments.iter().skip(1).map(String::as_str).chain([""]);
        self.arguments
            .iter()
            .zip(next)
            .filter_map(|(argument, next)| match argument.strip_prefix(name)? {
                "" => Some(next),
                rest => rest.strip_prefix('='),
            })
            .last()
    }

    /// The question for a file named on the command line; a relative path is resolved in the process's working folder.
    pub(super) fn file(&self, path: &str) -> Option<Question> {
        if path.starts_with('/') {
            return Question::configuration(path);
        }
        let path = path.strip_prefix("./").unwrap_or(path);
        Question::file(format!("/proc/{}/cwd/{path}", self.pid?))
    }

    /// The first argument with one of these endings.
    pub(super) fn argument_ending(&self, endings: &[&str]) -> Option<&str> {
        self.arguments().skip(1).find(|argument| endings.iter().any(|ending| argument.ends_with(ending)))
    }

    /// The program's folder; none if its path is not known.
    pub(super) fn folder(&self) -> Option<&str> {
        self.arguments.first()?.rsplit_once('/').map(|(folder, _)| folder)
    }
}
