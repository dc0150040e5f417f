//! `vmgate migrate`: check, and on GO migrate, watch and verify; one move, or all of a change.

use std::{
    io::IsTerminal,
    path::PathBuf,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::{
    Failure, collect, hook, isolate,
    options::{Goals, MoveOptions, Shared},
    output,
    session::{Session, read_change},
};
use crate::{
    change::{AfterNoGo, ChangeFile, Limits, MovePlan, PlannedMove},
    collect::transport::GuestAccess,
    execute::{self, Assignment, Done, Event, Hosts, Judge, Keeper, Pass, Progress, Undone},
    fact::{Change, Facts},
    ledger::{Entry, Ledger, entry::State},
    preflight::{Policy, VerdictRequest},
    verdict::{ExitCode, Verdict, attest::PublicKey},
};

#[derive(Debug, Args)]
pub(super) struct Migrate {
    /// Name or UUID of the VM, which goes with --from and --to; or else give --change
    #[arg(requires_all = ["from", "to"], required_unless_present = "change")]
    vm: Option<String>,
    #[command(flatten)]
    the_move: MoveOptions,
    #[command(flatten)]
    goals: Goals,
    /// Make every move of this change, one after the other
    #[arg(long, value_name = "FILE", conflicts_with_all = ["vm", "from", "to", "migrate_address", "guest"])]
    #[arg(conflicts_with_all = ["change_id", "longest_blackout", "deadline", "bandwidth_limit", "rehearsal"])]
    change: Option<PathBuf>,
    /// Saved verdict, signed by `vmgate verdict sign`, that opens the gate in place of a check; may be repeated. The
    /// facts are still taken again just before the start, and must be GO
    #[arg(long, value_name = "FILE")]
    verdict: Vec<PathBuf>,
    /// Public key that is trusted to sign verdicts, in PEM, besides `trusted_keys` of vmgate.yaml; may be repeated
    #[arg(long, value_name = "FILE", requires = "verdict")]
    trusted_key: Vec<PathBuf>,
    /// Go on with the other moves of the change after one that is NO-GO or was not made
    #[arg(long, requires = "change")]
    go_on: bool,
    /// Cut the VM off the network at once where it does not work at the destination as it did before: `vmgate isolate VM
    /// --on URI --release` lets it back. In a change, `settings: {isolate: true}` says so
    #[arg(long, conflicts_with = "change")]
    isolate: bool,
    /// Folder to keep the evidence in of a VM that was cut off [default: vmgate/isolated in $XDG_STATE_HOME or
    /// ~/.local/state]
    #[arg(long, value_name = "DIR")]
    evidence: Option<PathBuf>,
    #[command(flatten)]
    reports: output::Reports,
    /// Warnings keep the VM where it is, with exit code 10
    #[arg(long)]
    strict: bool,
}

/// One move that is asked for.
pub(super) struct Order<'a> {
    pub(super) vm: String,
    pub(super) judge: Judge<'a>,
    pub(super) plan: MovePlan,
    pub(super) limits: Limits,
    pub(super) address: Option<std::net::IpAddr>,
}

/// What all moves of a run share.
pub(super) struct Desk<'a> {
    ledger: Ledger,
    stop: Arc<AtomicBool>,
    session: &'a Session<'a>,
    evidence: Option<PathBuf>,
    envelopes: Vec<Vec<u8>>,
    trusted: Vec<PublicKey>,
}

