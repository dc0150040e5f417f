//! Documentation of rules in Markdown: the text of `vmgate rules show ID` and the rule reference in docs/.

use std::fmt::Write;

use vmgate_facts::Unit;
use vmgate_verdict::{Effect, Step};

use super::{Pack, Rule, SettledBy};

/// Columns of a page of the reference.
const PAGE: usize = 120;

/// Documentation of one rule, in Markdown with one line a paragraph. Each parameter is shown with its current value and the
/// origin of that value.
pub fn explain_rule(rule: &Rule) -> String {
    let mut text = format!("# {}\n\n", rule.id);
    body(&mut text, rule, "##", usize::MAX);
    text
}

/// Documentation of every rule, in Markdown, by step.
pub fn rules_reference(pack: &Pack) -> String {
    let mut text = String::from(
        "# Rules\n\nGenerated from the rules themselves: `vmgate rules show ID` prints the same. \
         How to write one: [writing-rules.md](writing-rules.md).\n",
    );
    for step in Step::all() {
        let rules: Vec<&Rule> = pack.rules().iter().filter(|rule| rule.step == step).collect();
        if rules.is_empty() {
            continue;
        }
        let _ = write!(text, "\n## {}\n\n", step_title(step));
        for rule in &rules {
            let _ = writeln!(text, "- [{}](#{}): {}", rule.id, rule.id, rule.title);
        }
        for rule in rules {
            let _ = write!(text, "\n### {}\n\n", rule.id);
            body(&mut text, rule, "####", PAGE);
        }
    }
    text
}

fn body(text: &mut String, rule: &Rule, heading: &str, width: usize) {
    let _ = writeln!(text, "**{}.**", rule.title);
    if let Some(why) = &rule.deprecated {
        let _ = write!(text, "\nDeprecated: {why}\n");
    }
    if rule.replaces.as_deref() == Some(&*rule.id) {
        let _ = write!(
            text,
            "\nThis rule replaces the shipped rule of the same id. It is read from {}.\n",
            rule.file
        );
    } else if let Some(replaced) = &rule.replaces {
        let _ = write!(
            text,
            "\nThis rule replaces the shipped rule {replaced}. It is read from {}.\n",
            rule.file
        );
    }
    let _ = write!(
        text,
        "\nStep {}, severity {}. A violation {}; missing evidence {}.{}{}{}\n",
        rule.step.word(),
        rule.severity.word(),
        effect_phrase(rule.effect),
        effect_phrase(rule.on_unknown),
        if rule.waivable { "" } else { " A violation cannot be waived." },
        rule.max_age_seconds.map_or_else(String::new, |age| format!(
            " Facts older than {} count as missing.",
            age_words(age)
        )),
        match rule.settled_by {
            Some(SettledBy::Trial) => {
                " A trial that both hosts accept (`vmgate check --trial`) settles what the facts leave unknown."
            }
            None => "",
        },
    );
    let _ = write!(text, "\n{heading} Why\n\n{}\n", paragraphs(&rule.rationale, width));
    let _ = write!(text, "\n{heading} What to do\n\n{}\n", paragraphs(&rule.remediation, width));
    let _ = write!(text, "\n{heading} What is checked\n\n```yaml\n{}```\n", expressions(rule));
    if !rule.params.is_empty() {
        let _ = write!(text, "\n{heading} Parameters\n\n");
        for param in &rule.params {
            let unit = match param.unit {
                Unit::Any | Unit::Count => String::new(),
                unit => format!(" ({unit})"),
            };
            let range = match (param.min, param.max) {
                (Some(min), Some(max)) => format!("{min} to {max}"),
                (Some(min), None) => format!("from {min}"),
                (None, Some(max)) => format!("to {max}"),
                (None, None) => param.ty().kind.to_string(),
            };
            let default = if param.value == param.default {
                String::new()
            } else {
                format!("; default {}", param.default)
            };
            let _ = writeln!(
                text,
                "- `{}` = {}{unit}: {}. From {}{default}; allowed: {range}.",
                param.name, param.value, param.help, param.origin,
            );
        }
    }
    if !rule.references.is_empty() {
        let _ = write!(text, "\n{heading} References\n\n");
        for reference in &rule.references {
            let _ = writeln!(text, "- [{}]({})", reference.title, reference.url);
        }
    }
    if !rule.tags.is_empty() {
        let _ = write!(text, "\nTags: {}\n", rule.tags.join(", "));
    }
}

/// Expressions of the rule, as YAML.
fn expressions(rule: &Rule) -> String {
    let texts = &rule.texts;
    let mut yaml = String::new();
    if let Some(when) = &texts.when {
        let _ = writeln!(yaml, "when: {}", indent(when));
    }
    for (section, pairs) in [("foreach", &texts.foreach), ("let", &texts.lets)] {
        if !pairs.is_empty() {
            let _ = writeln!(yaml, "{section}:");
        }
        for (name, expr) in pairs {
            let _ = writeln!(yaml, "  {name}: {}", indent(expr));
        }
    }
    let _ = writeln!(yaml, "assert: {}", indent(&texts.assert));
    yaml
}

fn indent(text: &str) -> String {
    text.lines().map(str::trim).collect::<Vec<_>>().join("\n    ")
}

/// Folded text, wrapped to lines of this width.
fn paragraphs(text: &str, most: usize) -> String {
    let mut page = String::new();
    for (index, paragraph) in text.split('\n').filter(|paragraph| !paragraph.trim().is_empty()).enumerate() {
        if index > 0 {
            page.push_str("\n\n");
        }
        let mut width = 0;
        for word in paragraph.split_whitespace() {
            let len = word.chars().count();
            if width > 0 && width + 1 + len > most {
                page.push('\n');
                width = 0;
            } else if width > 0 {
                page.push(' ');
                width += 1;
            }
            page.push_str(word);
            width += len;
        }
    }
    page
}

fn age_words(seconds: f64) -> String {
    match seconds {
        86_400.0 => "1 day".to_owned(),
        s if s % 86_400.0 == 0.0 => format!("{} days", s / 86_400.0),
        s if s % 3_600.0 == 0.0 => format!("{} h", s / 3_600.0),
        s if s % 60.0 == 0.0 => format!("{} min", s / 60.0),
        s => format!("{s} s"),
    }
}

fn effect_phrase(effect: Effect) -> &'static str {
    match effect {
        Effect::Note => "is noted",
        Effect::Warn => "warns",
        Effect::Block => "blocks",
    }
}

fn step_title(step: Step) -> &'static str {
    match step {
        Step::Prepare => "Prepare: the destination reserves memory and the path is set up",
        Step::Precopy => "Pre-copy: memory is copied while the guest runs",
        Step::Stop => "Stop: the guest is stopped",
        Step::Switch => "Switch: the remaining memory is sent during the blackout",
        Step::Resume => "Resume: the guest runs on the destination",
        Step::Policy => "Policy: what the organisation demands",
    }
}
