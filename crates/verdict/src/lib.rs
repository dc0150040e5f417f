//! From outcomes to a verdict: GO or NO-GO for one move, with waivers applied and all evidence.
//!
//! Pure: the same outcomes, waivers, facts and time give the same document, byte for byte. The exit codes of all
//! commands are in [`ExitCode`].

mod decide;
mod document;
mod exit;
mod expiry;
mod outcome;
mod read;
#[cfg(any(test, feature = "sample"))]
pub mod sample;
mod baseline;
mod unknown;
pub mod waiver;

pub use decide::{DecisionContext, decide};
pub use document::{
    Counts, Digests, JudgedOutcome, Move, FileLine, Tool, UnknownGroup, Verdict, VerdictSchema, AppliedWaiver,
};
pub use exit::{ExitCode, InvalidExitCode};
pub use expiry::VALID_FOR;
pub use outcome::{Effect, Evidence, Missing, Outcome, Severity, Status, Step};
pub use read::{InvalidVerdict, Verdicts, VerdictsSchema, read};
pub use baseline::{Baseline, ChangedFinding, ChangedValue, Finding, BaselineComparison, Trend};
pub use vmgate_attest::{Decision, GoReason, NameAndUuid, NoGoReason};
pub use waiver::{WaiverFault, WaiverFile, WaiverProblem, Waivers};

use schemars::{Schema, schema_for};

/// The JSON Schema of a verdict.
pub fn schema() -> Schema {
    schema_for!(Verdict)
}

/// The JSON Schema of a waiver file.
pub fn waivers_schema() -> Schema {
    schema_for!(WaiverFile)
}