impl Migrate {
    pub(super) fn run(&self, shared: &Shared) -> Result<ExitCode, Failure> {
        let session = Session::open(shared)?;
        let policy = session.policy()?;
        let desk = self.desk(&session)?;
        let reports = self.reports.open()?;
        match &self.change {
            None => {
                let order = self.order(&policy, &session)?;
                let (pass, earlier) = desk.gate(&order);
                reports.write(pass.verdicts(), shared)?;
                desk.migrate(&order, pass.into_pass()?, earlier)
            }
            Some(file) => {
                let change = read_change(file)?;
                let policy = policy.and_waivers(change.waivers.clone());
                if let Some(wave) = change.waves.iter().find(|wave| wave.wait_for.is_some()) {
                    let name = &wave.name;
                    return Err(Failure::usage(format!(
                        "the wave `{name}` waits for the maintenance of hosts: `vmgate run --change {}` does that",
                        file.display()
                    )));
                }
                let orders = orders(&change, &policy, &self.the_move, self.strict, &session)?;
                let go_on = self.go_on || change.after_no_go == AfterNoGo::Continue;
                desk.migrate_all(&orders, go_on, reports)
            }
        }
    }

    fn desk<'a>(&self, session: &'a Session<'a>) -> Result<Desk<'a>, Failure> {
        let place = session.ledger_for_moves()?;
        let read = |file: &PathBuf| {
            std::fs::read(file)
                .map_err(|error| Failure::usage(format!("{}: cannot be read: {error}", file.display())))
        };
        let envelopes: Vec<Vec<u8>> = self.verdict.iter().map(read).collect::<Result<_, _>>()?;
        let key = |file: &PathBuf| {
            let pem = String::from_utf8_lossy(&read(file)?).into_owned();
            PublicKey::from_pem(&file.display().to_string(), &pem).map_err(Failure::usage)
        };
        let keys = session.config.trusted_keys.iter().chain(&self.trusted_key);
        let trusted =
            if envelopes.is_empty() { Vec::new() } else { keys.map(key).collect::<Result<_, _>>()? };
        let stop = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::flag::register(signal, Arc::clone(&stop))
                .map_err(|error| Failure::failed(format!("Ctrl-C could not be caught: {error}")))?;
        }
        let evidence = self.evidence.clone().or_else(isolate::evidence_folder);
        let ledger = Ledger::open(place).map_err(Failure::failed)?;
        Ok(Desk { ledger, stop, session, evidence, envelopes, trusted })
    }

    fn order<'a>(&self, policy: &'a Policy, session: &Session) -> Result<Order<'a>, Failure> {
        let vm = self.vm.clone().unwrap_or_default();
        let change = self.goals.over(Change::default());
        let request = self.the_move.request(&vm, change.clone(), session)?;
        let asked = VerdictRequest { strict: self.strict, ..VerdictRequest::default() };
        let mut plan = MovePlan::from(&change);
        plan.settings.isolate = self.isolate.then_some(true);
        Ok(Order {
            vm,
            plan: seen_by(&request.guest_access, plan),
            judge: Judge { policy, request, asked, at: session.shared.at },
            limits: Limits::default(),
            address: self.the_move.migrate_address,
        })
    }
}

/// The moves of a change, in its order.
pub(super) fn orders<'a>(
    change: &ChangeFile,
    policy: &'a Policy,
    look: &MoveOptions,
    strict: bool,
    session: &Session,
) -> Result<Vec<Order<'a>>, Failure> {
    let order = |planned: &PlannedMove| {
        let request = collect::request_of(change, planned, look, session)?;
        Ok(Order {
            vm: planned.vm.clone(),
            plan: seen_by(&request.guest_access, planned.plan.clone()),
            judge: Judge {
                policy,
                request,
                asked: change.verdict_request(planned, strict),
                at: session.shared.at,
            },
            limits: change.limits,
            address: planned.migrate_address,
        })
    };
    change.moves.iter().map(order).collect()
}

/// A guest that is not to be looked into, or not through its agent, is not told through its agent either.
fn seen_by(way: &GuestAccess, plan: MovePlan) -> MovePlan {
    let notify = plan.notify.filter(|_| *way == GuestAccess::Agent);
    MovePlan { notify, ..plan }
}

/// What the gate said.
pub(super) enum Opened {
    Pass(Box<Pass>),
    Refused(Failure, Vec<Verdict>),
}

impl Opened {
    fn verdicts(&self) -> &[Verdict] {
        match self {
            Self::Pass(pass) => std::slice::from_ref(pass.verdict()),
            Self::Refused(_, verdicts) => verdicts,
        }
    }

