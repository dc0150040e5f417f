//! Changes since the baseline, in the words that several formats share.

use vmgate_verdict::{BaselineComparison, ChangedValue, Effect, Finding};

use super::words;

/// One finding that is new, changed or fixed.
pub(super) struct BaselineEntry<'a> {
    /// new, changed or fixed.
    pub(super) word: &'static str,
    /// The rule's id.
    pub(super) rule: &'a str,
    /// The message now, then the earlier message and the values that differ. From guests and hosts: to be escaped.
    pub(super) lines: Vec<String>,
}

/// All changes since the baseline: new findings, then changed ones, then fixed ones.
pub(super) fn baseline_entries(since: &BaselineComparison) -> Vec<BaselineEntry<'_>> {
    let new = since.new.iter().map(|finding| single_line("new", finding));
    let fixed = since.fixed.iter().map(|finding| single_line("fixed", finding));
    let changed = since.changed.iter().map(|changed| {
        let mut lines = vec![finding_text(&changed.after)];
        if changed.before.message != changed.after.message {
            lines.push(format!("was: {}", changed.before.message));
        }
        if status_and_effect(&changed.before) != status_and_effect(&changed.after) {
            lines.push(format!(
                "{}, was {}",
                status_and_effect(&changed.after),
                status_and_effect(&changed.before)
            ));
        }
        lines.extend(changed.values.iter().map(value));
        BaselineEntry { word: "changed", rule: &changed.after.rule, lines }
    });
    new.chain(changed).chain(fixed).collect()
}

fn single_line<'a>(word: &'static str, finding: &'a Finding) -> BaselineEntry<'a> {
    BaselineEntry { word, rule: &finding.rule, lines: vec![finding_text(finding)] }
}

fn finding_text(finding: &Finding) -> String {
    words::about(finding.subject.as_deref(), &finding.message)
}

/// Status and effect, such as `fail (block)`.
fn status_and_effect(finding: &Finding) -> String {
    let effect = finding.effect_now.map_or("waived", Effect::word);
    format!("{} ({effect})", finding.status.word())
}

fn value(value: &ChangedValue) -> String {
    let shown =
        |value: &Option<serde_json::Value>| value.as_ref().map_or("not used".to_owned(), ToString::to_string);
    format!("{}: {} -> {}", value.path, shown(&value.before), shown(&value.after))
}
