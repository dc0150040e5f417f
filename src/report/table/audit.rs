//! The audit for a terminal: host by host, the possible destinations of each VM and the reasons against the others.

use std::{
    collections::BTreeMap,
    io::{self, Write},
};

use super::{
    super::{Style, style::Paint, visible, words},
    grid::{Grid, Line, Row},
};
use crate::audit::{Audit, AuditedDestination, AuditedVm, MoveAnswer, RuleViolation};

/// Most reasons for one missing fact that are shown.
const SHOWN: usize = 3;

pub(in crate::report) fn write(audit: &Audit, sink: &mut dyn Write, style: &Style) -> io::Result<()> {
    let mut sink = io::BufWriter::new(sink);
    summary(audit, &mut sink, style)?;
    first(audit, &mut sink, style)?;
    since(audit, &mut sink, style)?;
    for host in &audit.hosts {
        let mut grid = Grid::new(style);
        // VMs with the same text share a row: on most hosts nearly all VMs do.
        let mut groups: Vec<(Vec<String>, bool, Vec<&str>)> = Vec::new();
        for vm in audit.vms.iter().filter(|vm| vm.host == host.name) {
            let (said, can_move) = (destination_lines(vm, style), vm.can_move());
            match groups.iter_mut().find(|(lines, can, _)| (lines, *can) == (&said, can_move)) {
                Some((.., names)) => names.push(&vm.name),
                None => groups.push((said, can_move, vec![&vm.name])),
            }
        }
        for (said, can_move, names) in groups {
            grid.push(row(said, can_move, &names));
        }
        if let Some(why) = &host.lost {
            let lines = vec![Line::plain(visible(why).into_owned())];
            grid.push(Row { key: "not reached".to_owned(), paint: Some(Paint::Bad), lines });
        }
        let idle = if host.idle > 0 { format!(", {} only defined", host.idle) } else { String::new() };
        let title = format!("{}: {} running{idle}", visible(&host.name), host.running);
        grid.write(&title, &mut sink)?;
    }
    undecided(audit, &mut sink, style)?;
    sink.flush()
}

fn summary(audit: &Audit, sink: &mut dyn Write, style: &Style) -> io::Result<()> {
    let stuck = audit.vms.iter().filter(|vm| !vm.can_move()).count();
    let lost = audit.hosts.iter().filter(|host| host.lost.is_some()).count();
    let text = match (audit.vms.len(), stuck) {
        (0, _) if lost > 0 => "No VM was seen.".to_owned(),
        (0, _) => "No VM runs on these hosts.".to_owned(),
        (all, 0) => format!("Each of the {all} VMs has a possible destination."),
        (all, stuck) => format!("{stuck} of {all} VMs have no certain destination."),
    };
    if audit.simulated {
        writeln!(sink, "Simulated for {}: no move is permitted by it.", words::time(audit.evaluated_at))?;
    }
    let paint = if stuck == 0 && lost == 0 { Paint::Good } else { Paint::Bad };
    writeln!(sink, "{}", style.paint(paint, &text))?;
    if lost > 0 {
        let lost = format!("{lost} of {} hosts did not answer: their VMs are not known.", audit.hosts.len());
        writeln!(sink, "{}", style.paint(Paint::Bad, &lost))?;
    }
    Ok(())
}

fn first(audit: &Audit, sink: &mut dyn Write, style: &Style) -> io::Result<()> {
    let mut grid = Grid::new(style);
    for step in &audit.first {
        let gained = match step.frees {
            0 => String::new(),
            frees => format!("; without this finding, {} could move there", words::number(frees, "stuck VM")),
        };
        let kept = words::number(step.blocks, "VM");
        let mut lines = vec![
            Line::plain(format!("{} stops {kept} from moving here{gained}", step.rule)),
            Line::plain(visible(&step.message)),
        ];
        for (position, text) in step.remediation.iter().flat_map(|text| text.trim_end().lines()).enumerate() {
            lines.push(Line::after(if position == 0 { "Fix: " } else { "     " }, visible(text)));
        }
        let paint = (step.frees > 0).then_some(Paint::Bad);
        grid.push(Row { key: visible(&step.host).into_owned(), paint, lines });
    }
    grid.write("What to do first", sink)
}

