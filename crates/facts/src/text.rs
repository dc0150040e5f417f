//! Sanitiser of text from guests and hosts, which may send anything: vmgate prints what they sent.

/// Longest text that is kept of one name or line; the rest is cut off and `…` stands in its place.
const LONGEST: usize = 4096;

/// Replaces characters that could drive a terminal or mislead a reader: control characters (escape sequences among
/// them), line and paragraph separators, marks that reverse the direction of writing, and invisible characters
/// become `?`. Tabs and newlines become blanks.
pub fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len().min(LONGEST));
    for c in text.trim().chars() {
        if out.len() >= LONGEST {
            out.push('…');
            break;
        }
        out.push(match c {
            '\t' | '\n' | '\r' => ' ',
            c if c.is_control() || is_deceptive(c) => '?',
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

/// Quotes a text as one word for a shell, in single quotes.
pub fn shell_word(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Characters that change how others are shown, or are not shown at all (Unicode TR 36, TR 39).
fn is_deceptive(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{feff}' | '\u{ffa0}' | '\u{fff9}'..='\u{fffb}'
        | '\u{e0000}'..='\u{e007f}')
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
}
