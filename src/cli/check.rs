//! `vmgate check`: the verdict, from live hosts, from a facts file, or on every move of a change.

use std::path::PathBuf;

use clap::Args;

use super::{Failure, options, output, session::Session};
#[cfg(feature = "libvirt")]
use crate::change::Taken;
use crate::{collect, fact::Facts, preflight::Asked, rule::conform_facts, verdict::ExitCode};

#[derive(Debug, Args)]
pub(super) struct Check {
    /// Name or UUID of the VM, which goes with --from and --to; or else give --facts or --change
    #[cfg_attr(feature = "libvirt", arg(requires_all = ["from", "to"]))]
    #[cfg_attr(not(feature = "libvirt"), arg(hide = true))]
    vm: Option<String>,
    #[cfg(feature = "libvirt")]
    #[command(flatten)]
    the_move: options::MoveOptions,
    #[command(flatten)]
    goals: options::Goals,
    /// Check this facts file instead; no hypervisor is asked
    #[cfg_attr(feature = "libvirt", arg(long, value_name = "FILE", conflicts_with_all = ["vm", "from", "to"]))]
    #[cfg_attr(not(feature = "libvirt"), arg(long, value_name = "FILE", required = true))]
    facts: Option<PathBuf>,
    /// Check every move of this change
    #[cfg(feature = "libvirt")]
    #[arg(long, value_name = "FILE", conflicts_with_all = ["vm", "from", "to", "facts", "migrate_address", "guest"])]
    #[arg(conflicts_with_all = ["change_id", "longest_blackout", "deadline", "bandwidth_limit"])]
    change: Option<PathBuf>,
    #[command(flatten)]
    reports: output::Reports,
    /// Warnings make the exit code 10
    #[arg(long)]
    strict: bool,
}

impl Check {
    pub(super) fn run(&self, shared: &options::Shared) -> Result<ExitCode, Failure> {
        let session = Session::open(shared)?;
        let policy = session.policy()?;
        let reports = self.reports.open()?;
        #[cfg(feature = "libvirt")]
        if let Some(file) = &self.change {
            let change = super::session::read_change(file)?;
            let policy = policy.and_waivers(change.waivers.clone());
            let mut taken = Taken::default();
            let judge = |planned| {
                let request = super::collect::request_of(&change, planned, &self.the_move, &session)?;
                let mut facts = super::collect::facts(&request, session.now())?;
                planned.plan.prepare(&mut facts);
                taken.lay_over(&mut facts);
                let verdict =
                    policy.judge(facts.clone(), session.now(), &change.asked_of(planned, self.strict));
                taken.add(&facts, &verdict);
                Ok(verdict)
            };
            let verdicts = change.moves.iter().map(judge).collect::<Result<Vec<_>, Failure>>()?;
            session.record(&verdicts)?;
            return reports.write(&verdicts, shared);
        }
        let mut facts = self.facts(&session)?;
        facts.change = self.goals.over(facts.change);
        let asked = Asked { strict: self.strict, ..Asked::default() };
        let verdict = policy.judge(facts, session.now(), &asked);
        session.record(std::slice::from_ref(&verdict))?;
        reports.write(&[verdict], shared)
    }

    fn facts(&self, session: &Session) -> Result<Facts, Failure> {
        if let Some(file) = &self.facts {
            return collect::document::read(file, conform_facts)
                .map_err(|error| Failure::usage(error.to_string()));
        }
        Self::ask_hosts(self, session)
    }

    #[cfg(feature = "libvirt")]
    fn ask_hosts(&self, session: &Session) -> Result<Facts, Failure> {
        let Some(vm) = self.vm.as_deref() else {
            return Err(Failure::usage(
                "nothing to check: give a VM with --from URI and --to URI, a facts file with --facts FILE, or a change with --change FILE",
            ));
        };
        super::collect::from_hosts(vm, &self.the_move, &self.goals, session)
    }

    #[cfg(not(feature = "libvirt"))]
    fn ask_hosts(_: &Self, _: &Session) -> Result<Facts, Failure> {
        Err(Failure::usage("this build of vmgate has no libvirt: give --facts FILE"))
    }
}
