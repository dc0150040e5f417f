//! `vmgate ledger`: creates, lists and verifies the ledger of checks and moves.

use std::{
    fmt::Write as _,
    io::{self, IsTerminal},
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand};
use serde_json::json;
use vmgate_facts::text::plain;
use vmgate_ledger::{Entry, Head, Ledger, LedgerError, LedgerUrl, Record, Selection, entry::EntryKind};
use vmgate_verdict::ExitCode;

use super::{
    Failure, anchor, key_files, ledger_survey::Survey, options::GlobalOptions, output, session::Session,
};
use crate::{config::AnchorConfig, report};

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
    /// Check that no record was changed, removed or inserted, and say who wrote them
    Verify {
        /// Record that must be in the ledger, as an earlier `ledger verify` printed it: without this option or anchors, records
        /// that were removed at the end are not noticed
        #[arg(long, value_name = "NUMBER:DIGEST")]
        head: Option<Head>,
        /// File of anchors that the ledger must agree with; that of vmgate.yaml if none is given
        #[arg(long, value_name = "FILE")]
        anchor: Option<PathBuf>,
        /// Public key of a runner, in PEM: says which records it signed; may be repeated
        #[arg(long, value_name = "FILE")]
        key: Vec<PathBuf>,
    },
    /// Copy number and digest of the newest record to where vmgate.yaml says (`anchor`), after a check of the ledger
    Anchor {
        /// File of anchors, which takes the place of those in vmgate.yaml
        file: Option<PathBuf>,
    },
}

fn kind(text: &str) -> Result<EntryKind, String> {
    EntryKind::all().find(|kind| kind.name() == text).ok_or_else(|| {
        let names: Vec<_> = EntryKind::all().map(EntryKind::name).collect();
        format!("expected one of {}", names.join(", "))
    })
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
            Action::Verify { head, anchor, key } => {
                let anchors = session.config.anchor.as_ref().and_then(|anchor| anchor.file.clone());
                verify(&ledger, head.as_ref(), anchor.clone().or(anchors).as_deref(), key)
            }
            Action::Anchor { file } => write_anchor(&ledger, file.as_deref(), &session),
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
        LedgerError::Broken(_)
        | LedgerError::Rewritten { .. }
        | LedgerError::CutOff { .. }
        | LedgerError::Missing { .. } => Failure::usage(error),
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

fn verify(
    ledger: &Ledger,
    known: Option<&Head>,
    anchors: Option<&Path>,
    named: &[PathBuf],
) -> Result<ExitCode, Failure> {
    let keys = named.iter().map(|file| key_files::public_key(file)).collect::<Result<Vec<_>, _>>()?;
    let mut survey = Survey::default();
    let head = ledger.verify_each(|row| survey.see(row, &keys)).map_err(failure)?;
    if let Some(known) = known {
        ledger.check_head(known).map_err(failure)?;
    }
    let anchored = anchors.map(|file| anchor::check(ledger, file)).transpose()?;
    let records = if head.sequence == 1 { "record" } else { "records" };
    let mut text = format!("{} {records}, all unchanged; head {head}\n", head.sequence);
    if let (Some(number), Some(file)) = (anchored, anchors) {
        let anchors = if number == 1 { "anchor" } else { "anchors" };
        let _ = writeln!(text, "{number} {anchors} of {} agree", file.display());
    }
    text += &survey.text(named);
    print(&text)?;
    survey.bad().map_or(Ok(ExitCode::Go), |bad| Err(Failure::usage(bad.trim_end())))
}

fn write_anchor(ledger: &Ledger, file: Option<&Path>, session: &Session) -> Result<ExitCode, Failure> {
    let named = file.map(|file| AnchorConfig { file: Some(file.to_owned()), command: None });
    let places = named.or_else(|| session.config.anchor.clone()).ok_or_else(|| {
        Failure::usage(
            "no place for the anchor is known: give a FILE, or name one in vmgate.yaml (`anchor: {file: FILE}`)",
        )
    })?;
    ledger.verify().map_err(failure)?;
    let anchor = anchor::write(ledger, &places, session)?;
    print(&format!("anchored {anchor}\n"))
}

/// A record as JSON, with the fields of its entry that this version does not know.
fn document(record: &Record) -> serde_json::Value {
    let mut entry: serde_json::Value = serde_json::from_str(&record.body).unwrap_or_default();
    let mut document = serde_json::Map::new();
    document.insert("sequence".to_owned(), json!(record.sequence));
    document.insert("at".to_owned(), json!(record.at));
    document.insert("digest".to_owned(), json!(record.digest));
    for stamp in ["role", "signature"] {
        if let Some(value) = entry.as_object_mut().and_then(|entry| entry.remove(stamp)) {
            document.insert(stamp.to_owned(), value);
        }
    }
    document.insert("entry".to_owned(), entry);
    document.into()
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
        let lead = format!("{:>6}  {time}  {:<12} ", record.sequence, plain(record.entry.kind_name()));
        let hang = " ".repeat(10);
        // Names come from hosts and guests.
        let said = plain(&match &record.entry {
            Entry::RunStarted(run) => format!("{} {}", run.run, record.entry),
            other => other.to_string(),
        });
        // A name in a record is its writer's word; the role is the database's.
        let said = match (&record.role, record.entry.claimed_author()) {
            (Some(role), Some(_)) => format!("{said} (written by role {})", plain(role)),
            _ => said,
        };
        report::wrap::fill(&said, &lead, &hang, width) + "\n"
    });
    print(&paragraphs.collect::<String>())
}

fn print(text: &str) -> Result<ExitCode, Failure> {
    output::to_stdout(|out| out.write_all(text.as_bytes()))?;
    Ok(ExitCode::Go)
}
