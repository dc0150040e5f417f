//! `vmgate diff`: the differences between two saved verdicts.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;
use vmgate_verdict::{BaselineComparison, Decision, Effect, ExitCode, Move, NoGoReason, Status, Verdict};

use super::{Failure, options::GlobalOptions, output};
use crate::report;

#[derive(Debug, Args)]
pub(super) struct Diff {
    /// Earlier verdict, or list of them, as --output json or yaml wrote it
    before: PathBuf,
    /// Later verdict, or list of them
    after: PathBuf,
    /// Print the differences as JSON, vmgate/diff/v1
    #[arg(long)]
    json: bool,
    /// New warnings make the exit code 10
    #[arg(long)]
    strict: bool,
}

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    moves: Vec<OneMove<'a>>,
    gone: &'a [&'a Move],
}

#[derive(Serialize)]
struct OneMove<'a> {
    #[serde(rename = "move")]
    moved: &'a Move,
    decision: Decision,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    simulated: bool,
    since: &'a BaselineComparison,
}

impl Diff {
    /// Exit code 0 unless a new outcome speaks against a move: older outcomes are not caused by this change.
    pub(super) fn run(&self, shared: &GlobalOptions) -> Result<ExitCode, Failure> {
        let baseline = output::read_baseline(&self.before)?;
        let mut verdicts = output::read_verdicts(&self.after)?;
        for verdict in &mut verdicts {
            baseline.compare(verdict);
        }
        let gone = baseline.missing_moves(&verdicts);
        if self.json {
            let moves = verdicts.iter().filter_map(|verdict| {
                let since = verdict.since.as_ref()?;
                Some(OneMove {
                    moved: &verdict.moved,
                    decision: verdict.decision,
                    simulated: verdict.simulated,
                    since,
                })
            });
            let document = Document { schema: "vmgate/diff/v1", moves: moves.collect(), gone: &gone };
            output::to_stdout(|out| report::document(&document, out))?;
        } else {
            output::to_stdout_in_colour(shared, |out| {
                report::differences(&verdicts, &gone, out, &output::style(shared))
            })?;
        }
        Ok(self.exit_code(&verdicts))
    }

    fn exit_code(&self, verdicts: &[Verdict]) -> ExitCode {
        let any = |effect, status| {
            let since = verdicts.iter().filter_map(|verdict| verdict.since.as_ref());
            since.flat_map(|since| since.newly_with_effect(effect)).any(|finding| finding.status == status)
        };
        if any(Effect::Block, Status::Fail) {
            ExitCode::RuleViolated
        } else if any(Effect::Block, Status::Unknown) {
            ExitCode::EvidenceMissing
        } else if self.strict && (any(Effect::Warn, Status::Fail) || any(Effect::Warn, Status::Unknown)) {
            ExitCode::GoWithWarnings
        } else if verdicts.is_empty() || verdicts.iter().any(is_empty) {
            ExitCode::NothingEvaluated
        } else {
            ExitCode::Go
        }
    }
}

/// True if nothing was evaluated: the absence of new findings means nothing then.
fn is_empty(verdict: &Verdict) -> bool {
    verdict.decision == Decision::NoGo(NoGoReason::NothingEvaluated)
}
