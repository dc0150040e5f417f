//! Sink for text that people and the runners of CI systems read: the last place before standard output or a file.
//!
//! Whatever was written, and wherever it was wrapped, no line that leaves it is obeyed by a terminal or a runner. Formats
//! for programs do without it: their values are escaped when they are written, and stay what they are.

use std::{
    borrow::Cow,
    io::{self, Write},
};

use vmgate_facts::text::{Colours, visible_lines, without_commands};

/// Commands of a runner that are let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Commands {
    None,
    /// Lines that begin with a workflow command of GitHub: the format that consists of them.
    Annotations,
}

/// Sink that passes on whole lines, made harmless.
pub(crate) struct Lines<'a> {
    sink: &'a mut dyn Write,
    begun: Vec<u8>,
    commands: Commands,
    colours: Colours,
}

impl<'a> Lines<'a> {
    pub(crate) fn new(sink: &'a mut dyn Write, colours: Colours) -> Self {
        Self { sink, begun: Vec::new(), commands: Commands::None, colours }
    }

    /// For annotations of GitHub, which begin with two colons.
    pub(super) fn with_annotations(sink: &'a mut dyn Write) -> Self {
        Self { commands: Commands::Annotations, ..Self::new(sink, Colours::Escaped) }
    }

    fn pass_on(&mut self) -> io::Result<()> {
        let begun = std::mem::take(&mut self.begun);
        let text = String::from_utf8_lossy(&begun);
        let line = text.trim_end_matches(['\r', '\n']);
        let end = text.get(line.len()..).unwrap_or_default();
        let shown = visible_lines(line, self.colours);
        let shown = match (self.commands, shown.strip_prefix("::")) {
            (Commands::Annotations, Some(rest)) => Cow::Owned(format!("::{}", without_commands(rest))),
            _ => without_commands(&shown),
        };
        self.sink.write_all(shown.as_bytes())?;
        self.sink.write_all(end.as_bytes())
    }
}

impl Write for Lines<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.begun.extend_from_slice(part);
            if part.ends_with(b"\n") {
                self.pass_on()?;
            }
        }
        Ok(bytes.len())
    }

    /// Passes on a line that has no end yet: what follows counts as the beginning of another line.
    fn flush(&mut self) -> io::Result<()> {
        if !self.begun.is_empty() {
            self.pass_on()?;
        }
        self.sink.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn through(lines: impl FnOnce(&mut dyn Write) -> Lines<'_>, parts: &[&str]) -> String {
        let mut out = Vec::new();
        let mut sink = lines(&mut out);
        for part in parts {
            sink.write_all(part.as_bytes()).unwrap();
        }
        sink.flush().unwrap();
        drop(sink);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_command_is_broken_however_it_is_written() {
        assert_eq!(
            through(|out| Lines::new(out, Colours::Escaped), &["x\n:", ":err", "or::y #", "#[a]\r\n", "z"]),
            "x\n: :error::y ## [a]\r\nz"
        );
        assert_eq!(
            through(|out| Lines::new(out, Colours::Kept), &["\u{1b}[1mGO\u{1b}[0m\u{1b}[2J\n"]),
            "\u{1b}[1mGO\u{1b}[0m\\u{1b}[2J\n"
        );
    }

    #[test]
    fn annotations_stay_and_other_commands_do_not() {
        let text = "::error title=x::##vso[a]\n  ::error::y\n";
        assert_eq!(
            through(|out| Lines::with_annotations(out), &[text]),
            "::error title=x::##vso [a]\n  : :error::y\n"
        );
    }
}
