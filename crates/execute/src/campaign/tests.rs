use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use vmgate_ledger::{
    Campaign, Entry, Expulsion, LedgerError, Record,
    campaign::{CampaignEvent, ClaimResult, Steering},
    entry::Driver,
    test_ledger::{TestLedger, cluster::Cluster, in_every_store},
};
use vmgate_verdict::ExitCode;

use super::*;

/// Hosts that exist nowhere: a move takes some milliseconds, and it is written down what ran beside what.
#[derive(Default)]
struct Simulated {
    /// Moves that fail so often before they succeed.
    fails: Mutex<HashMap<usize, u32>>,
    made: Mutex<Vec<usize>>,
    taken_over: Mutex<Vec<usize>>,
    running: Mutex<Vec<usize>>,
    most: AtomicUsize,
    waves: Mutex<Vec<usize>>,
    takes: Duration,
}

impl Simulated {
    fn new() -> Self {
        Self { takes: Duration::from_millis(10), ..Self::default() }
    }

    fn made(&self) -> Vec<usize> {
        let mut made = self.made.lock().unwrap().clone();
        made.sort_unstable();
        made
    }
}

impl Mover for Simulated {
    fn make(&self, at: usize, stop: &AtomicBool) -> ClaimResult {
        {
            let mut running = self.running.lock().unwrap();
            running.push(at);
            self.most.fetch_max(running.len(), Ordering::SeqCst);
        }
        let start = Instant::now();
        while start.elapsed() < self.takes && !stop.load(Ordering::SeqCst) {
            thread::sleep(Duration::from_millis(2));
        }
        self.running.lock().unwrap().retain(|other| *other != at);
        if stop.load(Ordering::SeqCst) {
            return again("aborted");
        }
        if let Some(left) = self.fails.lock().unwrap().get_mut(&at).filter(|left| **left > 0) {
            *left -= 1;
            return again("no luck");
        }
        self.made.lock().unwrap().push(at);
        ClaimResult::Done
    }

    fn take_over(&self, at: usize) -> ClaimResult {
        self.taken_over.lock().unwrap().push(at);
        again("its runner was lost")
    }

    fn wave_ready(&self, wave: usize) -> Result<(), String> {
        self.waves.lock().unwrap().push(wave);
        Ok(())
    }
}

fn again(why: &str) -> ClaimResult {
    ClaimResult::Again { why: why.into(), exit: ExitCode::NotFinished, after_seconds: 0.0 }
}

/// A change that moves so many VMs, each between two hosts of its own unless `one` host gives them all.
fn change(moves: usize, head: &str, one: bool) -> ChangeFile {
    let moves: Vec<String> = (0..moves)
        .map(|at| {
            let from = if one { 0 } else { at };
            format!(
                "  - {{vm: vm{at}, from: 'qemu+ssh://a{from}/system', to: 'qemu+ssh://b{at}/system', expected_seconds: 30}}\n"
            )
        })
        .collect();
    let text = format!("schema: vmgate/change/v1\nid: CHG-1\n{head}moves:\n{}", moves.concat());
    ChangeFile::parse("change.yaml", text.as_bytes()).unwrap()
}

pub(super) fn driver() -> Driver {
    Driver { machine: "here".into(), boot: "b".into(), pid: 1, started_ticks: 1 }
}

const QUICK: RunnerSettings = RunnerSettings {
    jobs: 4,
    attempts: 3,
    lease_seconds: 60.0,
    backoff_seconds: 0.02,
    look: Duration::from_millis(20),
};

/// A lease that a test can wait for, and that a busy machine keeps.
const SHORT_LEASE: RunnerSettings = RunnerSettings { lease_seconds: 6.0, ..QUICK };

fn run(
    fresh: &TestLedger,
    name: &str,
    change: &ChangeFile,
    mover: &Simulated,
) -> Result<RunSummary, RunnerError> {
    run_with(fresh, name, change, mover, QUICK, &Arc::default())
}

