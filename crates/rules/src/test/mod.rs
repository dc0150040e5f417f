//! Tests of rules: the cases in `<id>.test.yaml` in the rule's folder, and automatic checks.
//!
//! A case names a fixture (a facts file), sets facts in it and states the expected outcomes. In addition the runner
//! demands the cases that every rule needs, makes every fact that decided a case unknown (pass must not become fail,
//! nor fail pass), and mutates the rule's operators and numbers (the result of some case must change).

mod case;
mod catalogue;
mod document;
mod fact_path;
mod mutate;
mod report;
mod run;

pub(crate) use catalogue::CatalogueTestDocument;
pub(crate) use document::TestDocument;
pub use report::{CaseReport, RuleReport, TestReport};
pub use run::{problems_of_files, run};
