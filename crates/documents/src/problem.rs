//! Problems in documents, each with its position, shown in the style of rustc.

use std::{fmt, ops::Range, path::Path, sync::Arc};

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet, renderer::DecorStyle};
use vmgate_facts::text::{Colours, is_control_or_hidden, visible_lines};
use vmgate_trust::UntrustedFile;

use super::SourceFile;

/// One problem of a document: message, position and way out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem(Box<ProblemData>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct ProblemData {
    file: Result<Arc<SourceFile>, String>,
    span: Range<usize>,
    message: String,
    label: String,
    help: Option<String>,
    related: Option<(Range<usize>, String)>,
    warning: bool,
}

impl Problem {
    /// A problem at a place in a file.
    pub fn at(file: &Arc<SourceFile>, span: Range<usize>, message: impl Into<String>) -> Self {
        Self(Box::new(ProblemData {
            file: Ok(Arc::clone(file)),
            span,
            message: message.into(),
            label: String::new(),
            help: None,
            related: None,
            warning: false,
        }))
    }

    /// A problem of a file as a whole, which may be unreadable.
    pub fn of_file(name: &str, message: impl Into<String>, help: &str) -> Self {
        Self(Box::new(ProblemData {
            file: Err(name.to_owned()),
            span: 0..0,
            message: message.into(),
            label: String::new(),
            help: Some(help.to_owned()),
            related: None,
            warning: false,
        }))
    }

    /// A file or folder that is not believed, or cannot be read.
    pub fn of_untrusted(path: &Path, why: &UntrustedFile) -> Self {
        let at_fault = (!why.path().ends_with(path)).then(|| format!("{}: ", why.path().display()));
        let message = format!("{}{}", at_fault.unwrap_or_default(), why.problem());
        let help = why.way_out().unwrap_or_else(|| "check the path and its permissions".to_owned());
        Self::of_file(&path.display().to_string(), message, &help)
    }

    /// Text beside the caret.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.0.label = label.into();
        self
    }

    /// The way out.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.0.help = Some(help.into());
        self
    }

    /// A second place in the same file that belongs to it.
    #[must_use]
    pub fn related(mut self, span: Range<usize>, label: impl Into<String>) -> Self {
        self.0.related = Some((span, label.into()));
        self
    }

    /// Style, not an error: shown as a warning.
    #[must_use]
    pub fn warning(mut self) -> Self {
        self.0.warning = true;
        self
    }

    /// Name of the file.
    pub fn file(&self) -> &str {
        self.0.file.as_ref().map_or_else(String::as_str, |file| &file.name)
    }

    /// Message of the problem.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// Way out, if there is one.
    pub fn hint(&self) -> Option<&str> {
        self.0.help.as_deref()
    }

    /// Line and column, both from 1, the column in characters; none for a file as a whole.
    pub fn position(&self) -> Option<(usize, usize)> {
        let text = &self.0.file.as_ref().ok()?.text;
        let before = text.get(..self.0.span.start.min(text.len()))?;
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        Some((before.matches('\n').count() + 1, before.get(line_start..)?.chars().count() + 1))
    }

    /// Message and position, without the way out.
    pub fn in_one_line(&self) -> String {
        match self.position() {
            Some((line, column)) => format!("{} at line {line} column {column}", self.message()),
            None => format!("it {}", self.message()),
        }
    }

    /// Renders the problem with excerpt, caret and hint.
    pub fn render(&self, color: bool) -> String {
        let level = if self.0.warning { Level::WARNING } else { Level::ERROR };
        let message = visible(&self.0.message);
        let help = self.0.help.as_deref().map(visible);
        let label = visible(&self.0.label);
        let renderer = if color { Renderer::styled() } else { Renderer::plain() };
        let renderer = renderer.decor_style(DecorStyle::Ascii);
        let text;
        let mut group = match &self.0.file {
            Err(name) => {
                let title = format!("{}: {message}", visible(name));
                let group = level.primary_title(title);
                let group = match help {
                    Some(help) => group.element(Level::HELP.message(help)),
                    None => group.elements(None::<annotate_snippets::Message<'_>>),
                };
                return renderer.render(&[group]);
            }
            Ok(file) => {
                text = visible_source(&file.text);
                let snippet = Snippet::source(text.as_str())
                    .path(file.name.as_str())
                    .annotation(AnnotationKind::Primary.span(clamp(&text, &self.0.span)).label(label));
                let snippet = match &self.0.related {
                    Some((span, label)) => snippet
                        .annotation(AnnotationKind::Context.span(clamp(&text, span)).label(label.as_str())),
                    None => snippet,
                };
                level.primary_title(message).element(snippet)
            }
        };
        if let Some(help) = help {
            group = group.element(Level::HELP.message(help));
        }
        renderer.render(&[group])
    }
}

