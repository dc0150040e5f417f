//! `vmgate self-test`: proves an installation on the machine it is on, without a hypervisor: each part does its job once.

use std::time::{Duration, Instant};

use clap::Args;
use vmgate_facts::Facts;
use vmgate_judge::{EvidenceOrigin, Policy, VerdictRequest};
use vmgate_ledger::{Entry, Ledger};
use vmgate_reach::{HostShell, Program};
use vmgate_rules::{ParamOverrides, RuleSource};
use vmgate_verdict::{Decision, ExitCode, Verdict};

use super::{Failure, options::GlobalOptions, output};
use crate::report::{self, Format, Style};

/// Facts of a quiet VM between two healthy hosts.
const FACTS: &[u8] = include_bytes!("../../rules/fixtures/idle-vm.yaml");
/// Longest wait for the on-host program.
const LIMIT: Duration = Duration::from_secs(30);

#[derive(Debug, Args)]
pub(super) struct SelfTest {}

/// A proof of one part: what was seen, or what is wrong.
type Proof = Result<String, String>;

/// A part of the installation: its name, and the function that proves it.
type Part = (&'static str, fn() -> Proof);

impl SelfTest {
    #[allow(clippy::unused_self, reason = "as every command")]
    pub(super) fn run(&self, shared: &GlobalOptions) -> Result<ExitCode, Failure> {
        let parts: [Part; 6] = [
            ("rules", rules),
            ("verdicts", verdicts),
            ("reports", reports),
            ("ledger", ledger),
            ("on-host program", on_host_program),
            ("libvirt", libvirt),
        ];
        let mut failed = 0;
        for (name, prove) in parts {
            let began = Instant::now();
            let (word, text) = match prove() {
                Ok(seen) => ("ok", seen),
                Err(wrong) => {
                    failed += 1;
                    ("failed", wrong)
                }
            };
            let took = report::words::seconds(began.elapsed().as_secs_f64());
            output::to_stdout(|out| writeln!(out, "{word:<7} {name:<15} {text} ({took})"))?;
        }
        if failed > 0 {
            return Err(Failure::failed(format!(
                "this installation does not work, {} failed: install vmgate again",
                report::words::number(failed, "part")
            )));
        }
        let next = if cfg!(feature = "libvirt") {
            "`vmgate init HOST…` writes down your hosts"
        } else {
            "`vmgate check --facts FILE` judges a file of facts"
        };
        output::say(shared, &format!("this installation works; next, {next}"));
        Ok(ExitCode::Go)
    }
}

fn policy() -> Result<Policy, String> {
    Policy::load(&[RuleSource::Builtin], None, &ParamOverrides::new()).map_err(|error| error.to_string())
}

/// Every rule passes the tests beside it.
fn rules() -> Proof {
    let policy = policy()?;
    let report = vmgate_rules::test::run(&policy.pack, &policy.catalogues, &[RuleSource::Builtin], None);
    if report.passed() && !report.is_empty() {
        Ok(format!("{} rules, and every test beside them passes", policy.pack.rules().len()))
    } else {
        Err("tests of the built-in rules fail: `vmgate rules test` shows them".to_owned())
    }
}

fn verdict(memory: Option<u64>) -> Result<Verdict, String> {
    let mut facts: Facts =
        vmgate_documents::facts_file::parse("idle-vm.yaml", FACTS).map_err(|error| error.to_string())?;
    if let (vmgate_facts::Fact::Known(vm), Some(memory)) = (&mut facts.vm, memory) {
        vm.memory_max_bytes = vmgate_facts::Fact::Known(memory);
    }
    let now = facts.collected_at;
    let asked =
        VerdictRequest { simulated: true, evidence: EvidenceOrigin::File(None), ..VerdictRequest::default() };
    Ok(policy()?.judge(facts, now, &asked))
}

/// A quiet VM is GO, and one larger than the destination is NO-GO by the rule for it.
fn verdicts() -> Proof {
    let (small, large) = (verdict(None)?, verdict(Some(4 << 40))?);
    let refused = large
        .outcomes
        .iter()
        .any(|judged| judged.effect_now.is_some() && &*judged.outcome.rule == "destination-memory-fits");
    match (small.decision, large.decision) {
        (Decision::Go(_), Decision::NoGo(_)) if refused => {
            Ok("a quiet VM is GO, one that does not fit is NO-GO".to_owned())
        }
        (small, large) => Err(format!("expected GO and NO-GO, found {} and {}", small.word(), large.word())),
    }
}

fn reports() -> Proof {
    let verdicts = [verdict(None)?];
    for format in Format::ALL {
        let mut written = Vec::new();
        report::write(format, &verdicts, &mut written, &Style::default())
            .map_err(|error| error.to_string())?;
        if written.is_empty() {
            return Err(format!("the format {} writes nothing", format.name()));
        }
    }
    Ok(format!("{} formats are written", Format::ALL.len()))
}

fn ledger() -> Proof {
    let wrong = |error: &dyn std::fmt::Display| error.to_string();
    let folder = tempfile::tempdir().map_err(|error| wrong(&error))?;
    let ledger = Ledger::open(folder.path().join("ledger.db")).map_err(|error| wrong(&error))?;
    ledger.append(&Entry::Verdict((&verdict(None)?).into())).map_err(|error| wrong(&error))?;
    ledger.verify().map_err(|error| wrong(&error))?;
    Ok("a record is written, and the chain is whole".to_owned())
}

/// The program that is sent to hosts and guests runs on this machine, as it would there.
fn on_host_program() -> Proof {
    let answer = HostShell::Local
        .run(Program::Sent, &[], br#"{"vmgate":1,"ask":"host"}"#, LIMIT)
        .map_err(|error| error.to_string())?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    if answer.contains("vmgate/host-probe/v1") {
        Ok("is unpacked, runs and answers".to_owned())
    } else {
        Err("gives no answer".to_owned())
    }
}

#[cfg(feature = "libvirt")]
fn libvirt() -> Proof {
    let uri = vmgate_facts::Uri::from_operator("test:///default").map_err(|error| error.to_string())?;
    let host = vmgate_libvirt::Hypervisor::open(&uri, LIMIT).map_err(|error| error.to_string())?;
    let names = host.vm_names().map_err(|error| error.to_string())?;
    Ok(format!("the client library answers ({} VM of its test driver)", names.len()))
}

#[cfg(not(feature = "libvirt"))]
#[allow(clippy::unnecessary_wraps, reason = "a part as the others")]
fn libvirt() -> Proof {
    Ok("not in this build, which checks facts files".to_owned())
}
