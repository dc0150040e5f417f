//! `vmgate check`: the verdict on a move from live hosts or from a facts file, or on every move of a change.

use std::path::PathBuf;
#[cfg(feature = "libvirt")]
use std::time::Duration;

use clap::Args;
#[cfg(feature = "libvirt")]
use vmgate_collect::CollectRequest;
use vmgate_facts::Facts;
#[cfg(feature = "libvirt")]
use vmgate_facts::{Change, text::ShownCommand};
use vmgate_judge::{
    EvidenceOrigin, VerdictRequest,
    change::{ChangeFile, FactsFiles, PlannedMove, ReservedMemory},
};
#[cfg(feature = "libvirt")]
use vmgate_judge::{
    Policy,
    change::{Limits, MovePlan},
};
use vmgate_verdict::ExitCode;
#[cfg(feature = "libvirt")]
use vmgate_verdict::Verdict;

use super::{
    Failure, options, output,
    session::{self, Session},
};
#[cfg(feature = "libvirt")]
use super::{
    many_moves::ManyMoves,
    nova,
    trial::{Trials, TriedMove},
};

#[derive(Debug, Args)]
#[allow(clippy::struct_excessive_bools, reason = "each is an option of its own")]
pub(super) struct Check {
    /// Name or UUID of the VM, or qmp:SOCKET for one that libvirt does not have. Without --to every other host of the site is judged
    /// as its destination, and where none is known the VM alone, which is no GO. Without a VM give --all, --facts or --change
    #[cfg_attr(not(feature = "libvirt"), arg(hide = true))]
    vm: Option<String>,
    #[cfg(feature = "libvirt")]
    #[command(flatten)]
    the_move: options::MoveOptions,
    #[command(flatten)]
    goals: options::Goals,
    /// Check every VM that runs on the host of --from, each to the first destination that may take it: the report before a
    /// maintenance. --to names the destination, a pool or a rack; without it every other host of the site is one
    #[cfg(feature = "libvirt")]
    #[arg(long, requires = "from", conflicts_with_all = ["vm", "facts", "change", "rehearse", "trial", "probe_network"])]
    all: bool,
    /// Time for the measurements of --all, in seconds: VMs are measured one after the other, and those whose turn comes later
    /// are not
    #[cfg(feature = "libvirt")]
    #[arg(long, value_name = "SECONDS", default_value = "600", value_parser = options::seconds, requires = "all")]
    budget: Duration,
    /// Check this facts file and ask no hypervisor. With --change a folder of facts files, one for each move
    #[cfg_attr(feature = "libvirt", arg(long, value_name = "PATH", conflicts_with_all = ["vm", "from", "to"]))]
    #[cfg_attr(not(feature = "libvirt"), arg(long, value_name = "PATH", required = true))]
    facts: Option<PathBuf>,
    /// Public key, in PEM, that is trusted to sign facts (`collect --sign`), in addition to `facts_keys` of vmgate.yaml; may be
    /// repeated
    #[arg(long, value_name = "FILE", requires = "facts")]
    facts_key: Vec<PathBuf>,
    /// Check every move of this change
    #[arg(long, value_name = "FILE")]
    #[cfg_attr(feature = "libvirt", arg(conflicts_with_all = ["vm", "from", "to", "migrate_address", "guest"]))]
    #[arg(conflicts_with_all = ["change_id", "longest_blackout", "network_dark", "deadline", "bandwidth_limit", "run_by", "rehearsal"])]
    change: Option<PathBuf>,
    /// Also rehearse the move with an empty copy of the VM: it is started paused at the source, moved to the destination and back,
    /// and removed, as `vmgate rehearse` does. Nothing of the VM is touched
    #[cfg(feature = "libvirt")]
    #[arg(long, conflicts_with_all = ["facts", "at"])]
    rehearse: bool,
    /// Also begin the migration at the least bandwidth and take it back as soon as it sends, if nothing fails so far. The guest
    /// goes on; the destination starts a QEMU for a moment. What both hosts say to it decides what only they know
    #[cfg(feature = "libvirt")]
    #[arg(long, conflicts_with_all = ["facts", "at"])]
    trial: bool,
    /// Also rehearse the switchover on the VM's networks: an interface without an address appears at the source's bridge, in the VM's
    /// VLAN, moves to the destination's bridge, and the time until it is reached there is measured. Both interfaces end with
    /// this command, whatever becomes of it
    #[cfg(feature = "libvirt")]
    #[arg(long, conflicts_with_all = ["facts", "at"])]
    probe_network: bool,
    #[command(flatten)]
    time: options::EvaluationTime,
    #[command(flatten)]
    reports: output::Reports,
    /// Warnings make the exit code 10
    #[arg(long)]
    strict: bool,
}

