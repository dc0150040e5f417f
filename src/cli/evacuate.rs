//! `vmgate evacuate`: a plan that empties hosts, as a change file for `vmgate run` and `vmgate migrate`.

use std::{collections::HashMap, fs, path::PathBuf};

use clap::{Args, ValueEnum};
use jiff::Timestamp;
use vmgate_facts::{Change, Fact, Host};
use vmgate_judge::{
    Policy,
    change::{ChangeFile, FactsFiles},
};
use vmgate_rules::Pack;
use vmgate_verdict::{Effect, ExitCode};

#[cfg(feature = "libvirt")]
use super::nova;
use super::{
    Failure,
    options::{EvaluationTime, GlobalOptions, Goals},
    output,
    session::{Session, read_change},
};
use crate::fleet::{
    self, ChangeHeader, FilesSite, Fleet, FleetPlan, HostId, PlanRequest, PolicyOracle, Proposal,
    RollingPace, Site, VmId, inventory::Inventory,
};

/// Parameter with QEMU's memory overhead per guest, in whichever rule judges the destination's memory.
const OVERHEAD: &str = "overhead_bytes";

#[derive(Debug, Args)]
pub(super) struct Evacuate {
    /// Hosts to empty: names, pools or racks of the inventory
    #[arg(value_name = "HOST", required = true)]
    hosts: Vec<String>,
    /// Destination hosts for the VMs: names, pools or racks. With --rolling the racks that are not emptied at the time take VMs too
    #[arg(long, value_name = "POOL|HOST", num_args = 1.., required_unless_present = "rolling")]
    into: Vec<String>,
    /// Inventory file: hosts with racks, pools, networks and limits, and groups of VMs [default: as vmgate.yaml says]
    #[arg(long, value_name = "FILE")]
    inventory: Option<PathBuf>,
    /// Read the facts of hosts and VMs from this file or folder and ask no hypervisor
    #[cfg_attr(feature = "libvirt", arg(long, value_name = "PATH"))]
    #[cfg_attr(not(feature = "libvirt"), arg(long, value_name = "PATH", required = true))]
    facts: Option<PathBuf>,
    /// Change file to write; without it the plan is only printed
    #[arg(short = 'o', long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Empty one rack at a time, or as many as the other racks have room for, and move the VMs back before the next rack:
    /// the change waits in between until the hosts have the versions in `after_maintenance` of the inventory
    #[arg(long, value_name = "PACE", num_args = 0..=1, require_equals = true, default_missing_value = "rack")]
    rolling: Option<Rolling>,
    /// Earlier change file of this plan: moves that are still valid stay as they are, with all manual edits
    #[arg(long, value_name = "OLD")]
    replan: Option<PathBuf>,
    /// Start of the change window
    #[arg(long, value_name = "TIME", value_parser = super::options::time, requires = "window_end")]
    window_start: Option<Timestamp>,
    /// End of the change window
    #[arg(long, value_name = "TIME", value_parser = super::options::time, requires = "window_start")]
    window_end: Option<Timestamp>,
    /// Begin each migration and take it back just before it is judged, when the change is executed: what both hosts say to it
    /// decides what only they know. The change gets `settings: {trial: true}`; the plan itself changes nothing
    #[arg(long)]
    trial: bool,
    /// Rehearse the switchover on the VMs' networks just before the moves are judged, when the change is executed, as
    /// `vmgate check --probe-network` does, once a day for each network between two hosts. The change gets `settings:
    /// {probe_network: true}`; the plan itself changes nothing
    #[arg(long)]
    probe_network: bool,
    #[command(flatten)]
    goals: Goals,
    #[command(flatten)]
    time: EvaluationTime,
}

/// Racks that are emptied at the same time.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Rolling {
    /// One rack
    Rack,
    /// As many racks as the other racks have room for
    Room,
}

