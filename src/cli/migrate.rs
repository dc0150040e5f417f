//! `vmgate migrate`: checks a move and on GO migrates, watches and verifies it; one move, or all of a change.

use std::{
    io::IsTerminal,
    path::PathBuf,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use vmgate_attest::PublicKey;
use vmgate_collect::{CollectRequest, guest_probe::GuestAccess};
use vmgate_execute::{
    Assignment, CompletedMove, Event, EvidenceOptions, Hosts, Judge, MoveFailure, Pass, Progress,
    cancel_after,
};
use vmgate_facts::{Change, Fact, Facts, Vm, VmMarks, text::ShownCommand};
use vmgate_judge::{
    Policy, VerdictRequest,
    change::{AfterNoGo, ChangeFile, Limits, MovePlan, PlannedMove},
};
use vmgate_ledger::{Entry, Ledger, NetworkSilence, entry::RunStep};
use vmgate_probe::qemu::MONITOR;
use vmgate_rules::Catalogues;
use vmgate_verdict::{ExitCode, Verdict};

use super::{
    Failure, collect,
    hook::{self, DestinationPermits},
    isolate, key_files, network, nova,
    options::{GlobalOptions, Goals, Measurements, MoveOptions},
    output,
    session::{Session, read_order},
    trial::{self, TriedMove},
};

#[derive(Debug, Args)]
pub(super) struct Migrate {
    /// Name or UUID of the VM, with --to; without a VM give --change
    #[arg(requires = "to", required_unless_present = "change")]
    vm: Option<String>,
    #[command(flatten)]
    the_move: MoveOptions,
    #[command(flatten)]
    goals: Goals,
    /// Execute every move of this change, one after the other
    #[arg(long, value_name = "FILE", conflicts_with_all = ["vm", "from", "to", "migrate_address", "guest"])]
    #[arg(conflicts_with_all = ["change_id", "longest_blackout", "network_dark", "deadline", "bandwidth_limit", "run_by", "rehearsal"])]
    change: Option<PathBuf>,
    /// Saved verdict, signed by `vmgate verdict sign`, that replaces the first check; may be repeated. The
    /// facts are still collected again just before the start, and the verdict on them must be GO
    #[arg(long, value_name = "FILE")]
    verdict: Vec<PathBuf>,
    /// Public key, in PEM, that is trusted to sign verdicts, in addition to `trusted_keys` of vmgate.yaml; may be repeated
    #[arg(long, value_name = "FILE", requires = "verdict")]
    trusted_key: Vec<PathBuf>,
    /// Continue with the other moves of the change after one that is NO-GO or failed
    #[arg(long, requires = "change")]
    go_on: bool,
    /// Cut the VM off the network at once if it does not work on the destination as before: `vmgate isolate VM
    /// --on URI --release` connects it again. In a change file, write `settings: {isolate: true}`
    #[arg(long, conflicts_with = "change")]
    isolate: bool,
    /// Folder for the evidence on a VM that was cut off [default: vmgate/isolated in $XDG_STATE_HOME or
    /// ~/.local/state]
    #[arg(long, value_name = "DIR")]
    evidence: Option<PathBuf>,
    #[command(flatten)]
    reports: output::Reports,
    /// Do not migrate on warnings; the exit code is then 10
    #[arg(long)]
    strict: bool,
}

/// Refuses a move of a VM that is named by its monitor, unless its manager's door is known: nobody else moves it.
fn has_mover(
    request: &CollectRequest,
    plan: &MovePlan,
    catalogues: &Catalogues,
    session: &Session,
) -> Result<(), Failure> {
    let (vm, settings) = (&request.vm, &plan.settings);
    if request.monitor().is_none() {
        return Ok(());
    }
    let Ok(Some(_)) = session.door(settings.run_by.as_deref()) else {
        return moved_by_libvirt(vm, catalogues);
    };
    if let Some(uri) =
        [Some(&request.from), request.to.as_ref()].into_iter().flatten().find(|uri| uri.names_libvirt())
    {
        return Err(Failure::usage(format!(
            "libvirt does not have {vm}, so the processes of both hosts tell where it is: write ssh://USER@HOST in place of {uri}"
        )));
    }
    if settings.isolate == Some(true) || settings.trial == Some(true) {
        return Err(Failure::usage(format!(
            "libvirt does not have {vm}, so vmgate can neither cut it off the network nor try its start: leave `isolate` and `trial` out"
        )));
    }
    Ok(())
}

/// Refuses a VM that is named by its monitor, and says how its manager moves it: what vmgate does to VMs it does through libvirt.
pub(super) fn moved_by_libvirt(vm: &str, catalogues: &Catalogues) -> Result<(), Failure> {
    let Some(socket) = vm.strip_prefix(MONITOR) else { return Ok(()) };
    let marks = VmMarks { monitor: Some(socket.to_owned()), ..VmMarks::default() };
    let named = Vm { name: Fact::Known(vm.to_owned()), marks: Fact::Known(marks), ..Vm::default() };
    let way = if let Fact::Known(Some(manager)) = catalogues.manager_of(&named, &Fact::default()) {
        let check = ShownCommand::new("vmgate check").value(vm).words("--as").value(&manager.kind);
        format!(
            "{} moves it: {}. `{check}` (with --from and --to) judges that; with a program of yours that orders it, `vmgate migrate` \
             moves it (docs/managers.md)",
            manager.title, manager.way_out
        )
    } else {
        let check = ShownCommand::new("vmgate check").value(vm);
        format!(
            "order its move from the program that started it; `{check}` (with --from and --to) judges that"
        )
    };
    Err(Failure::usage(format!("libvirt does not have {vm}, so vmgate itself can only check it: {way}")))
}

/// One requested move.
pub(super) struct MoveOrder<'a> {
    pub(super) vm: String,
    pub(super) to: vmgate_facts::Uri,
    pub(super) judge: Judge<'a>,
    pub(super) plan: MovePlan,
    pub(super) limits: Limits,
    pub(super) address: Option<std::net::IpAddr>,
}