fn run_with(
    fresh: &TestLedger,
    name: &str,
    change: &ChangeFile,
    mover: &Simulated,
    settings: RunnerSettings,
    stop: &Arc<AtomicBool>,
) -> Result<RunSummary, RunnerError> {
    let ledger = fresh.ledger().for_runner(name);
    let runner = Runner {
        ledger: &ledger,
        change,
        mover,
        name: name.into(),
        driver: driver(),
        settings,
        drain: Arc::default(),
        stop: Arc::clone(stop),
        on_progress: &|_| {},
    };
    runner.run()
}

/// Shortcuts to the ledger of a campaign.
trait Records {
    fn write(&self, change: &ChangeFile, event: CampaignEvent) -> Record;
    fn state(&self, change: &ChangeFile) -> CampaignState;
}

impl Records for TestLedger {
    fn write(&self, change: &ChangeFile, event: CampaignEvent) -> Record {
        let entry = Entry::Campaign(Campaign { campaign: change.digest.to_string(), event });
        self.ledger().append(&entry).unwrap()
    }

    fn state(&self, change: &ChangeFile) -> CampaignState {
        let mut state = CampaignState::new(&change.digest.to_string());
        let ledger = self.ledger();
        ledger.verify().unwrap();
        state.read(&ledger.records(&state.unread()).unwrap(), uptime_seconds());
        state
    }
}

const COMPLETE: RunSummary = RunSummary { ending: Some(CampaignEnd::Complete) };

in_every_store! {
    eight_runners_take_each_of_many_moves_once
    runners_share_a_change_and_no_move_is_made_twice_or_left_out
    the_limits_of_hosts_and_groups_hold_across_runners
    a_move_is_tried_again_with_growing_pauses_and_given_up_in_the_end
    when_the_error_budget_is_used_up_nothing_begins_until_somebody_resumes
    paused_nothing_begins_and_stopped_runners_end
    nothing_begins_that_would_not_be_over_before_the_window_closes
    a_wave_waits_for_the_one_before_and_brings_back_only_what_went
    a_runner_that_died_is_expelled_and_its_move_recovered_before_it_is_made_again
    what_ends_a_claim_that_is_no_longer_held_counts_for_nothing
    clocks_that_are_apart_do_not_stretch_a_pause
    a_runner_that_slept_past_half_its_lease_aborts_what_it_has_under_way
}

fn runners_share_a_change_and_no_move_is_made_twice_or_left_out(fresh: &TestLedger) {
    let (change, hosts) = (change(24, "at_once: 5\n", false), Simulated::new());
    thread::scope(|scope| {
        for name in ["one", "two", "three"] {
            let (change, hosts) = (&change, &hosts);
            scope.spawn(move || assert_eq!(run(fresh, name, change, hosts).unwrap(), COMPLETE));
        }
    });
    assert_eq!(hosts.made(), (0..24).collect::<Vec<_>>());
    assert!(hosts.most.load(Ordering::SeqCst) <= 5, "no more at once than the change allows");
    assert_eq!(fresh.state(&change).counts(None), Counts { done: 24, ..Counts::default() });
}

/// Moves that take no time: what is left is the ledger. `--nocapture` shows what it manages.
fn eight_runners_take_each_of_many_moves_once(fresh: &TestLedger) {
    const MOVES: usize = 160;
    let (change, hosts) = (change(MOVES, "", false), Simulated::default());
    let start = Instant::now();
    thread::scope(|scope| {
        for name in ["one", "two", "three", "four", "five", "six", "seven", "eight"] {
            let (change, hosts) = (&change, &hosts);
            scope.spawn(move || run(fresh, name, change, hosts).unwrap());
        }
    });
    assert_eq!(hosts.made(), (0..MOVES).collect::<Vec<_>>());
    let records = fresh.ledger().verify().unwrap().sequence;
    println!("{:?}: {records} records in {:.2} s", fresh.place, start.elapsed().as_secs_f64());
}

fn the_limits_of_hosts_and_groups_hold_across_runners(fresh: &TestLedger) {
    let hosts = Simulated::new();
    let one_source = change(6, "", true);
    thread::scope(|scope| {
        for name in ["one", "two"] {
            let (change, hosts) = (&one_source, &hosts);
            scope.spawn(move || run(fresh, name, change, hosts).unwrap());
        }
    });
    assert_eq!(hosts.made().len(), 6);
    assert_eq!(hosts.most.load(Ordering::SeqCst), 1, "one host gives one at a time");
}

