//! `vmgate explain`: one outcome of a verdict, with its rule, its facts, and the origin of each fact.

use std::path::PathBuf;

use clap::Args;
use vmgate_documents::closest;
use vmgate_judge::{Policy, VerdictRequest};
use vmgate_verdict::{ExitCode, JudgedOutcome, Verdict, waiver::Glob};

use super::{
    Failure,
    options::{EvaluationTime, GlobalOptions},
    output,
    session::Session,
};
use crate::report;

#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("judged").required(true).args(["verdict", "facts"])))]
pub(super) struct Explain {
    /// Id of the rule
    rule: String,
    /// Only outcomes on this subject; `*` matches any text
    subject: Option<String>,
    /// Verdict, or list of them, as --output json or yaml wrote it
    #[arg(long, value_name = "FILE")]
    verdict: Option<PathBuf>,
    /// Facts file to judge now
    #[arg(long, value_name = "FILE")]
    facts: Option<PathBuf>,
    /// Only moves of this VM, by name or UUID
    #[arg(long, value_name = "VM")]
    vm: Option<String>,
    #[command(flatten)]
    time: EvaluationTime,
}

impl Explain {
    /// Exit code 0 if there was an outcome to explain: the exit code of the verdict is that of `vmgate report`.
    pub(super) fn run(&self, shared: &GlobalOptions) -> Result<ExitCode, Failure> {
        let session = Session::open(shared)?;
        let policy = session.policy()?;
        let verdicts = match (&self.verdict, &self.facts) {
            (Some(file), _) => output::read_verdicts(file)?,
            (None, Some(file)) => {
                let (facts, evidence) =
                    vmgate_judge::read_facts(file, &session.facts_keys(&[])?).map_err(Failure::usage)?;
                let simulated = self.time.is_simulated();
                let asked = VerdictRequest { simulated, evidence, ..VerdictRequest::default() };
                vec![policy.judge(facts, self.time.now(), &asked)]
            }
            (None, None) => Vec::new(),
        };
        let of_vm: Vec<&Verdict> = verdicts.iter().filter(|verdict| self.is_of_vm(verdict)).collect();
        let found: Vec<(&Verdict, &JudgedOutcome)> = of_vm
            .iter()
            .flat_map(|verdict| verdict.outcomes.iter().map(move |judged| (*verdict, judged)))
            .filter(|(_, judged)| self.is_selected(judged))
            .collect();
        if found.is_empty() {
            return Err(self.not_found(&of_vm, &policy));
        }
        let style = output::style(shared);
        output::to_stdout_in_colour(shared, |out| {
            found.iter().try_for_each(|(verdict, judged)| {
                let rule = policy.pack.rule(&judged.outcome.rule);
                let same = verdict.digests.rules == policy.digest();
                report::explain(verdict, judged, rule.map(|rule| (rule, same)), out, &style)
            })
        })?;
        Ok(ExitCode::Go)
    }

    fn is_of_vm(&self, verdict: &Verdict) -> bool {
        self.vm.as_ref().is_none_or(|vm| verdict.moved.vm.is(vm))
    }

    fn is_selected(&self, judged: &JudgedOutcome) -> bool {
        let subject = judged.outcome.subject.as_deref().unwrap_or_default();
        *judged.outcome.rule == *self.rule
            && self.subject.as_ref().is_none_or(|wanted| Glob::new(wanted).fits(subject))
    }

    fn not_found(&self, verdicts: &[&Verdict], policy: &Policy) -> Failure {
        let outcomes = || verdicts.iter().flat_map(|verdict| &verdict.outcomes);
        let subjects: Vec<&str> = outcomes()
            .filter(|judged| *judged.outcome.rule == *self.rule)
            .map(|judged| judged.outcome.subject.as_deref().unwrap_or("(the move as a whole)"))
            .collect();
        let why = if verdicts.is_empty() {
            let vm = self.vm.as_deref().unwrap_or_default();
            format!("no verdict is for a VM `{vm}`; leave out --vm to see all")
        } else if let (Some(wanted), false) = (&self.subject, subjects.is_empty()) {
            format!("{} has no outcome on `{wanted}`; it has some on {}", self.rule, subjects.join(", "))
        } else {
            let known = outcomes().map(|judged| &*judged.outcome.rule);
            let known = known.chain(policy.pack.rules().iter().map(|rule| &*rule.id));
            let hint = match closest(&self.rule, known.filter(|id| *id != self.rule)) {
                Some(like) => format!("did you mean `{like}`?"),
                None => "`vmgate report FILE -v` shows all outcomes".to_owned(),
            };
            format!("the verdict has no outcome of a rule `{}`; {hint}", self.rule)
        };
        Failure::usage(why)
    }
}
