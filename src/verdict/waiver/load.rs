//! Reads a waiver file and says everything that is wrong with it at once.

use std::fmt;

use serde::Deserialize;
use serde_saphyr::Spanned;
use thiserror::Error;

use super::{Day, Glob, Match, Waiver, WaiversSchema, wrong_term};

/// A waiver file that cannot be used, with all its problems.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{file} is not a valid waiver file{}", Listed(.problems))]
pub struct InvalidWaivers {
    /// The file as it was named.
    pub file: String,
    /// What is wrong, in the order of the file.
    pub problems: Vec<FileProblem>,
}

/// One thing that is wrong with a waiver file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileProblem {
    /// The line, from 1; absent where the file as a whole is wrong.
    pub line: Option<u64>,
    /// What is wrong and what would be right.
    pub message: String,
}

struct Listed<'a>(&'a [FileProblem]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in self.0 {
            match problem.line {
                Some(line) => write!(f, "\n  line {line}: {}", problem.message)?,
                None => write!(f, "\n  {}", problem.message)?,
            }
        }
        Ok(())
    }
}

/// The file with nothing demanded yet, so that all that is missing can be named together.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Draft {
    #[allow(dead_code, reason = "read to be checked: an unknown version must not load")]
    schema: WaiversSchema,
    waivers: Vec<Spanned<DraftWaiver>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DraftWaiver {
    rule: Option<Spanned<String>>,
    #[serde(rename = "match")]
    matches: Option<DraftMatch>,
    owner: Option<Spanned<String>>,
    reason: Option<Spanned<String>>,
    ticket: Option<Spanned<String>>,
    created: Option<Spanned<String>>,
    expires: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DraftMatch {
    subject: Option<String>,
    vm: Option<String>,
    host: Option<String>,
}

pub(super) fn parse(file: &str, bytes: &[u8]) -> Result<Vec<Waiver>, InvalidWaivers> {
    let invalid = |problems| InvalidWaivers { file: file.to_owned(), problems };
    let whole = |message: &str| invalid(vec![FileProblem { line: None, message: message.to_owned() }]);
    let text = std::str::from_utf8(bytes).map_err(|_| whole("it is not UTF-8 text"))?;
    if text.trim().is_empty() {
        return Err(whole("it is empty: write `schema: vmgate/waivers/v1` and `waivers: []` for no waivers"));
    }
    let draft: Draft = serde_saphyr::from_str(text).map_err(|error| {
        let line = error.location().map(|location| location.line());
        invalid(vec![FileProblem { line, message: first_line(&error.without_snippet().to_string()) }])
    })?;
    let mut problems = Vec::new();
    let waivers = draft.waivers.into_iter().filter_map(|waiver| complete(waiver, &mut problems)).collect();
    if problems.is_empty() { Ok(waivers) } else { Err(invalid(problems)) }
}

/// The parser's message without its own position, which stands before it already.
fn first_line(message: &str) -> String {
    let line = message.lines().next().unwrap_or_default();
    line.split(" at line ").next().unwrap_or(line).to_owned()
}

fn complete(draft: Spanned<DraftWaiver>, problems: &mut Vec<FileProblem>) -> Option<Waiver> {
    let line = draft.referenced.line();
    let DraftWaiver { rule, matches, owner, reason, ticket, created, expires } = draft.value;
    let name = rule.as_ref().map_or("the waiver", |rule| rule.value.as_str()).to_owned();
    let mut check = Check { name, line, problems };
    let rule = check.text(rule, "rule", "the id of the rule it waives");
    let owner = check.text(owner, "owner", "who answers for it");
    let reason = check.text(reason, "reason", "why it is safe");
    let ticket = check.text(ticket, "ticket", "where it was agreed");
    let created = check.day(created, "created");
    let expires = check.day(expires, "expires");
    let matches = check.matches(matches);
    if let (Some(created), Some(expires)) = (created, expires) {
        check.term(created, expires);
    }
    Some(Waiver {
        rule: rule?,
        matches: matches?,
        owner: owner?,
        reason: reason?,
        ticket: ticket?,
        created: created?,
        expires: expires?,
    })
}

/// Checks one waiver field by field and collects what is wrong.
struct Check<'a> {
    name: String,
    line: u64,
    problems: &'a mut Vec<FileProblem>,
}