    fn into_pass(self) -> Result<Pass, Failure> {
        match self {
            Self::Pass(pass) => Ok(*pass),
            Self::Refused(failure, _) => Err(failure),
        }
    }
}

impl<'a> Desk<'a> {
    /// The desk of a runner, at which no saved verdict counts.
    pub(super) fn of_runner(ledger: Ledger, stop: Arc<AtomicBool>, session: &'a Session<'a>) -> Self {
        let evidence = isolate::evidence_folder();
        Self { ledger, stop, session, evidence, envelopes: Vec::new(), trusted: Vec::new() }
    }

    pub(super) fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Opens the gate by a saved verdict, or by a check. Also gives the facts of that check.
    pub(super) fn gate(&self, order: &Order) -> (Opened, Option<Facts>) {
        let refused = |refused: execute::Refused| Failure { exit: refused.exit(), text: refused.to_string() };
        if !self.envelopes.is_empty() {
            let asked = execute::Asked {
                vm: &order.vm,
                change: order.judge.asked.change,
                rules: order.judge.policy.digest(),
                now: order.judge.now(),
            };
            let open = |envelope: &Vec<u8>| Pass::from_envelope(envelope, &self.trusted, &asked);
            let mut why = None;
            for envelope in &self.envelopes {
                match open(envelope) {
                    Ok(pass) => return (Opened::Pass(Box::new(pass)), None),
                    Err(error) => why = why.or(Some(refused(error))),
                }
            }
            let why = why.unwrap_or_else(|| Failure::usage("no verdict was given"));
            return (Opened::Refused(why, Vec::new()), None);
        }
        let (facts, verdict) = match order.judge.planned(&order.plan, &self.ledger) {
            Ok(found) => found,
            Err(error) => return (Opened::Refused(collect::failure(&error), Vec::new()), None),
        };
        if let Err(error) = self.ledger.append(&Entry::Verdict((&verdict).into())) {
            return (Opened::Refused(Failure::failed(error), vec![verdict]), None);
        }
        match Pass::from_verdict(verdict.clone(), order.judge.now()) {
            Ok(pass) => (Opened::Pass(Box::new(pass)), Some(facts)),
            Err(error) => (Opened::Refused(refused(error), vec![verdict]), None),
        }
    }

    fn migrate(&self, order: &Order, pass: Pass, earlier: Option<Facts>) -> Result<ExitCode, Failure> {
        let shared = self.session.shared;
        let hosts = self.hosts(order);
        let bar = progress_bar(shared);
        let result = self.carry_out(order, &hosts, pass, earlier, &mut |event| tell(&bar, &event));
        bar.finish_and_clear();
        match result? {
            Ok(done) => {
                output::say(shared, &success(&order.vm, &hosts, &done));
                Ok(ExitCode::Go)
            }
            Err(undone) => Err(failure(&undone)),
        }
    }

    /// Lines to the hosts of a move.
    pub(super) fn hosts(&self, order: &Order) -> Hosts {
        let request = &order.judge.request;
        Hosts::new(request.from.clone(), request.to.clone(), self.session.timeout())
    }

    /// Makes a move that was let pass.
    pub(super) fn carry_out(
        &self,
        order: &Order,
        hosts: &Hosts,
        pass: Pass,
        earlier: Option<Facts>,
        watch: &mut dyn FnMut(Event),
    ) -> Result<Result<Done, Undone>, Failure> {
        let destination = &order.judge.request.to;
        let assignment = Assignment {
            pass,
            earlier,
            judge: &order.judge,
            plan: &order.plan,
            migrate_address: order.address,
            limits: order.limits,
            keeper: Keeper {
                by: hook::operator(),
                shell: self.session.shell(destination)?,
                folder: self.evidence.clone(),
            },
        };
        hook::bring_own(assignment.pass.verdict(), destination, self.session)?;
        Ok(hosts.carry_out(&assignment, &self.ledger, &self.stop, watch))
    }

