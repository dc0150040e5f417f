//! docs/faults.md: what the last run of each row has seen.

use std::{collections::BTreeMap, fs};

use super::{bench::Seen, rows::Row};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/faults.md");

/// The lines of the page, by the names of their rows.
pub(super) struct Page {
    lines: BTreeMap<String, String>,
}

impl Page {
    /// What is there; nothing where there is no page.
    pub(super) fn read() -> Self {
        let text = fs::read_to_string(FILE).unwrap_or_default();
        let named =
            |line: &str| Some((line.strip_prefix("| ")?.split(" | ").next()?.to_owned(), line.to_owned()));
        Self { lines: text.lines().filter_map(named).collect() }
    }

    pub(super) fn put(&mut self, row: &str, line: String) {
        self.lines.insert(row.to_owned(), line);
    }

    /// Whether the row ran, and all of it was as it must be.
    pub(super) fn is_right(&self, row: &str) -> bool {
        self.lines.get(row).is_some_and(|line| line.split(" | ").nth(1) == Some("yes"))
    }

    /// The table of all rows, and how many of them are right.
    pub(super) fn text(&self, rows: &[Row]) -> String {
        let line = |row: &Row| match self.lines.get(row.name) {
            Some(line) => line.clone(),
            None => format!("| {} | not run | | | | | | | | |", row.name),
        };
        let lines: Vec<String> = rows.iter().map(line).collect();
        let right = rows.iter().filter(|row| self.is_right(row.name)).count();
        format!(
            "{}\n{}\n\n{right} of {} faults leave the VM running once, intact, with its service up.\n",
            Seen::HEAD,
            lines.join("\n"),
            rows.len()
        )
    }

    pub(super) fn write(&self, rows: &[Row]) {
        fs::write(FILE, format!("{}\n{}", include_str!("head.md"), self.text(rows))).unwrap();
    }
}