impl Evacuate {
    pub(super) fn run(&self, shared: &GlobalOptions) -> Result<ExitCode, Failure> {
        let session = Session::open(shared)?;
        let policy = session.policy()?;
        #[cfg_attr(not(feature = "libvirt"), allow(unused_mut))]
        let mut inventory = match &self.inventory {
            Some(file) => Inventory::read(file).map_err(Failure::usage)?,
            None => session.inventory()?.cloned().ok_or_else(|| {
                Failure::usage(
                    "--inventory is missing, and vmgate.yaml names none: `vmgate init HOST…` writes one",
                )
            })?,
        };
        let empty = inventory.select(&self.hosts).map_err(Failure::usage)?;
        #[cfg(feature = "libvirt")]
        if self.goals.run_by.as_deref() == Some(nova::NOVA) && self.facts.is_none() {
            nova::add_records(&session, &mut inventory, &empty)?;
        }
        let into = inventory.select(&self.into).map_err(Failure::usage)?;
        let earlier = self.replan.as_deref().map(read_change).transpose()?;
        let draft_file = self.output.as_deref().map(output::OpenFile::open).transpose()?;
        let site = self.site(&inventory, &session)?;
        if let Some(limit) = self.limit_of_manager(&policy, site.hosts(), &empty) {
            let named = inventory.limits_outgoing.then_some(inventory.limits.outgoing_per_host);
            inventory.limits.outgoing_per_host = named.map_or(limit, |named| named.min(limit));
        }
        let overhead = overhead_bytes(&policy.pack);
        let (fleet, notes) = fleet::build(&inventory, &*site, overhead).map_err(Failure::usage)?;
        let asked = self.goals.checked(&policy.catalogues)?.over(Change::default());
        let mut judge = PolicyOracle::new(&policy, &*site, &fleet, &asked, self.time.now())
            .with_bounds(&inventory.bounds);
        if self.rolling.is_some() {
            judge = judge.with_way_back(inventory.after_maintenance);
        }
        let kept = earlier
            .as_ref()
            .map(|change| earlier_destinations(change, &inventory, &fleet))
            .unwrap_or_default();
        let ids = |places: &[usize]| places.iter().copied().map(HostId).collect();
        let request =
            PlanRequest { empty: ids(&empty), into: ids(&into), earlier: &|vm| kept.get(&vm).copied() };
        let plan = match self.rolling {
            None => fleet::evacuate(&fleet, &judge, &request),
            Some(Rolling::Rack) => fleet::rolling(&fleet, &judge, &request, RollingPace::RackByRack),
            Some(Rolling::Room) => fleet::rolling(&fleet, &judge, &request, RollingPace::AsRoomAllows),
        };
        let header = self.header();
        let proposal = Proposal {
            inventory: &inventory,
            fleet: &fleet,
            judge: &judge,
            plan: &plan,
            notes: &notes,
            header,
        };
        if let Some(file) = draft_file {
            let text = self.text(&proposal)?;
            file.write(|out| out.write_all(text.as_bytes()))?;
        }
        output::to_stdout(|out| {
            if self.time.is_simulated() {
                writeln!(
                    out,
                    "Simulated for {}: each move is checked again before it is made.",
                    self.time.now()
                )?;
            }
            proposal.to_string().lines().try_for_each(|line| {
                let (indent, text) = line.split_at(line.len() - line.trim_start().len());
                writeln!(out, "{}", output::in_columns(indent, text))
            })
        })?;
        Ok(exit(&plan, &empty, &*site))
    }

    /// Most simultaneous moves out of one of these hosts, by the manager that runs them; none without a manager or a limit.
    fn limit_of_manager(&self, policy: &Policy, hosts: &[Fact<Host>], empty: &[usize]) -> Option<usize> {
        let mut managers = policy.catalogues.managers().iter();
        let manager = managers.find(|entry| Some(entry.id.as_str()) == self.goals.run_by.as_deref())?;
        let limit = |host: &Fact<Host>| {
            let settings = host.known()?.managers.known()?.settings.known().map(Vec::as_slice);
            manager.migration(settings.unwrap_or_default(), 1 << 30, &[]).ok()?.parallel_moves
        };
        let limits = empty.iter().filter_map(|at| limit(hosts.get(*at)?));
        limits.min().and_then(|limit| usize::try_from(limit).ok())
    }

    /// Text of the change file, which is parsed once as a check. A failure if no VM can be moved.
    fn text(&self, proposal: &Proposal) -> Result<String, Failure> {
        let draft = proposal.draft();
        if draft.moves.is_empty() {
            return Err(Failure {
                exit: if proposal.plan.unplaced.is_empty() {
                    ExitCode::NothingEvaluated
                } else {
                    ExitCode::RuleViolated
                },
                text: format!("no change file is written, because no VM can be moved\n{proposal}"),
            });
        }
        let text = match &self.replan {
            None => draft.to_yaml(),
            Some(file) => {
                let bytes = fs::read(file).map_err(|error| output::unreadable(file, &error))?;
                draft.merge_into(&file.display().to_string(), &bytes).map_err(Failure::usage)?
            }
        };
        ChangeFile::parse("the planned change", text.as_bytes()).map_err(Failure::failed)?;
        Ok(text)
    }

    fn site(&self, inventory: &Inventory, session: &Session) -> Result<Box<dyn Site>, Failure> {
        match &self.facts {
            Some(path) => {
                let files =
                    FactsFiles::read(path, &session.facts_keys(&[])?).map_err(Failure::usage)?.into_facts();
                Ok(Box::new(FilesSite::new(inventory, files)))
            }
            None => survey_site(inventory, session, self.time.now()),
        }
    }

