//! From outcomes to a verdict: GO or NO-GO for one move, with waivers applied and all evidence.
//!
//! Pure: the same outcomes, waivers, facts and time give the same document, byte for byte. The exit codes of all
//! commands are in [`ExitCode`]. Evaluates no rule and collects no fact; the only I/O is to read a waiver file. For the
//! crates that judge, record, execute and report. The on-host program does not depend on it: [`vmgate_attest::Permit`] is
//! what a destination reads of a verdict.
//!
//! Walls, which the compiler keeps:
//!
//! ```compile_fail
//! use vmgate_rules::Pack;
//! ```
//!
//! ```compile_fail
//! use vmgate_ledger::Ledger;
//! ```

#![forbid(unsafe_code)]

mod alternative;
mod baseline;
mod decide;
mod document;
mod exit;
mod expiry;
mod outcome;
mod read;
#[cfg(any(test, feature = "sample"))]
pub mod sample;
mod unknown;
pub mod waiver;

pub use alternative::Alternative;
pub use baseline::{Baseline, BaselineComparison, ChangedFinding, ChangedValue, Finding, Trend};
pub use decide::{DecisionContext, decide};
pub use document::{
    AppliedWaiver, Counts, Digests, FileLine, JudgedOutcome, Move, Tool, UnknownGroup, Verdict, VerdictSchema,
};
pub use exit::{ExitCode, InvalidExitCode};
pub use expiry::VALID_FOR;
pub use outcome::{Effect, Evidence, Missing, Outcome, Severity, Status, Step};
pub use read::{InvalidVerdict, Verdicts, VerdictsSchema, read};
use schemars::{Schema, schema_for};
pub use vmgate_attest::{Decision, GoReason, NameAndUuid, NoGoReason};
pub use waiver::{WaiverFault, WaiverFile, WaiverProblem, Waivers};

/// The JSON Schema of a verdict.
pub fn schema() -> Schema {
    schema_for!(Verdict)
}

/// The JSON Schema of a waiver file.
pub fn waivers_schema() -> Schema {
    schema_for!(WaiverFile)
}
