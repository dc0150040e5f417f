//! Commands in the log of a CI system: lines that its runner obeys, whoever wrote them.
//!
//! | runner | obeys |
//! |---|---|
//! | GitHub | `::name …::` at the beginning of a line, after blanks (ActionCommand.TryParseV2), and `##[name …]` anywhere |
//! | Azure | `##vso[…]` anywhere, `##[…]` at the beginning of a line |
//! | TeamCity | `##teamcity[…]` |
//! | GitLab | `section_start:…` and `section_end:…`, followed by control characters |
//! | Jenkins | escape sequences alone, which [`visible()`](super::visible()) shows |
//!
//! The mark that breaks a command is a blank: .NET, in which two of these runners are written, skips invisible characters
//! when it compares texts.

use std::borrow::Cow;

/// Offsets in a line before which something must stand, so that no runner finds a command: a blank in text; a format with
/// escapes escapes the character there.
pub fn command_marks(line: &str) -> Vec<usize> {
    let mut marks: Vec<usize> = leading_colons(line).into_iter().collect();
    if line.contains("##") {
        let brackets = line.match_indices('[').map(|(at, _)| at);
        marks.extend(brackets.filter(|&at| line.get(..at).is_some_and(names_a_command)));
    }
    if line.contains("section_") {
        for word in ["section_start:", "section_end:"] {
            marks.extend(line.match_indices(word).map(|(at, _)| at + word.len() - 1));
        }
    }
    marks.sort_unstable();
    marks
}

/// Parts of a line, each with the character after it that a format with escapes has to escape; the last part has none.
pub fn between_marks(line: &str) -> Vec<(&str, Option<char>)> {
    let mut parts = Vec::new();
    let mut done = 0;
    for mark in command_marks(line) {
        let obeyed = line.get(mark..).and_then(|rest| rest.chars().next());
        parts.push((line.get(done..mark).unwrap_or_default(), obeyed));
        done = mark + obeyed.map_or(0, char::len_utf8);
    }
    parts.push((line.get(done..).unwrap_or_default(), None));
    parts
}

/// True if a bracket after this text begins a command: `##`, `##vso`, `##teamcity`, or the name of another runner.
fn names_a_command(before: &str) -> bool {
    before
        .trim_end_matches(|c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
        .ends_with("##")
}

/// Offset of the second colon of a line that begins with two. An IPv6 address such as `::1` is no command.
fn leading_colons(line: &str) -> Option<usize> {
    let rest = without_lead(line);
    let after = rest.strip_prefix("::")?;
    let tail = after.trim_start_matches(|c: char| c.is_ascii_hexdigit() || matches!(c, ':' | '.'));
    let address = after.strip_suffix(tail).unwrap_or_default();
    let is_address = !address.is_empty()
        && !after.contains("::")
        && !tail.starts_with(|c: char| c.is_alphabetic() || c == '-');
    (!is_address).then(|| line.len() - rest.len() + 1)
}

/// The line without blanks and colours at its beginning.
fn without_lead(line: &str) -> &str {
    let mut rest = line.trim_start();
    while let Some((numbers, after)) = rest.strip_prefix("\u{1b}[").and_then(|rest| rest.split_once('m'))
        && numbers.bytes().all(|byte| byte.is_ascii_digit() || byte == b';')
    {
        rest = after.trim_start();
    }
    rest
}

/// Text of several lines in which no runner finds a command: a blank breaks each one. Doing it twice changes nothing.
pub fn without_commands(text: &str) -> Cow<'_, str> {
    if !["##", "::", "section_"].iter().any(|part| text.contains(part)) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    // .NET reads a carriage return as the end of a line too.
    for line in text.split_inclusive(['\n', '\r']) {
        let mut done = 0;
        for mark in command_marks(line) {
            out.push_str(line.get(done..mark).unwrap_or_default());
            out.push(' ');
            done = mark;
        }
        out.push_str(line.get(done..).unwrap_or_default());
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn commands_are_broken_by_a_blank_and_nothing_else_changes() {
        for (text, shown) in [
            ("::error::x", ": :error::x"),
            ("  \u{a0}\u{1b}[1m::add-mask::x", "  \u{a0}\u{1b}[1m: :add-mask::x"),
            ("a\n::error::x\r::warning::y", "a\n: :error::x\r: :warning::y"),
            ("x ##[error]y", "x ## [error]y"),
            ("###vso[task.setvariable]x", "###vso [task.setvariable]x"),
            ("##teamcity[a] ##TeamCity[b]", "##teamcity [a] ##TeamCity [b]"),
            ("section_start:1:a section_end:1:a", "section_start :1:a section_end :1:a"),
            ("::", ": :"),
            ("::dead::beef", ": :dead::beef"),
            ("::.]::", ": :.]::"),
        ] {
            assert_eq!(without_commands(text), shown);
            assert_eq!(without_commands(shown), shown);
        }
        for text in [
            "::1:5432 gives up",
            "::ffff:10.0.0.1",
            "::1",
            "a::b",
            "## [x]",
            "#1 [x]",
            "# [x",
            "fe80::1",
            "section_",
        ] {
            assert_eq!(without_commands(text), text);
        }
    }

    proptest! {
        #[test]
        fn no_command_is_left(text in "([ \n\r#:\\[\\]a-z.é]|##|::|vso|teamcity|section_start|error){0,24}") {
            let shown = without_commands(&text).into_owned();
            for line in shown.split(['\n', '\r']) {
                prop_assert!(!line.contains("##[") && !line.contains("##vso[") && !line.contains("##teamcity["), "{line:?}");
                prop_assert!(!line.contains("section_start:"), "{line:?}");
                let command = line.trim().strip_prefix("::").and_then(|rest| rest.split_once("::"));
                prop_assert!(command.is_none(), "{line:?}");
            }
            prop_assert_eq!(without_commands(&shown), shown.as_str());
            prop_assert_eq!(shown.replace(' ', ""), text.replace(' ', ""));
        }
    }
}
