//! Escaping of text for terminals and browsers. All such escaping is in this file, and so is the list of the characters
//! that need it.
//!
//! Names, paths and messages come from guests and may be made to move the cursor, set a terminal's title, hide a
//! part of a line or turn its direction (CVE-2021-42574). Such characters are shown as `\u{…}`.

use std::{borrow::Cow, fmt::Write as _};

/// `text` on one line, with every control or hidden character written as `\u{…}`, and line breaks and tabs as
/// spaces. All characters are seen, in their real order.
pub fn visible(text: &str) -> Cow<'_, str> {
    if is_printable_ascii(text) || !text.chars().any(is_control_or_hidden) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        match character {
            '\n' | '\t' => shown.push(' '),
            _ if is_control_or_hidden(character) => {
                let _ = write!(shown, "{}", character.escape_unicode()); // writing to a String cannot fail
            }
            _ => shown.push(character),
        }
    }
    Cow::Owned(shown)
}

/// True if the text is all printable ASCII, as most text is; a fast check without decoding.
pub fn is_printable_ascii(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b' '..=b'~'))
}

/// Escape sequences that set colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colours {
    /// They stay: vmgate has coloured its own text, and names from elsewhere in it were made visible before.
    Kept,
    /// They are shown like all others.
    Escaped,
}

/// Text of several lines for a terminal: like [`visible()`], but line breaks stay, and so may colours. All other escape
/// sequences are escaped, also those that hide text.
pub fn visible_lines(text: &str, colours: Colours) -> String {
    let mut shown = String::with_capacity(text.len() + 16);
    for (position, line) in text.split('\n').enumerate() {
        if position > 0 {
            shown.push('\n');
        }
        let mut rest = line;
        while let Some((before, after)) = rest.split_once('\u{1b}') {
            shown.push_str(&visible(before));
            if let Some(colour) = colour(after).filter(|_| colours == Colours::Kept) {
                shown.push('\u{1b}');
                shown.push_str(colour);
                rest = after.get(colour.len()..).unwrap_or_default();
            } else {
                shown.push_str("\\u{1b}");
                rest = after;
            }
        }
        shown.push_str(&visible(rest));
    }
    shown
}

/// The rest of an escape sequence at the beginning of `text` that sets weight or colour (ECMA-48, SGR).
fn colour(text: &str) -> Option<&str> {
    let end = text.find('m').filter(|&end| end <= 16)?;
    let numbers = text.get(1..end).filter(|_| text.starts_with('['))?;
    let is_colour =
        |number: &str| matches!(number.parse(), Ok(0..=4 | 22..=24 | 30..=39 | 90..=97)) || number.is_empty();
    let of_palette = numbers.strip_prefix("38;5;").is_some_and(|number| number.parse::<u8>().is_ok());
    (numbers.split(';').all(is_colour) || of_palette).then(|| text.get(..=end)).flatten()
}

/// True if a terminal or a browser acts on this character instead of showing it: Unicode's controls (Cc),
/// format characters (Cf) that hide or reorder, line and paragraph separators, invisible fillers, and tags.
pub fn is_control_or_hidden(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{ad}'
                | '\u{34f}'
                | '\u{600}'..='\u{605}'
                | '\u{61c}'
                | '\u{6dd}'
                | '\u{70f}'
                | '\u{115f}'..='\u{1160}'
                | '\u{17b4}'..='\u{17b5}'
                | '\u{180b}'..='\u{180f}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{3164}'
                | '\u{fe00}'..='\u{fe0f}'
                | '\u{feff}'
                | '\u{ffa0}'
                | '\u{fff0}'..='\u{fffb}'
                | '\u{1bca0}'..='\u{1bca3}'
                | '\u{1d173}'..='\u{1d17a}'
                | '\u{e0000}'..='\u{e0fff}'
        )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_people_write_stays_as_it_is() {
        for text in ["", "web1 → web2", "Größe 5 €", "仮想マシン", "שלום", "a\u{301}", "🚚"]
        {
            assert!(matches!(visible(text), Cow::Borrowed(same) if same == text), "{text}");
        }
    }

    #[test]
    fn what_a_terminal_obeys_is_written_out() {
        for (text, shown) in [
            ("\u{1b}]0;owned\u{7}", r"\u{1b}]0;owned\u{7}"),
            ("\u{9b}2J", r"\u{9b}2J"),
            ("a\rb", r"a\u{d}b"),
            ("a\nb\tc", "a b c"),
            ("\u{202e}gpj.exe", r"\u{202e}gpj.exe"),
            ("\u{2066}x\u{2069}\u{200f}", r"\u{2066}x\u{2069}\u{200f}"),
            ("ad\u{200b}min\u{feff}", r"ad\u{200b}min\u{feff}"),
            ("\u{e0041}", r"\u{e0041}"),
            ("\u{2028}\u{85}\u{0}\u{7f}", r"\u{2028}\u{85}\u{0}\u{7f}"),
        ] {
            assert_eq!(visible(text), shown);
        }
    }

    #[test]
    fn lines_keep_their_breaks_and_colours_and_nothing_else() {
        assert_eq!(
            visible_lines("\u{1b}[1m\u{1b}[31merror\u{1b}[0m: a\n  | b", Colours::Kept),
            "\u{1b}[1m\u{1b}[31merror\u{1b}[0m: a\n  | b"
        );
        assert_eq!(visible_lines("\u{1b}[38;5;9mx", Colours::Kept), "\u{1b}[38;5;9mx");
        assert_eq!(visible_lines("\u{1b}[31mx\u{1b}[0m", Colours::Escaped), r"\u{1b}[31mx\u{1b}[0m");
        for (text, shown) in [
            ("a\u{1b}[2Jb", r"a\u{1b}[2Jb"),
            ("a\u{1b}[8mhidden", r"a\u{1b}[8mhidden"),
            ("\u{1b}]0;owned\u{7}m", r"\u{1b}]0;owned\u{7}m"),
            ("\u{202e}gpj\r\n", "\\u{202e}gpj\\u{d}\n"),
            ("\u{1b}", r"\u{1b}"),
        ] {
            assert_eq!(visible_lines(text, Colours::Kept), shown);
        }
    }

    proptest! {
        #[test]
        fn lines_let_nothing_through(text in any::<String>(), near in "(\u{1b}|\\[|[0-9;m]|a|\n){0,30}") {
            for text in [text, near] {
                let shown = visible_lines(&text, Colours::Kept);
                let left = shown.split('\u{1b}').enumerate().all(|(position, part)| {
                    (position == 0 || colour(part).is_some()) && !part.chars().any(|c| c != '\n' && is_control_or_hidden(c))
                });
                prop_assert!(left, "{shown:?}");
            }
        }

        #[test]
        fn nothing_that_is_obeyed_comes_out_and_doing_it_twice_changes_nothing(text in any::<String>()) {
            let once = visible(&text).into_owned();
            prop_assert!(!once.chars().any(is_control_or_hidden));
            prop_assert_eq!(visible(&once), once.as_str());
        }
    }
}
