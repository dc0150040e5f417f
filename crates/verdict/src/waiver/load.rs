//! Reads a waiver file and reports all its problems together.

use std::{path::Path, sync::Arc};

use vmgate_documents::{LARGEST_BYTES, Node, Problem, Problems, Shape, SourceFile};

use super::{Day, MAX_DAYS, Waiver, WaiverFile};

static WAIVERS: Shape<WaiverFile> = Shape::new();

pub(super) fn read(path: &Path) -> Result<Vec<Waiver>, Problems> {
    waivers(&SourceFile::read_trusted(path, LARGEST_BYTES)?)
}

pub(super) fn parse(name: &str, bytes: &[u8]) -> Result<Vec<Waiver>, Problems> {
    waivers(&SourceFile::new(name, bytes)?)
}

fn waivers(file: &Arc<SourceFile>) -> Result<Vec<Waiver>, Problems> {
    let each = |root: &Node| {
        let waivers = root.get("waivers").map(Node::items).unwrap_or_default();
        waivers.iter().flat_map(|waiver| problems(file, waiver)).collect()
    };
    let (document, _) = WAIVERS.read(file, each)?;
    Ok(document.waivers)
}

/// Problems of one waiver beyond its shape: an empty text, no matcher, a term that is not allowed.
pub fn problems(file: &Arc<SourceFile>, waiver: &Node) -> Vec<Problem> {
    let problem = |node: &Node, message: String, label: &str, help: &str| {
        Problem::at(file, node.span.clone(), message).label(label).help(help)
    };
    let mut found = Vec::new();
    for (field, meaning) in [
        ("rule", "the id of the rule that is waived"),
        ("owner", "who is responsible for the waiver"),
        ("reason", "why the waiver is safe"),
        ("ticket", "the ticket in which the waiver was agreed"),
    ] {
        if let Some(node) = waiver.get(field)
            && node.text().is_some_and(|text| text.trim().is_empty())
        {
            found.push(problem(node, format!("`{field}` is empty"), "empty", &format!("write {meaning}")));
        }
    }
    if let Some(matches) = waiver.get("match")
        && matches.entries().iter().all(|(_, value)| value.to_json().is_null())
    {
        let help = "give at least one of subject, vm, host: `match: {subject: \"*\"}` matches all findings of the rule";
        found.push(problem(matches, "`match` is empty".to_owned(), "matches nothing", help));
    }
    let day = |field: &str| waiver.get(field)?.text()?.parse::<Day>().ok();
    if let (Some(created), Some(expires), Some(node)) =
        (day("created"), day("expires"), waiver.get("expires"))
    {
        let days = expires.days_after(created);
        if days < 0 {
            let message = format!("the waiver expires before it was created ({created})");
            found.push(problem(
                node,
                message,
                "before the first day",
                "swap the two days, or correct the year",
            ));
        } else if days > MAX_DAYS {
            let message = format!("the waiver lasts {days} days; at most {MAX_DAYS} are allowed");
            let help = format!(
                "set `expires` to {} or earlier; to change the result for longer, change the rule",
                created.plus(MAX_DAYS)
            );
            found.push(problem(node, message, "too late", &help));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use crate::{WaiverFile, Waivers};

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

    /// Line and message of every problem.
    fn problems(text: &str) -> Vec<(usize, String)> {
        let errors = Waivers::parse("w.yaml", text.as_bytes()).expect_err(text);
        let line = |problem: &vmgate_documents::Problem| problem.position().map_or(0, |(line, _)| line);
        errors.problems.iter().map(|problem| (line(problem), problem.message().to_owned())).collect()
    }

    #[test]
    fn a_good_file_loads_and_is_what_the_schema_type_reads() {
        let waivers = Waivers::parse("w.yaml", GOOD.as_bytes()).unwrap();
        let file: WaiverFile = serde_yaml::from_str(GOOD).unwrap();
        assert_eq!(waivers, file.waivers.into_iter().collect());
        assert_eq!(waivers.iter().next().unwrap().matches.to_string(), "subject * -> 10.0.0.7:5432, vm web*");
    }

    #[test]
    fn all_problems_are_shown_at_once_with_their_places() {
        let text = "schema: vmgate/waivers/v1
waivers:
  - rule: a
    match: {}
    owner: ' '
    created: 2026-11-01
    expires: 2027-01-31
  - rule: b
    match: {vm: '*', vn: x}
    owner: me
    owner: you
    reason: so
    ticket: 17
    created: 1.11.2026
    expires: 2026-10-01T00:00:00Z
  - rule: c
    match: {vm: null}
    owner: me
    reason: so
    ticket: T-1
    created: 2026-11-02
    expires: 2026-11-01
";
        let told: Vec<(usize, String)> = [
            (3, "`waivers[0]`: `reason` is missing"),
            (3, "`waivers[0]`: `ticket` is missing"),
            (4, "`match` is empty"),
            (5, "`owner` is empty"),
            (7, "the waiver lasts 91 days; at most 90 are allowed"),
            (9, "`waivers[1].match.vn`: there is no such field"),
            (11, "the key `owner` is given twice"),
            (13, "`waivers[1].ticket`: expected a text, found the number 17"),
            (14, "`waivers[1].created`: `1.11.2026` is not a day: expected year-month-day such as 2026-11-23"),
            (
                15,
                "`waivers[1].expires`: `2026-10-01T00:00:00Z` is not a day: expected year-month-day such as 2026-11-23",
            ),
            (17, "`match` is empty"),
            (22, "the waiver expires before it was created (2026-11-02)"),
        ]
        .map(|(line, message)| (line, message.to_owned()))
        .into();
        assert_eq!(problems(text), told);
    }

    #[test]
    fn a_problem_looks_like_one_of_the_compiler() {
        let text = GOOD.replace("2027-01-30", "2027-03-30");
        let shown = Waivers::parse("w.yaml", text.as_bytes()).unwrap_err().to_string();
        let expected = "error: the waiver lasts 149 days; at most 90 are allowed
 --> w.yaml:9:14
  |
9 |     expires: 2027-03-30
  |              ^^^^^^^^^^ too late
  |
  = help: set `expires` to 2027-01-30 or earlier; to change the result for longer, change the rule

1 problem";
        assert_eq!(shown, expected);
    }

    #[test]
    fn what_is_not_a_waiver_file_is_refused_with_a_reason() {
        for (text, part) in [
            ("", "is empty"),
            ("waivers: []", "`schema` is missing"),
            ("schema: vmgate/waivers/v2\nwaivers: []", "v2"),
            ("schema: vmgate/waivers/v1\nwaivers: [{rulle: a}]", "rulle"),
            ("schema: vmgate/waivers/v1\nwaivers: []\nwaivers: []", "given twice"),
            ("a: [", "not YAML"),
            ("[]", "expected a mapping with `schema`, `waivers`, found a list"),
            ("&a [*a, *a]", "anchors"),
            ("\u{feff}a: b", "byte order mark"),
            (&"[".repeat(100_000), "nested too deeply"),
        ] {
            let found = problems(text);
            assert!(found.iter().any(|(_, message)| message.contains(part)), "{text:?} gave {found:?}");
        }
        let error = Waivers::parse("w.yaml", b"\xff\xfe").unwrap_err();
        assert!(error.to_string().contains("w.yaml: is not UTF-8: byte 0 is wrong"), "{error}");
    }
}
