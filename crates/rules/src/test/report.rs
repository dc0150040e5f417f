//! What a run of the tests found, and how it is printed.

use std::{fmt::Write, time::Duration};

use vmgate_documents::Problem;

/// What a run of the tests found.
#[derive(Debug)]
pub struct TestReport {
    /// By rule, in the order of the pack; then by catalogue.
    pub rules: Vec<RuleReport>,
    /// Test files and fixtures that could not be used.
    pub problems: Vec<Problem>,
    /// How long it took.
    pub elapsed: Duration,
}

/// What the tests of one rule or catalogue found.
#[derive(Debug)]
pub struct RuleReport {
    /// What it is: a rule or a catalogue.
    pub kind: &'static str,
    /// Its id.
    pub rule: String,
    /// Its cases.
    pub cases: Vec<CaseReport>,
    /// Cases that are missing, mutants that nobody noticed, and the like.
    pub failures: Vec<Problem>,
    /// Mutants that were tried.
    pub mutants: usize,
    /// Facts that were taken away.
    pub monotone: usize,
}

/// What one case found.
#[derive(Debug)]
pub struct CaseReport {
    /// Its name.
    pub name: String,
    /// Where it stands, if it failed.
    pub problem: Option<Problem>,
    /// What was expected, a line an outcome.
    pub expected: Vec<String>,
    /// What was found, a line an outcome.
    pub actual: Vec<String>,
}

impl RuleReport {
    pub(super) fn new(kind: &'static str, rule: &str) -> Self {
        Self { kind, rule: rule.to_owned(), cases: Vec::new(), failures: Vec::new(), mutants: 0, monotone: 0 }
    }

    /// Whether everything is as it should be.
    pub fn passed(&self) -> bool {
        self.failures.is_empty() && self.cases.iter().all(|case| case.problem.is_none())
    }
}

impl TestReport {
    /// Whether everything is as it should be, and something was tested at all.
    pub fn passed(&self) -> bool {
        self.problems.is_empty() && !self.rules.is_empty() && self.rules.iter().all(RuleReport::passed)
    }

    /// Whether nothing was tested, and nothing is wrong with what there is.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty() && self.problems.is_empty()
    }

    /// The report as text; `diff` shows what was expected and found of cases that failed.
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
        let monotone: usize = self.rules.iter().map(|rule| rule.monotone).sum();
        let _ = write!(
            text,
            "\ntest result: {}. {} cases passed; {failed_cases} failed; {findings} other findings; {mutants} mutants; \
             {monotone} facts taken away; finished in {:.2}s",
            verdict(self.passed()),
            cases - failed_cases,
            self.elapsed.as_secs_f64()
        );
        text
    }

    /// How many rules and catalogues there are.
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
            text.push_str("`--diff` shows what was expected and what was found\n");
        }
    }
}