/// Ledger, abort flag, session and evidence folder that all moves of a process share.
pub(super) struct MoveContext<'a> {
    ledger: Ledger,
    stop: Arc<AtomicBool>,
    session: &'a Session<'a>,
    evidence: Option<PathBuf>,
    envelopes: Vec<Vec<u8>>,
    trusted: Vec<PublicKey>,
}

impl Migrate {
    pub(super) fn run(mut self, shared: &GlobalOptions) -> Result<ExitCode, Failure> {
        let mut session = Session::open(shared)?;
        let policy = session.policy()?;
        self.goals.checked(&policy.catalogues)?;
        nova::find_server(
            &mut session,
            self.goals.run_by.as_deref(),
            &mut self.vm,
            &mut self.the_move.hosts,
        )?;
        let context = self.context(&session)?;
        let reports = self.reports.open()?;
        match &self.change {
            None => {
                let order = self.order(&policy, &session)?;
                let (pass, verdict_facts) = context.gate(&order);
                reports.write(pass.verdicts(), shared)?;
                context.migrate(&order, pass.into_pass()?, verdict_facts)
            }
            Some(file) => {
                let change = read_order(file)?;
                let policy = policy.and_waivers(change.waivers.clone());
                if let Some(wave) = change.waves.iter().find(|wave| wave.wait_for.is_some()) {
                    let name = &wave.name;
                    let command = ShownCommand::new("vmgate run --change").value(file.display());
                    return Err(Failure::usage(format!(
                        "the wave `{name}` waits for the maintenance of hosts: `{command}` does that"
                    )));
                }
                let orders =
                    move_orders(&change, &policy, &self.the_move.measurements, self.strict, &session)?;
                let go_on = self.go_on || change.after_no_go == AfterNoGo::Continue;
                context.migrate_all(&orders, go_on, reports)
            }
        }
    }

