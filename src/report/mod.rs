//! Reports on verdicts for people and programs, one file per format. All formats have the same content.
//!
//! No format reads the environment, the terminal or the clock: what depends on them is in [`Style`]. Text from
//! a guest or a host is always escaped for the format; see [`visible()`] for text on a terminal, and [`lines`] for the last
//! step of formats that consist of lines.

mod baseline;
mod by_rule;
mod csv;
mod explain;
mod github;
pub(crate) mod html;
mod json;
mod junit;
pub(crate) mod lines;
mod markdown;
pub(crate) mod prometheus;
#[cfg(test)]
mod samples;
mod sarif;
mod settings;
mod style;
mod table;
pub(crate) mod words;
pub(crate) mod wrap;
mod yaml;

use std::{collections::BTreeSet, fmt, io, io::Write, str::FromStr};

pub use explain::explain;
pub use html::{TemplateError, Templates};
use serde::Serialize;
pub use style::{NARROWEST, Style};
use thiserror::Error;
pub use vmgate_facts::text::visible;
use vmgate_verdict::{Move, Verdict, WaiverFault, WaiverProblem};

use self::lines::Lines;
use crate::audit::Audit;

/// The formats of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Format {
    /// For a terminal.
    Table,
    /// The verdict document.
    Json,
    /// The verdict document as YAML, for people.
    Yaml,
    /// A comment for a merge request.
    Markdown,
    /// JUnit XML, for a CI system's test page.
    Junit,
    /// Annotations of a GitHub workflow.
    Github,
    /// One line per outcome, for spreadsheets.
    Csv,
    /// Metrics for node_exporter's textfile collector.
    Prometheus,
    /// SARIF 2.1.0, for code scanning.
    Sarif,
    /// A page for auditors.
    Html,
}

/// An unknown name of a report format.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("`{0}` is not a report format: expected one of {names}", names = Format::names())]
pub struct UnknownFormat(pub String);

/// A report that could not be written.
#[derive(Debug, Error)]
pub enum ReportError {
    /// The output cannot be written.
    #[error("the {format} report cannot be written")]
    Write {
        /// The format that was being written.
        format: Format,
        /// The cause.
        source: io::Error,
    },
    /// A template of the HTML report is wrong.
    #[error(transparent)]
    Template(#[from] TemplateError),
}

impl From<html::HtmlError> for ReportError {
    fn from(error: html::HtmlError) -> Self {
        match error {
            html::HtmlError::Template(error) => Self::Template(error),
            html::HtmlError::Sink(source) => Self::Write { format: Format::Html, source },
        }
    }
}

impl Format {
    /// Every format, the default first.
    pub const ALL: [Self; 10] = [
        Self::Table,
        Self::Json,
        Self::Yaml,
        Self::Markdown,
        Self::Junit,
        Self::Github,
        Self::Csv,
        Self::Prometheus,
        Self::Sarif,
        Self::Html,
    ];

    /// Name on the command line, extension of file names, and purpose in one line.
    fn described(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Table => ("table", "txt", "for a terminal: blocking findings first"),
            Self::Json => ("json", "json", "the verdict document as JSON, vmgate/verdict/v1"),
            Self::Yaml => ("yaml", "yaml", "the verdict document as YAML, for people"),
            Self::Markdown => ("markdown", "md", "a comment for a merge request"),
            Self::Junit => ("junit", "xml", "JUnit XML, for a CI system's test page"),
            Self::Github => ("github", "txt", "annotations of a GitHub workflow"),
            Self::Csv => ("csv", "csv", "one line per outcome, for spreadsheets"),
            Self::Prometheus => ("prometheus", "prom", "metrics for node_exporter's textfile collector"),
            Self::Sarif => ("sarif", "sarif", "SARIF 2.1.0, for code scanning"),
            Self::Html => ("html", "html", "a page for auditors, in one file"),
        }
    }

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        self.described().0
    }

    /// File name extension of the format.
    pub fn extension(self) -> &'static str {
        self.described().1
    }

    /// Purpose of the format, in one line for help texts.
    pub fn about(self) -> &'static str {
        self.described().2
    }

    fn names() -> String {
        Self::ALL.map(Self::name).join(", ")
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Format {
    type Err = UnknownFormat;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|format| format.name() == name)
            .ok_or_else(|| UnknownFormat(name.to_owned()))
    }
}

/// Writes a report on `verdicts` in the given order. One verdict is written as a document, several as a list.
pub fn write(
    format: Format,
    verdicts: &[Verdict],
    sink: &mut dyn Write,
    style: &Style,
) -> Result<(), ReportError> {
    match format {
        Format::Table => table::write(verdicts, &mut Lines::new(sink, style.colours()), style),
        Format::Json => json::write(verdicts, sink),
        Format::Yaml => yaml::write(verdicts, sink),
        Format::Markdown => markdown::write(verdicts, &mut Lines::new(sink, style.colours()), style),
        Format::Junit => junit::write(verdicts, sink),
        Format::Github => github::write(verdicts, &mut Lines::with_annotations(sink)),
        Format::Csv => csv::write(verdicts, &mut Lines::new(sink, style.colours())),
        Format::Prometheus => prometheus::write(verdicts, &mut Lines::new(sink, style.colours())),
        Format::Sarif => sarif::write(verdicts, sink),
        Format::Html => return html::write(verdicts, sink, &style.templates).map_err(ReportError::from),
    }
    .and_then(|()| sink.flush())
    .map_err(|source| ReportError::Write { format, source })
}

