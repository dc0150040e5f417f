//! Further questions to a guest, once its processes are known: more files, and the output of read-only commands.

use std::collections::{BTreeMap, BTreeSet};

use vmgate_facts::{Cause, Unknown, text::shell_word};

/// Most bytes taken of one answer.
pub const ANSWER_LIMIT: usize = 256 << 10;
/// Most questions put to one guest in one go.
pub const MOST_QUESTIONS: usize = 400;
/// Longest run of one command, where the guest has timeout(1).
pub const COMMAND_SECONDS: u32 = 5;

/// Status that the script prints for a file that does not exist.
const MISSING: &str = "3";

/// One question to the guest: a file to read or a command to run.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Question {
    /// The text of a regular file, or of one under /proc or /sys.
    File(SafePath),
    /// The standard output of a read-only shell command; unknown if it is empty. The command is made of constants
    /// and of words that passed [`safe_word`].
    Command(String),
}

/// The answer to each question that was asked.
pub type Answers = BTreeMap<Question, Result<Vec<u8>, Unknown>>;

/// An absolute path without characters that are special to a shell or a terminal: processes of the guest choose the
/// paths of their configuration files, and may choose hostile ones.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SafePath(String);

impl SafePath {
    /// The path, if it is harmless.
    pub fn new(path: impl Into<String>) -> Option<Self> {
        let path = path.into();
        let harmless =
            path.starts_with('/') && path.len() <= 512 && safe_word(&path) && !path.contains("/../");
        harmless.then_some(Self(path))
    }

    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Question {
    /// The file at a path; none if the path is not safe.
    pub fn file(path: impl Into<String>) -> Option<Self> {
        SafePath::new(path).map(Self::File)
    }

    /// A configuration file that a process of the guest names. Kernel files (/proc, /sys, /dev) are refused: reading
    /// some of them blocks for ever, reading others consumes their content.
    pub fn configuration(path: impl Into<String>) -> Option<Self> {
        let path = path.into();
        let is_kernels = ["/proc/", "/sys/", "/dev/"].iter().any(|folder| path.starts_with(folder));
        if is_kernels { None } else { Self::file(path) }
    }

    /// The path or command, for the reason of an unknown.
    pub fn name(&self) -> &str {
        match self {
            Self::File(path) => path.as_str(),
            Self::Command(command) => command,
        }
    }
}

/// True if a word is literal in a shell: letters, digits and a few marks, and not an option.
pub fn safe_word(word: &str) -> bool {
    !word.is_empty()
        && !word.starts_with('-')
        && word.chars().all(|c| c.is_ascii_alphanumeric() || "/._@%+:,-".contains(c))
}

/// One shell script that answers all questions. Each answer ends with `mark`, a word that nobody in the guest could
/// know before.
pub fn script(questions: &BTreeSet<Question>, mark: &str) -> String {
    let prologue = format!(
        "exec 2>/dev/null </dev/null; PATH=/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin:/usr/local/bin:$PATH; \
         LC_ALL=C; export PATH LC_ALL; T=; command -v timeout >/dev/null && T='timeout {COMMAND_SECONDS}'\n\
         a() {{ printf '\\n%s %s\\n' {mark} $1; }}\n\
         f() {{ if [ ! -f \"$1\" ]; then a {MISSING}; elif [ ! -r \"$1\" ]; then a 1; \
         else $T head -c {ANSWER_LIMIT} \"$1\"; a $?; fi; }}\n\
         c() {{ o=$($T sh -c \"$1\" | head -c {ANSWER_LIMIT}; printf x); printf %s \"${{o%x}}\"; \
         if [ \"$o\" = x ]; then a 1; else a 0; fi; }}\n"
    );
    let lines = questions.iter().take(MOST_QUESTIONS).map(|question| match question {
        Question::File(path) => format!("f {}\n", path.as_str()),
        Question::Command(command) => format!("c {}\n", shell_word(command)),
    });
    prologue + &lines.collect::<String>()
}

/// Splits the script's output into the answers.
pub fn answers(questions: &BTreeSet<Question>, output: &[u8], mark: &str) -> Answers {
    let begin = format!("\n{mark} ");
    let mut rest = output;
    let mut next = || {
        let at = rest.windows(begin.len()).position(|window| window == begin.as_bytes())?;
        let (content, tail) = rest.split_at_checked(at)?;
        let tail = tail.get(begin.len()..)?;
        let end = tail.iter().position(|&byte| byte == b'\n')?;
        let (status, tail) = tail.split_at_checked(end)?;
        rest = tail.get(1..)?;
        Some((content.to_vec(), status.to_vec()))
    };
    questions
        .iter()
        .enumerate()
        .map(|(index, question)| {
            let answer = if index < MOST_QUESTIONS { next() } else { None };
            (question.clone(), interpret_answer(question, answer))
        })
        .collect()
}

fn interpret_answer(question: &Question, answer: Option<(Vec<u8>, Vec<u8>)>) -> Result<Vec<u8>, Unknown> {
    let name = question.name();
    match (question, answer) {
        (_, None) => {
            Err(Unknown::new(Cause::Malformed, format!("the shell in the guest gave no answer about {name}")))
        }
        (_, Some((content, status))) if status == b"0" => Ok(content),
        (Question::File(_), Some((_, status))) if status == MISSING.as_bytes() => Err(missing(name)),
        (Question::File(_), Some(_)) => Err(Unknown::new(
            Cause::PermissionDenied,
            format!("vmgate has no permission to read {name} in the guest"),
        )),
        (Question::Command(_), Some(_)) => Err(Unknown::new(
            Cause::NotSupported,
            format!("the command `{name}` printed nothing in the guest"),
        )),
    }
}

/// The unknown of a file that the guest does not have.
pub fn missing(path: &str) -> Unknown {
    Unknown::new(Cause::NotSupported, format!("there is no {path} in the guest"))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use proptest::prelude::*;

    use crate::guest::ask::*;

    fn ask(questions: &[Question]) -> Answers {
        let questions: BTreeSet<_> = questions.iter().cloned().collect();
        let output =
            Command::new("/bin/sh").args(["-c", &script(&questions, "m-1")]).output().unwrap().stdout;
        answers(&questions, &output, "m-1")
    }

    #[test]
    fn the_script_answers_each_question_and_tells_why_not() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.conf");
        std::fs::write(&file, "one\ntwo").unwrap();
        let there = Question::file(file.to_str().unwrap()).unwrap();
        let gone = Question::file("/nowhere/at/all").unwrap();
        let says = Question::Command("echo it\\'s; echo \"$0\"".into());
        let fails = Question::Command("exit 3".into());
        let silent = Question::Command("command-that-is-not-there".into());
        let folder = Question::file("/proc").unwrap();
        let answers =
            ask(&[there.clone(), gone.clone(), says.clone(), fails.clone(), silent.clone(), folder.clone()]);
        assert_eq!(answers[&there].as_deref(), Ok(&b"one\ntwo"[..]));
        assert_eq!(answers[&gone].as_ref().unwrap_err().cause, Cause::NotSupported);
        assert_eq!(answers[&says].as_deref(), Ok(&b"it's\nsh\n"[..]));
        assert_eq!(answers[&fails].as_ref().unwrap_err().cause, Cause::NotSupported);
        assert!(answers[&silent].is_err() && answers[&folder].is_err());
    }