fn a_move_is_tried_again_with_growing_pauses_and_given_up_in_the_end(fresh: &TestLedger) {
    let (change, hosts) = (change(2, "", false), Simulated::new());
    *hosts.fails.lock().unwrap() = HashMap::from([(0, 2), (1, 9)]);
    run(fresh, "one", &change, &hosts).unwrap();
    let state = fresh.state(&change);
    assert!(matches!(state.tasks[0].state, TaskState::Done { .. }));
    let TaskState::Failed { why, exit } = &state.tasks[1].state else { panic!("{:?}", state.tasks[1]) };
    assert_eq!((why.as_str(), *exit), ("no luck (tried 3 times)", ExitCode::NotFinished));
    let ledger = fresh.ledger();
    let pauses = ledger.records(&CampaignState::new(&change.digest.to_string()).unread()).unwrap();
    let pauses: Vec<f64> = pauses
        .iter()
        .filter_map(|record| match &record.entry {
            Entry::Campaign(Campaign {
                event: CampaignEvent::Released { at: 1, how: ClaimResult::Again { after_seconds, .. }, .. },
                ..
            }) => Some(*after_seconds),
            _ => None,
        })
        .collect();
    assert_eq!(pauses, [0.02, 0.04]);
}

fn when_the_error_budget_is_used_up_nothing_begins_until_somebody_resumes(fresh: &TestLedger) {
    let hosts = Simulated::new();
    let change = change(6, "error_budget: 2\nat_once: 1\n", false);
    *hosts.fails.lock().unwrap() = HashMap::from([(0, 9), (1, 9)]);
    let once = RunnerSettings { attempts: 1, ..QUICK };
    // Nothing is asserted before the runner is let go on: it would wait for ever.
    let before = thread::scope(|scope| {
        let runner = scope.spawn(|| run_with(fresh, "one", &change, &hosts, once, &Arc::default()).unwrap());
        let start = Instant::now();
        while fresh.state(&change).failures < 2 && start.elapsed() < Duration::from_secs(20) {
            thread::sleep(Duration::from_millis(20));
        }
        thread::sleep(Duration::from_millis(200));
        let before = (fresh.state(&change).failures, hosts.made());
        fresh.write(&change, CampaignEvent::Steered { what: Steering::Resume, by: "ann".into() });
        assert_eq!(runner.join().unwrap(), COMPLETE);
        before
    });
    assert_eq!(before, (2, Vec::new()));
    assert_eq!(hosts.made(), [2, 3, 4, 5]);
}

fn paused_nothing_begins_and_stopped_runners_end(fresh: &TestLedger) {
    let (change, hosts) = (change(3, "", false), Simulated::new());
    fresh.write(&change, opened(&change));
    fresh.write(&change, CampaignEvent::Steered { what: Steering::Pause, by: "ann".into() });
    thread::scope(|scope| {
        let runner = scope.spawn(|| run(fresh, "one", &change, &hosts).unwrap());
        thread::sleep(Duration::from_millis(300));
        assert!(!runner.is_finished());
        fresh.write(&change, CampaignEvent::Steered { what: Steering::Stop, by: "bob".into() });
        assert_eq!(runner.join().unwrap(), RunSummary { ending: Some(CampaignEnd::Stopped("bob".into())) });
    });
    assert_eq!(hosts.made(), [] as [usize; 0]);
    let status = render(&fresh.state(&change), jiff::Timestamp::now());
    assert!(status.contains("0 of 3 moves done") && status.contains("stopped by bob"), "{status}");
}

fn nothing_begins_that_would_not_be_over_before_the_window_closes(fresh: &TestLedger) {
    let hosts = Simulated::new();
    let end = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(20);
    let change = change(3, &format!("window: {{start: 2026-01-01T00:00:00Z, end: {end}}}\n"), false);
    let summary = run(fresh, "one", &change, &hosts).unwrap();
    assert_eq!(summary, RunSummary { ending: Some(CampaignEnd::WindowCloses(3)) });
    assert_eq!(hosts.made(), [] as [usize; 0]);
}

