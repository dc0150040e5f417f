//! Child processes with a time limit and an output limit, which are always killed and reaped.
//!
//! One place, so that no part of vmgate waits for ever for a program, or keeps everything that a program prints. Knows
//! neither ssh nor a shell: it runs the command that it is given. For the crates that start programs (probe, reach,
//! collect, execute, the command line); the pure crates start none.

#![forbid(unsafe_code)]

use std::{
    io::{self, Read},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use thiserror::Error;
use vmgate_facts::text::plain_bytes;

/// Most bytes of a child's standard error that are kept.
const STDERR_LIMIT: usize = 4096;
/// Pause between two looks at a child that has closed its output.
const POLL: Duration = Duration::from_millis(2);

/// Output of a child.
#[derive(Debug)]
pub struct Output {
    /// Its standard output.
    pub stdout: Vec<u8>,
    /// Time at which its first byte came; none where the child printed nothing.
    pub first_byte_at: Option<Timestamp>,
}

/// Failure of a child process. The texts continue a sentence that names the program.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ChildFailure {
    /// The child could not be started.
    #[error("could not be started: {0}")]
    NotStarted(String),
    /// The child did not end within its time limit and was killed.
    #[error("did not finish within the time limit")]
    TimedOut,
    /// The child printed more than was allowed and was killed.
    #[error("printed more than {0} bytes")]
    TooMuch(usize),
    /// The child ended with an error.
    #[error("exited with code {code}: {stderr}")]
    Failed {
        /// Exit code; -1 if a signal ended the child.
        code: i32,
        /// Text on standard error.
        stderr: String,
    },
}

/// A child that is killed and reaped, whatever way a function is left.
#[derive(Debug)]
pub struct ChildGuard {
    /// The process.
    pub child: Child,
    stderr: Receiver<(Vec<u8>, Option<Timestamp>)>,
}

impl ChildGuard {
    /// Starts a command with all its streams in hand.
    pub fn start(mut command: Command) -> Result<Self, ChildFailure> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| ChildFailure::NotStarted(error.to_string()))?;
        let stderr = reader(child.stderr.take(), STDERR_LIMIT);
        Ok(Self { child, stderr })
    }

    /// Waits for its end, which must be a good one.
    pub fn end(&mut self, deadline: Instant) -> Result<(), ChildFailure> {
        let status = wait(&mut self.child, deadline)?;
        if status.success() {
            return Ok(());
        }
        let left = deadline.saturating_duration_since(Instant::now());
        let (stderr, _) = self.stderr.recv_timeout(left).unwrap_or_default();
        Err(ChildFailure::Failed { code: status.code().unwrap_or(-1), stderr: plain_bytes(&stderr) })
    }
}

impl Drop for ChildGuard {
    fn drop(&mut self) {
        // Both fail only for a child that has ended and was reaped.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a command with `input` on its standard input, for at most `limit`.
pub fn run(
    command: Command,
    mut input: impl Read + Send + 'static,
    limit: Duration,
    most: usize,
) -> Result<Output, ChildFailure> {
    let deadline = Instant::now() + limit;
    let mut child = ChildGuard::start(command)?;
    if let Some(mut stdin) = child.child.stdin.take() {
        // A child that does not read all of it says why on standard error.
        thread::spawn(move || {
            let _ = io::copy(&mut input, &mut stdin);
        });
    }
    let output = reader(child.child.stdout.take(), most);
    let (stdout, first_byte_at) = receive(&output, deadline)?;
    if stdout.len() > most {
        return Err(ChildFailure::TooMuch(most));
    }
    child.end(deadline)?;
    Ok(Output { stdout, first_byte_at })
}

/// Receives the result of a reading thread, until the deadline.
pub fn receive<T>(reader: &Receiver<T>, deadline: Instant) -> Result<T, ChildFailure> {
    reader.recv_timeout(deadline.saturating_duration_since(Instant::now())).map_err(|error| match error {
        RecvTimeoutError::Timeout => ChildFailure::TimedOut,
        RecvTimeoutError::Disconnected => ChildFailure::NotStarted("no thread to read the output".into()),
    })
}

/// Reads a stream to its end on a thread, up to one byte beyond the limit. Also returns the time of the first byte.
fn reader(stream: Option<impl Read + Send + 'static>, most: usize) -> Receiver<(Vec<u8>, Option<Timestamp>)> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        let mut text = Vec::new();
        let mut first_byte_at = None;
        if let Some(stream) = stream {
            let mut stream = stream.take(most as u64 + 1);
            let mut first = [0];
            // The bytes before an error are the output.
            if stream.read_exact(&mut first).is_ok() {
                first_byte_at = Some(Timestamp::now());
                text.extend(first);
                let _ = stream.read_to_end(&mut text);
            }
        }
        let _ = sender.send((text, first_byte_at));
    });
    receiver
}

fn wait(child: &mut Child, deadline: Instant) -> Result<ExitStatus, ChildFailure> {
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Ok(status),
            Ok(None) if Instant::now() < deadline => thread::sleep(POLL),
            Ok(None) => return Err(ChildFailure::TimedOut),
            Err(error) => return Err(ChildFailure::NotStarted(error.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    fn sh(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_child_gets_its_input_and_gives_its_output() {
        let input = io::repeat(b'x').take(3 << 20);
        let output = run(sh("wc -c"), input, LONG, 100).unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "3145728");
    }

    #[test]
    fn a_child_that_hangs_is_killed() {
        let start = Instant::now();
        let failure = run(sh("exec sleep 600"), io::empty(), Duration::from_millis(50), 100).unwrap_err();
        assert_eq!(failure, ChildFailure::TimedOut);
        let deaf =
            run(sh("exec >&-; exec sleep 600"), &b"x"[..], Duration::from_millis(50), 100).unwrap_err();
        assert_eq!(deaf, ChildFailure::TimedOut);
        assert!(start.elapsed() < LONG);
    }

    #[test]
    fn a_child_that_floods_is_stopped() {
        assert_eq!(run(sh("yes"), io::empty(), LONG, 1000).unwrap_err(), ChildFailure::TooMuch(1000));
    }

    #[test]
    fn a_child_that_fails_says_why_without_driving_the_terminal() {
        let failure =
            run(sh("printf '\\033[2Jno such thing' >&2; exit 3"), io::empty(), LONG, 100).unwrap_err();
        assert_eq!(failure, ChildFailure::Failed { code: 3, stderr: "?[2Jno such thing".into() });
        let missing = run(Command::new("/no/such/program"), io::empty(), LONG, 100).unwrap_err();
        assert!(matches!(missing, ChildFailure::NotStarted(_)));
    }
}