    /// The moves of a change in their order, each judged when its turn comes: with the memory and the bandwidth that the
    /// ones before it have taken.
    fn migrate_all(
        &self,
        orders: &[Order],
        go_on: bool,
        reports: output::OpenReports,
    ) -> Result<ExitCode, Failure> {
        let (mut verdicts, mut codes) = (Vec::new(), Vec::new());
        for (number, order) in orders.iter().enumerate() {
            let (opened, earlier) = self.gate(order);
            verdicts.extend_from_slice(opened.verdicts());
            let ended = opened.into_pass().and_then(|pass| self.migrate(order, pass, earlier));
            let code = ended.unwrap_or_else(|failure| {
                output::say_failure(&failure);
                failure.exit
            });
            codes.push(code);
            let left = orders.len() - number - 1;
            let must_stop =
                code == ExitCode::OperatorNeeded || self.stop.load(std::sync::atomic::Ordering::Relaxed);
            if code != ExitCode::Go && left > 0 && (must_stop || !go_on) {
                output::say(
                    self.session.shared,
                    &format!("stopped at {}: {left} more are not moved", order.vm),
                );
                break;
            }
        }
        reports.write(&verdicts, self.session.shared)?;
        Ok(ExitCode::worst(codes))
    }
}

fn failure(undone: &Undone) -> Failure {
    Failure { exit: undone.exit(), text: undone.to_string() }
}

fn success(vm: &str, hosts: &Hosts, done: &Done) -> String {
    let downtime = done.account.as_ref().and_then(|job| job.downtime);
    let blackout = downtime.map_or(String::new(), |time| format!(", downtime {} ms", time.as_millis()));
    format!(
        "{vm} runs on {} and nowhere else; its agent, interfaces, clock and sockets are as before (took {:.1} s{blackout})",
        hosts.destination.name(),
        done.took.as_secs_f64()
    )
}

/// A bar on stderr, where that is a terminal.
fn progress_bar(shared: &Shared) -> ProgressBar {
    if shared.quiet || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{prefix} {bar:24} {bytes}/{total_bytes}, {elapsed}, {msg}");
    let bar = ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.enable_steady_tick(Duration::from_millis(500));
    bar
}

fn tell(bar: &ProgressBar, event: &Event) {
    match event {
        Event::Entering(state) => {
            tracing::info!("{}", state.name());
            bar.set_prefix(doing(*state));
        }
        Event::Migrating(progress) => advance(bar, progress),
    }
}

fn doing(state: State) -> &'static str {
    match state {
        State::Gate => "holding the verdict against the hosts",
        State::Notify => "telling the guest",
        State::Prepare => "preparing",
        State::Recheck => "taking the facts again",
        State::Migrate => "migrating",
        State::Verify => "verifying",
        State::Restore => "restoring",
        State::Abort => "aborting",
        State::Fail => "failed",
        State::Isolate => "isolating",
    }
}

fn advance(bar: &ProgressBar, progress: &Progress) {
    let job = &progress.job;
    let (Some(done), Some(rest)) = (job.data_processed_bytes, job.data_remaining_bytes) else { return };
    bar.set_length(done.saturating_add(rest));
    bar.set_position(done);
    let rate = job.memory_bytes_per_second.unwrap_or(0) >> 20;
    let dirty = job.dirty_bytes_per_second.map(|dirty| format!(", dirtied at {} MiB/s", dirty >> 20));
    let remaining = match progress.outlook.remaining_seconds {
        Some(seconds) => format!("{seconds:.0} s left"),
        None => "no end in sight".to_owned(),
    };
    let blackout = progress.outlook.blackout_seconds.map(|seconds| format!(", blackout {seconds:.1} s"));
    bar.set_message(format!(
        "{rate} MiB/s{}; {remaining}{}",
        dirty.unwrap_or_default(),
        blackout.unwrap_or_default()
    ));
}
