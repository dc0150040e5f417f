//! From outcomes to a verdict: GO or NO-GO for one move, with waivers laid over it and everything it rests on.
//!
//! Pure: the same outcomes, waivers, facts and time give the same document, byte for byte. What the process says
//! when it ends is in [`ExitCode`], for every command.

mod decide;
mod document;
mod exit;
mod expiry;
mod outcome;
mod read;
#[cfg(any(test, feature = "sample"))]
pub mod sample;
mod since;
mod unknown;
pub mod waiver;

pub use decide::{Context, decide};
pub use document::{
    Counts, Digests, Judged, Move, Place, Tool, UnknownGroup, Verdict, VerdictSchema, Waived,
};
pub use exit::{ExitCode, InvalidExitCode};
pub use expiry::VALID_FOR;
pub use outcome::{Effect, Evidence, Missing, Outcome, Severity, Status, Step};
pub use read::{InvalidVerdict, Verdicts, VerdictsSchema, read};
pub use since::{Baseline, Changed, ChangedValue, Finding, Since, Trend};
pub use vmgate_attest::{Decision, GoReason, Named, NoGoReason};
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
