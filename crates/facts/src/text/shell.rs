//! Words and commands for a shell. A command that people copy out of a message is built as a [`ShownCommand`]: it takes
//! fixed words from the program's text alone, and quotes every other value.

use std::fmt::{self, Write as _};

use super::{command_marks, is_control_or_hidden};

/// Quotes a text as one word for a shell, in single quotes.
pub fn shell_word(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Text as one word of a command that is shown: bare where every shell takes it as it is, else quoted.
///
/// The shown text has no backtick, no line break and no hidden character, so that a command between backticks ends where
/// it should, and nothing in it is a command of a CI runner; the shell puts the same word together again.
///
/// ```
/// use vmgate_facts::text::ShellWord;
/// assert_eq!(ShellWord("web1").to_string(), "web1");
/// assert_eq!(ShellWord("$(touch x)").to_string(), "'$(touch x)'");
/// assert_eq!(ShellWord("a`b").to_string(), r#""$(printf 'a\140b')""#);
/// ```
#[derive(Debug, Clone, Copy)]
pub struct ShellWord<'a>(pub &'a str);

impl fmt::Display for ShellWord<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(text) = *self;
        let marks = command_marks(text);
        if !text.is_empty() && marks.is_empty() && text.chars().all(is_bare) {
            f.write_str(text)
        } else if text.chars().any(|c| c == '`' || is_control_or_hidden(c)) {
            f.write_str("\"$(printf '")?;
            text.chars().try_for_each(|c| if is_printed(c) { f.write_char(c) } else { octal(c, f) })?;
            f.write_str("')\"")
        } else {
            f.write_char('\'')?;
            for (at, c) in text.char_indices() {
                // The quotes end and begin again: nothing for a shell, and no command for a runner.
                f.write_str(if marks.contains(&at) { "''" } else { "" })?;
                if c == '\'' { f.write_str(r"'\''")? } else { f.write_char(c)? }
            }
            f.write_char('\'')
        }
    }
}

/// True for characters that no shell gives a meaning, wherever they stand in a word.
fn is_bare(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '@' | '%' | '+' | '=' | ':' | ',' | '.' | '/' | '_' | '-')
}

/// True for characters that may stand in printf's text as they are. A colon may not, since a runner could see a command,
/// nor a dash: at the beginning it would be an option.
fn is_printed(c: char) -> bool {
    !is_control_or_hidden(c) && (!c.is_ascii() || c == ' ' || is_bare(c) && !matches!(c, '%' | ':' | '-'))
}

fn octal(c: char, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    c.encode_utf8(&mut [0; 4]).bytes().try_for_each(|byte| write!(f, "\\{byte:03o}"))
}

/// Command that is shown to be copied.
///
/// ```
/// use vmgate_facts::text::ShownCommand;
/// let command = ShownCommand::new("vmgate isolate --release --on").value("qemu:///system").operand("it's");
/// assert_eq!(command.to_string(), r"vmgate isolate --release --on qemu:///system 'it'\''s'");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShownCommand(String);

impl ShownCommand {
    /// A command that begins with these words.
    pub fn new(words: &'static str) -> Self {
        Self(words.to_owned())
    }

    /// Adds further fixed words.
    #[must_use]
    pub fn words(mut self, words: &'static str) -> Self {
        let _ = write!(self.0, " {words}"); // writing to a String cannot fail
        self
    }

    /// Adds a value, such as that of an option, as one word.
    #[must_use]
    pub fn value(mut self, value: impl fmt::Display) -> Self {
        let _ = write!(self.0, " {}", ShellWord(&value.to_string())); // writing to a String cannot fail
        self
    }

    /// Adds the last argument, which is a name: one that begins with a dash is not taken for an option.
    #[must_use]
    pub fn operand(self, name: impl fmt::Display) -> Self {
        let name = name.to_string();
        if name.starts_with('-') { self.words("--").value(name) } else { self.value(name) }
    }
}

impl fmt::Display for ShownCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use proptest::prelude::*;

    use super::*;

    /// The words that a shell takes a command's arguments for.
    fn words(command: &str) -> Vec<String> {
        let script = format!("show() {{ for word; do printf '%s\\0' \"$word\"; done; }}\nshow {command}");
        let output = Command::new("sh").args(["-c", &script]).output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{command}: {output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        text.split_terminator('\0').map(str::to_owned).collect()
    }

    #[test]
    fn a_shell_gets_the_very_name() {
        let hostile = [
            "x'; $(touch pwned) \"",
            "`touch pwned`",
            "a\nb",
            "$HOME",
            "~",
            "*",
            "",
            " ",
            "!x",
            "a\\nb",
            "%s",
            "ü 日本",
            "##vso[a]x",
            "::error::x",
            "section_start:1:x",
            "\u{202e}x",
            "a\tb",
            "`##[x]` :: %d \\",
            "#x",
            "-x",
            "a#b",
            "x&",
            "a{b,c}d",
            "\u{1b}[2J",
        ];
        for name in hostile {
            let shown = ShellWord(name).to_string();
            assert_eq!(words(&shown), [name], "{shown}");
            assert!(!shown.contains('`') && !shown.chars().any(is_control_or_hidden), "{shown}");
            assert!(command_marks(&shown).is_empty(), "{shown}");
        }
    }

    #[test]
    fn a_name_that_looks_like_an_option_stands_after_two_dashes() {
        assert_eq!(ShownCommand::new("vmgate isolate").operand("-x").to_string(), "vmgate isolate -- -x");
        assert_eq!(
            ShownCommand::new("a").value("b c").words("--on").value("d").to_string(),
            "a 'b c' --on d"
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn any_name_is_one_word(name in any::<String>(), near in "[-`'\"$(){};&|<>!#:\\[\\\\ \na~*?%]{0,12}") {
            for name in [name, near] {
                // A shell knows no NUL, and takes line breaks from the end of what a command prints.
                let name = name.replace('\0', "").trim_end_matches('\n').to_owned();
                let shown = ShellWord(&name).to_string();
                prop_assert!(!shown.contains('`') && command_marks(&shown).is_empty(), "{}", shown);
                prop_assert_eq!(words(&shown), [name]);
            }
        }
    }
}
