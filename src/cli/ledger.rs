//! `vmgate ledger`: what was checked and moved, and whether the record of it is as it was written.

use std::io::{self, IsTerminal};

use clap::{Args, Subcommand};
use serde_json::json;

use super::{Failure, options::Shared, output, session::Session};
use crate::{
    collect::text::plain,
    ledger::{Entry, Head, Ledger, LedgerError, Record, Selection, entry::Kind},
    place::LedgerUrl,
    verdict::ExitCode,
};

#[derive(Debug, Args)]
pub(super) struct LedgerCommand {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Make a ledger, which a PostgreSQL database needs once, and let roles use it
    Init {
        /// Role of the database that may read the ledger and append to it, and may change or remove nothing; may be
        /// repeated
        #[arg(long, value_name = "ROLE")]
        runner: Vec<String>,
    },
    /// List records, the newest last
    List {
        /// No more than the newest N
        #[arg(short = 'n', long, value_name = "N", default_value_t = 50)]
        last: u32,
        /// Only records about this VM, by UUID
        #[arg(long, value_name = "UUID")]
        vm: Option<String>,
        /// Only records of this run
        #[arg(long, value_name = "RUN")]
        run: Option<String>,
        /// Only records of this kind; may be repeated
        #[arg(long, value_name = "KIND", value_parser = kind)]
        kind: Vec<Kind>,
        /// Only runs that have begun and not ended
        #[arg(long, conflicts_with_all = ["run", "kind"])]
        open: bool,
        /// One JSON document a line
        #[arg(long)]
        json: bool,
    },
    /// Print one record, or all of a run, as JSON
    Show {
        /// Number of the record, or id of the run
        record: String,
    },
    /// Check that no record was changed, removed or put in between
    Verify {
        /// A record that must be in it, as an earlier `ledger verify` printed it: without one, records that were cut
        /// off at the end are not missed
        #[arg(long, value_name = "NUMBER:DIGEST")]
        head: Option<String>,
    },
}

fn kind(text: &str) -> Result<Kind, String> {
    let names = || Kind::ALL.map(Kind::name).join(", ");
    Kind::ALL.into_iter().find(|kind| kind.name() == text).ok_or_else(|| format!("it is one of {}", names()))
}

impl LedgerCommand {
    pub(super) fn run(&self, shared: &Shared) -> Result<ExitCode, Failure> {
        let session = Session::open(shared)?;
        let place = session.ledger_for_moves()?;
        if let What::Init { runner } = &self.what {
            return init(place, runner);
        }
        let ledger = Ledger::open_existing(place).map_err(failure)?;
        match &self.what {
            What::Init { .. } => Ok(ExitCode::Go),
            What::List { last, vm, run, kind, open, json } => {
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
            What::Show { record } => show(&ledger, record),
            What::Verify { head } => verify(&ledger, head.as_deref()),
        }
    }
}

fn init(place: LedgerUrl, runners: &[String]) -> Result<ExitCode, Failure> {
    if matches!(place, LedgerUrl::File(_)) && !runners.is_empty() {
        return Err(Failure::usage(
            "--runner is for a ledger in PostgreSQL: who may use a file its mode says",
        ));
    }
    let said = format!("{place}: the ledger is there\n");
    Ledger::init(place, runners).map_err(failure)?;
    print(&said)
}

/// A chain that is broken is a finding about the file, not a failure of vmgate.
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
        let text = format!("there is no record or run `{wanted}`; `vmgate ledger list` shows them");
        return Err(Failure::usage(text));
    }
    let texts: Result<Vec<_>, _> =
        records.iter().map(|record| serde_json::to_string_pretty(&document(record))).collect();
    print(&(texts.map_err(Failure::failed)?.join("\n") + "\n"))
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
                    "record {} is another one than it was: the ledger was written anew",
                    known.sequence
                );
                return Err(Failure::usage(text));
            }
            None => {
                let text = format!(
                    "the ledger ends at record {}, and it had {}: records were cut off",
                    head.sequence, known.sequence
                );
                return Err(Failure::usage(text));
            }
        }
    }
    print(&format!(
        "{} records, each as it was written; head {}:{}\n",
        head.sequence, head.sequence, head.digest
    ))
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
    let lines: Vec<String> = records.iter().map(|record| document(record).to_string()).collect();
    if lines.is_empty() { Ok(ExitCode::Go) } else { print(&(lines.join("\n") + "\n")) }
}

/// A record a paragraph: number, time and kind, then what it says.
fn print_table(records: &[Record], shared: &Shared) -> Result<ExitCode, Failure> {
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
        let options = textwrap::Options::new(width).word_splitter(textwrap::WordSplitter::NoHyphenation);
        textwrap::fill(&said, options.initial_indent(&lead).subsequent_indent(&hang)) + "\n"
    });
    print(&paragraphs.collect::<String>())
}

fn print(text: &str) -> Result<ExitCode, Failure> {
    output::to_stdout(|out| out.write_all(text.as_bytes()))?;
    Ok(ExitCode::Go)
}
