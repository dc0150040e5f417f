//! Markdown of GitHub and GitLab, as a comment for a merge request: the decision first, the rest folded.
//!
//! Text from elsewhere is escaped so that it cannot become a link, an image, a mention, markup or a table cell of
//! its own: Markdown in a guest's name is shown as plain text.

use std::{
    fmt::Write as _,
    io::{self, Write},
};

use vmgate_verdict::{Alternative, Decision, Effect, ExitCode, UnknownGroup, Verdict};

use super::{
    Style,
    baseline::{BaselineEntry, baseline_entries},
    by_rule::{RuleGroup, by_rule, violations},
    visible, waiver_problems, words,
};

/// Most findings of one rule that are listed; comments have a limit of 65,536 characters on GitHub.
const SHOWN: usize = 10;

pub(super) fn write(verdicts: &[Verdict], sink: &mut dyn Write, style: &Style) -> io::Result<()> {
    let mut sink = io::BufWriter::new(sink);
    if verdicts.len() != 1 {
        overview(verdicts, &mut sink)?;
    }
    for verdict in verdicts {
        one(verdict, verdicts.len() == 1, &mut sink, style)?;
    }
    sink.flush()
}

/// `text` escaped for Markdown, on one line.
pub(super) fn escaped(text: &str) -> String {
    let text = visible(text);
    let mut out = String::with_capacity(text.len() + 8);
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let numbered = digits > 0 && text.get(digits..).is_some_and(|rest| rest == "." || rest.starts_with(". "));
    for (position, character) in text.char_indices() {
        match character {
            // At the beginning of a list's item these would begin a list or a rule of their own.
            '-' | '+' | '=' if position == 0 => {
                out.push('\\');
                out.push(character);
            }
            '.' if numbered && position == digits => out.push_str("\\."),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            // Mentions, issue numbers and bare addresses are found after Markdown's own escapes are resolved: an
            // empty comment between the characters breaks them and shows nothing.
            '@' => out.push_str("@<!-- -->"),
            '#' => out.push_str("#<!-- -->"),
            '\\' | '`' | '*' | '_' | '{' | '}' | '[' | ']' | '(' | ')' | '!' | '|' | '~' | '$' => {
                out.push('\\');
                out.push(character);
            }
            _ => out.push(character),
        }
    }
    out.replace("://", ":<!-- -->//").replace("www.", "www<!-- -->.")
}

fn symbol(verdict: &Verdict) -> &'static str {
    match verdict.decision {
        Decision::Go(_) if verdict.counts.warnings > 0 => "🟡",
        Decision::Go(_) => "🟢",
        Decision::NoGo(_) => "🔴",
    }
}

fn overview(verdicts: &[Verdict], sink: &mut dyn Write) -> io::Result<()> {
    let go = verdicts.iter().filter(|verdict| matches!(verdict.decision, Decision::Go(_))).count();
    let count = words::number(verdicts.len(), "move");
    writeln!(sink, "## {count}: {go} GO, {} NO-GO\n", verdicts.len() - go)?;
    let code = ExitCode::of_all(verdicts);
    writeln!(sink, "Exit code {}: {}.\n", code.code(), code.meaning())?;
    if verdicts.is_empty() {
        return Ok(());
    }
    writeln!(sink, "| | VM | from | to | why |\n|---|---|---|---|---|")?;
    for verdict in verdicts {
        let moved = &verdict.moved;
        let names = [&moved.vm, &moved.source, &moved.destination].map(|named| escaped(named.label()));
        let word = verdict.decision.word();
        writeln!(
            sink,
            "| {} {word} | {} | {} |",
            symbol(verdict),
            names.join(" | "),
            words::reason(verdict)
        )?;
    }
    writeln!(sink)
}

fn one(verdict: &Verdict, alone: bool, sink: &mut dyn Write, style: &Style) -> io::Result<()> {
    let level = if alone { "##" } else { "###" };
    let word = verdict.decision.word();
    writeln!(sink, "{level} {} {word} {}\n", symbol(verdict), escaped(&words::movement(verdict)))?;
    let (at, until) = (words::time(verdict.evaluated_at), words::time(verdict.expires_at));
    writeln!(
        sink,
        "{}. Evaluated {at}, valid until {until}.\n",
        words::upper_first(&words::reason(verdict))
    )?;
    for line in words::basis(verdict) {
        writeln!(sink, "{}.\n", words::upper_first(&escaped(&line)))?;
    }
    for (effect, title) in
        [(Effect::Block, "What blocks"), (Effect::Warn, "Warnings"), (Effect::Note, "Notes")]
    {
        let mut items: Vec<String> =
            violations(verdict, effect).iter().map(|g| violation(g, style)).collect();
        items.extend(verdict.unknown.iter().filter(|group| group.effect == effect).map(missing));
        section(title, &items, effect != Effect::Block, sink)?;
    }
    let others: Vec<String> = verdict.alternatives.iter().map(alternative).collect();
    section("Other destinations", &others, true, sink)?;
    if let Some(since) = &verdict.since {
        let items: Vec<String> = baseline_entries(since).iter().map(trend).collect();
        section(&words::upper_first(&words::since(since)), &items, true, sink)?;
    }
    section("Waived", &waived(verdict), true, sink)?;
    section("Waivers with problems", &problems(verdict), true, sink)?;
    footer(verdict, sink)
}

fn section(title: &str, items: &[String], folded: bool, sink: &mut dyn Write) -> io::Result<()> {
    if items.is_empty() {
        return Ok(());
    }
    let items = items.concat();
    if folded {
        writeln!(sink, "<details><summary>{title}</summary>\n\n{items}\n</details>\n")
    } else {
        writeln!(sink, "**{title}**\n\n{items}")
    }
}

