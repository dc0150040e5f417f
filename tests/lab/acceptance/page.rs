//! docs/acceptance.md: how often vmgate and libvirt agree, and every case in which they do not.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use super::results::{Came, Line, Said};

/// Name of a case for people.
pub(super) fn name(line: &Line) -> String {
    format!("{} → {}: {}: {}", line.from, line.to, line.id, line.words)
}

const HEAD: &str = "# When vmgate says GO, libvirt and QEMU take the move

Written by `make acceptance`, which makes domain configurations out of the elements of libvirt's schema: each element's models and
settings one at a time, obstacles at the destination, and seeded pairs of two. Each VM is started, `vmgate check` judges it, and then libvirt is
asked to migrate it, with the flags that vmgate itself uses. Hosts: a has QEMU 7.2 and libvirt 9.0, b QEMU 10.0 and libvirt 11.3, d
QEMU 11.1 and libvirt 12.9. The VMs are emulated and have no operating system.

What vmgate says is its verdict with these rules waived, which do not speak of what a hypervisor accepts: those of the guest's inside
(`memory-sync-survives-blackout` and the like), of its packets (`destination-network-mtu-fits`), of the forecast and the dark time, and `vm-is-running` (a paused VM can be moved; vmgate asks for one that
runs, as it measures it). *Unknown* is a NO-GO in which no rule is violated, but one that blocks could not be decided.
A configuration that its own host does not start is no case.

Where vmgate cannot tell, or shows `--allow-monitor` or `--trial` as the way out, it is asked again with both; *caught by asking only* counts the
refusals that only this, or the empty twin of the VM (`vmgate rehearse`), foretold. Of each VM that is refused at the end of the copy, the twin is
tried too.

One kind of *unknown* stays though libvirt accepts the move here. QEMU 10.0.13 (b) gives each virtio queue 1024 places, and QEMU 11.1 (d) refuses that at the
end of the copy. SeaBIOS, the only software of these VMs, sets up a virtio disk that it may boot from with 128 places, so that the VM moves; a
guest's own driver keeps the 1024, and is harmed. From outside both look alike, unless the guest's system answers or the VM is accelerated, which counts as
booted: `--allow-monitor` asks QEMU for the queues.
";

/// The page.
pub(super) fn page(lines: &[Line], planned: usize) -> String {
    let cases: Vec<&Line> = lines.iter().filter(|line| line.is_case()).collect();
    let mut page = HEAD.to_owned();
    let configurations: BTreeSet<&str> = cases.iter().map(|line| line.id.as_str()).collect();
    let topics: BTreeSet<&str> = cases.iter().map(|line| line.topic.as_str()).collect();
    let _ = writeln!(
        page,
        "\n{} configurations of {} topics, {} moves. The plan has {planned} moves, of which {} were begun; those that are no case did not \
         start.\n",
        configurations.len(),
        topics.len(),
        cases.len(),
        lines.len()
    );
    table(&mut page, &cases);
    let section = |page: &mut String, title: &str, empty: &str, wanted: &dyn Fn(&Line) -> bool| {
        let found: Vec<&Line> = cases.iter().filter(|line| wanted(line)).copied().collect();
        let _ = writeln!(page, "\n## {title}\n");
        if found.is_empty() {
            let _ = writeln!(page, "{empty}");
        }
        list(page, &found);
    };
    section(&mut page, "Said GO, and refused", "None.", &Line::go_and_refused);
    section(&mut page, "Said NO-GO, and accepted", "None.", &Line::no_go_and_accepted);
    section(&mut page, "Said unknown", "None.", &|line| line.said == Some(Said::Unknown));
    section(&mut page, "Caught by asking only", "None.", &Line::caught_by_asking);
    section(
        &mut page,
        "Refused at the end without a twin's warning",
        "None.",
        &Line::without_a_twins_warning,
    );
    remedied(&mut page, &cases);
    page
}