    fn context<'a>(&self, session: &'a Session<'a>) -> Result<MoveContext<'a>, Failure> {
        let place = session.ledger_for_moves()?;
        let read = |file: &PathBuf| {
            std::fs::read(file)
                .map_err(|error| Failure::usage(format!("{}: cannot be read: {error}", file.display())))
        };
        let envelopes: Vec<Vec<u8>> = self.verdict.iter().map(read).collect::<Result<_, _>>()?;
        let keys = session.config.trusted_keys.iter().chain(&self.trusted_key);
        let trusted = if envelopes.is_empty() {
            Vec::new()
        } else {
            keys.map(|file| key_files::public_key(file)).collect::<Result<_, _>>()?
        };
        let stop = trial::aborted_by_signals()?;
        let evidence = self.evidence.clone().or_else(isolate::evidence_folder);
        let ledger = session.open_ledger(place)?;
        Ok(MoveContext { ledger, stop, session, evidence, envelopes, trusted })
    }

    fn order<'a>(&self, policy: &'a Policy, session: &Session) -> Result<MoveOrder<'a>, Failure> {
        let vm = self.vm.clone().unwrap_or_default();
        let change = self.goals.over(Change::default());
        let request = self.the_move.request(&vm, change.clone(), session)?;
        let asked = VerdictRequest { strict: self.strict, ..VerdictRequest::default() };
        let mut plan = MovePlan::from(&change);
        plan.settings.isolate = self.isolate.then_some(true);
        has_mover(&request, &plan, &policy.catalogues, session)?;
        Ok(MoveOrder {
            vm,
            plan: without_unreachable_notify(&request.guest_access, plan),
            address: address_of(&request),
            to: collect::destination(&request)?.clone(),
            judge: Judge { policy, request, asked },
            limits: Limits::default(),
        })
    }
}

/// The moves of a change, in its order.
pub(super) fn move_orders<'a>(
    change: &ChangeFile,
    policy: &'a Policy,
    look: &Measurements,
    strict: bool,
    session: &Session,
) -> Result<Vec<MoveOrder<'a>>, Failure> {
    let order = |planned: &PlannedMove| {
        let request = collect::request_of(change, planned, look, session)?;
        has_mover(&request, &planned.plan, &policy.catalogues, session)?;
        Ok(MoveOrder {
            vm: planned.vm.clone(),
            plan: without_unreachable_notify(&request.guest_access, planned.plan.clone()),
            to: collect::destination(&request)?.clone(),
            judge: Judge { policy, request, asked: change.verdict_request(planned, strict) },
            limits: change.limits,
            address: planned.migrate_address,
        })
    };
    change.moves.iter().map(order).collect()
}

/// Address for the traffic of a move that was given on the command line or by the site.
pub(super) fn address_of(request: &CollectRequest) -> Option<std::net::IpAddr> {
    request.migrate_address.as_ref().and_then(|address| address.parse().ok())
}

/// A guest that is not to be looked into, or not through its agent, is not told through its agent either.
fn without_unreachable_notify(way: &GuestAccess, plan: MovePlan) -> MovePlan {
    let notify = plan.notify.filter(|_| *way == GuestAccess::Agent);
    MovePlan { notify, ..plan }
}

/// Result of the gate.
pub(super) enum GateResult {
    Pass(Box<Pass>),
    Refused(Failure, Vec<Verdict>),
}

impl GateResult {
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

impl<'a> MoveContext<'a> {
    /// Context of a campaign runner, which accepts no saved verdicts.
    pub(super) fn for_runner(ledger: Ledger, stop: Arc<AtomicBool>, session: &'a Session<'a>) -> Self {
        let evidence = isolate::evidence_folder();
        Self { ledger, stop, session, evidence, envelopes: Vec::new(), trusted: Vec::new() }
    }

    pub(super) fn session(&self) -> &Session<'a> {
        self.session
    }

