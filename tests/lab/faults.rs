//! Faults on real migrations: at each phase, on either side. After each, the VM runs exactly once, its memory is intact, the
//! service that was stopped for the move is up, the exit code is right, and the next move works.
//!
//! One guest is moved to and fro, so that each row's next move is the way back. Prints a table, and writes it to
//! docs/faults.md if VMGATE_WRITE_FAULTS is set. VMGATE_FAULT=TEXT runs the rows whose name has that text.

#[path = "faults/bench.rs"]
mod bench;
#[path = "faults/rows.rs"]
mod rows;

use bench::{Bench, Seen};
use rows::{Row, rows};

#[test]
#[ignore = "needs the lab, and most of an hour: make faults"]
fn after_every_fault_the_vm_runs_exactly_once_and_nothing_is_lost() {
    let wanted = std::env::var("VMGATE_FAULT").unwrap_or_default();
    let chosen: Vec<Row> = rows().into_iter().filter(|row| row.name.contains(&wanted)).collect();
    assert!(!chosen.is_empty(), "no row has `{wanted}` in its name");
    let mut bench = Bench::new();
    let mut table = vec![Seen::HEAD.to_owned()];
    let mut failures = Vec::new();
    for row in &chosen {
        let seen = bench.run(row);
        eprintln!("{}", seen.line(row));
        table.push(seen.line(row));
        failures.extend(seen.complaints(row));
    }
    let good =
        chosen.len() - failures.iter().map(|(row, _)| *row).collect::<std::collections::BTreeSet<_>>().len();
    let total =
        format!("{good} of {} faults leave the VM running once, intact, with its service up.", chosen.len());
    let text = format!("{}\n\n{total}\n", table.join("\n"));
    println!("{text}");
    if std::env::var_os("VMGATE_WRITE_FAULTS").is_some() {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/faults.md");
        std::fs::write(page, format!("{}\n{text}", include_str!("faults/head.md"))).unwrap();
    }
    assert!(failures.is_empty(), "{failures:#?}");
}
