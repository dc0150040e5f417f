//! Code spans of a template: what stands between backticks is a command that people copy, so values in it are quoted.

use vmgate_facts::text::ShellWord;

use super::{narrow, tree::Expr};

/// Place of a value in a template.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Text without code spans.
    Text,
    /// Text beside code spans: a backtick in the value would begin one.
    BesideCode,
    /// In a command: one word of a shell, or a part of one.
    Command {
        /// True if it begins a word and no option follows, so that `--` may stand before a name that begins with a dash.
        last: bool,
        /// True if it stands between quotes of the template's own, which its quotes would end.
        in_quotes: bool,
    },
    /// A whole command that vmgate knows, the only thing in its code span.
    WholeCommand,
}

/// Reads a template's text from its beginning, and knows what is open.
#[derive(Debug)]
pub(super) struct Reader {
    has_code: bool,
    in_code: bool,
    quote: Option<char>,
    /// Last character before the value.
    before: char,
}

impl Reader {
    pub(super) fn new(template: &str) -> Self {
        Self { has_code: template.contains('`'), in_code: false, quote: None, before: ' ' }
    }

    /// Reads text between values.
    pub(super) fn text(&mut self, text: &str) {
        for c in text.chars() {
            match (self.quote, c) {
                (_, '`') => {
                    self.in_code = !self.in_code;
                    self.quote = None;
                }
                (None, '\'' | '"') if self.in_code => self.quote = Some(c),
                (Some(quote), _) if quote == c => self.quote = None,
                _ => {}
            }
            self.before = c;
        }
    }

    /// Place of the value of an expression, with the text after it.
    pub(super) fn value(&mut self, expr: &Expr, after: &str) -> Place {
        let before = std::mem::replace(&mut self.before, 'x');
        let rest = after.split('`').next().unwrap_or_default();
        match (self.in_code, self.has_code) {
            (false, false) => Place::Text,
            (false, true) => Place::BesideCode,
            (true, _) if before == '`' && after.starts_with('`') && is_command(expr) => Place::WholeCommand,
            (true, _) => Place::Command {
                last: before.is_whitespace() && !rest.contains(" -"),
                in_quotes: self.quote.is_some(),
            },
        }
    }
}

/// True for facts that are commands: those that stop and start software, which come from vmgate's catalogues.
fn is_command(expr: &Expr) -> bool {
    narrow::key(expr)
        .is_some_and(|key| key.rsplit_once('.').is_some_and(|(_, field)| matches!(field, "stop" | "start")))
}

impl Place {
    /// A value as it stands in this place.
    pub(super) fn show(self, value: String) -> String {
        match self {
            Self::Text => value,
            Self::BesideCode | Self::WholeCommand => value.replace('`', "'"),
            Self::Command { last, .. } => {
                let dashes = if last && value.starts_with('-') { "-- " } else { "" };
                format!("{dashes}{}", ShellWord(&value))
            }
        }
    }
}