    pub(super) fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Asks the gate for a pass, with a saved verdict or a new check. Also returns the facts of that check.
    pub(super) fn gate(&self, order: &MoveOrder) -> (GateResult, Option<Facts>) {
        let refused = |refused: vmgate_execute::GateRefusal| Failure {
            exit: refused.exit(),
            text: refused.to_string(),
        };
        if !self.envelopes.is_empty() {
            let vm = match order.judge.request.vm_uuid() {
                None => order.vm.clone(),
                Some(Ok(uuid)) => uuid.to_string(),
                Some(Err(why)) => return (GateResult::Refused(collect::failure(&why), Vec::new()), None),
            };
            let asked = vmgate_execute::GateRequest {
                vm: &vm,
                change: order.judge.asked.change,
                rules: order.judge.policy.digest(),
            };
            let open = |envelope: &Vec<u8>| Pass::from_envelope(envelope, &self.trusted, &asked);
            let mut why = None;
            for envelope in &self.envelopes {
                match open(envelope) {
                    Ok(pass) => return (GateResult::Pass(Box::new(pass)), None),
                    Err(error) => why = why.or(Some(refused(error))),
                }
            }
            let why = why.unwrap_or_else(|| Failure::usage("no verdict was given"));
            return (GateResult::Refused(why, Vec::new()), None);
        }
        let (mut facts, mut verdict) = match order.judge.planned(&order.plan, &self.ledger) {
            Ok(found) => found,
            Err(error) => return (GateResult::Refused(collect::failure(&error), Vec::new()), None),
        };
        if order.plan.settings.probe_network == Some(true) {
            let with = (Some(&self.ledger), &*self.stop);
            if let Err(failure) = network::complete(&self.hosts(order), self.session, with, &mut facts) {
                return (GateResult::Refused(failure, vec![verdict]), None);
            }
            verdict = order.judge.judge(&facts);
        }
        if order.plan.settings.trial == Some(true) {
            if let Err(failure) = self.try_start(order, &mut facts) {
                return (GateResult::Refused(failure, vec![verdict]), None);
            }
            verdict = order.judge.judge(&facts);
        }
        if let Err(error) = self.ledger.append(&Entry::Verdict((&verdict).into())) {
            return (GateResult::Refused(Failure::failed(error), vec![verdict]), None);
        }
        // A GO that waits at the destination from earlier no longer holds.
        match self.permits(order) {
            Ok(permits) => cancel_after(&verdict, &permits),
            Err(failure) => return (GateResult::Refused(failure, vec![verdict]), None),
        }
        match Pass::from_verdict(verdict.clone()) {
            Ok(pass) => (GateResult::Pass(Box::new(pass)), Some(facts)),
            Err(error) => (GateResult::Refused(refused(error), vec![verdict]), None),
        }
    }

    /// Begins the migration and takes it back, as the change asks for: the answer is a fact of the verdict.
    fn try_start(&self, order: &MoveOrder, facts: &mut Facts) -> Result<(), Failure> {
        let (request, plan) = (&order.judge.request, &order.plan);
        let tried = TriedMove { request, plan, address: order.address, limits: order.limits };
        let judge = (order.judge.policy, &order.judge.asked);
        trial::make(&tried, judge, (&self.ledger, &self.stop), self.session, facts)
    }

    fn migrate(
        &self,
        order: &MoveOrder,
        pass: Pass,
        verdict_facts: Option<Facts>,
    ) -> Result<ExitCode, Failure> {
        let shared = self.session.shared;
        let hosts = self.hosts(order);
        let bar = progress_bar(shared);
        let result =
            self.carry_out(order, &hosts, pass, verdict_facts, &mut |event| show_event(&bar, &event));
        bar.finish_and_clear();
        match result? {
            Ok(done) => {
                output::say(shared, &success(&order.vm, &hosts, &done));
                Ok(ExitCode::Go)
            }
            Err(undone) => Err(failure(&undone)),
        }
    }