impl Check<'_> {
    fn wrong(&mut self, line: Option<u64>, message: &str) {
        let line = Some(line.unwrap_or(self.line));
        self.problems.push(FileProblem { line, message: format!("{}: {message}", self.name) });
    }

    fn text(&mut self, given: Option<Spanned<String>>, field: &str, meaning: &str) -> Option<String> {
        match given {
            Some(text) if !text.value.trim().is_empty() => Some(text.value),
            Some(text) => {
                self.wrong(Some(text.referenced.line()), &format!("`{field}` is empty: say {meaning}"));
                None
            }
            None => {
                self.wrong(None, &format!("`{field}` is missing: say {meaning}"));
                None
            }
        }
    }

    fn day(&mut self, given: Option<Spanned<String>>, field: &str) -> Option<Day> {
        let Some(text) = given else {
            self.wrong(None, &format!("`{field}` is missing: give a day such as 2026-11-23"));
            return None;
        };
        match text.value.parse() {
            Ok(day) => Some(day),
            Err(error) => {
                self.wrong(Some(text.referenced.line()), &format!("`{field}`: {error}"));
                None
            }
        }
    }

    fn matches(&mut self, given: Option<DraftMatch>) -> Option<Match> {
        let matches = given.map(|DraftMatch { subject, vm, host }| Match {
            subject: subject.map(Glob::new),
            vm: vm.map(Glob::new),
            host: host.map(Glob::new),
        });
        let matches = matches.filter(|matches| !matches.is_empty());
        if matches.is_none() {
            self.wrong(
                None,
                "`match` is missing: give at least one of subject, vm, host (`match: {subject: \"*\"}` for all)",
            );
        }
        matches
    }

    fn term(&mut self, created: Day, expires: Day) {
        if let Some(wrong) = wrong_term(created, expires) {
            self.wrong(None, &wrong);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::verdict::{WaiverFile, Waivers};

    const GOOD: &str = "schema: vmgate/waivers/v1
waivers:
  - rule: tcp-retransmission-budget
    match: {subject: '* -> 10.0.0.7:5432', vm: web*}
    owner: dba@example.org
    reason: the client reconnects
    ticket: OPS-1
    created: 2026-11-01
    expires: 2027-01-30
";

    fn problems(text: &str) -> Vec<String> {
        let error = Waivers::parse("w.yaml", text.as_bytes()).expect_err(text);
        error.problems.iter().map(|p| format!("{}: {}", p.line.unwrap_or(0), p.message)).collect()
    }

    #[test]
    fn a_good_file_loads_and_is_what_the_schema_type_reads() {
        let waivers = Waivers::parse("w.yaml", GOOD.as_bytes()).unwrap();
        let file: WaiverFile = serde_yaml::from_str(GOOD).unwrap();
        assert_eq!(waivers, file.waivers.into_iter().collect());
        assert_eq!(waivers.iter().next().unwrap().matches.to_string(), "subject * -> 10.0.0.7:5432, vm web*");
    }

    #[test]
    fn all_problems_are_shown_at_once_with_their_lines() {
        let text = "schema: vmgate/waivers/v1
waivers:
  - rule: a
    match: {}
    owner: ' '
    created: 2026-11-01
    expires: 2027-01-31
  - rule: b
    match: {vm: '*'}
    owner: me
    reason: so
    ticket: T-1
    created: 1.11.2026
    expires: 2026-10-01T00:00:00Z
  - rule: c
    match: {vm: '*'}
    owner: me
    reason: so
    ticket: T-1
    created: 2026-11-02
    expires: 2026-11-01
";
        assert_eq!(
            problems(text),
            [
                "5: a: `owner` is empty: say who answers for it",
                "3: a: `reason` is missing: say why it is safe",
                "3: a: `ticket` is missing: say where it was agreed",
                "3: a: `match` is missing: give at least one of subject, vm, host (`match: {subject: \"*\"}` for all)",
                "3: a: lasts 91 days; at most 90 are allowed: let it expire by 2027-01-30",
                "13: b: `created`: `1.11.2026` is not a day: expected year-month-day such as 2026-11-23",
                "14: b: `expires`: `2026-10-01T00:00:00Z` is not a day: expected year-month-day such as 2026-11-23",
                "15: c: expires 2026-11-01, before it was created (2026-11-02)",
            ]
        );
    }

    #[test]
    fn what_is_not_a_waiver_file_is_refused_with_a_reason() {
        for (text, part) in [
            ("", "it is empty"),
            ("waivers: []", "schema"),
            ("schema: vmgate/waivers/v2\nwaivers: []", "v2"),
            ("schema: vmgate/waivers/v1\nwaivers: [{rulle: a}]", "rulle"),
            ("schema: vmgate/waivers/v1\nwaivers: []\nwaivers: []", "duplicate"),
            ("a: [", ""),
            ("[]", ""),
            ("&a [*a, *a]", ""),
        ] {
            let found = problems(text);
            assert!(found.iter().any(|p| p.contains(part)), "{text:?} gave {found:?}");
        }
        let error = Waivers::parse("w.yaml", b"\xff\xfe").unwrap_err();
        assert_eq!(error.to_string(), "w.yaml is not a valid waiver file\n  it is not UTF-8 text");
        let bomb = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(Waivers::parse("w.yaml", bomb.as_bytes()).is_err());
    }

    #[test]
    fn a_file_with_a_byte_order_mark_loads() {
        assert!(Waivers::parse("w.yaml", format!("\u{feff}{GOOD}").as_bytes()).is_ok());
    }
}