fn a_wave_waits_for_the_one_before_and_brings_back_only_what_went(fresh: &TestLedger) {
    let hosts = Simulated::new();
    let text = "schema: vmgate/change/v1
id: CHG-2
waves: [{name: empty r1}, {name: back to r1}]
moves:
  - {vm: a, from: 'qemu+ssh://a/system', to: 'qemu+ssh://b/system', wave: empty r1}
  - {vm: b, from: 'qemu+ssh://c/system', to: 'qemu+ssh://d/system', wave: empty r1}
  - {vm: a, from: 'qemu+ssh://b/system', to: 'qemu+ssh://a/system', wave: back to r1}
  - {vm: b, from: 'qemu+ssh://d/system', to: 'qemu+ssh://c/system', wave: back to r1}
";
    let change = ChangeFile::parse("c.yaml", text.as_bytes()).unwrap();
    hosts.fails.lock().unwrap().insert(1, 9);
    assert_eq!(run(fresh, "one", &change, &hosts).unwrap(), COMPLETE);
    assert_eq!(*hosts.made.lock().unwrap(), [0, 2], "b never went");
    assert_eq!(*hosts.waves.lock().unwrap(), [1]);
    let expected = Counts { done: 2, failed: 1, needless: 1, ..Counts::default() };
    assert_eq!(fresh.state(&change).counts(None), expected);
}

fn a_runner_that_died_is_expelled_and_its_move_recovered_before_it_is_made_again(fresh: &TestLedger) {
    let (change, hosts) = (change(2, "", false), Simulated::new());
    fresh.write(&change, opened(&change));
    fresh.write(&change, CampaignEvent::Beat { runner: "dead".into(), driver: driver() });
    let token = fresh.write(&change, CampaignEvent::Claimed { runner: "dead".into(), at: 0 }).sequence;
    let dead = fresh.ledger().for_runner("dead");
    let began = Instant::now();
    let summary = run_with(fresh, "one", &change, &hosts, SHORT_LEASE, &Arc::default());
    assert_eq!(summary.unwrap(), COMPLETE);
    assert!(began.elapsed() >= Duration::from_secs(6), "not before the lease is over");
    assert_eq!(*hosts.taken_over.lock().unwrap(), [0]);
    assert_eq!(hosts.made(), [0, 1]);
    // Were it only asleep, it could neither end its claim nor take a step of a move when it wakes.
    let late = CampaignEvent::Released { at: 0, token, how: ClaimResult::Done };
    let entry = Entry::Campaign(Campaign { campaign: change.digest.to_string(), event: late.clone() });
    assert!(matches!(dead.append(&entry), Err(LedgerError::Expelled)));
    // And what is written past the fence counts for nothing: its token is not the one that is held.
    let before = fresh.state(&change).tasks;
    fresh.write(&change, late);
    assert_eq!(fresh.state(&change).tasks, before);
}

fn what_ends_a_claim_that_is_no_longer_held_counts_for_nothing(fresh: &TestLedger) {
    let change = change(1, "", false);
    fresh.write(&change, opened(&change));
    let claim =
        |runner: &str| fresh.write(&change, CampaignEvent::Claimed { runner: runner.into(), at: 0 }).sequence;
    let (old, new) = (claim("one"), claim("two"));
    let done = |token| fresh.write(&change, CampaignEvent::Released { at: 0, token, how: ClaimResult::Done });
    done(old);
    let state = fresh.state(&change);
    assert!(matches!(&state.tasks[0].state, TaskState::Claimed { token, .. } if *token == new), "{state:?}");
    done(new);
    assert_eq!(fresh.state(&change).counts(None).done, 1);
}

fn clocks_that_are_apart_do_not_stretch_a_pause(fresh: &TestLedger) {
    let (change, hosts) = (change(1, "", false), Simulated::new());
    fresh.write(&change, opened(&change));
    let token = fresh.write(&change, CampaignEvent::Claimed { runner: "ahead".into(), at: 0 }).sequence;
    let how = ClaimResult::Again { why: "no luck".into(), exit: ExitCode::NotFinished, after_seconds: 0.5 };
    let event = CampaignEvent::Released { at: 0, token, how };
    let entry = Entry::Campaign(Campaign { campaign: change.digest.to_string(), event });
    let in_an_hour = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(1);
    fresh.ledger().append_at(&entry, in_an_hour).unwrap();
    let start = Instant::now();
    assert_eq!(run(fresh, "one", &change, &hosts).unwrap(), COMPLETE);
    assert!((0.5..30.0).contains(&start.elapsed().as_secs_f64()), "{:?}", start.elapsed());
}

