//! Runner of the tests of rules and of the automatic checks.

use std::{sync::Arc, time::Instant};

use vmgate_documents::{Problem, closest};
use vmgate_facts::{Cause, Unknown};
use vmgate_verdict::{Outcome, Status};

use super::{
    case::{self, Case, Fixtures, RuleTests, line, overall},
    catalogue, fact_path, mutate,
    report::{CaseReport, RuleReport, TestReport},
};
use crate::{
    Catalogues, Pack, Rule, RuleSource,
    evaluate::{self, MoveFacts},
    files::{self, FileRole, RuleFile},
    value::Value,
};

/// Runs the tests of every rule and catalogue, or only of those whose `id` or `id: case` contains `filter`.
pub fn run(pack: &Pack, catalogues: &Catalogues, sources: &[RuleSource], filter: Option<&str>) -> TestReport {
    let started = Instant::now();
    let (files, mut problems) = files::collect(
        sources,
        &[FileRole::Test, FileRole::Fixture, FileRole::Catalogue, FileRole::CatalogueTest],
    );
    let fixtures = fixtures(&files, &mut problems);
    let mut tests: Vec<RuleTests> = Vec::new();
    for file in files.iter().filter(|file| file.role == FileRole::Test) {
        match case::tests(&file.file) {
            Ok(found) => check_test_location(file, found, pack, &mut tests, &mut problems),
            Err(found) => problems.extend(found),
        }
    }
    let mut rules = Vec::new();
    for rule in pack.rules() {
        let tests = tests.iter().find(|tests| *tests.rule == *rule.id);
        let runner = Runner { rule, fixtures: &fixtures, filter };
        if let Some(report) = runner.run(tests) {
            rules.push(report);
        }
    }
    rules.extend(catalogue::run(&files, catalogues, filter, &mut problems));
    TestReport { rules, problems, elapsed: started.elapsed() }
}

/// Returns the problems of test files themselves. It is used if the rules do not load.
pub fn problems_of_files(sources: &[RuleSource]) -> Vec<Problem> {
    let (files, mut problems) =
        files::collect(sources, &[FileRole::Test, FileRole::Fixture, FileRole::CatalogueTest]);
    for RuleFile { role, file, .. } in &files {
        let found = match role {
            FileRole::Fixture => case::fixture(file).err(),
            FileRole::CatalogueTest => catalogue::document(file).err(),
            _ => case::tests(file).err(),
        };
        problems.extend(found.unwrap_or_default());
    }
    problems
}

fn fixtures(files: &[RuleFile], problems: &mut Vec<Problem>) -> Fixtures {
    let mut fixtures = Fixtures::new();
    for file in files.iter().filter(|file| file.role == FileRole::Fixture) {
        match case::fixture(&file.file) {
            Ok(json) => {
                fixtures.insert(file.stem.clone(), json);
            }
            Err(found) => problems.extend(found),
        }
    }
    fixtures
}

/// Checks that tests are in the folder of their rule. Tests of a shipped rule that was replaced are left out.
fn check_test_location(
    file: &RuleFile,
    tests: RuleTests,
    pack: &Pack,
    all: &mut Vec<RuleTests>,
    problems: &mut Vec<Problem>,
) {
    let folder = |name: &str| name.rsplit_once('/').map(|(folder, _)| folder.to_owned());
    match pack.rule(&tests.rule) {
        Some(rule) if folder(&rule.file) == folder(&file.file.name) => all.push(tests),
        Some(_) if file.builtin => {}
        Some(rule) => {
            let message = format!("the tests of `{}` are not in the folder of the rule", tests.rule);
            let help = format!("move this file to the folder of {}", rule.file);
            problems.push(Problem::of_file(&file.file.name, message, &help));
        }
        None if file.builtin
            && pack.rules().iter().any(|rule| rule.replaces.as_ref() == Some(&tests.rule)) => {}
        None => {
            let span = tests.node.get("rule").map_or(0..1, |node| node.span.clone());
            let problem = Problem::at(&file.file, span, format!("there is no rule `{}`", tests.rule))
                .label("no such rule");
            let ids = pack.rules().iter().map(|rule| &*rule.id);
            problems.push(match closest(&tests.rule, ids) {
                Some(like) => problem.help(format!("did you mean `{like}`?")),
                None => problem.help("write the rule, or remove its tests"),
            });
        }
    }
}

struct Runner<'a> {
    rule: &'a Rule,
    fixtures: &'a Fixtures,
    filter: Option<&'a str>,
}

