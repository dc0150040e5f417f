//! Tests of rules: cases in `<id>.test.yaml` beside the rule, and what is checked without being asked for.
//!
//! A case names a fixture (a facts file), sets facts in it and says what the rule must find. On its own the runner
//! demands the cases that every rule needs, turns every fact that decided a case into an unknown one (pass and fail
//! must not change places), and mutates the rule's operators and numbers (some case must notice).

mod case;
mod catalogue;
mod document;
mod mutate;
mod fact_path;
mod report;
mod run;

pub(crate) use catalogue::CatalogueTestDocument;
pub(crate) use document::TestDocument;
pub use report::{CaseReport, RuleReport, TestReport};
pub use run::{problems_of_files, run};
