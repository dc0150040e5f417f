//! Wrapping of text to a width: at spaces only, and never inside a command. A command between backticks that was cut in two
//! would be copied as two commands, and the second one could begin with a name from a guest.

use textwrap::core::Word;

/// Lines of a text that is one line itself, after these leads. A command that is too wide stands out on the right, and
/// the terminal wraps it without a line break.
pub(crate) fn wrap(text: &str, lead: &str, hang: &str, width: usize) -> Vec<String> {
    let widths = [lead, hang].map(|lead| width.saturating_sub(textwrap::core::display_width(lead)).max(1));
    let narrowest = widths.into_iter().min().unwrap_or(1);
    let words: Vec<Word<'_>> = words(text)
        .into_iter()
        .flat_map(|(word, is_code)| if is_code { vec![word] } else { word.break_apart(narrowest).collect() })
        .collect();
    #[expect(clippy::cast_precision_loss, reason = "widths of terminals")]
    let lines = textwrap::wrap_algorithms::wrap_first_fit(&words, &widths.map(|width| width as f64));
    let line = |(position, words): (usize, &&[Word<'_>])| {
        let mut line = String::from(if position == 0 { lead } else { hang });
        for (at, word) in words.iter().enumerate() {
            line.push_str(word.word);
            if at + 1 < words.len() {
                line.push_str(word.whitespace);
            }
        }
        line
    };
    lines.iter().enumerate().map(line).collect()
}

/// As [`wrap`], for a text of one or several lines, with line breaks between the lines.
pub(crate) fn fill(text: &str, lead: &str, hang: &str, width: usize) -> String {
    let lines = text.split('\n').enumerate();
    let lines =
        lines.flat_map(|(position, line)| wrap(line, if position == 0 { lead } else { hang }, hang, width));
    lines.collect::<Vec<_>>().join("\n")
}

/// Words of a text, and which of them are code: what stands between two backticks is one word.
fn words(text: &str) -> Vec<(Word<'_>, bool)> {
    let mut words = Vec::new();
    let (mut begin, mut at) = (0, 0);
    let mut is_code = false;
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        let next = rest.find([' ', '`']).unwrap_or(rest.len());
        at += next;
        let rest = text.get(at..).unwrap_or_default();
        if let Some(code) = rest.strip_prefix('`') {
            let end = code.find('`');
            is_code |= end.is_some();
            at += end.map_or(1, |end| end + 2);
        } else {
            at += rest.len() - rest.trim_start_matches(' ').len();
            words.push((Word::from(text.get(begin..at).unwrap_or_default()), is_code));
            (begin, is_code) = (at, false);
        }
    }
    if begin < at {
        words.push((Word::from(text.get(begin..at).unwrap_or_default()), is_code));
    }
    words
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_command_is_never_cut() {
        assert_eq!(
            wrap("Run `virsh undefine 'reboot now'`, then look again", "Fix: ", "     ", 20),
            ["Fix: Run", "     `virsh undefine 'reboot now'`,", "     then look again"]
        );
        assert_eq!(wrap("a ` b", "", "", 3), ["a `", "b"]);
        assert_eq!(wrap("abcdefg h", "", "", 3), ["abc", "def", "g h"]);
        assert_eq!(wrap("", "", "", 3), [""]);
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_no_line_is_too_wide(text in "[a-z]{0,9}( {1,2}[a-z日]{1,20}){0,8}", width in 4_usize..40) {
            let lines = wrap(&text, "", " ", width);
            prop_assert!(lines.iter().all(|line| textwrap::core::display_width(line) <= width), "{:?}", lines);
            prop_assert_eq!(lines.concat().replace(' ', ""), text.replace(' ', ""));
        }
    }
}