/// Writes verdicts like `--output json`: one as a document, several as a list.
pub fn verdicts(verdicts: &[Verdict], sink: &mut dyn Write) -> io::Result<()> {
    json::write(verdicts, sink)
}

/// Writes the differences of `verdicts` from their baseline, and the moves that are `gone`: only the baseline has them.
pub fn differences(
    verdicts: &[Verdict],
    gone: &[&Move],
    sink: &mut dyn Write,
    style: &Style,
) -> io::Result<()> {
    table::differences(verdicts, gone, sink, style)
}

/// Writes any document as JSON without control or hidden characters, or what a runner obeys.
pub fn document(document: &impl Serialize, sink: &mut dyn Write) -> io::Result<()> {
    json::pretty(document, sink)
}

/// Writes any document as JSON on one line, as [`document`] does over several.
pub fn document_line(document: &impl Serialize, sink: &mut dyn Write) -> io::Result<()> {
    json::line(document, sink)
}

/// Writes any document as YAML, as the report of that format.
pub fn yaml_document(document: &impl Serialize, sink: &mut dyn Write) -> io::Result<()> {
    yaml::document(document, sink)
}

/// Writes a report on an audit. Table, JSON and YAML show the audit itself; every other format lists the verdicts
/// behind it.
pub fn write_audit(
    format: Format,
    audit: &Audit,
    verdicts: &[Verdict],
    sink: &mut dyn Write,
    style: &Style,
) -> Result<(), ReportError> {
    match format {
        Format::Table => table::write_audit(audit, &mut Lines::new(sink, style.colours()), style),
        Format::Json => json::pretty(audit, sink),
        Format::Yaml => yaml::document(audit, sink),
        _ => return write(format, verdicts, sink, style),
    }
    .and_then(|()| sink.flush())
    .map_err(|source| ReportError::Write { format, source })
}

/// Waiver problems of all verdicts, each once. A waiver that is unused in one move and used in another is not
/// reported as unused.
fn waiver_problems(verdicts: &[Verdict]) -> Vec<&WaiverProblem> {
    let waived = verdicts.iter().flat_map(Verdict::waived);
    let used: BTreeSet<_> = waived
        .filter_map(|judged| judged.waiver.as_ref().map(|waiver| (judged, waiver)))
        .map(|(judged, waiver)| (&*judged.outcome.rule, &waiver.owner, &waiver.ticket, waiver.until))
        .collect();
    let is_used = |p: &WaiverProblem| used.contains(&(&*p.rule, &p.owner, &p.ticket, p.until));
    let problems = verdicts.iter().flat_map(|verdict| &verdict.waiver_problems);
    let problems: BTreeSet<&WaiverProblem> =
        problems.filter(|problem| problem.fault != WaiverFault::Unused || !is_used(problem)).collect();
    problems.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use vmgate_verdict::{DecisionContext, Status, Waivers, decide, sample};

    use super::*;

    #[test]
    fn every_format_is_found_by_its_name() {
        for format in Format::ALL {
            assert_eq!(format.name().parse(), Ok(format));
        }
        let error = "tabel".parse::<Format>().unwrap_err().to_string();
        assert!(error.starts_with("`tabel` is not a report format: expected one of table, json"), "{error}");
    }

    #[test]
    fn a_waiver_that_another_move_uses_is_not_unused() {
        let waivers: Waivers = [sample::waiver("a")].into_iter().collect();
        let on = |status| {
            let context = DecisionContext::at(sample::now());
            decide(vec![sample::outcome("a", status)], &waivers, &sample::facts("web1"), &context)
        };
        assert_eq!(waiver_problems(&[on(Status::Pass)]).len(), 1);
        assert_eq!(waiver_problems(&[on(Status::Pass), on(Status::Pass)]).len(), 1);
        assert_eq!(waiver_problems(&[on(Status::Pass), on(Status::Fail)]).len(), 0);
    }

    #[test]
    fn a_sink_that_fails_is_an_error_in_every_format() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        for format in Format::ALL {
            let result = write(format, &[sample::no_go()], &mut Closed, &Style::default());
            match result {
                Err(ReportError::Write { format: named, .. }) => assert_eq!(named, format),
                other => panic!("{format}: {other:?}"),
            }
        }
    }

    #[test]
    fn facts_from_a_file_are_told_wherever_there_is_room_for_it() {
        let basis = r#"{"facts": [{"group": "source", "origin": "file", "file": "web1.yaml"}]}"#;
        let verdict = Verdict { basis: serde_json::from_str(basis).unwrap(), ..sample::no_go() };
        for format in Format::ALL {
            let mut out = Vec::new();
            write(format, std::slice::from_ref(&verdict), &mut out, &Style::default()).unwrap();
            // Annotations are about findings, and samples about figures.
            let room = !matches!(format, Format::Github | Format::Prometheus);
            assert_eq!(String::from_utf8(out).unwrap().contains("web1.yaml"), room, "{format}");
        }
    }

    #[test]
    fn every_format_says_the_decision_of_every_move() {
        let verdicts = [sample::no_go(), sample::go()];
        for format in Format::ALL {
            let mut out = Vec::new();
            write(format, &verdicts, &mut out, &Style::default()).unwrap();
            let text = String::from_utf8(out).unwrap();
            assert!(text.contains("web1") && text.contains("idle1"), "{format}");
            assert!(
                text.contains("NO-GO") || text.contains("exit_code") || text.contains("exitCode"),
                "{format}"
            );
        }
    }
}