fn violation(group: &RuleGroup<'_>, style: &Style) -> String {
    let first = &group.first.outcome;
    let kind = format!("{}, {}", first.severity.word(), first.step.word());
    let mut item = format!("- **{}** ({kind}): {}\n", escaped(&first.rule), escaped(&first.title));
    let shown = if style.verbose { group.all.len() } else { SHOWN };
    for judged in group.all.iter().take(shown) {
        let _ = writeln!(item, "  - {}", escaped(&words::finding(&judged.outcome)));
    }
    if group.all.len() > shown {
        let _ = writeln!(item, "  - … and {} more", group.all.len() - shown);
    }
    for remediation in group.remediations() {
        let _ = writeln!(item, "  - *Fix:* {}", escaped(remediation));
    }
    item
}

fn alternative(other: &Alternative) -> String {
    let mut item = format!("- {}: **{}**\n", other.decision.word(), escaped(&words::alternative(other)));
    for reason in other.reasons.iter().take(SHOWN) {
        let _ = writeln!(item, "  - {}", escaped(reason));
    }
    item
}

fn trend(entry: &BaselineEntry<'_>) -> String {
    let mut item = format!("- {}: **{}**\n", entry.word, escaped(entry.rule));
    for line in &entry.lines {
        let _ = writeln!(item, "  - {}", escaped(line));
    }
    item
}

fn missing(group: &UnknownGroup) -> String {
    let rules = words::number(group.rules.len(), "rule");
    let mut item = format!("- **{}**: {rules} cannot be decided", words::cause(group.cause));
    let _ = writeln!(item, " ({})", escaped(&group.rules.join(", ")));
    for reason in group.reasons.iter().take(SHOWN) {
        let _ = writeln!(item, "  - {}", escaped(reason));
    }
    let _ = writeln!(item, "  - *Way out:* {}", escaped(&group.way_out));
    item
}

fn waived(verdict: &Verdict) -> Vec<String> {
    let mut items = Vec::new();
    for group in by_rule(verdict.waived()) {
        let mut item = format!("- **{}**\n", escaped(&group.first.outcome.rule));
        for judged in &group.all {
            let _ = write!(item, "  - {}", escaped(&words::finding(&judged.outcome)));
            if let Some(waiver) = &judged.waiver {
                let by = format!(
                    "{} ({}), until {}: {}",
                    waiver.owner, waiver.ticket, waiver.until, waiver.reason
                );
                let _ = write!(item, ": waived by {}", escaped(&by));
            }
            item.push('\n');
        }
        items.push(item);
    }
    items
}

fn problems(verdict: &Verdict) -> Vec<String> {
    let problems = waiver_problems(std::slice::from_ref(verdict));
    let item = |problem: &&vmgate_verdict::WaiverProblem| {
        let about = format!("{}; {}, {}", problem.matches, problem.owner, problem.ticket);
        format!("- **{}** ({}): {}\n", escaped(&problem.rule), escaped(&about), escaped(&problem.message))
    };
    problems.iter().map(item).collect()
}

fn footer(verdict: &Verdict, sink: &mut dyn Write) -> io::Result<()> {
    let counts = verdict.counts;
    let tool = &verdict.tool;
    write!(sink, "{} passed, {} not applicable. ", counts.pass, counts.not_applicable)?;
    write!(sink, "{} {}", escaped(&tool.name), escaped(&tool.version))?;
    let digests = &verdict.digests;
    for (name, digest) in [
        ("facts", digests.facts),
        ("rules", digests.rules),
        ("waivers", digests.waivers),
        ("change", digests.change),
    ] {
        if let Some(digest) = digest {
            write!(sink, ", {name} `{}`", digest.hex().get(..12).unwrap_or_default())?;
        }
    }
    writeln!(sink, ".\n")
}

#[cfg(test)]
mod tests {
    use vmgate_verdict::sample;

    use super::*;

    #[test]
    fn what_looks_like_markdown_is_shown_as_it_was_written() {
        for (text, shown) in [
            ("[x](javascript:alert(1))", r"\[x\]\(javascript:alert\(1\)\)"),
            ("<img src=x onerror=y>", "&lt;img src=x onerror=y&gt;"),
            ("@everyone fixes #1", "@<!-- -->everyone fixes #<!-- -->1"),
            ("a|b\n| c |", r"a\|b \| c \|"),
            ("`x` *b* _i_ ![i] $x$ ~~s~~", r"\`x\` \*b\* \_i\_ \!\[i\] \$x\$ \~\~s\~\~"),
            ("http://evil www.evil", "http:<!-- -->//evil www<!-- -->.evil"),
            ("- a", r"\- a"),
            ("1. a", r"1\. a"),
            ("10.0.0.5", "10.0.0.5"),
            ("&lt;script&gt;", "&amp;lt;script&amp;gt;"),
            ("\u{202e}x\u{1b}[0m", r"\\u\{202e\}x\\u\{1b\}\[0m"),
        ] {
            assert_eq!(escaped(text), shown);
        }
    }

    #[test]
    fn nothing_from_a_guest_begins_a_line() {
        let mut verdict = sample::no_go();
        for judged in &mut verdict.outcomes {
            judged.outcome.message = "x\n# HEADING\n- item\n</details>".into();
            judged.outcome.remediation = Some("y\n\n1. z\n---".into());
        }
        let mut out = Vec::new();
        write(&[verdict], &mut out, &Style::default()).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(
            !text.lines().any(|line| line.starts_with("# ") || line.starts_with("- item") || line == "---")
        );
        assert_eq!(text.matches("<details>").count(), text.matches("</details>").count());
    }
}
