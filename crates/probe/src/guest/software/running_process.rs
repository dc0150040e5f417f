//! A process that may be a cluster member, with its raw command line: secrets and all, so it stays in here.

use crate::guest::{RawProcess, ask::Question};

/// Length from which a command line may have been cut.
const CUT: usize = 4000;
/// Most of a command line that is looked at.
const MOST: usize = 128 << 10;

/// One process; the default is nobody, of whom the usual places are asked.
#[derive(Debug, Clone, Default)]
pub(super) struct Running {
    pub(super) pid: Option<u32>,
    pub(super) name: String,
    arguments: Vec<String>,
    length: usize,
}

impl Running {
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

    pub(super) fn is_cut(&self) -> bool {
        self.length >= CUT
    }

    /// Asks for the whole command line.
    pub(super) fn whole(&self) -> Option<Question> {
        Question::file(format!("/proc/{}/cmdline", self.pid?))
    }

    /// Asks for the environment.
    pub(super) fn environment(&self) -> Option<Question> {
        Question::file(format!("/proc/{}/environ", self.pid?))
    }

    pub(super) fn arguments(&self) -> impl Iterator<Item = &str> {
        self.arguments.iter().map(String::as_str)
    }

    /// Whether a text stands in one of the arguments.
    pub(super) fn says(&self, text: &str) -> bool {
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

    /// Asks for a file that the command line names, which may be relative to where the process is.
    pub(super) fn file(&self, path: &str) -> Option<Question> {
        if path.starts_with('/') {
            return Question::configuration(path);
        }
        let path = path.strip_prefix("./").unwrap_or(path);
        Question::file(format!("/proc/{}/cwd/{path}", self.pid?))
    }

    /// The first argument with such an ending.
    pub(super) fn argument_ending(&self, endings: &[&str]) -> Option<&str> {
        self.arguments().skip(1).find(|argument| endings.iter().any(|ending| argument.ends_with(ending)))
    }

    /// The program's folder, where its path is known.
    pub(super) fn folder(&self) -> Option<&str> {
        self.arguments.first()?.rsplit_once('/').map(|(folder, _)| folder)
    }
}