impl Check {
    #[cfg_attr(not(feature = "libvirt"), allow(unused_mut))]
    pub(super) fn run(mut self, shared: &options::GlobalOptions) -> Result<ExitCode, Failure> {
        let mut session = Session::open(shared)?;
        #[cfg(feature = "libvirt")]
        self.the_move.hosts.begin_logins(&session);
        let policy = session.policy()?;
        self.goals.checked(&policy.catalogues)?;
        #[cfg(feature = "libvirt")]
        nova::find_server(
            &mut session,
            self.goals.run_by.as_deref(),
            &mut self.vm,
            &mut self.the_move.hosts,
        )?;
        let reports = self.reports.open()?;
        #[cfg(feature = "libvirt")]
        let trials = self.trial.then(|| Trials::open(&session)).transpose()?;
        if let Some(file) = &self.change {
            let change = session::read_change(file)?;
            let policy = policy.and_waivers(change.waivers.clone());
            let keys = session.facts_keys(&self.facts_key)?;
            let read = |path: &PathBuf| FactsFiles::read(path, &keys).map_err(Failure::usage);
            let evidence = self.facts.as_ref().map(read).transpose()?;
            let mut reserved = ReservedMemory::default();
            let judge = |planned: &PlannedMove| {
                let (mut facts, evidence) = match &evidence {
                    Some(evidence) => evidence.facts_of(&change, planned).map_err(Failure::usage)?,
                    None => (self.ask_hosts_of(&change, planned, &session)?, EvidenceOrigin::Live),
                };
                planned.plan.apply_preparation(&mut facts);
                reserved.subtract_from(&mut facts);
                let asked = VerdictRequest { evidence, ..change.verdict_request(planned, self.strict) };
                let asked = self.simulated(asked);
                #[cfg(feature = "libvirt")]
                if let Some(trials) = &trials {
                    let request =
                        super::collect::request_of(&change, planned, &self.the_move.measurements, &session)?;
                    let (plan, address, limits) = (&planned.plan, planned.migrate_address, change.limits);
                    let tried = TriedMove { request: &request, plan, address, limits };
                    trials.make(&tried, &policy, &asked, &mut facts)?;
                }
                let verdict = policy.judge(facts.clone(), self.time.now(), &asked);
                reserved.add_move(&facts, &verdict);
                Ok(verdict)
            };
            let verdicts = change.moves.iter().map(judge).collect::<Result<Vec<_>, Failure>>()?;
            session.record(&verdicts)?;
            return reports.write(&verdicts, shared);
        }
        #[cfg(feature = "libvirt")]
        if let Some(vm) = self.vm.as_ref().filter(|_| self.trial || self.rehearse || self.probe_network) {
            super::migrate::moved_by_libvirt(vm, &policy.catalogues)?;
        }
        #[cfg(feature = "libvirt")]
        if let Some(verdicts) = self.many(&session, &policy)? {
            session.record(&verdicts)?;
            return reports.write(&verdicts, shared);
        }
        let (mut facts, evidence) = self.facts(&session)?;
        facts.change = self.goals.over(facts.change);
        let asked = VerdictRequest { strict: self.strict, evidence, ..VerdictRequest::default() };
        let asked = self.simulated(asked);
        #[cfg(feature = "libvirt")]
        if let (Some(trials), Some(vm)) = (&trials, &self.vm) {
            let request = self.the_move.request(vm, facts.change.clone(), &session)?;
            let (plan, address) = (MovePlan::from(&facts.change), super::migrate::address_of(&request));
            let tried = TriedMove { request: &request, plan: &plan, address, limits: Limits::default() };
            trials.make(&tried, &policy, &asked, &mut facts)?;
        }
        let verdict = policy.judge(facts, self.time.now(), &asked);
        session.record(std::slice::from_ref(&verdict))?;
        reports.write(&[verdict], shared)
    }

    fn simulated(&self, asked: VerdictRequest) -> VerdictRequest {
        VerdictRequest { simulated: self.time.is_simulated(), ..asked }
    }

