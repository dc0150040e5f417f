//! `--trial`: the migration is begun and taken back before the verdict, and what both hosts said to it is a fact.

use std::{
    net::IpAddr,
    sync::{Arc, atomic::AtomicBool},
};

use jiff::Timestamp;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use vmgate_collect::CollectRequest;
use vmgate_execute::{TrialOrder, TrialPass};
use vmgate_facts::{Fact, Facts, Provenance};
use vmgate_judge::{
    EvidenceOrigin, Policy, VerdictRequest,
    change::{Limits, MovePlan},
};
use vmgate_ledger::Ledger;

use super::{Failure, collect, hook::DestinationPermits, output, session::Session};

/// Ledger and abort flag of all trials of a command.
pub(super) struct Trials<'a> {
    session: &'a Session<'a>,
    ledger: Ledger,
    stop: Arc<AtomicBool>,
}

/// Move whose start is tried.
pub(super) struct TriedMove<'a> {
    pub(super) request: &'a CollectRequest,
    pub(super) plan: &'a MovePlan,
    pub(super) address: Option<IpAddr>,
    pub(super) limits: Limits,
}

impl<'a> Trials<'a> {
    /// Opens the ledger of moves; Ctrl-C takes a trial back from now on.
    pub(super) fn open(session: &'a Session<'a>) -> Result<Self, Failure> {
        let ledger = session.open_ledger(session.ledger_for_moves()?)?;
        Ok(Self { session, ledger, stop: aborted_by_signals()? })
    }

    /// Makes the trial if nothing stands against the move so far, and adds its answer to the facts.
    pub(super) fn make(
        &self,
        tried: &TriedMove,
        policy: &Policy,
        asked: &VerdictRequest,
        facts: &mut Facts,
    ) -> Result<(), Failure> {
        make(tried, (policy, asked), (&self.ledger, &self.stop), self.session, facts)
    }
}

/// A flag that Ctrl-C and its like set.
pub(super) fn aborted_by_signals() -> Result<Arc<AtomicBool>, Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&stop))
            .map_err(|error| Failure::failed(format!("Ctrl-C could not be caught: {error}")))?;
    }
    Ok(stop)
}

/// Makes the trial if nothing stands against the move so far, and adds its answer to the facts.
pub(super) fn make(
    tried: &TriedMove,
    (policy, asked): (&Policy, &VerdictRequest),
    (ledger, stop): (&Ledger, &AtomicBool),
    session: &Session,
    facts: &mut Facts,
) -> Result<(), Failure> {
    // A trial of before says nothing of now.
    facts.trial = Fact::Known(None);
    let asked = VerdictRequest { evidence: EvidenceOrigin::Live, ..asked.clone() };
    let pass = match TrialPass::from_verdict(policy.judge(facts.clone(), Timestamp::now(), &asked)) {
        Ok(pass) => pass,
        Err(why) => {
            output::say(session.shared, &format!("{}: the trial was not made: {why}", tried.request.vm));
            return Ok(());
        }
    };
    let to = collect::destination(tried.request)?;
    let hosts = session.hosts(&tried.request.from, to);
    let permits = DestinationPermits::of(to, session)?;
    let order = TrialOrder {
        pass,
        hosts: &hosts,
        plan: tried.plan,
        migrate_address: tried.address,
        limits: tried.limits,
        permits: &permits,
    };
    facts.trial = order.carry_out(ledger, stop);
    let from = Provenance {
        collector: "trial".to_owned(),
        method: "a migration that was begun and taken back".to_owned(),
        at: Timestamp::now(),
        window_seconds: facts.trial.known().and_then(|trial| trial.as_ref().map(|trial| trial.total_seconds)),
    };
    facts.provenance.insert("trial".to_owned(), from);
    Ok(())
}
