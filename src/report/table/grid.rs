//! Grid of two columns without side borders: a narrow key, and text that wraps within the width of the terminal.

use std::io::{self, Write};

use tabled::{
    builder::Builder,
    settings::{
        Color, Modify, Padding, Style as Lines, Width,
        object::{Cell, Columns},
    },
};

use super::super::{Style, style::Paint, wrap::fill};

/// Width of the key column with the space after it: the longest words are `permission` and a date.
const KEY: usize = 12;

/// One row: the key on the left, lines on the right.
pub(super) struct Row {
    pub(super) key: String,
    pub(super) paint: Option<Paint>,
    pub(super) lines: Vec<Line>,
}

/// A line of text, with the indentation of its continuation lines when it is wrapped.
pub(super) struct Line {
    text: String,
    lead: &'static str,
    hang: usize,
}

impl Line {
    /// A line that begins at the left edge.
    pub(super) fn plain(text: impl Into<String>) -> Self {
        Self { text: text.into(), lead: "", hang: 2 }
    }

    /// A line after a label such as `Fix: `, with its continuation lines below the text.
    pub(super) fn after(lead: &'static str, text: impl Into<String>) -> Self {
        Self { text: text.into(), lead, hang: lead.len() }
    }

    fn wrapped(&self, width: usize) -> String {
        fill(&self.text, self.lead, &" ".repeat(self.hang), width)
    }
}

/// Rows under one title.
pub(super) struct Grid<'a> {
    style: &'a Style,
    rows: Vec<Row>,
}

impl<'a> Grid<'a> {
    pub(super) fn new(style: &'a Style) -> Self {
        Self { style, rows: Vec::new() }
    }

    pub(super) fn push(&mut self, row: Row) {
        self.rows.push(row);
    }

    /// Writes the title and the rows; writes nothing without rows.
    pub(super) fn write(self, title: &str, sink: &mut dyn Write) -> io::Result<()> {
        if self.rows.is_empty() {
            return Ok(());
        }
        let columns = self.style.columns();
        let text = columns.saturating_sub(KEY);
        let mut builder = Builder::default();
        for row in &self.rows {
            let lines: Vec<String> = row.lines.iter().map(|line| line.wrapped(text)).collect();
            builder.push_record([fill(&row.key, "", "", KEY - 1), lines.join("\n")]);
        }
        let mut table = builder.build();
        table
            .with(Lines::empty().horizontal('─'))
            .with(Padding::zero())
            .modify(Columns::one(0), Width::increase(KEY))
            .modify(Columns::one(1), Width::increase(text));
        for (position, row) in self.rows.iter().enumerate().filter(|_| self.style.colour) {
            if let Some(color) = row.paint.and_then(color) {
                table.with(Modify::new(Cell::new(position, 0)).with(color));
            }
        }
        writeln!(sink, "\n{}", self.style.paint(Paint::Strong, title))?;
        let rule = "─".repeat(columns);
        writeln!(sink, "{rule}")?;
        for line in table.to_string().lines() {
            // A command that is too wide to wrap makes no line between rows wider.
            writeln!(sink, "{}", if line.starts_with('─') { &rule } else { line.trim_end() })?;
        }
        Ok(())
    }
}

fn color(paint: Paint) -> Option<Color> {
    match paint {
        Paint::Bad => Some(Color::FG_RED | Color::BOLD),
        Paint::Warning => Some(Color::FG_YELLOW),
        Paint::Good | Paint::Strong => None,
    }
}
