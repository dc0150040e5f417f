//! What a report depends on besides the verdicts: decided by the caller, who knows terminal and options.

use super::Templates;

/// No table is narrower than this; a terminal that is wraps it.
pub const NARROWEST: usize = 60;

/// How a report is to look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Style {
    /// Columns of the terminal; 80 where there is none.
    pub width: usize,
    /// Whether colour may be used: the caller weighs --color, NO_COLOR and whether the sink is a terminal.
    pub colour: bool,
    /// Whether passes, rules that do not apply, and the evidence of each outcome are listed too.
    pub verbose: bool,
    /// The templates of the HTML report.
    pub templates: Templates,
}

impl Default for Style {
    fn default() -> Self {
        Self { width: 80, colour: false, verbose: false, templates: Templates::default() }
    }
}

impl Style {
    /// The width to use: the terminal's, and never below [`NARROWEST`].
    pub(super) fn columns(&self) -> usize {
        self.width.max(NARROWEST)
    }

    /// `text` in a colour of the terminal, where colour may be used.
    pub(super) fn paint(&self, paint: Paint, text: &str) -> String {
        if self.colour { format!("\u{1b}[{}m{text}\u{1b}[0m", paint.code()) } else { text.to_owned() }
    }
}

/// What a colour means. There are no others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Paint {
    /// It blocks.
    Bad,
    /// It warns.
    Warning,
    /// Nothing is against it.
    Good,
    /// A heading.
    Strong,
}

impl Paint {
    fn code(self) -> &'static str {
        match self {
            Self::Bad => "1;31",
            Self::Warning => "33",
            Self::Good => "1;32",
            Self::Strong => "1",
        }
    }
}
