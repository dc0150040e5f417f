//! Text from guests and hosts, which may send anything, and vmgate prints it.
//!
//! [`plain`] cleans a text where it enters. What is printed is cleaned again on its way out: [`visible()`] for terminals and
//! browsers, [`without_commands`] for the runners of CI systems, [`ShownCommand`] for commands that people copy.

pub mod glob;
mod runner;
mod shell;
mod visible;

pub use runner::{between_marks, command_marks, without_commands};
pub use shell::{ShellWord, ShownCommand, shell_word};
pub use visible::{Colours, is_control_or_hidden, is_printable_ascii, visible, visible_lines};

/// Longest text that is kept of one name or line; the rest is cut off and `…` stands in its place.
const LONGEST: usize = 4096;

/// Replaces characters that could drive a terminal or mislead a reader, those of [`is_control_or_hidden`], by `?`. Tabs
/// and newlines become blanks.
pub fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len().min(LONGEST));
    for c in text.trim().chars() {
        if out.len() >= LONGEST {
            out.push('…');
            break;
        }
        out.push(match c {
            '\t' | '\n' | '\r' => ' ',
            c if is_control_or_hidden(c) => '?',
            c => c,
        });
    }
    out
}

/// As [`plain`], for bytes; what is not UTF-8 becomes the replacement character.
pub fn plain_bytes(bytes: &[u8]) -> String {
    plain(&String::from_utf8_lossy(bytes))
}

/// An error and what caused it, in one line.
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(deeper) = cause {
        text = format!("{text}: {deeper}");
        cause = deeper.source();
    }
    text
}

/// Text of several lines for standard output, standard error and logs: nothing in it is obeyed by a terminal or by the
/// runner of a CI system, but colours, where they are vmgate's own.
pub fn harmless(text: &str, colours: Colours) -> String {
    without_commands(&visible_lines(text, colours)).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_sequences_and_direction_marks_lose_their_power() {
        assert_eq!(plain("a\u{1b}[2Jb\u{7}"), "a?[2Jb?");
        assert_eq!(plain("exe\u{202e}gpj"), "exe?gpj");
        assert_eq!(plain("zero\u{200b}width"), "zero?width");
        assert_eq!(plain("two\nlines\r\n"), "two lines");
        assert_eq!(plain("Größe ✓ 日本"), "Größe ✓ 日本");
        assert_eq!(plain_bytes(b"\xff\xfeok"), "\u{fffd}\u{fffd}ok");
    }

    #[test]
    fn endless_text_is_cut() {
        let long = plain(&"x".repeat(1 << 20));
        assert!(long.len() <= LONGEST + 4 && long.ends_with('…'));
    }

    #[test]
    fn a_message_is_harmless_to_terminals_and_runners() {
        assert_eq!(
            harmless("\u{1b}[1merror\u{1b}[0m\n::error::x\u{7}\n##vso[a]", Colours::Kept),
            "\u{1b}[1merror\u{1b}[0m\n: :error::x\\u{7}\n##vso [a]"
        );
        assert_eq!(harmless("\u{1b}[30mx\n::error::y", Colours::Escaped), "\\u{1b}[30mx\n: :error::y");
    }
}
