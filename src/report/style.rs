//! Options of a report: width, colour, verbosity and templates. The caller, who knows terminal and options, sets them.

use vmgate_facts::text::Colours;

use super::Templates;

/// Smallest width of a table; a narrower terminal wraps the lines.
pub const NARROWEST: usize = 60;

/// Options of a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Style {
    /// Columns of the terminal; 80 without a terminal.
    pub width: usize,
    /// True if colour may be used. The caller decides by --color, NO_COLOR and the kind of output.
    pub colour: bool,
    /// True if passes, rules that do not apply, and the evidence of each outcome are listed too.
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

    /// Fate of colours in the text: names in it are visible, so all colours are vmgate's own.
    pub(super) fn colours(&self) -> Colours {
        if self.colour { Colours::Kept } else { Colours::Escaped }
    }

    /// `text` in a terminal colour if colour may be used, else unchanged.
    pub(super) fn paint(&self, paint: Paint, text: &str) -> String {
        if self.colour { format!("\u{1b}[{}m{text}\u{1b}[0m", paint.code()) } else { text.to_owned() }
    }
}

/// Meaning of a colour. There are no other colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Paint {
    /// A blocking finding or NO-GO.
    Bad,
    /// A warning.
    Warning,
    /// GO.
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
