//! The HTML report for auditors: one file that needs no network, from the templates in `reports/html/`.
//!
//! `page.html` is the page and `move.html` one move on it; moves are rendered one after the other, so that a report
//! on thousands does not have to fit into memory. Every text is escaped by the engine and made visible first, and
//! the page's own content security policy lets nothing run but the script that belongs to it.

mod overview;
mod plot;
mod timeline;
mod view;

use std::{
    fmt,
    io::{self, Write},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use minijinja::{
    AutoEscape, Environment, UndefinedBehavior, Value, context, escape_formatter, syntax::SyntaxConfig,
    value::Serde,
};
use sha2::{Digest as _, Sha256};
use thiserror::Error;
use vmgate_facts::text::between_marks;
use vmgate_verdict::{Decision, ExitCode, Verdict};

use super::{visible, waiver_problems, words};
use crate::report::html::view::MoveView;

/// Placeholder of the moves in the page. No text can contain it: its `<` would be escaped.
const MOVES: &str = "<!-- vmgate: moves -->";

/// The templates of the HTML report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Templates {
    page: String,
    one_move: String,
    style: String,
    script: String,
}

/// A template that cannot be used.
#[derive(Debug, Error)]
pub enum TemplateError {
    /// No template has this name.
    #[error("the report has no template `{0}`: expected one of {names}", names = Templates::NAMES.join(", "))]
    UnknownName(String),
    /// The template has a syntax error or uses an unknown name.
    #[error("the report template {file} is invalid: {problem}")]
    Wrong {
        /// The template.
        file: String,
        /// Message of the template engine, with the line.
        problem: String,
    },
    /// The page template does not print the moves exactly once.
    #[error("the report template page.html must print {{{{ moves }}}} exactly once; found {0} times")]
    NoMoves(usize),
}

/// Errors while the report is written.
#[derive(Debug)]
pub(super) enum HtmlError {
    Template(TemplateError),
    Sink(io::Error),
}

impl From<minijinja::Error> for HtmlError {
    fn from(error: minijinja::Error) -> Self {
        let file = error.name().unwrap_or("page.html").to_owned();
        Self::Template(TemplateError::Wrong { file, problem: error.to_string() })
    }
}

impl From<io::Error> for HtmlError {
    fn from(error: io::Error) -> Self {
        Self::Sink(error)
    }
}

impl Default for Templates {
    /// The built-in templates, from `reports/html/`.
    fn default() -> Self {
        Self {
            page: include_str!("../../../reports/html/page.html").to_owned(),
            one_move: include_str!("../../../reports/html/move.html").to_owned(),
            style: include_str!("../../../reports/html/style.css").to_owned(),
            script: include_str!("../../../reports/html/script.js").to_owned(),
        }
    }
}

impl Templates {
    /// The names of the files in `reports/html/`.
    pub const NAMES: [&'static str; 4] = ["page.html", "move.html", "style.css", "script.js"];

    /// These templates with one of them replaced by the user's.
    pub fn with(mut self, name: &str, text: String) -> Result<Self, TemplateError> {
        match name {
            "page.html" => self.page = text,
            "move.html" => self.one_move = text,
            "style.css" => self.style = text,
            "script.js" => self.script = text,
            _ => return Err(TemplateError::UnknownName(name.to_owned())),
        }
        Ok(self)
    }

    fn environment(&self) -> Result<Environment<'_>, minijinja::Error> {
        let mut environment = engine()?;
        environment.add_template("page.html", &self.page)?;
        environment.add_template("move.html", &self.one_move)?;
        Ok(environment)
    }
}

/// The template engine: every text is escaped and made visible, and an unknown name is an error.
pub(crate) fn engine<'a>() -> Result<Environment<'a>, minijinja::Error> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    environment.set_formatter(|out, state, value| match value.as_str() {
        Some(text) if !value.is_safe() => {
            // One character of each command of a CI runner is a reference: the page may be written to a log.
            for (part, obeyed) in between_marks(&visible(text)) {
                escape_formatter(out, state, &Value::from(part))?;
                if let Some(obeyed) = obeyed {
                    fmt::Write::write_fmt(out, format_args!("&#{};", u32::from(obeyed)))?;
                }
            }
            Ok(())
        }
        _ => escape_formatter(out, state, value),
    });
    environment.add_filter("spans", |text: String| -> Vec<String> { spans(&text) });
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    Ok(environment)
}

/// Parts of a text, of which every second one stood between backticks: code. A text with an odd backtick is one part.
fn spans(text: &str) -> Vec<String> {
    let parts: Vec<String> = text.split('`').map(str::to_owned).collect();
    if parts.len() % 2 == 1 { parts } else { vec![text.to_owned()] }
}

/// Hash of a script for a content security policy.
pub(crate) fn script_hash(script: &str) -> String {
    BASE64_STANDARD.encode(Sha256::digest(script.as_bytes()))
}

