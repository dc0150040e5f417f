//! Exit codes of vmgate. Every command and every format ends with the same code for the same result.

use serde::{Deserialize, Serialize};

use super::{Decision, GoReason, NoGoReason, Verdict};

/// All exit codes of vmgate. Scripts depend on the numbers: a number never gets another meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "u8", try_from = "u8")]
pub enum ExitCode {
    /// GO; for `migrate`: done and verified.
    Go,
    /// vmgate itself failed.
    Internal,
    /// Usage, or an invalid rule, change, waiver or facts file.
    Invalid,
    /// Nothing was evaluated.
    NothingEvaluated,
    /// GO with warnings, only under `--strict`.
    GoWithWarnings,
    /// NO-GO: a rule is violated.
    RuleViolated,
    /// NO-GO: evidence is missing or too old.
    EvidenceMissing,
    /// The migration was started and did not finish; the VM still runs on the source.
    NotFinished,
    /// The migration failed and an operator must act.
    OperatorNeeded,
}

/// A number that is none of vmgate's exit codes.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0} is not an exit code of vmgate: expected one of 0, 1, 2, 3, 10, 20, 21, 30, 31")]
pub struct InvalidExitCode(pub u8);

impl ExitCode {
    /// Every code, in the order of the numbers.
    pub const ALL: [Self; 9] = [
        Self::Go,
        Self::Internal,
        Self::Invalid,
        Self::NothingEvaluated,
        Self::GoWithWarnings,
        Self::RuleViolated,
        Self::EvidenceMissing,
        Self::NotFinished,
        Self::OperatorNeeded,
    ];

    /// The number that the shell sees.
    pub fn code(self) -> u8 {
        match self {
            Self::Go => 0,
            Self::Internal => 1,
            Self::Invalid => 2,
            Self::NothingEvaluated => 3,
            Self::GoWithWarnings => 10,
            Self::RuleViolated => 20,
            Self::EvidenceMissing => 21,
            Self::NotFinished => 30,
            Self::OperatorNeeded => 31,
        }
    }

    /// Meaning of the code, for help texts and manual pages.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Go => "GO (for migrate: done and verified)",
            Self::Internal => "vmgate itself failed",
            Self::Invalid => "usage, or an invalid rule, change, waiver or facts file",
            Self::NothingEvaluated => "nothing was evaluated",
            Self::GoWithWarnings => "GO with warnings, only under --strict",
            Self::RuleViolated => "NO-GO: a rule is violated",
            Self::EvidenceMissing => "NO-GO: evidence is missing or too old",
            Self::NotFinished => {
                "the migration was started and did not finish; the VM still runs on the source"
            }
            Self::OperatorNeeded => {
                "the migration failed and an operator must act: the message says where the VM runs"
            }
        }
    }

    /// The code for one verdict. Warnings count only if the check ran with `--strict`.
    pub fn of(verdict: &Verdict) -> Self {
        match verdict.decision {
            Decision::Go(GoReason::WithWarnings) if verdict.strict => Self::GoWithWarnings,
            Decision::Go(_) => Self::Go,
            Decision::NoGo(NoGoReason::RuleViolated) => Self::RuleViolated,
            Decision::NoGo(NoGoReason::EvidenceMissing) => Self::EvidenceMissing,
            Decision::NoGo(NoGoReason::NothingEvaluated) => Self::NothingEvaluated,
        }
    }

    /// The code for several verdicts: the worst one, and "nothing was evaluated" for an empty list.
    pub fn of_all(verdicts: &[Verdict]) -> Self {
        verdicts.iter().map(Self::of).max_by_key(|code| code.gravity()).unwrap_or(Self::NothingEvaluated)
    }

    /// The gravest of several codes; GO for an empty list.
    pub fn worst(codes: impl IntoIterator<Item = Self>) -> Self {
        codes.into_iter().max_by_key(|code| code.gravity()).unwrap_or(Self::Go)
    }

    /// Rank among the results of several checks. The exit code numbers have another order: a violated rule (20)
    /// outweighs missing evidence (21), and a check without an evaluation (3) outweighs warnings (10).
    fn gravity(self) -> u8 {
        match self {
            Self::Go => 0,
            Self::GoWithWarnings => 1,
            Self::NothingEvaluated => 2,
            Self::EvidenceMissing => 3,
            Self::RuleViolated => 4,
            Self::Invalid => 5,
            Self::Internal => 6,
            Self::NotFinished => 7,
            Self::OperatorNeeded => 8,
        }
    }
}

impl From<ExitCode> for u8 {
    fn from(code: ExitCode) -> Self {
        code.code()
    }
}

impl TryFrom<u8> for ExitCode {
    type Error = InvalidExitCode;

    fn try_from(number: u8) -> Result<Self, Self::Error> {
        Self::ALL.into_iter().find(|code| code.code() == number).ok_or(InvalidExitCode(number))
    }
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        code.code().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_of_the_design() {
        let numbers: Vec<u8> = ExitCode::ALL.iter().map(|code| code.code()).collect();
        assert_eq!(numbers, [0, 1, 2, 3, 10, 20, 21, 30, 31]);
        for code in ExitCode::ALL {
            assert_eq!(ExitCode::try_from(code.code()), Ok(code));
        }
        assert_eq!(ExitCode::try_from(4), Err(InvalidExitCode(4)));
    }

    #[test]
    fn no_verdicts_at_all_is_not_go() {
        assert_eq!(ExitCode::of_all(&[]), ExitCode::NothingEvaluated);
    }
}