fn table(page: &mut String, cases: &[&Line]) {
    let mut rows: BTreeMap<String, Vec<&Line>> = BTreeMap::new();
    for line in cases {
        rows.entry(format!("{} → {}", line.from, line.to)).or_default().push(line);
    }
    rows.insert("~ all".to_owned(), cases.to_vec());
    page.push_str(
        "| move | cases | GO, accepted | NO-GO, refused | **GO, refused** | NO-GO, accepted | of these GO when asked | unknown, accepted | \
         of these GO when asked | unknown, refused | caught by asking only | refused at the end | of these without a twin's warning |\n\
         |---|---|---|---|---|---|---|---|---|---|---|---|---|\n",
    );
    for (row, lines) in rows {
        let count = |wanted: &dyn Fn(&Line) -> bool| lines.iter().filter(|line| wanted(line)).count();
        let part = |count: usize| {
            let tenths = (1000 * count + lines.len() / 2) / lines.len().max(1);
            format!("{count} ({}.{} %)", tenths / 10, tenths % 10)
        };
        let unknown = |line: &Line| line.said == Some(Said::Unknown);
        let _ = writeln!(
            page,
            "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
            row.trim_start_matches("~ "),
            lines.len(),
            count(&|line| line.said == Some(Said::Go) && line.came == Came::Accepted),
            count(&|line| line.said == Some(Said::NoGo) && line.refused()),
            part(count(&Line::go_and_refused)),
            part(count(&Line::no_go_and_accepted)),
            count(&|line| line.no_go_and_accepted() && line.asked == Some(Said::Go)),
            part(count(&|line| unknown(line) && line.came == Came::Accepted)),
            count(&|line| unknown(line) && line.came == Came::Accepted && line.asked == Some(Said::Go)),
            count(&|line| unknown(line) && line.refused()),
            count(&Line::caught_by_asking),
            count(&|line| line.came == Came::RefusedAtTheEnd),
            count(&Line::without_a_twins_warning),
        );
    }
}

/// Cases that have the same answers are one row.
fn list(page: &mut String, lines: &[&Line]) {
    if lines.is_empty() {
        return;
    }
    let mut rows: BTreeMap<(&str, String, String), BTreeSet<String>> = BTreeMap::new();
    for line in lines {
        let blocks: BTreeSet<String> = line
            .blocks
            .iter()
            .map(|block| match line.said {
                Some(Said::Unknown) => format!(
                    "`{}`: {} *Way out:* {}",
                    block.rule,
                    short(&block.message),
                    short(&block.way_out)
                ),
                _ => format!("`{}`: {}", block.rule, short(&block.message)),
            })
            .collect();
        let mut said = blocks.into_iter().collect::<Vec<_>>().join("<br>");
        if let Some(asked) = line.asked {
            let _ = write!(said, "<br>*Asked:* {}", word(asked));
        }
        rows.entry((&line.id, said, answer(line)))
            .or_default()
            .insert(format!("{} → {}", line.from, line.to));
    }
    page.push_str("| configuration | move | vmgate | libvirt |\n|---|---|---|---|\n");
    for ((id, said, came), moves) in rows {
        let said = if said.is_empty() { "GO".to_owned() } else { said };
        let moves = moves.into_iter().collect::<Vec<_>>().join(", ");
        let _ = writeln!(page, "| {} | {moves} | {} | {} |", cell(id), cell(&said), cell(&came));
    }
}

fn word(said: Said) -> &'static str {
    match said {
        Said::Go => "GO",
        Said::NoGo => "NO-GO",
        Said::Unknown => "unknown",
    }
}

fn answer(line: &Line) -> String {
    match line.came {
        Came::Accepted => "moved it".to_owned(),
        Came::RefusedAtTheEnd => format!("at the end: {}", short(&line.words)),
        _ => short(&line.words),
    }
}

/// Remedies of refused configurations, and what libvirt says to them.
fn remedied(page: &mut String, cases: &[&Line]) {
    let remedied: Vec<&Line> = cases.iter().filter(|line| line.id.ends_with("(remedied)")).copied().collect();
    page.push_str(
        "\n## Remedies\n\nConfigurations that are refused, after what the rule's remediation asks for.\n\n",
    );
    page.push_str("| configuration | move | vmgate | libvirt |\n|---|---|---|---|\n");
    for line in remedied {
        let said = line.said.map_or("", word);
        let _ = writeln!(
            page,
            "| {} | {} → {} | {said} | {} |",
            cell(&line.id),
            line.from,
            line.to,
            cell(&answer(line))
        );
    }
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('<', "&lt;").replace("&lt;br>", "<br>").replace('\n', " ")
}

/// The last error of libvirt, or a message, of bearable length.
fn short(text: &str) -> String {
    let text = text.rsplit_once("error: ").map_or(text, |(_, error)| error);
    text.chars().take(220).collect::<String>().trim().to_owned()
}
