//! Page of faults: the result of the last run of each row.

use std::{collections::BTreeMap, fs};

/// The lines of the page, by the names of their rows.
pub(crate) struct Page {
    file: &'static str,
    lines: BTreeMap<String, String>,
}

impl Page {
    /// Reads the page; empty if there is none.
    pub(crate) fn read(file: &'static str) -> Self {
        let text = fs::read_to_string(file).unwrap_or_default();
        let named =
            |line: &str| Some((line.strip_prefix("| ")?.split(" | ").next()?.to_owned(), line.to_owned()));
        Self { file, lines: text.lines().filter_map(named).collect() }
    }

    pub(crate) fn put(&mut self, row: &str, line: String) {
        self.lines.insert(row.to_owned(), line);
    }

    /// True if the row ran and everything was as expected.
    pub(crate) fn is_right(&self, row: &str) -> bool {
        self.lines.get(row).is_some_and(|line| line.split(" | ").nth(1) == Some("yes"))
    }

    /// The table of these rows, and the number of rows with the expected `end`.
    pub(crate) fn text(&self, columns: &str, rows: &[&str], end: &str) -> String {
        let line = |row: &&str| match self.lines.get(*row) {
            Some(line) => line.clone(),
            None => format!(
                "| {row} | not run |{}",
                " |".repeat(columns.lines().next().unwrap_or_default().matches('|').count() - 3)
            ),
        };
        let lines: Vec<String> = rows.iter().map(line).collect();
        let right = rows.iter().filter(|row| self.is_right(row)).count();
        format!("{columns}\n{}\n\n{right} of {} faults {end}\n", lines.join("\n"), rows.len())
    }

    pub(crate) fn write(&self, head: &str, columns: &str, rows: &[&str], end: &str) {
        fs::write(self.file, format!("{head}\n{}", self.text(columns, rows, end))).unwrap();
    }
}
