//! `vmgate ledger`: creates, lists and verifies the ledger of checks and moves.

use std::io::{self, IsTerminal};

use clap::{Args, Subcommand};
use serde_json::json;
use vmgate_facts::text::plain;
use vmgate_ledger::{Entry, Head, Ledger, LedgerError, LedgerUrl, Record, Selection, entry::EntryKind};
use vmgate_verdict::ExitCode;

use super::{Failure, options::GlobalOptions, output, session::Session};
use crate::report;

#[derive(Debug, Args)]
pub(super) struct LedgerCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Create a ledger, which a PostgreSQL database needs once, and give roles access to it
    Init {
        /// Database role that may read the ledger and append to it, but not change or remove records; may be
        /// repeated
        #[arg(long, value_name = "ROLE")]
        runner: Vec<String>,
    },
    /// List records, the newest at the end
    List {
        /// Only the newest N records
        #[arg(short = 'n', long, value_name = "N", default_value_t = 50)]
        last: u32,
        /// Only records of this VM, by UUID
        #[arg(long, value_name = "UUID")]
        vm: Option<String>,
        /// Only records of this run
        #[arg(long, value_name = "RUN")]
        run: Option<String>,
        /// Only records of this kind; may be repeated
        #[arg(long, value_name = "KIND", value_parser = kind)]
        kind: Vec<EntryKind>,
        /// Only runs that have not ended
        #[arg(long, conflicts_with_all = ["run", "kind"])]
        open: bool,
        /// One JSON document per line
        #[arg(long)]
        json: bool,
    },
    /// Print one record, or all of a run, as JSON
    Show {
        /// Number of the record, or id of the run
        record: String,
    },
    /// Check that no record was changed, removed or inserted
    Verify {
        /// Record that must be in the ledger, as an earlier `ledger verify` printed it: without this option, records that
        /// were removed at the end are not noticed
        #[arg(long, value_name = "NUMBER:DIGEST")]
        head: Option<String>,
    },
}

fn kind(text: &str) -> Result<EntryKind, String> {
    let names = || EntryKind::ALL.map(EntryKind::name).join(", ");
    EntryKind::ALL
        .into_iter()
        .find(|kind| kind.name() == text)
        .ok_or_else(|| format!("expected one of {}", names()))
}

impl LedgerCommand {
    pub(super) fn run(&self, shared: &GlobalOptions) -> Result<ExitCode, Failure> {
        let session = Session::open(shared)?;
        let place = session.ledger_for_moves()?;
        if let Action::Init { runner } = &self.action {
            return init(place, runner);
        }
        let ledger = Ledger::open_existing(place).map_err(failure)?;
        match &self.action {
            Action::Init { .. } => Ok(ExitCode::Go),
            Action::List { last, vm, run, kind, open, json } => {
                let selection = if *open { Selection::open_runs() } else { Selection::default() };
                let kinds = if *open { selection.kinds.clone() } else { kind.clone() };
                let selection = Selection {
                    kinds,
                    vm: vm.clone(),
                    run: run.clone(),
                    at_most: Some(*last),
                    newest: true,
                    ..selection
                };
                let records = ledger.records(&selection).map_err(failure)?;
                if *json { print_json(&records) } else { print_table(&records, shared) }
            }
            Action::Show { record } => show(&ledger, record),
            Action::Verify { head } => verify(&ledger, head.as_deref()),
        }
    }
}

fn init(place: LedgerUrl, runners: &[String]) -> Result<ExitCode, Failure> {
    if matches!(place, LedgerUrl::File(_)) && !runners.is_empty() {
        return Err(Failure::usage(
            "--runner is for a ledger in PostgreSQL: access to a file is set by its permissions",
        ));
    }
    let said = format!("{place}: the ledger exists\n");
    Ledger::init(place, runners).map_err(failure)?;
    print(&said)
}

/// Failure for a ledger error: a broken chain is a finding about the file, not a failure of vmgate.
pub(super) fn failure(error: LedgerError) -> Failure {
    match error {
        LedgerError::Broken(_) | LedgerError::Missing { .. } => Failure::usage(error),
        other => Failure::failed(other),
    }
}

fn show(ledger: &Ledger, wanted: &str) -> Result<ExitCode, Failure> {
    let records = match wanted.parse::<u64>() {
        Ok(number) => ledger.record(number).map(|record| record.into_iter().collect()),
        Err(_) => ledger.history(wanted),
    }
    .map_err(failure)?;
    if records.is_empty() {
        let text = format!("there is no record or run `{wanted}`; `vmgate ledger list` lists them");
        return Err(Failure::usage(text));
    }
    output::to_stdout(|out| records.iter().try_for_each(|record| report::document(&document(record), out)))?;
    Ok(ExitCode::Go)
}

fn verify(ledger: &Ledger, known: Option<&str>) -> Result<ExitCode, Failure> {
    let head = ledger.verify().map_err(failure)?;
    if let Some(known) = known {
        let known = parse_head(known)?;
        let record = ledger.record(known.sequence).map_err(failure)?;
        match record {
            Some(record) if record.digest.hex() == known.digest => {}
            Some(_) => {
                let text = format!(
                    "record {} has another digest than before: the ledger was rewritten",
                    known.sequence
                );
                return Err(Failure::usage(text));
            }
            None => {
                let text = format!(
                    "the ledger ends at record {}, but it once had record {}: records at the end were removed",
                    head.sequence, known.sequence
                );
                return Err(Failure::usage(text));
            }
        }
    }
    print(&format!("{} records, all unchanged; head {}:{}\n", head.sequence, head.sequence, head.digest))
}

fn parse_head(text: &str) -> Result<Head, Failure> {
    let head = text.split_once(':').and_then(|(sequence, digest)| {
        Some(Head { sequence: sequence.parse().ok()?, digest: digest.to_owned() })
    });
    head.ok_or_else(|| {
        Failure::usage(format!("--head {text}: give NUMBER:DIGEST, as `vmgate ledger verify` prints it"))
    })
}

fn document(record: &Record) -> serde_json::Value {
    json!({
        "sequence": record.sequence,
        "at": record.at,
        "digest": record.digest,
        "entry": record.entry,
    })
}

fn print_json(records: &[Record]) -> Result<ExitCode, Failure> {
    output::to_stdout(|out| {
        records.iter().try_for_each(|record| report::document_line(&document(record), out))
    })?;
    Ok(ExitCode::Go)
}

/// Prints each record as a paragraph: number, time, kind and content.
fn print_table(records: &[Record], shared: &GlobalOptions) -> Result<ExitCode, Failure> {
    if records.is_empty() {
        return print("no records\n");
    }
    // Piped, a record is a line.
    let width = if io::stdout().is_terminal() { output::style(shared).width } else { usize::MAX };
    let paragraphs = records.iter().map(|record| {
        let time = record.at.strftime("%Y-%m-%d %H:%M:%SZ");
        let lead = format!("{:>6}  {time}  {:<12} ", record.sequence, record.entry.kind().name());
        let hang = " ".repeat(10);
        // Names come from hosts and guests.
        let said = plain(&match &record.entry {
            Entry::RunStarted(_) => format!("{} {}", record.entry.run().unwrap_or_default(), record.entry),
            other => other.to_string(),
        });
        report::wrap::fill(&said, &lead, &hang, width) + "\n"
    });
    print(&paragraphs.collect::<String>())
}

fn print(text: &str) -> Result<ExitCode, Failure> {
    output::to_stdout(|out| out.write_all(text.as_bytes()))?;
    Ok(ExitCode::Go)
}