fn a_runner_that_slept_past_half_its_lease_aborts_what_it_has_under_way(fresh: &TestLedger) {
    let change = change(1, "", false);
    let hosts = Simulated { takes: Duration::from_secs(20), ..Simulated::default() };
    let stop: Arc<AtomicBool> = Arc::default();
    thread::scope(|scope| {
        let runner = scope.spawn(|| run_with(fresh, "sleeper", &change, &hosts, SHORT_LEASE, &stop));
        let start = Instant::now();
        while hosts.running.lock().unwrap().is_empty() {
            assert!(start.elapsed() < Duration::from_secs(10));
            thread::sleep(Duration::from_millis(10));
        }
        let expelled = Expulsion {
            campaign: change.digest.to_string(),
            runner: "sleeper".into(),
            by: "other".into(),
            silent_seconds: 60,
        };
        fresh.ledger().append(&Entry::Expulsion(expelled)).unwrap();
        assert!(matches!(runner.join().unwrap(), Err(RunnerError::LeaseLost)));
        assert!(start.elapsed() < Duration::from_secs(10), "its move was aborted and not waited for");
    });
    assert_eq!(hosts.made(), [] as [usize; 0]);
    assert!(matches!(fresh.state(&change).tasks[0].state, TaskState::Orphaned { .. }));
}

#[test]
fn runners_go_on_after_their_database_was_restarted() {
    let mut server = Cluster::own();
    let fresh = TestLedger::at(server.database());
    let change = change(12, "", false);
    let hosts = Simulated { takes: Duration::from_millis(300), ..Simulated::default() };
    let one_at_a_time = RunnerSettings { jobs: 1, ..QUICK };
    thread::scope(|scope| {
        let runners = ["one", "two"].map(|name| {
            let (fresh, change, hosts) = (&fresh, &change, &hosts);
            scope.spawn(move || run_with(fresh, name, change, hosts, one_at_a_time, &Arc::default()))
        });
        thread::sleep(Duration::from_millis(700));
        for order in ["stop", "start", "crash", "start"] {
            server.order(order);
        }
        for runner in runners {
            assert_eq!(runner.join().unwrap().unwrap(), COMPLETE);
        }
    });
    assert_eq!(hosts.made(), (0..12).collect::<Vec<_>>());
    assert_eq!(fresh.state(&change).counts(None).done, 12);
}

#[test]
fn a_runner_whose_database_does_not_answer_aborts_at_half_its_lease() {
    let mut server = Cluster::own();
    let fresh = TestLedger::at(server.database());
    let change = change(1, "", false);
    let hosts = Simulated { takes: Duration::from_mins(1), ..Simulated::default() };
    thread::scope(|scope| {
        let runner = scope.spawn(|| run_with(&fresh, "one", &change, &hosts, SHORT_LEASE, &Arc::default()));
        while hosts.running.lock().unwrap().is_empty() {
            thread::sleep(Duration::from_millis(10));
        }
        server.order("freeze");
        let start = Instant::now();
        while !hosts.running.lock().unwrap().is_empty() {
            thread::sleep(Duration::from_millis(10));
        }
        let silent = start.elapsed();
        server.order("thaw");
        assert!(silent < Duration::from_secs(5), "{silent:?}");
        assert!(matches!(runner.join().unwrap(), Err(RunnerError::LeaseLost)));
    });
}

#[test]
fn a_lease_ends_at_its_half_by_a_clock_that_nobody_sets() {
    let lost: Arc<AtomicBool> = Arc::default();
    let lease = Lease::new(4.0, Arc::clone(&lost));
    assert!(lease.holds());
    thread::sleep(Duration::from_millis(400));
    assert!(lease.holds());
    thread::sleep(Duration::from_secs(2));
    assert!(!lease.holds() && lost.load(Ordering::SeqCst));
    lease.renew(uptime_seconds());
    assert!(!lease.holds(), "what is lost is lost");
}