    #[test]
    fn an_endless_answer_is_cut_and_a_slow_one_given_up() {
        let endless = Question::Command("yes".into());
        let slow = Question::Command("sleep 60".into());
        let begin = std::time::Instant::now();
        let answers = ask(&[endless.clone(), slow.clone()]);
        assert_eq!(answers[&endless].as_ref().unwrap().len(), ANSWER_LIMIT);
        assert!(answers[&slow].is_err());
        assert!(begin.elapsed().as_secs() < 2 * u64::from(COMMAND_SECONDS) + 5);
    }

    #[test]
    fn paths_that_could_be_more_are_refused() {
        for path in [
            "etc/x",
            "/etc/$(id)",
            "/etc/a b",
            "/etc/'x'",
            "/etc/x;id",
            "/etc/\u{1b}[2J",
            "/../etc",
            "/a*",
            "",
        ] {
            assert_eq!(SafePath::new(path), None, "{path}");
        }
    }

    #[test]
    fn configuration_is_not_the_kernels() {
        assert_eq!(Question::configuration("/proc/kmsg"), None);
        assert!(Question::configuration("/etc/keepalived/a.conf").is_some());
    }

    #[test]
    fn a_pipe_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let question = Question::file(pipe.to_str().unwrap()).unwrap();
        assert!(ask(std::slice::from_ref(&question))[&question].is_err());
    }

    proptest! {
        #[test]
        fn no_output_panics(output in proptest::collection::vec(any::<u8>(), 0..200), near in "(m-1| [0-9]|\n|x){0,40}") {
            let questions: BTreeSet<_> = ["/a", "/b"].into_iter().filter_map(Question::file).collect();
            prop_assert_eq!(answers(&questions, &output, "m-1").len(), 2);
            prop_assert_eq!(answers(&questions, near.as_bytes(), "m-1").len(), 2);
        }
    }
}