    /// Connections to the hosts of a move.
    pub(super) fn hosts(&self, order: &MoveOrder) -> Hosts {
        self.session.hosts(&order.judge.request.from, &order.to)
    }

    /// Way to the hook of the destination.
    fn permits(&self, order: &MoveOrder) -> Result<DestinationPermits<'_>, Failure> {
        DestinationPermits::of(&order.to, self.session)
    }

    /// Executes a move that has a pass.
    pub(super) fn carry_out(
        &self,
        order: &MoveOrder,
        hosts: &Hosts,
        pass: Pass,
        verdict_facts: Option<Facts>,
        watch: &mut dyn FnMut(Event),
    ) -> Result<Result<CompletedMove, MoveFailure>, Failure> {
        let permits = self.permits(order)?;
        let door = self.session.door(order.plan.settings.run_by.as_deref())?;
        let assignment = Assignment {
            pass,
            verdict_facts,
            judge: &order.judge,
            plan: &order.plan,
            migrate_address: order.address,
            limits: order.limits,
            permits: &permits,
            door: door.as_ref(),
            evidence_options: EvidenceOptions {
                by: hook::operator(),
                shell: self.session.shell(&order.to)?,
                folder: self.evidence.clone(),
            },
        };
        Ok(hosts.carry_out(&assignment, &self.ledger, &self.stop, watch))
    }

    /// Executes the moves of a change in their order. Each is judged just before its start, with the memory and bandwidth
    /// that the moves before it have taken.
    fn migrate_all(
        &self,
        orders: &[MoveOrder],
        go_on: bool,
        reports: output::OpenReports,
    ) -> Result<ExitCode, Failure> {
        let (mut verdicts, mut codes) = (Vec::new(), Vec::new());
        for (number, order) in orders.iter().enumerate() {
            let (opened, verdict_facts) = self.gate(order);
            verdicts.extend_from_slice(opened.verdicts());
            let ended = opened.into_pass().and_then(|pass| self.migrate(order, pass, verdict_facts));
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
                    &format!("stopped at {}: {left} more moves are not executed", order.vm),
                );
                break;
            }
        }
        reports.write(&verdicts, self.session.shared)?;
        Ok(ExitCode::worst(codes))
    }
}

fn failure(undone: &MoveFailure) -> Failure {
    Failure { exit: undone.exit(), text: undone.to_string() }
}

fn success(vm: &str, hosts: &Hosts, done: &CompletedMove) -> String {
    let downtime = done.job_stats.as_ref().and_then(|job| job.downtime);
    let mut blackout = downtime.map_or(String::new(), |time| format!(", downtime {} ms", time.as_millis()));
    for silence in &done.silences {
        let NetworkSilence { mac, silence_seconds, heard_again, .. } = silence;
        let heard = if *heard_again {
            format!(", interface {mac} was silent for {silence_seconds:.2} s")
        } else {
            format!(", interface {mac} is not heard at {} since {silence_seconds:.0} s", hosts.source.name())
        };
        blackout.push_str(&heard);
    }
    format!(
        "{vm} runs on {} and on no other host; its agent, interfaces, clock and sockets are as before (took {:.1} s{blackout})",
        hosts.destination.name(),
        done.duration.as_secs_f64()
    )
}

/// Progress bar on stderr, if that is a terminal.
fn progress_bar(shared: &GlobalOptions) -> ProgressBar {
    if shared.quiet || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{prefix} {bar:24} {bytes}/{total_bytes}, {elapsed}{msg}");
    let bar = ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.enable_steady_tick(Duration::from_millis(500));
    bar
}

fn show_event(bar: &ProgressBar, event: &Event) {
    match event {
        Event::Entering(state) => {
            tracing::info!("{}", state.name());
            bar.set_prefix(step_text(*state));
        }
        Event::Migrating(progress) => advance(bar, progress),
    }
}

