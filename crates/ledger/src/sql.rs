//! SQL query of a selection, the same for all databases: parameters are numbered in the order of their use.

use super::Selection;

pub(super) const COLUMNS: &str = "sequence, at, kind, run, vm, body, previous, digest";

/// Parameter of a query.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Value {
    Number(i64),
    Text(String),
}

impl Selection {
    /// The SQL query and its parameters.
    pub(super) fn sql(&self) -> (String, Vec<Value>) {
        let mut conditions = Vec::new();
        let mut values = Vec::new();
        let mut only = |condition: &str, value| {
            values.push(value);
            conditions.push(format!("{condition} ${}", values.len()));
        };
        only("sequence >", Value::Number(number(self.after)));
        if let Some(sequence) = self.sequence {
            only("sequence =", Value::Number(number(sequence)));
        }
        if let Some(run) = &self.run {
            only("run =", Value::Text(run.clone()));
        }
        if let Some(vm) = &self.vm {
            only("vm =", Value::Text(vm.clone()));
        }
        if let Some(since) = self.since {
            // All times are UTC and begin alike, so that comparing texts up to the second is comparing times.
            only("substr(at, 1, 19) >=", Value::Text(since.to_string().chars().take(19).collect()));
        }
        if !self.kinds.is_empty() {
            let kinds: Vec<String> = self.kinds.iter().map(|kind| format!("'{}'", kind.name())).collect();
            conditions.push(format!("kind IN ({})", kinds.join(", ")));
        }
        if self.unended {
            let ended =
                "SELECT 1 FROM record AS other WHERE other.run = record.run AND other.kind = 'run-ended'";
            conditions.push(format!("NOT EXISTS ({ended})"));
        }
        let order = if self.newest { "DESC" } else { "ASC" };
        let limit = self.at_most.map_or(String::new(), |most| format!(" LIMIT {most}"));
        let chosen = format!(
            "SELECT {COLUMNS} FROM record WHERE {} ORDER BY sequence {order}{limit}",
            conditions.join(" AND ")
        );
        (format!("SELECT * FROM ({chosen}) AS chosen ORDER BY sequence"), values)
    }
}

/// Converts a number to the signed integer of databases.
pub(super) fn number(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