fn since(audit: &Audit, sink: &mut dyn Write, style: &Style) -> io::Result<()> {
    let Some(since) = &audit.since else { return Ok(()) };
    let mut grid = Grid::new(style);
    for (word, obstacles) in [("new", &since.new), ("fixed", &since.fixed)] {
        for obstacle in obstacles {
            let (vm, host) = (visible(&obstacle.vm), visible(&obstacle.destination));
            let key = (obstacle.rule.as_str(), obstacle.subject.as_deref(), obstacle.message.as_str());
            let lines = vec![Line::plain(format!("{vm} to {host}: {}", reason_text(key)))];
            grid.push(Row { key: word.to_owned(), paint: (word == "new").then_some(Paint::Bad), lines });
        }
    }
    for vm in &since.gone {
        let lines = vec![Line::plain(format!("{} no longer runs on any of these hosts", visible(vm)))];
        grid.push(Row { key: "gone".to_owned(), paint: None, lines });
    }
    let (new, fixed, unchanged) = (since.new.len(), since.fixed.len(), since.unchanged);
    let at = words::time(since.evaluated_at);
    grid.write(&format!("Since {at}: {new} new, {fixed} fixed, {unchanged} unchanged"), sink)
}

/// Lines on a VM's destinations: possible ones, refused ones, undecided ones.
fn destination_lines(vm: &AuditedVm, style: &Style) -> Vec<String> {
    let hosts_with = |answer| {
        let hosts = vm.destinations.iter().filter(move |destination| destination.answer == answer);
        hosts.map(|destination| visible(&destination.host).into_owned()).collect::<Vec<_>>().join(", ")
    };
    let mut lines = Vec::new();
    let yes = hosts_with(MoveAnswer::Yes);
    if !yes.is_empty() {
        lines.push(format!("can move to {yes}"));
    }
    for (reason, hosts) in by_reason(vm, |destination| &destination.because) {
        lines.push(format!("cannot move to {}: {}", hosts.join(", "), reason_text(reason)));
    }
    for destination in vm.destinations.iter().filter(|d| d.answer == MoveAnswer::Undecided) {
        let host = visible(&destination.host);
        let rules = words::number(destination.undecided.len(), "rule");
        let which =
            if style.verbose { format!(": {}", destination.undecided.join(", ")) } else { String::new() };
        lines.push(format!("move to {host} not decided: {rules} without evidence{which}"));
    }
    if style.verbose {
        for (reason, hosts) in by_reason(vm, |destination| &destination.warnings) {
            lines.push(format!("warning, {}: {}", hosts.join(", "), reason_text(reason)));
        }
    }
    if vm.destinations.is_empty() {
        lines.push("no other host was given".to_owned());
    }
    lines
}

/// The row of one VM, or of several VMs with the same text.
fn row(said: Vec<String>, can_move: bool, names: &[&str]) -> Row {
    let (key, names) = match names {
        [name] => (visible(name).into_owned(), None),
        several => {
            let listed: Vec<_> = several.iter().map(|name| visible(name)).collect();
            (words::number(several.len(), "VM"), Some(listed.join(", ")))
        }
    };
    let lines = names.into_iter().chain(said).map(Line::plain).collect();
    Row { key, paint: (!can_move).then_some(Paint::Bad), lines }
}

/// Reasons, each with all hosts that the reason applies to.
fn by_reason<'a>(
    vm: &'a AuditedVm,
    reasons: impl Fn(&'a AuditedDestination) -> &'a Vec<RuleViolation>,
) -> BTreeMap<(&'a str, Option<&'a str>, &'a str), Vec<String>> {
    let mut grouped: BTreeMap<_, Vec<String>> = BTreeMap::new();
    for destination in &vm.destinations {
        for reason in reasons(destination) {
            let key = (reason.rule.as_str(), reason.subject.as_deref(), reason.message.as_str());
            grouped.entry(key).or_default().push(visible(&destination.host).into_owned());
        }
    }
    grouped
}

fn reason_text((rule, subject, message): (&str, Option<&str>, &str)) -> String {
    let subject = subject.map_or(String::new(), |subject| format!(" [{}]", visible(subject)));
    format!("{rule}{subject}: {}", visible(message))
}

fn undecided(audit: &Audit, sink: &mut dyn Write, style: &Style) -> io::Result<()> {
    let mut grid = Grid::new(style);
    for group in &audit.undecided {
        let mut lines = vec![Line::plain(format!("{} rules lack evidence", group.rules.len()))];
        let shown = if style.verbose { usize::MAX } else { SHOWN };
        lines
            .extend(group.reasons.iter().take(shown).map(|reason| Line::plain(visible(reason).into_owned())));
        if group.reasons.len() > shown {
            lines.push(Line::plain(format!("and {} more", group.reasons.len().saturating_sub(shown))));
        }
        lines.push(Line::after("Fix: ", group.way_out.clone()));
        let paint = (!group.by_design).then_some(Paint::Warning);
        grid.push(Row { key: words::cause(Some(group.cause)).to_owned(), paint, lines });
    }
    grid.write("Not decided", sink)
}