/// Limits a span to the text and to character boundaries; the result is not empty unless it lies at the end.
fn clamp(text: &str, span: &Range<usize>) -> Range<usize> {
    let floor = |mut at: usize| {
        at = at.min(text.len());
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        at
    };
    let start = floor(span.start);
    let end = floor(span.end).max(start);
    let one = text.get(start..).and_then(|rest| rest.chars().next()).map_or(0, char::len_utf8);
    start..if end == start { start + one } else { end }
}

/// Text from a file without characters that would control the terminal or mislead its reader.
pub(crate) fn visible(text: &str) -> String {
    visible_lines(text, Colours::Escaped)
}

/// A file's text with `?` for such characters: it keeps the length in bytes, so that spans stay right.
fn visible_source(text: &str) -> String {
    text.chars()
        .flat_map(|c| {
            let keep = !is_control_or_hidden(c) || matches!(c, '\n' | '\t' | '\r');
            std::iter::repeat_n(if keep { c } else { '?' }, if keep { 1 } else { c.len_utf8() })
        })
        .collect()
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

/// All problems of all files that were read, in the order of files and positions.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Problems {
    /// The problems; at least one.
    pub problems: Vec<Problem>,
}

/// Maximum number of problems printed; the author corrects these first.
const MOST_PRINTED: usize = 50;

impl Problems {
    /// Renders all problems, with a count at the end.
    pub fn render(&self, color: bool) -> String {
        let mut text = String::new();
        for problem in self.problems.iter().take(MOST_PRINTED) {
            text.extend([problem.render(color).as_str(), "\n\n"]);
        }
        let count = self.problems.len();
        let shown =
            if count > MOST_PRINTED { format!(", of which {MOST_PRINTED} are shown") } else { String::new() };
        text + &format!("{count} {}{shown}", if count == 1 { "problem" } else { "problems" })
    }

    /// Problems in the order of their files and places, each once.
    pub fn new(mut problems: Vec<Problem>) -> Self {
        problems.sort_by(|a, b| (a.file(), a.0.span.start).cmp(&(b.file(), b.0.span.start)));
        problems.dedup();
        Self { problems }
    }
}

impl From<Problem> for Problems {
    fn from(problem: Problem) -> Self {
        Self { problems: vec![problem] }
    }
}

impl From<Vec<Problem>> for Problems {
    fn from(problems: Vec<Problem>) -> Self {
        Self::new(problems)
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Problems {}

/// The candidate that is most like `word`, if any is like it at all: a few letters apart, or the same words and more.
pub fn closest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let words = |text: &'a str| text.split(['-', '_', '.', '/']);
    let has_words = |candidate: &'a str| {
        word.len() > 3
            && word.split(['-', '_', '.', '/']).all(|part| words(candidate).any(|other| other == part))
    };
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate))
        .filter(|(distance, candidate)| {
            *distance <= (word.len().max(3) / 3).max(1)
                || (word.len() > 3 && candidate.starts_with(word))
                || has_words(candidate)
        })
        .min()
        .map(|(_, candidate)| candidate)
}
