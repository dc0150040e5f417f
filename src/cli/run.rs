//! `vmgate run`: a runner of a campaign, which executes a change together with all other runners over one ledger.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use clap::Args;
use jiff::Timestamp;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use vmgate_collect::host_versions;
use vmgate_execute::{
    Hosts, MoveFailure, RecoveryResult, RunOrder,
    campaign::{CampaignEnd, Mover, RunSummary, Runner, RunnerError, RunnerSettings, uptime_seconds},
};
use vmgate_facts::text::ShownCommand;
use vmgate_judge::change::ChangeFile;
use vmgate_ledger::campaign::ClaimResult;
use vmgate_verdict::ExitCode;

use super::{
    Failure,
    migrate::{GateResult, MoveContext, MoveOrder, move_orders},
    options::{self, GlobalOptions, Measurements},
    output,
    session::{Session, read_order},
};

#[derive(Debug, Args)]
pub(super) struct Run {
    /// Change file to execute. Runners that are started for the same file share its moves
    #[arg(long, value_name = "FILE")]
    change: PathBuf,
    #[command(flatten)]
    look: Measurements,
    /// Number of concurrent moves of this runner
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    jobs: u16,
    /// Number of attempts for a move
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=10))]
    attempts: u32,
    /// Time before a move is tried again, in seconds; doubled each time
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = options::seconds)]
    backoff: Duration,
    /// Longest silence of a runner before others take its moves over, at least 10 s: the same for all runners of a change
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = lease)]
    lease: Duration,
    /// Do not migrate a VM on warnings
    #[arg(long)]
    strict: bool,
}

/// Executes the moves of a change on live hosts.
struct LiveMover<'a> {
    context: &'a MoveContext<'a>,
    orders: &'a [MoveOrder<'a>],
    change: &'a ChangeFile,
    timeout: Duration,
}

impl Run {
    pub(super) fn run(&self, shared: &GlobalOptions) -> Result<ExitCode, Failure> {
        let session = Session::open(shared)?;
        let change = read_order(&self.change)?;
        let policy = session.policy()?.and_waivers(change.waivers.clone());
        let driver = vmgate_execute::current_driver();
        let name = format!("{}-{}-{}", driver.machine, driver.pid, driver.started_ticks);
        let ledger = session.open_ledger(session.ledger_for_moves()?)?.for_runner(&name);
        let (drain, stop) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let context = MoveContext::for_runner(ledger, Arc::clone(&stop), &session);
        let orders = move_orders(&change, &policy, &self.look, self.strict, &session)?;
        handle_signals(&drain, &stop)?;
        let mover =
            LiveMover { context: &context, orders: &orders, change: &change, timeout: session.timeout() };
        let runner = Runner {
            ledger: context.ledger(),
            change: &change,
            mover: &mover,
            name,
            driver,
            settings: RunnerSettings {
                jobs: self.jobs.into(),
                attempts: self.attempts,
                lease_seconds: self.lease.as_secs_f64(),
                backoff_seconds: self.backoff.as_secs_f64(),
                ..RunnerSettings::default()
            },
            drain,
            stop,
            on_progress: &say_once(shared),
        };
        let summary = runner.run();
        if summary.as_ref().is_ok_and(|summary| summary.ending.is_some()) {
            super::anchor::at_the_end(context.ledger(), &session);
        }
        let state = super::campaign::read(context.ledger(), &change.digest.to_string())?;
        output::say(shared, vmgate_execute::campaign::render(&state, Timestamp::now()).trim_end());
        match summary {
            Ok(summary) => Ok(exit(&summary, &state)),
            Err(error @ RunnerError::LeaseLost) => {
                Err(Failure { exit: ExitCode::OperatorNeeded, text: error.to_string() })
            }
            Err(error) => Err(Failure::failed(error)),
        }
    }
}

/// Exit code of the worst failed move; 30 if some moves were not begun.
fn exit(summary: &RunSummary, state: &vmgate_execute::campaign::CampaignState) -> ExitCode {
    use vmgate_execute::campaign::TaskState;
    let failed = state.tasks.iter().filter_map(|task| match &task.state {
        TaskState::Failed { exit, .. } => Some(*exit),
        _ => None,
    });
    let rest = match summary.ending {
        Some(CampaignEnd::Complete) => ExitCode::Go,
        _ => ExitCode::NotFinished,
    };
    ExitCode::worst(failed.chain([rest]).collect::<Vec<_>>())
}

/// Parses a lease, which must be long enough for several heartbeats.
fn lease(text: &str) -> Result<Duration, String> {
    options::seconds(text).and_then(|lease| match lease.as_secs() {
        10.. => Ok(lease),
        _ => Err("a lease must be 10 s or more, because a lost lease aborts migrations".to_owned()),
    })
}

/// Prints a message only if it differs from the one before.
fn say_once(shared: &GlobalOptions) -> impl Fn(&str) + Sync {
    let last = std::sync::Mutex::new(String::new());
    move |text: &str| {
        let mut last = last.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if *last != text {
            text.clone_into(&mut last);
            output::say(shared, text);
        }
    }
}

