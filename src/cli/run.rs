//! `vmgate run`: a change, carried out by as many runners as are started for it, over one ledger.

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
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::{
    Failure,
    migrate::{Desk, Opened, Order, orders},
    options::{self, MoveOptions, Shared},
    output,
    session::{Session, read_change},
};
use crate::{
    campaign::{Ending, Mover, Runner, RunnerError, Settings, Summary, uptime_seconds},
    change::ChangeFile,
    collect::host_versions,
    execute::{self, Fate, Hosts, Undone},
    ledger::{Ledger, campaign::Released},
    verdict::ExitCode,
};

#[derive(Debug, Args)]
pub(super) struct Run {
    /// The change to carry out. Runners that are started for the same file share its moves
    #[arg(long, value_name = "FILE")]
    change: PathBuf,
    #[command(flatten)]
    look: MoveOptions,
    /// Moves that this runner makes at once
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    jobs: u16,
    /// How often a move is tried
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=10))]
    attempts: u32,
    /// Wait before a move is tried again; doubled each time
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = options::seconds)]
    backoff: Duration,
    /// How long a runner may be silent before others take its moves over, from 10 s: the same for all runners of a change
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = lease)]
    lease: Duration,
    /// Warnings keep a VM where it is
    #[arg(long)]
    strict: bool,
}

/// Moves VMs of a change.
struct Live<'a> {
    desk: &'a Desk<'a>,
    orders: &'a [Order<'a>],
    change: &'a ChangeFile,
    timeout: Duration,
}

impl Run {
    pub(super) fn run(&self, shared: &Shared) -> Result<ExitCode, Failure> {
        let session = Session::open(shared)?;
        let change = read_change(&self.change)?;
        let policy = session.policy()?.and_waivers(change.waivers.clone());
        let driver = execute::driver();
        let name = format!("{}-{}-{}", driver.machine, driver.pid, driver.started_ticks);
        let ledger = Ledger::open(session.ledger_for_moves()?).map_err(Failure::failed)?.of_runner(&name);
        let (drain, stop) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let desk = Desk::of_runner(ledger, Arc::clone(&stop), &session);
        let orders = orders(&change, &policy, &self.look, self.strict, &session)?;
        heed_signals(&drain, &stop)?;
        let mover = Live { desk: &desk, orders: &orders, change: &change, timeout: session.timeout() };
        let runner = Runner {
            ledger: desk.ledger(),
            change: &change,
            mover: &mover,
            name,
            driver,
            settings: Settings {
                jobs: self.jobs.into(),
                attempts: self.attempts,
                lease_seconds: self.lease.as_secs_f64(),
                backoff_seconds: self.backoff.as_secs_f64(),
                ..Settings::default()
            },
            drain,
            stop,
            tell: &say_once(shared),
        };
        let summary = runner.run();
        let state = super::campaign::read(desk.ledger(), &change.digest.to_string())?;
        output::say(shared, crate::campaign::render(&state, session.now()).trim_end());
        match summary {
            Ok(summary) => Ok(exit(&summary, &state)),
            Err(error @ RunnerError::LeaseLost) => {
                Err(Failure { exit: ExitCode::OperatorNeeded, text: error.to_string() })
            }
            Err(error) => Err(Failure::failed(error)),
        }
    }
}

/// The worst that became of a move; 30 where some were not begun.
fn exit(summary: &Summary, state: &crate::campaign::State) -> ExitCode {
    use crate::campaign::TaskState;
    let failed = state.tasks.iter().filter_map(|task| match &task.state {
        TaskState::Failed { exit, .. } => Some(*exit),
        _ => None,
    });
    let rest = match summary.ending {
        Some(Ending::Complete) => ExitCode::Go,
        _ => ExitCode::NotFinished,
    };
    ExitCode::worst(failed.chain([rest]).collect::<Vec<_>>())
}

/// A lease that beats fit into.
fn lease(text: &str) -> Result<Duration, String> {
    options::seconds(text).and_then(|lease| match lease.as_secs() {
        10.. => Ok(lease),
        _ => Err("a lease lasts 10 s or more: one that is lost aborts migrations".to_owned()),
    })
}

/// What waits says the same again and again: it is told once.
fn say_once(shared: &Shared) -> impl Fn(&str) + Sync {
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
fn heed_signals(drain: &Arc<AtomicBool>, stop: &Arc<AtomicBool>) -> Result<(), Failure> {
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
        // From here on a signal means more.
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            if let Err(error) = signal_hook::flag::register(signal, Arc::clone(&stop)) {
                tracing::warn!("a second Ctrl-C cannot be caught: {error}");
            }
        }
    });
    Ok(())
}

impl Live<'_> {
    /// What is refused may be done already, by a runner that was counted out in the middle of it.
    fn refused(&self, order: &Order, hosts: &Hosts, failure: Failure) -> Released {
        match execute::has_moved(self.desk.ledger(), self.change.digest, &order.vm, hosts) {
            Ok(true) => Released::Done,
            Ok(false) | Err(_) => Self::again(failure),
        }
    }

    fn again(failure: Failure) -> Released {
        Released::Again { why: failure.text, exit: failure.exit, after_seconds: 0.0 }
    }
}

impl Mover for Live<'_> {
    /// The desk has the runner's own flag that aborts.
    fn make(&self, at: usize, _: &AtomicBool) -> Released {
        let Some(order) = self.orders.get(at) else {
            return Released::Failed {
                why: "the change has no such move".to_owned(),
                exit: ExitCode::Internal,
            };
        };
        let began = uptime_seconds();
        let hosts = self.desk.hosts(order);
        let (pass, earlier) = match self.desk.gate(order) {
            (Opened::Pass(pass), earlier) => (*pass, earlier),
            (Opened::Refused(failure, _), _) => return self.refused(order, &hosts, failure),
        };
        let made = self.desk.carry_out(order, &hosts, pass, earlier, &mut |event| {
            tracing::debug!("{}, {:.0} s: {event:?}", order.vm, uptime_seconds() - began);
        });
        let made = match made {
            Ok(made) => made,
            Err(failure) => return Self::again(failure),
        };
        match made {
            Ok(_) => Released::Done,
            Err(Undone::Busy(refusal)) => Released::Busy { why: refusal.to_string() },
            Err(undone) if undone.exit() == ExitCode::OperatorNeeded => {
                Released::Failed { why: undone.to_string(), exit: undone.exit() }
            }
            Err(undone) => Self::again(Failure { exit: undone.exit(), text: undone.to_string() }),
        }
    }

    fn take_over(&self, at: usize) -> Released {
        let Some(order) = self.orders.get(at) else {
            return Released::Failed {
                why: "the change has no such move".to_owned(),
                exit: ExitCode::Internal,
            };
        };
        let hosts = self.desk.hosts(order);
        match execute::take_over(self.desk.ledger(), self.change.digest, &order.vm, &hosts, self.timeout) {
            Ok(Fate::Ended { moved: true, .. }) => Released::Done,
            Ok(Fate::Ended { host, .. }) => Self::again(Failure {
                exit: ExitCode::NotFinished,
                text: format!("its runner was lost; it runs on {host}, where it was"),
            }),
            Ok(fate) => Released::Failed {
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
        if wait_for.versions == crate::change::Versions::default() {
            return Err(format!(
                "the hosts that `{name}` waits for are empty: when their maintenance is over, `vmgate campaign open {}`",
                self.change.id
            ));
        }
        wait_for.hosts.iter().try_for_each(|host| {
            host_versions::check(host, &wait_for.versions, self.timeout)
                .map_err(|why| format!("`{name}` waits: {why}"))
        })
    }
}
