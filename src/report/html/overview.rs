//! Summary tables of `page.html` over all moves: waivers in force, and programs and rules behind the verdicts.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use vmgate_verdict::{AppliedWaiver, Verdict, waiver::Day};

use super::super::words;

/// A waiver in force, over all moves.
#[derive(Debug, Serialize, PartialEq, Eq)]
pub(super) struct Waiver<'a> {
    rule: &'a str,
    owner: &'a str,
    ticket: &'a str,
    reason: &'a str,
    until: String,
    /// Number of findings that the waiver applies to, in words.
    findings: String,
    moves: String,
}

/// Rules and program version behind some of the verdicts.
#[derive(Debug, Serialize, PartialEq, Eq)]
pub(super) struct Origin {
    tool: String,
    rules: String,
    moves: String,
}

/// The waivers in force, the earliest end first.
pub(super) fn waivers(verdicts: &[Verdict]) -> Vec<Waiver<'_>> {
    let mut lying: BTreeMap<_, (usize, BTreeSet<usize>)> = BTreeMap::new();
    for (number, verdict) in verdicts.iter().enumerate() {
        for judged in verdict.waived() {
            let Some(AppliedWaiver { owner, reason, ticket, until }) = &judged.waiver else { continue };
            let key = (*until, &*judged.outcome.rule, owner.as_str(), ticket.as_str(), reason.as_str());
            let (findings, moves) = lying.entry(key).or_default();
            *findings += 1;
            moves.insert(number);
        }
    }
    let row = |((until, rule, owner, ticket, reason), (findings, moves)): (
        (Day, _, _, _, _),
        (usize, BTreeSet<usize>),
    )| Waiver {
        rule,
        owner,
        ticket,
        reason,
        until: until.to_string(),
        findings: words::number(findings, "finding"),
        moves: words::number(moves.len(), "move"),
    };
    lying.into_iter().map(row).collect()
}

/// Rules and program versions behind the verdicts: one row if all verdicts have the same.
pub(super) fn origins(verdicts: &[Verdict]) -> Vec<Origin> {
    let mut counts: BTreeMap<(String, String), usize> = BTreeMap::new();
    for verdict in verdicts {
        let tool = format!("{} {}", verdict.tool.name, verdict.tool.version);
        let rules =
            verdict.digests.rules.map_or_else(|| "not stated".to_owned(), |digest| digest.to_string());
        *counts.entry((tool, rules)).or_default() += 1;
    }
    let origin = |((tool, rules), moves)| Origin { tool, rules, moves: words::number(moves, "move") };
    counts.into_iter().map(origin).collect()
}

#[cfg(test)]
mod tests {
    use vmgate_verdict::sample;

    use super::*;

    #[test]
    fn a_waiver_is_one_line_for_all_moves_it_lies_on() {
        let verdicts = [sample::no_go(), sample::go(), sample::no_go()];
        let waivers = waivers(&verdicts);
        assert_eq!(waivers.len(), 1);
        assert_eq!((waivers[0].findings.as_str(), waivers[0].moves.as_str()), ("2 findings", "2 moves"));
        assert_eq!((waivers[0].owner, waivers[0].until.as_str()), ("dba@example.org", "2026-11-30"));
    }

    #[test]
    fn verdicts_of_other_rules_are_told_apart() {
        let mut other = sample::go();
        other.digests.rules = None;
        let origins = origins(&[sample::go(), other, sample::no_go()]);
        let moves: Vec<_> = origins.iter().map(|origin| origin.moves.as_str()).collect();
        assert_eq!(moves, ["1 move", "2 moves"]);
    }
}