fn step_text(state: RunStep) -> &'static str {
    match state {
        RunStep::Gate => "comparing the verdict with the hosts",
        RunStep::Notify => "notifying the guest",
        RunStep::Prepare => "preparing",
        RunStep::Recheck => "collecting the facts again",
        RunStep::Migrate => "migrating",
        RunStep::Verify => "verifying",
        RunStep::Restore => "restoring",
        RunStep::Abort => "aborting",
        RunStep::Fail => "failed",
        RunStep::Isolate => "isolating",
    }
}

fn advance(bar: &ProgressBar, progress: &Progress) {
    let job = &progress.job;
    let (Some(done), Some(rest)) = (job.data_processed_bytes, job.data_remaining_bytes) else { return };
    bar.set_length(done.saturating_add(rest));
    bar.set_position(done);
    bar.set_message(progress_lines(progress));
}

/// Rest of the migration by its statistics, the forecast made before it, and QEMU's own word: a line each.
fn progress_lines(progress: &Progress) -> String {
    let job = &progress.job;
    let rest = match progress.estimate.remaining_seconds {
        Some(seconds) => format!("{seconds:.0} s left"),
        None => "does not converge".to_owned(),
    };
    let blackout = progress.estimate.blackout_seconds.map(|seconds| format!(", blackout {seconds:.2} s"));
    let sent = job.memory_bytes_per_second.unwrap_or(0) >> 20;
    let dirtied = job.dirty_bytes_per_second.map(|dirty| format!(", dirtied {}", dirty >> 20));
    let (blackout, dirtied) = (blackout.unwrap_or_default(), dirtied.unwrap_or_default());
    let forecast = progress.forecast.map(|forecast| format!("\n  forecast  {forecast}"));
    let qemu = job
        .downtime
        .map(|expected| format!("\n  QEMU      expects a blackout of {:.2} s", expected.as_secs_f64()));
    format!(
        "\n  now       {rest}{blackout}; sent {sent}{dirtied} MiB/s{}{}",
        forecast.unwrap_or_default(),
        qemu.unwrap_or_default()
    )
}

#[cfg(test)]
mod tests {
    use vmgate_execute::{ConvergenceEstimate, ForecastLeft};
    use vmgate_facts::Quantiles;
    use vmgate_libvirt::{JobOperation, JobStats};

    use super::*;

    #[test]
    fn progress_fits_a_terminal_and_names_the_forecast_beside_qemus_own_word() {
        let range = |p5, p95| Quantiles { p5, p50: p5, p95 };
        let mut progress = Progress {
            job: JobStats {
                operation: JobOperation::MigrationOut,
                end: None,
                elapsed: None,
                data_total_bytes: None,
                data_processed_bytes: None,
                data_remaining_bytes: None,
                memory_remaining_bytes: None,
                memory_bytes_per_second: Some(11_999 << 20),
                dirty_bytes_per_second: Some(11_999 << 20),
                iteration: None,
                downtime: Some(Duration::from_millis(12_340)),
                throttle_percent: None,
                error: None,
            },
            estimate: ConvergenceEstimate {
                remaining_seconds: Some(12_345.6),
                blackout_seconds: Some(12.3),
                ratio: None,
            },
            elapsed: Duration::ZERO,
            forecast: Some(ForecastLeft {
                remaining_seconds: range(12_000.4, 13_000.0),
                blackout_seconds: Some(range(10.2, 12.34)),
            }),
        };
        let text = progress_lines(&progress);
        assert!(text.lines().all(|line| line.len() <= 80), "{text}");
        assert!(text.contains("forecast  12000 to 13000 s left, blackout 10.20 to 12.34 s"), "{text}");
        assert!(text.contains("QEMU      expects a blackout of 12.34 s"), "{text}");
        let forecast = progress.forecast.as_mut().unwrap();
        forecast.remaining_seconds = range(0.0, 0.0);
        assert!(progress_lines(&progress).contains("it was to have ended by now"));
    }
}