    fn facts(&self, session: &Session) -> Result<(Facts, EvidenceOrigin), Failure> {
        match &self.facts {
            Some(file) => {
                vmgate_judge::read_facts(file, &session.facts_keys(&self.facts_key)?).map_err(Failure::usage)
            }
            None => Ok((Self::ask_hosts(self, session)?, EvidenceOrigin::Live)),
        }
    }

    #[cfg(feature = "libvirt")]
    fn ask_hosts(&self, session: &Session) -> Result<Facts, Failure> {
        let Some(vm) = self.vm.as_deref() else {
            return Err(Failure::usage(
                "nothing to check: give a VM, a host to empty with --all --from HOST, a facts file with --facts FILE, or a change with --change FILE",
            ));
        };
        let request = self.the_move.request(vm, self.goals.over(Change::default()), session)?;
        self.facts_of(&request, session)
    }

    /// Verdicts where several moves were asked for: of every VM of a host, or of a VM to several destinations.
    #[cfg(feature = "libvirt")]
    fn many(&self, session: &Session, policy: &Policy) -> Result<Option<Vec<Verdict>>, Failure> {
        let hosts = &self.the_move.hosts;
        if self.facts.is_some() || (self.vm.is_none() && !self.all) {
            return Ok(None);
        }
        let to = hosts.to.as_deref().unwrap_or(super::site::ANY);
        let named = session.destinations(to)?;
        if named.len() == 1 && to != super::site::ANY && !self.all {
            return Ok(None);
        }
        if self.trial || self.rehearse || self.probe_network {
            let command = ShownCommand::new("vmgate check").value(self.vm.as_deref().unwrap_or_default());
            return Err(Failure::usage(format!(
                "--trial, --rehearse and --probe-network need one destination: see first which is the best with `{}`",
                command.words("--to").value(to)
            )));
        }
        let source = hosts.source(self.vm.as_deref().unwrap_or_default(), session)?;
        let destinations = match super::site::others(named, &source) {
            // The VM is judged where it runs.
            Err(_) if hosts.to.is_none() && !self.all => return Ok(None),
            found => found?,
        };
        let moves = ManyMoves {
            the_move: &self.the_move,
            change: self.goals.over(Change::default()),
            session,
            policy,
            time: &self.time,
            strict: self.strict,
        };
        if self.all {
            return moves.of_host(&source, &destinations, self.budget).map(Some);
        }
        let Some(vm) = &self.vm else { return Ok(None) };
        moves.of_vm(vm, &source, &destinations).map(|best| Some(vec![best]))
    }

    /// Facts of a move, with those of a rehearsal if that was asked for.
    #[cfg(feature = "libvirt")]
    fn facts_of(&self, request: &CollectRequest, session: &Session) -> Result<Facts, Failure> {
        let facts = {
            let _waiting = super::collect::waiting(request, session);
            super::collect::facts(request, self.time.now())?
        };
        let mut facts = session.with_history(facts)?;
        if self.rehearse {
            super::rehearse::add(request, session, &mut facts)?;
        }
        if self.probe_network {
            let hosts = session.hosts(&request.from, super::collect::destination(request)?);
            let (ledger, stop) = (session.ledger()?, super::trial::aborted_by_signals()?);
            // Of a change each network between two hosts is rehearsed once, where a ledger keeps the result.
            let rehearse =
                if self.change.is_some() { super::network::complete } else { super::network::rehearse };
            rehearse(&hosts, session, (ledger.as_ref(), &*stop), &mut facts)?;
        }
        Ok(facts)
    }

    #[cfg(feature = "libvirt")]
    fn ask_hosts_of(
        &self,
        change: &ChangeFile,
        planned: &PlannedMove,
        session: &Session,
    ) -> Result<Facts, Failure> {
        let request = super::collect::request_of(change, planned, &self.the_move.measurements, session)?;
        self.facts_of(&request, session)
    }

    #[cfg(not(feature = "libvirt"))]
    fn ask_hosts_of(&self, _: &ChangeFile, _: &PlannedMove, session: &Session) -> Result<Facts, Failure> {
        Self::ask_hosts(self, session)
    }

    #[cfg(not(feature = "libvirt"))]
    fn ask_hosts(_: &Self, _: &Session) -> Result<Facts, Failure> {
        Err(Failure::usage(
            "this build of vmgate has no libvirt and cannot ask hosts: give --facts FILE, or use the build with libvirt",
        ))
    }
}