/// The first signal lets the moves under way end and begins no other; the second aborts them.
fn handle_signals(drain: &Arc<AtomicBool>, stop: &Arc<AtomicBool>) -> Result<(), Failure> {
    let catch = |flag: &Arc<AtomicBool>| {
        [SIGINT, SIGTERM, SIGHUP]
            .into_iter()
            .try_for_each(|signal| signal_hook::flag::register(signal, Arc::clone(flag)).map(drop))
    };
    catch(drain).map_err(|error| Failure::failed(format!("Ctrl-C could not be caught: {error}")))?;
    let (drain, stop) = (Arc::clone(drain), Arc::clone(stop));
    thread::spawn(move || {
        while !drain.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(100));
        }
        // From here on a signal aborts the moves.
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            if let Err(error) = signal_hook::flag::register(signal, Arc::clone(&stop)) {
                tracing::warn!("a second Ctrl-C cannot be caught: {error}");
            }
        }
    });
    Ok(())
}

impl LiveMover<'_> {
    /// Result of a refused move: done if a runner that was expelled during the move has completed it.
    fn refused(&self, order: &MoveOrder, hosts: &Hosts, failure: Failure) -> ClaimResult {
        match vmgate_execute::has_moved(self.context.ledger(), self.change.digest, &order.vm, hosts) {
            Ok(true) => ClaimResult::Done,
            Ok(false) | Err(_) => Self::again(failure),
        }
    }

    fn again(failure: Failure) -> ClaimResult {
        ClaimResult::Again { why: failure.text, exit: failure.exit, after_seconds: 0.0 }
    }
}

impl Mover for LiveMover<'_> {
    /// Uses the abort flag in the move context, which is the runner's own.
    fn make(&self, at: usize, _: &AtomicBool) -> ClaimResult {
        let Some(order) = self.orders.get(at) else {
            return ClaimResult::Failed {
                why: "the change has no such move".to_owned(),
                exit: ExitCode::Internal,
            };
        };
        let began = uptime_seconds();
        let hosts = self.context.hosts(order);
        let (pass, verdict_facts) = match self.context.gate(order) {
            (GateResult::Pass(pass), verdict_facts) => (*pass, verdict_facts),
            (GateResult::Refused(failure, _), _) => return self.refused(order, &hosts, failure),
        };
        let made = self.context.carry_out(order, &hosts, pass, verdict_facts, &mut |event| {
            tracing::debug!("{}, {:.0} s: {event:?}", order.vm, uptime_seconds() - began);
        });
        let made = match made {
            Ok(made) => made,
            Err(failure) => return Self::again(failure),
        };
        match made {
            Ok(_) => ClaimResult::Done,
            Err(MoveFailure::Busy(refusal)) => ClaimResult::Busy { why: refusal.to_string() },
            Err(undone) if undone.exit() == ExitCode::OperatorNeeded => {
                ClaimResult::Failed { why: undone.to_string(), exit: undone.exit() }
            }
            Err(undone) => Self::again(Failure { exit: undone.exit(), text: undone.to_string() }),
        }
    }

    fn take_over(&self, at: usize) -> ClaimResult {
        let Some(order) = self.orders.get(at) else {
            return ClaimResult::Failed {
                why: "the change has no such move".to_owned(),
                exit: ExitCode::Internal,
            };
        };
        let order = RunOrder {
            vm: order.vm.clone(),
            from: order.judge.request.from.clone(),
            to: order.to.clone(),
            change: Some(self.change.id.clone()),
            plan: order.plan.clone(),
        };
        match vmgate_execute::take_over(
            self.context.ledger(),
            self.change.digest,
            &order,
            self.timeout,
            &|order| self.context.session().door_of(order),
        ) {
            Ok(RecoveryResult::Ended { moved: true, .. }) => ClaimResult::Done,
            Ok(RecoveryResult::Ended { host, .. }) => Self::again(Failure {
                exit: ExitCode::NotFinished,
                text: format!("its runner was lost; the VM still runs on {host}"),
            }),
            Ok(fate) => ClaimResult::Failed {
                why: format!("its runner was lost; {fate}"),
                exit: ExitCode::OperatorNeeded,
            },
            Err(error) => Self::again(Failure::failed(error)),
        }
    }

    fn wave_ready(&self, wave: usize) -> Result<(), String> {
        let wave = self.change.waves.get(wave);
        let Some(wait_for) = wave.and_then(|wave| wave.wait_for.as_ref()) else { return Ok(()) };
        let name = wave.map_or("", |wave| wave.name.as_str());
        if wait_for.versions == vmgate_judge::change::Versions::default() {
            return Err(format!(
                "the hosts that `{name}` waits for are empty: when their maintenance is done, run `{}`",
                ShownCommand::new("vmgate campaign open").operand(&self.change.id)
            ));
        }
        wait_for.hosts.iter().try_for_each(|host| {
            let uri = self.context.session().connection(host).map_err(|failure| failure.text)?;
            host_versions::check(&uri, &wait_for.versions, self.timeout)
                .map_err(|why| format!("`{name}` waits: {why}"))
        })
    }
}
