//! What has become different since the baseline, in the words that several formats share.

use super::words;
use vmgate_verdict::{ChangedValue, Effect, Finding, Since};

/// One finding that is new, changed or fixed.
pub(super) struct Entry<'a> {
    /// new, changed or fixed.
    pub(super) word: &'static str,
    /// The rule's id.
    pub(super) rule: &'a str,
    /// What was found, then what was found before and which values differ. From elsewhere: to be escaped.
    pub(super) lines: Vec<String>,
}

/// All of them: the new ones first.
pub(super) fn entries(since: &Since) -> Vec<Entry<'_>> {
    let new = since.new.iter().map(|finding| alone("new", finding));
    let fixed = since.fixed.iter().map(|finding| alone("fixed", finding));
    let changed = since.changed.iter().map(|changed| {
        let mut lines = vec![said(&changed.after)];
        if changed.before.message != changed.after.message {
            lines.push(format!("was: {}", changed.before.message));
        }
        if standing(&changed.before) != standing(&changed.after) {
            lines.push(format!("{}, was {}", standing(&changed.after), standing(&changed.before)));
        }
        lines.extend(changed.values.iter().map(value));
        Entry { word: "changed", rule: &changed.after.rule, lines }
    });
    new.chain(changed).chain(fixed).collect()
}

fn alone<'a>(word: &'static str, finding: &'a Finding) -> Entry<'a> {
    Entry { word, rule: &finding.rule, lines: vec![said(finding)] }
}

fn said(finding: &Finding) -> String {
    words::about(finding.subject.as_deref(), &finding.message)
}

/// Status and effect, such as `fail (block)`.
fn standing(finding: &Finding) -> String {
    let effect = finding.effect_now.map_or("waived", Effect::word);
    format!("{} ({effect})", finding.status.word())
}

fn value(value: &ChangedValue) -> String {
    let shown =
        |value: &Option<serde_json::Value>| value.as_ref().map_or("not used".to_owned(), ToString::to_string);
    format!("{}: {} -> {}", value.path, shown(&value.before), shown(&value.after))
}