impl Runner<'_> {
    fn selects(&self, case: Option<&str>) -> bool {
        let Some(filter) = self.filter else { return true };
        let id = &self.rule.id;
        id.contains(filter) || case.is_some_and(|case| format!("{id}: {case}").contains(filter))
    }

    fn run(&self, tests: Option<&RuleTests>) -> Option<RuleReport> {
        let whole = self.selects(None);
        let mut report = RuleReport::new("rule", &self.rule.id);
        let Some(tests) = tests else {
            let help = format!(
                "write {}.test.yaml in the same folder; docs/writing-rules.md shows how",
                self.rule.id
            );
            let span = self.rule.node.get("id").map_or(0..1, |node| node.span.clone());
            report.failures.push(
                Problem::at(&self.rule.source, span, format!("`{}` has no tests", self.rule.id))
                    .label("this rule")
                    .help(help),
            );
            return whole.then_some(report);
        };
        let (cases, problems) = tests.cases(self.rule, self.fixtures);
        report.failures.extend(problems);
        let complete = report.failures.is_empty();
        let mut results = Vec::with_capacity(cases.len());
        for case in &cases {
            let outcomes = self.evaluate(case);
            if self.selects(Some(&case.name)) {
                report.cases.push(self.case_report(tests, case, &outcomes));
                self.check_monotonicity(tests, case, &outcomes, &mut report);
            }
            results.push(outcomes);
        }
        if whole && complete {
            self.check_required_cases(tests, &cases, &results, &mut report);
            self.mutate(&cases, &results, &mut report);
        }
        (whole || !report.cases.is_empty()).then_some(report)
    }

    fn evaluate(&self, case: &Case) -> Vec<Outcome> {
        let subject = MoveFacts::new(&case.facts, &case.root, case.now);
        evaluate::evaluate([(self.rule, case.params.as_slice())].into_iter(), &subject)
    }

    fn case_report(&self, tests: &RuleTests, case: &Case, outcomes: &[Outcome]) -> CaseReport {
        let remedy_works =
            case.remediates.is_none() || matches!(overall(outcomes), Status::Pass | Status::NotApplicable);
        let passed = case.expect.matches(outcomes) && remedy_works;
        let actual = outcomes
            .iter()
            .map(|outcome| line(outcome.status, outcome.subject.as_deref(), Some(&outcome.message)))
            .collect();
        let node = case.node.get("name").unwrap_or(&case.node);
        let message = if remedy_works {
            format!("{}: case `{}`: the outcomes are not the expected ones", self.rule.id, case.name)
        } else {
            format!("{}: case `{}` does not pass, so the remediation does not help", self.rule.id, case.name)
        };
        let problem =
            (!passed).then(|| Problem::at(&tests.file, node.span.clone(), message).label("this case"));
        CaseReport { name: case.name.clone(), problem, expected: case.expect.lines(), actual }
    }

    /// Checks that the cases exist that every rule needs.
    fn check_required_cases(
        &self,
        tests: &RuleTests,
        cases: &[Case],
        results: &[Vec<Outcome>],
        report: &mut RuleReport,
    ) {
        let found: Vec<Status> = results.iter().map(|outcomes| overall(outcomes)).collect();
        let span = tests.node.get("cases").map_or(0..1, |node| node.span.clone());
        let mut missing = |what: &str, help: String| {
            let message = format!("{} has no case that {what}", self.rule.id);
            report
                .failures
                .push(Problem::at(&tests.file, span.clone(), message).label("in this list").help(help));
        };
        let conditional = self.rule.program.when.is_some() || !self.rule.program.foreach.is_empty();
        for (status, what) in [
            (Status::Pass, "passes"),
            (Status::Fail, "fails"),
            (Status::Unknown, "is unknown"),
            (Status::NotApplicable, "does not apply"),
        ] {
            let needed = match status {
                Status::NotApplicable => conditional && self.can_be_empty(),
                Status::Unknown => self.rule.program.can_be_unknown,
                _ => true,
            };
            if needed && !found.contains(&status) {
                missing(what, format!("add a case with `expect: {}`", status.word()));
            }
        }
        if cases.iter().all(|case| case.remediates.is_none()) {
            missing(
                "shows the remediation",
                "add a case that passes, with `remediates: <name of a failing case>`".to_owned(),
            );
        }
        for (case, target) in cases.iter().filter_map(|case| Some((case, case.remediates.as_ref()?))) {
            let failing = cases.iter().zip(&found).find(|(other, _)| other.name == *target);
            let why = match failing {
                None => format!("there is no case `{target}`"),
                Some((_, Status::Fail)) => continue,
                Some(_) => format!("`{target}` does not fail, so there is nothing to remedy"),
            };
            let span = case.node.get("remediates").unwrap_or(&case.node).span.clone();
            report.failures.push(Problem::at(&tests.file, span, why).label("named here"));
        }
    }

    /// True if the rule may not apply: it has a `when`, or a `foreach` whose list is not a literal and so may be empty.
    fn can_be_empty(&self) -> bool {
        self.rule.program.when.is_some()
            || self
                .rule
                .program
                .foreach
                .iter()
                .any(|each| !matches!(each.list.node, crate::expr::Node::List(_)))
    }

    /// Checks that no pass becomes a fail, and no fail a pass, if one fact is made unknown.
    fn check_monotonicity(
        &self,
        tests: &RuleTests,
        case: &Case,
        outcomes: &[Outcome],
        report: &mut RuleReport,
    ) {
        let paths: std::collections::BTreeSet<&str> = outcomes
            .iter()
            .flat_map(|outcome| &outcome.evidence)
            .map(|evidence| evidence.path.as_str())
            .collect();
        for path in paths {
            let Ok(steps) = fact_path::parse(path) else { continue };
            let mut root = case.root.clone();
            let Some(value) = fact_path::find(&mut root, &steps) else { continue };
            *value = Value::Unknown(Arc::new(Unknown::new(Cause::NotCollected, "made unknown by the test")));
            let subject = MoveFacts::new(&case.facts, &root, case.now);
            let less = evaluate::evaluate([(self.rule, case.params.as_slice())].into_iter(), &subject);
            report.hidden_facts += 1;
            let flipped = less.iter().any(|now| {
                let before: Vec<Status> = outcomes
                    .iter()
                    .filter(|before| before.subject == now.subject)
                    .map(|before| before.status)
                    .collect();
                match now.status {
                    Status::Pass => {
                        !before.is_empty()
                            && !before.contains(&Status::Pass)
                            && before.contains(&Status::Fail)
                    }
                    Status::Fail => {
                        !before.is_empty()
                            && !before.contains(&Status::Fail)
                            && before.contains(&Status::Pass)
                    }
                    _ => false,
                }
            });
            if flipped {
                let node = case.node.get("name").unwrap_or(&case.node);
                let message = format!(
                    "{}: case `{}`: pass and fail are exchanged if `{path}` is unknown",
                    self.rule.id, case.name
                );
                report.failures.push(
                    Problem::at(&tests.file, node.span.clone(), message)
                        .label("this case")
                        .help("an unknown fact must make the outcome unknown; this is a defect of vmgate: please report it together with the rule"),
                );
            }
        }
    }

    /// Checks that every change of an operator or a number changes the result of a case.
    fn mutate(&self, cases: &[Case], results: &[Vec<Outcome>], report: &mut RuleReport) {
        let verdicts = |outcomes: &[Outcome]| {
            outcomes.iter().map(|outcome| (outcome.subject.clone(), outcome.status)).collect::<Vec<_>>()
        };
        let original: Vec<_> = results.iter().map(|outcomes| verdicts(outcomes)).collect();
        for mutant in mutate::mutants(&self.rule.program) {
            report.mutants += 1;
            let noticed = cases.iter().zip(&original).any(|(case, before)| {
                let subject = MoveFacts::new(&case.facts, &case.root, case.now);
                verdicts(&evaluate::evaluate_program(self.rule, &mutant.program, &case.params, &subject))
                    != *before
            });
            if !noticed {
                report.failures.push(self.survivor(&mutant));
            }
        }
    }

    fn survivor(&self, mutant: &mutate::Mutant) -> Problem {
        let source = &self.rule.source;
        let span = match self.rule.node.get(mutant.field) {
            Some(node) => {
                let last = mutant.span.end.saturating_sub(1).max(mutant.span.start);
                node.locate(&source.text, mutant.span.start)..node.locate(&source.text, last) + 1
            }
            None => 0..1,
        };
        Problem::at(source, span, format!("{}: no case has another result if {}", self.rule.id, mutant.change))
            .label(mutant.change.clone())
            .help("add a case at the limit, or a case that only this part decides; if no such case can exist, remove this part")
    }
}
