//! Report of a test run, and its text form.

use std::{fmt::Write, time::Duration};

use vmgate_documents::Problem;

/// Report of a test run.
#[derive(Debug)]
pub struct TestReport {
    /// Reports of the rules, in the order of the pack, and then of the catalogues.
    pub rules: Vec<RuleReport>,
    /// Problems of test files and fixtures that could not be used.
    pub problems: Vec<Problem>,
    /// Duration of the run.
    pub elapsed: Duration,
}

/// Report on the tests of one rule or catalogue.
#[derive(Debug)]
pub struct RuleReport {
    /// The word `rule` or `catalogue`.
    pub kind: &'static str,
    /// Id of the rule, or name of the catalogue.
    pub rule: String,
    /// Reports of the cases.
    pub cases: Vec<CaseReport>,
    /// Other findings: missing cases, mutants that no case noticed, and so on.
    pub failures: Vec<Problem>,
    /// Number of mutants that were tried.
    pub mutants: usize,
    /// Number of facts that were made unknown, one at a time.
    pub hidden_facts: usize,
}

/// Report on one case.
#[derive(Debug)]
pub struct CaseReport {
    /// Name of the case.
    pub name: String,
    /// Problem with its place, if the case failed.
    pub problem: Option<Problem>,
    /// Expected outcomes, one line for each.
    pub expected: Vec<String>,
    /// Actual outcomes, one line for each.
    pub actual: Vec<String>,
}

impl RuleReport {
    pub(super) fn new(kind: &'static str, rule: &str) -> Self {
        Self {
            kind,
            rule: rule.to_owned(),
            cases: Vec::new(),
            failures: Vec::new(),
            mutants: 0,
            hidden_facts: 0,
        }
    }

    /// True if there are no failures.
    pub fn passed(&self) -> bool {
        self.failures.is_empty() && self.cases.iter().all(|case| case.problem.is_none())
    }
}

impl TestReport {
    /// True if there are no failures and something was tested.
    pub fn passed(&self) -> bool {
        self.problems.is_empty() && !self.rules.is_empty() && self.rules.iter().all(RuleReport::passed)
    }

    /// True if nothing was tested and no file has a problem.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty() && self.problems.is_empty()
    }

    /// Returns the report as text; `diff` adds the expected and actual outcomes of failed cases.
    pub fn render(&self, color: bool, diff: bool) -> String {
        let paint = |code: &str, text: &str| {
            if color { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
        };
        let verdict = |passed: bool| if passed { paint("32", "ok") } else { paint("31;1", "FAILED") };
        let mut text = String::new();
        let cases: usize = self.rules.iter().map(|rule| rule.cases.len()).sum();
        let _ = writeln!(text, "running {cases} cases of {}", self.counted());
        for rule in &self.rules {
            let _ = writeln!(
                text,
                "{} {} ({} cases, {} mutants) ... {}",
                rule.kind,
                rule.rule,
                rule.cases.len(),
                rule.mutants,
                verdict(rule.passed())
            );
        }
        self.failures(&mut text, color, diff);
        let failed_cases: usize =
            self.rules.iter().flat_map(|rule| &rule.cases).filter(|case| case.problem.is_some()).count();
        let findings: usize =
            self.problems.len() + self.rules.iter().map(|rule| rule.failures.len()).sum::<usize>();
        let mutants: usize = self.rules.iter().map(|rule| rule.mutants).sum();
        let hidden_facts: usize = self.rules.iter().map(|rule| rule.hidden_facts).sum();
        let _ = write!(
            text,
            "\ntest result: {}. {} cases passed; {failed_cases} failed; {findings} other findings; {mutants} mutants; \
             {hidden_facts} facts made unknown; finished in {:.2}s",
            verdict(self.passed()),
            cases - failed_cases,
            self.elapsed.as_secs_f64()
        );
        text
    }

    /// Number of rules and catalogues, in words.
    fn counted(&self) -> String {
        let count = |kind: &str| self.rules.iter().filter(|rule| rule.kind == kind).count();
        match count("catalogue") {
            0 => format!("{} rules", count("rule")),
            catalogues => format!("{} rules and {catalogues} catalogues", count("rule")),
        }
    }

    fn failures(&self, text: &mut String, color: bool, diff: bool) {
        if self.passed() {
            return;
        }
        text.push_str("\nfailures:\n\n");
        for problem in &self.problems {
            let _ = writeln!(text, "{}\n", problem.render(color));
        }
        for rule in &self.rules {
            for case in &rule.cases {
                let Some(problem) = &case.problem else { continue };
                let _ = writeln!(text, "{}", problem.render(color));
                if diff {
                    for line in &case.expected {
                        let _ = writeln!(text, "  - expected: {line}");
                    }
                    for line in &case.actual {
                        let _ = writeln!(text, "  + found:    {line}");
                    }
                }
                text.push('\n');
            }
            for problem in &rule.failures {
                let _ = writeln!(text, "{}\n", problem.render(color));
            }
        }
        if self.rules.is_empty() {
            text.push_str("no rule was tested: nothing matches\n");
        } else if !diff {
            text.push_str("`--diff` shows the expected and the actual outcomes\n");
        }
    }
}