pub(super) fn write(
    verdicts: &[Verdict],
    sink: &mut dyn Write,
    templates: &Templates,
) -> Result<(), HtmlError> {
    let mut sink = io::BufWriter::new(sink);
    let environment = templates.environment()?;
    let page = environment.get_template("page.html")?.render(page(verdicts, templates))?;
    let Some((before, after)) = page.split_once(MOVES).filter(|(_, after)| !after.contains(MOVES)) else {
        return Err(HtmlError::Template(TemplateError::NoMoves(page.matches(MOVES).count())));
    };
    sink.write_all(before.as_bytes())?;
    let one_move = environment.get_template("move.html")?;
    for (position, verdict) in verdicts.iter().enumerate() {
        let html =
            one_move.render(Value::from(Serde(MoveView::new(verdict, position + 1, verdicts.len() == 1))))?;
        sink.write_all(html.as_bytes())?;
    }
    sink.write_all(after.as_bytes())?;
    Ok(sink.flush()?)
}

/// Variables of `page.html`: the result of the run, one row per move, and the style and script.
fn page(verdicts: &[Verdict], templates: &Templates) -> Value {
    let code = ExitCode::of_all(verdicts);
    let go = verdicts.iter().filter(|verdict| matches!(verdict.decision, Decision::Go(_))).count();
    let rows: Vec<Value> =
        verdicts.iter().enumerate().map(|(position, verdict)| row(position + 1, verdict)).collect();
    context! {
        rows,
        count => words::number(verdicts.len(), "move"),
        go,
        no_go => verdicts.len() - go,
        exit_code => code.code(),
        exit_meaning => code.meaning(),
        evaluated => verdicts.iter().map(|verdict| words::time(verdict.evaluated_at)).max(),
        tool => env!("CARGO_PKG_NAME"),
        version => env!("CARGO_PKG_VERSION"),
        waivers => Serde(overview::waivers(verdicts)),
        origins => Serde(overview::origins(verdicts)),
        waiver_problems => Serde(view::problems(&waiver_problems(verdicts))),
        style => Value::from_safe_string(templates.style.clone()),
        script => Value::from_safe_string(templates.script.clone()),
        script_hash => Value::from_safe_string(script_hash(&templates.script)),
        moves => Value::from_safe_string(MOVES.to_owned()),
    }
}

fn row(number: usize, verdict: &Verdict) -> Value {
    let moved = &verdict.moved;
    context! {
        number,
        go => matches!(verdict.decision, Decision::Go(_)),
        word => verdict.decision.word(),
        vm => moved.vm.label(),
        source => moved.source.label(),
        destination => moved.destination.label(),
        reason => words::reason(verdict),
    }
}

#[cfg(test)]
mod tests {
    use vmgate_verdict::sample;

    use super::*;

    fn written(verdicts: &[Verdict], templates: &Templates) -> Result<String, HtmlError> {
        let mut out = Vec::new();
        write(verdicts, &mut out, templates)?;
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn a_guest_adds_no_markup_and_nothing_that_is_obeyed() {
        let benign = written(&[sample::go()], &Templates::default()).unwrap();
        let mut verdict = sample::go();
        verdict.moved.vm.name =
            Some("\"'><script>alert(1)</script><!-- vmgate: moves -->\u{202e}\u{1b}".into());
        verdict.outcomes[0].outcome.message = "</article><img src=x onerror=alert(1)>".into();
        verdict.outcomes[0].outcome.rule = "' onclick='alert(1)".into();
        let hostile = written(&[verdict], &Templates::default()).unwrap();
        assert_eq!(hostile.matches('<').count(), benign.matches('<').count());
        assert!(!hostile.chars().any(|c| c != '\n' && vmgate_facts::text::is_control_or_hidden(c)));
    }

    #[test]
    fn nothing_is_loaded_from_anywhere() {
        let page = written(&[sample::no_go(), sample::go()], &Templates::default()).unwrap();
        for outside in ["src=", "href=\"http", "url(", "@import", "fetch(", "<link", "<iframe"] {
            assert!(!page.contains(outside), "{outside}");
        }
        assert!(page.contains("default-src 'none'"));
    }

    #[test]
    fn a_users_template_takes_the_place_of_ours() {
        let own = |name, text: &str| Templates::default().with(name, text.to_owned());
        let templates = own("page.html", "<p>{{ count }}</p>{{ moves }}").unwrap();
        let templates = templates.with("move.html", "<b>{{ word }}</b>".to_owned()).unwrap();
        assert_eq!(written(&[sample::go()], &templates).unwrap(), "<p>1 move</p><b>GO</b>");
        assert!(own("pages.html", "").unwrap_err().to_string().contains("page.html, move.html"));
    }

    #[test]
    fn a_wrong_template_is_named_with_its_line() {
        for (name, text, part) in [
            ("page.html", "no place", "exactly once; found 0 times"),
            ("page.html", "{{ moves }}{{ moves }}", "found 2 times"),
            ("move.html", "\n{{ wordd }}", "move.html"),
            ("move.html", "{% if %}", "move.html:1"),
        ] {
            let templates = Templates::default().with(name, text.to_owned()).unwrap();
            match written(&[sample::go()], &templates) {
                Err(HtmlError::Template(error)) => assert!(error.to_string().contains(part), "{error}"),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn a_full_disk_is_not_the_templates_fault() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let verdicts = vec![sample::no_go(); 20];
        let result = write(&verdicts, &mut Full, &Templates::default());
        assert!(matches!(result, Err(HtmlError::Sink(error)) if error.kind() == io::ErrorKind::StorageFull));
    }
}