    fn header(&self) -> ChangeHeader {
        let names = self.hosts.join(", ");
        let title = format!("Empty {names}{}", self.rolling.map_or("", |_| ", and bring their VMs back"));
        ChangeHeader {
            id: self.goals.change_id.clone().unwrap_or_else(|| format!("empty-{}", self.hosts.join("-"))),
            title,
            window: self.window_start.zip(self.window_end),
            longest_blackout_seconds: self.goals.longest_blackout,
            network_dark_seconds: self.goals.network_dark,
            deadline_seconds: self.goals.deadline,
            trial: self.trial,
            run_by: self.goals.run_by.clone(),
            probe_network: self.probe_network,
        }
    }
}

/// Destinations in an earlier change of the VMs that are still on its source hosts.
fn earlier_destinations(change: &ChangeFile, inventory: &Inventory, fleet: &Fleet) -> HashMap<VmId, HostId> {
    let host_at = |uri: &vmgate_facts::HostUri| inventory.hosts.iter().position(|host| host.uri == *uri);
    let vm_at = |name: &str, from: usize| {
        fleet.vms.iter().position(|vm| vm.name == name && vm.host == HostId(from)).map(VmId)
    };
    let moves = change
        .moves
        .iter()
        .filter_map(|moved| Some((vm_at(&moved.vm, host_at(&moved.from)?)?, HostId(host_at(&moved.to)?))));
    moves.collect()
}

/// The largest of all rules that block a move: a site may have its own rule in place of the shipped one.
fn overhead_bytes(pack: &Pack) -> u64 {
    let blocking = pack.rules().iter().filter(|rule| rule.effect == Effect::Block);
    let params = blocking.flat_map(|rule| &rule.params);
    params.filter(|param| param.name == OVERHEAD).filter_map(|param| param.value.as_u64()).max().unwrap_or(0)
}

/// 0 where all VMs can go; 20 where some cannot; 21 where a host that is to be emptied did not answer.
fn exit(plan: &FleetPlan, empty: &[usize], site: &dyn Site) -> ExitCode {
    let lost = |host: &&usize| site.hosts().get(**host).is_some_and(|host| host.known().is_none());
    if !plan.unplaced.is_empty() {
        ExitCode::RuleViolated
    } else if empty.iter().any(|host| lost(&host)) {
        ExitCode::EvidenceMissing
    } else if plan.waves.iter().all(|wave| wave.schedule.moves.is_empty()) {
        ExitCode::NothingEvaluated
    } else {
        ExitCode::Go
    }
}

#[cfg(feature = "libvirt")]
fn survey_site(inventory: &Inventory, session: &Session, now: Timestamp) -> Result<Box<dyn Site>, Failure> {
    use vmgate_collect::survey::{self, HostRequest};
    use vmgate_ledger::{Selection, entry::EntryKind};

    use crate::fleet::SurveySite;
    let requests = inventory.hosts.iter().map(|host| {
        let known = super::audit::request_of(session.uri_of(host)?, session)?;
        Ok(HostRequest {
            maintenance: host.maintenance.clone().or(known.maintenance.clone()),
            migrate_address: host.migrate_address.or(known.migrate_address),
            ..known
        })
    });
    let requests: Vec<HostRequest> = requests.collect::<Result<_, Failure>>()?;
    let bar = output::progress(session.shared, requests.len() as u64 * survey::STEPS_PER_HOST, "hosts");
    let survey =
        survey::survey(requests, session.manager_questions()?, session.timeout(), now, || bar.inc(1));
    bar.finish_and_clear();
    let observations = match session.ledger()? {
        Some(ledger) => {
            let wanted = Selection { kinds: vec![EntryKind::Observation], ..Selection::default() };
            ledger.records(&wanted).map_err(Failure::failed)?
        }
        None => Vec::new(),
    };
    Ok(Box::new(SurveySite::new(survey, &observations)))
}

#[cfg(not(feature = "libvirt"))]
fn survey_site(_: &Inventory, _: &Session, _: Timestamp) -> Result<Box<dyn Site>, Failure> {
    Err(Failure::usage("this build of vmgate has no libvirt and cannot ask hosts: give --facts PATH"))
}

#[cfg(test)]
mod tests {
    use vmgate_rules::RuleSource;

    use super::*;

    #[test]
    fn the_overhead_is_that_of_whichever_rule_judges_memory() {
        let shipped = Pack::load(&[RuleSource::Builtin]).unwrap();
        assert_eq!(overhead_bytes(&shipped), 256 << 20);
        let own = include_str!("../../rules/1-prepare/destination-memory-fits.yaml")
            .replace("id: destination-memory-fits", "id: our-memory-fits")
            .replace("default: 268435456", "default: 1073741824");
        assert_eq!(overhead_bytes(&Pack::of_rule("our-memory-fits.yaml", own.as_bytes()).unwrap()), 1 << 30);
    }
}
