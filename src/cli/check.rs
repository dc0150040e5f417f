//! `vmgate check`: the verdict, from live hosts or from a facts file.

use std::path::PathBuf;

use clap::Args;

use super::{Failure, options, output, session::Session};
use crate::{collect, fact::Facts, verdict::ExitCode};

#[derive(Debug, Args)]
pub(super) struct Check {
    /// Name or UUID of the VM, which goes with --from and --to; or else give --facts
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
        let mut facts = self.facts(&session)?;
        facts.change = self.goals.over(facts.change);
        let verdict = policy.judge(facts, session.now(), self.strict);
        reports.write(&[verdict], shared)
    }

    fn facts(&self, session: &Session) -> Result<Facts, Failure> {
        if let Some(file) = &self.facts {
            return collect::document::read(file).map_err(Failure::usage);
        }
        Self::ask_hosts(self, session)
    }

    #[cfg(feature = "libvirt")]
    fn ask_hosts(&self, session: &Session) -> Result<Facts, Failure> {
        let Some(vm) = self.vm.as_deref() else {
            return Err(Failure::usage(
                "nothing to check: give a VM with --from URI and --to URI, or a facts file with --facts FILE",
            ));
        };
        super::collect::from_hosts(vm, &self.the_move, &self.goals, session)
    }

    #[cfg(not(feature = "libvirt"))]
    fn ask_hosts(_: &Self, _: &Session) -> Result<Facts, Failure> {
        Err(Failure::usage("this build of vmgate has no libvirt: give --facts FILE"))
    }
}
