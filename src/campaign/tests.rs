use std::{
    collections::HashMap,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use super::*;
use crate::{
    change::Plan,
    fact::Quantiles,
    ledger::{
        Campaign, Entry, Expulsion, Ledger, LedgerError, Record,
        campaign::{Event, Released, Steering},
        entry::{self, Driver, Migration, Outcome, RunEnded, RunStarted, VerdictGiven},
    },
    verdict::{ExitCode, Named, sample},
};

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
    fn make(&self, at: usize, stop: &AtomicBool) -> Released {
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
        Released::Done
    }

    fn take_over(&self, at: usize) -> Released {
        self.taken_over.lock().unwrap().push(at);
        again("its runner was lost")
    }

    fn wave_ready(&self, wave: usize) -> Result<(), String> {
        self.waves.lock().unwrap().push(wave);
        Ok(())
    }
}

fn again(why: &str) -> Released {
    Released::Again { why: why.into(), exit: ExitCode::NotFinished, after_seconds: 0.0 }
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

fn driver() -> Driver {
    Driver { machine: "here".into(), boot: "b".into(), pid: 1, started_ticks: 1 }
}

const QUICK: Settings = Settings {
    jobs: 4,
    attempts: 3,
    lease_seconds: 60.0,
    backoff_seconds: 0.02,
    look: Duration::from_millis(20),
};

/// A lease that a test can wait for, and that a busy machine keeps.
const SHORT_LEASE: Settings = Settings { lease_seconds: 6.0, ..QUICK };

fn run(file: &Path, name: &str, change: &ChangeFile, mover: &Simulated) -> Result<Summary, RunnerError> {
    run_with(file, name, change, mover, QUICK, &Arc::default())
}

fn run_with(
    file: &Path,
    name: &str,
    change: &ChangeFile,
    mover: &Simulated,
    settings: Settings,
    stop: &Arc<AtomicBool>,
) -> Result<Summary, RunnerError> {
    let ledger = Ledger::open(file).unwrap().of_runner(name);
    let runner = Runner {
        ledger: &ledger,
        change,
        mover,
        name: name.into(),
        driver: driver(),
        settings,
        drain: Arc::default(),
        stop: Arc::clone(stop),
        tell: &|_| {},
    };
    runner.run()
}

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self) -> std::path::PathBuf {
        self.0.path().join("ledger.db")
    }

    fn write(&self, change: &ChangeFile, event: Event) -> Record {
        let entry = Entry::Campaign(Campaign { campaign: change.digest.to_string(), event });
        Ledger::open(&self.file()).unwrap().append(&entry).unwrap()
    }

    fn state(&self, change: &ChangeFile) -> State {
        let mut state = State::new(&change.digest.to_string());
        let ledger = Ledger::open(&self.file()).unwrap();
        ledger.verify().unwrap();
        state.read(&ledger.records(&state.unread()).unwrap(), uptime_seconds());
        state
    }
}

const COMPLETE: Summary = Summary { ending: Some(Ending::Complete) };

#[test]
fn runners_share_a_change_and_no_move_is_made_twice_or_left_out() {
    let (place, change, hosts) = (Place::new(), change(24, "at_once: 5\n", false), Simulated::new());
    thread::scope(|scope| {
        for name in ["one", "two", "three"] {
            let (place, change, hosts) = (&place, &change, &hosts);
            scope.spawn(move || assert_eq!(run(&place.file(), name, change, hosts).unwrap(), COMPLETE));
        }
    });
    assert_eq!(hosts.made(), (0..24).collect::<Vec<_>>());
    assert!(hosts.most.load(Ordering::SeqCst) <= 5, "no more at once than the change allows");
    assert_eq!(place.state(&change).counts(None), Counts { done: 24, ..Counts::default() });
}

#[test]
fn the_limits_of_hosts_and_groups_hold_across_runners() {
    let place = Place::new();
    let hosts = Simulated::new();
    let one_source = change(6, "", true);
    thread::scope(|scope| {
        for name in ["one", "two"] {
            let (place, change, hosts) = (&place, &one_source, &hosts);
            scope.spawn(move || run(&place.file(), name, change, hosts).unwrap());
        }
    });
    assert_eq!(hosts.made().len(), 6);
    assert_eq!(hosts.most.load(Ordering::SeqCst), 1, "one host gives one at a time");
}

#[test]
fn a_move_is_tried_again_with_growing_pauses_and_given_up_in_the_end() {
    let (place, change, hosts) = (Place::new(), change(2, "", false), Simulated::new());
    *hosts.fails.lock().unwrap() = HashMap::from([(0, 2), (1, 9)]);
    run(&place.file(), "one", &change, &hosts).unwrap();
    let state = place.state(&change);
    assert!(matches!(state.tasks[0].state, TaskState::Done { .. }));
    let TaskState::Failed { why, exit } = &state.tasks[1].state else { panic!("{:?}", state.tasks[1]) };
    assert_eq!((why.as_str(), *exit), ("no luck (tried 3 times)", ExitCode::NotFinished));
    let ledger = Ledger::open(&place.file()).unwrap();
    let pauses = ledger.records(&State::new(&change.digest.to_string()).unread()).unwrap();
    let pauses: Vec<f64> = pauses
        .iter()
        .filter_map(|record| match &record.entry {
            Entry::Campaign(Campaign {
                event: Event::Released { at: 1, how: Released::Again { after_seconds, .. }, .. },
                ..
            }) => Some(*after_seconds),
            _ => None,
        })
        .collect();
    assert_eq!(pauses, [0.02, 0.04]);
}

#[test]
fn when_the_error_budget_is_used_up_nothing_begins_until_somebody_resumes() {
    let (place, hosts) = (Place::new(), Simulated::new());
    let change = change(6, "error_budget: 2\nat_once: 1\n", false);
    *hosts.fails.lock().unwrap() = HashMap::from([(0, 9), (1, 9)]);
    let once = Settings { attempts: 1, ..QUICK };
    // Nothing is asserted before the runner is let go on: it would wait for ever.
    let before = thread::scope(|scope| {
        let runner =
            scope.spawn(|| run_with(&place.file(), "one", &change, &hosts, once, &Arc::default()).unwrap());
        let start = Instant::now();
        while place.state(&change).failures < 2 && start.elapsed() < Duration::from_secs(20) {
            thread::sleep(Duration::from_millis(20));
        }
        thread::sleep(Duration::from_millis(200));
        let before = (place.state(&change).failures, hosts.made());
        place.write(&change, Event::Steered { what: Steering::Resume, by: "ann".into() });
        assert_eq!(runner.join().unwrap(), COMPLETE);
        before
    });
    assert_eq!(before, (2, Vec::new()));
    assert_eq!(hosts.made(), [2, 3, 4, 5]);
}

#[test]
fn paused_nothing_begins_and_stopped_runners_end() {
    let (place, change, hosts) = (Place::new(), change(3, "", false), Simulated::new());
    place.write(&change, opened(&change));
    place.write(&change, Event::Steered { what: Steering::Pause, by: "ann".into() });
    thread::scope(|scope| {
        let runner = scope.spawn(|| run(&place.file(), "one", &change, &hosts).unwrap());
        thread::sleep(Duration::from_millis(300));
        assert!(!runner.is_finished());
        place.write(&change, Event::Steered { what: Steering::Stop, by: "bob".into() });
        assert_eq!(runner.join().unwrap(), Summary { ending: Some(Ending::Stopped("bob".into())) });
    });
    assert_eq!(hosts.made(), [] as [usize; 0]);
    let status = render(&place.state(&change), jiff::Timestamp::now());
    assert!(status.contains("0 of 3 moves done") && status.contains("stopped by bob"), "{status}");
}

#[test]
fn nothing_begins_that_would_not_be_over_before_the_window_closes() {
    let (place, hosts) = (Place::new(), Simulated::new());
    let end = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(20);
    let change = change(3, &format!("window: {{start: 2026-01-01T00:00:00Z, end: {end}}}\n"), false);
    let summary = run(&place.file(), "one", &change, &hosts).unwrap();
    assert_eq!(summary, Summary { ending: Some(Ending::WindowCloses(3)) });
    assert_eq!(hosts.made(), [] as [usize; 0]);
}

#[test]
fn a_wave_waits_for_the_one_before_and_brings_back_only_what_went() {
    let (place, hosts) = (Place::new(), Simulated::new());
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
    assert_eq!(run(&place.file(), "one", &change, &hosts).unwrap(), COMPLETE);
    assert_eq!(*hosts.made.lock().unwrap(), [0, 2], "b never went");
    assert_eq!(*hosts.waves.lock().unwrap(), [1]);
    let expected = Counts { done: 2, failed: 1, needless: 1, ..Counts::default() };
    assert_eq!(place.state(&change).counts(None), expected);
}

#[test]
fn a_runner_that_died_is_expelled_and_its_move_recovered_before_it_is_made_again() {
    let (place, change, hosts) = (Place::new(), change(2, "", false), Simulated::new());
    place.write(&change, opened(&change));
    place.write(&change, Event::Beat { runner: "dead".into(), driver: driver() });
    let token = place.write(&change, Event::Claimed { runner: "dead".into(), at: 0 }).sequence;
    let dead = Ledger::open(&place.file()).unwrap().of_runner("dead");
    let began = Instant::now();
    let summary = run_with(&place.file(), "one", &change, &hosts, SHORT_LEASE, &Arc::default());
    assert_eq!(summary.unwrap(), COMPLETE);
    assert!(began.elapsed() >= Duration::from_secs(6), "not before the lease is over");
    assert_eq!(*hosts.taken_over.lock().unwrap(), [0]);
    assert_eq!(hosts.made(), [0, 1]);
    // Were it only asleep, it could neither end its claim nor take a step of a move when it wakes.
    let late = Event::Released { at: 0, token, how: Released::Done };
    let entry = Entry::Campaign(Campaign { campaign: change.digest.to_string(), event: late.clone() });
    assert!(matches!(dead.append(&entry), Err(LedgerError::Expelled)));
    // And what is written past the fence counts for nothing: its token is not the one that is held.
    let before = place.state(&change).tasks;
    place.write(&change, late);
    assert_eq!(place.state(&change).tasks, before);
}

#[test]
fn what_ends_a_claim_that_is_no_longer_held_counts_for_nothing() {
    let (place, change) = (Place::new(), change(1, "", false));
    place.write(&change, opened(&change));
    let claim = |runner: &str| place.write(&change, Event::Claimed { runner: runner.into(), at: 0 }).sequence;
    let (old, new) = (claim("one"), claim("two"));
    let done = |token| place.write(&change, Event::Released { at: 0, token, how: Released::Done });
    done(old);
    let state = place.state(&change);
    assert!(matches!(&state.tasks[0].state, TaskState::Claimed { token, .. } if *token == new), "{state:?}");
    done(new);
    assert_eq!(place.state(&change).counts(None).done, 1);
}

#[test]
fn a_runner_that_slept_past_half_its_lease_aborts_what_it_has_under_way() {
    let (place, change) = (Place::new(), change(1, "", false));
    let hosts = Simulated { takes: Duration::from_secs(20), ..Simulated::default() };
    let stop: Arc<AtomicBool> = Arc::default();
    thread::scope(|scope| {
        let runner = scope.spawn(|| run_with(&place.file(), "sleeper", &change, &hosts, SHORT_LEASE, &stop));
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
        Ledger::open(&place.file()).unwrap().append(&Entry::Expulsion(expelled)).unwrap();
        assert!(matches!(runner.join().unwrap(), Err(RunnerError::LeaseLost)));
        assert!(start.elapsed() < Duration::from_secs(10), "its move was aborted and not waited for");
    });
    assert_eq!(hosts.made(), [] as [usize; 0]);
    assert!(matches!(place.state(&change).tasks[0].state, TaskState::Orphaned { .. }));
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

/// A campaign with every state in it, and with names that a guest chose; its file is `place`'s.
fn eventful(place: &Path) -> ChangeFile {
    let text = "schema: vmgate/change/v1
id: \"CHG <b>7</b>\"
error_budget: 3
waves: [{name: empty r1}, {name: back to r1}]
moves:
  - {vm: web1, from: 'qemu+ssh://hv1/system', to: 'qemu+ssh://hv2/system', wave: empty r1, expected_seconds: 12}
  - {vm: \"<img src=x onerror=owned=1>\", from: 'qemu+ssh://hv1/system', to: 'qemu+ssh://hv3/system', wave: empty r1}
  - {vm: db1, from: 'qemu+ssh://hv1/system', to: 'qemu+ssh://hv2/system', wave: empty r1, expected_seconds: 90}
  - {vm: web1, from: 'qemu+ssh://hv2/system', to: 'qemu+ssh://hv1/system', wave: back to r1}
";
    let change = ChangeFile::parse("c.yaml", text.as_bytes()).unwrap();
    let ledger = Ledger::open(place).unwrap();
    let campaign = |event| {
        let entry = Entry::Campaign(Campaign { campaign: change.digest.to_string(), event });
        ledger.append(&entry).unwrap().sequence
    };
    let named = |name: &str| Named { name: Some(name.into()), uuid: None };
    campaign(opened(&change));
    campaign(Event::Beat { runner: "night-1".into(), driver: driver() });
    let claim = |at| campaign(Event::Claimed { runner: "night-1".into(), at });
    let released = |at, token, how| campaign(Event::Released { at, token, how });

    let token = claim(0);
    let mut verdict = VerdictGiven::from(&sample::go());
    verdict.change = Some(change.id.clone());
    verdict.moved.vm = named("web1");
    ledger.append(&Entry::Verdict(verdict)).unwrap();
    ledger
        .append(&Entry::RunStarted(RunStarted {
            run: "r1".into(),
            vm: named("web1"),
            source: named("hv1"),
            destination: named("hv2"),
            from: "qemu+ssh://hv1/system".into(),
            to: "qemu+ssh://hv2/system".into(),
            change: Some(change.id.clone()),
            change_digest: None,
            plan: Plan::default(),
            driver: driver(),
        }))
        .unwrap();
    ledger
        .append(&Entry::Migration(Migration {
            run: "r1".into(),
            vm: named("web1"),
            source: named("hv1"),
            destination: named("hv2"),
            pair: None,
            outcome: Outcome::Completed,
            rehearsal: false,
            forecast_total_seconds: Some(Quantiles { p5: 9.0, p50: 11.0, p95: 14.0 }),
            replayed_total_seconds: None,
            forecast_blackout_seconds: Some(Quantiles { p5: 0.05, p50: 0.08, p95: 0.2 }),
            total_seconds: Some(12.34),
            downtime_seconds: Some(0.071),
            sent_bytes: Some(1 << 30),
            rounds: Some(4),
            downtime_limit_seconds: Some(0.3),
            throttle_percent: None,
        }))
        .unwrap();
    ledger
        .append(&Entry::RunEnded(RunEnded {
            run: "r1".into(),
            vm: String::new(),
            ending: entry::Ending::Done,
            exit: ExitCode::Go,
            runs_on: Some("hv2".into()),
            why: None,
            recovered: false,
        }))
        .unwrap();
    released(0, token, Released::Done);
    let token = claim(1);
    released(
        1,
        token,
        Released::Failed { why: "NO-GO: \u{1b}[2J</main>".into(), exit: ExitCode::RuleViolated },
    );
    claim(2);
    change
}

fn board(place: &Path, change: &ChangeFile) -> Board {
    let mut board = Board::new(&change.digest.to_string());
    let ledger = Ledger::open(place).unwrap();
    board.read(&ledger.records(&board.unread()).unwrap(), uptime_seconds());
    assert!(ledger.records(&board.unread()).unwrap().is_empty(), "nothing is read twice");
    board
}

#[test]
fn the_board_has_forecast_and_outcome_of_each_move_and_where_its_vm_is() {
    let place = Place::new();
    let change = eventful(&place.file());
    let board = board(&place.file(), &change);
    assert_eq!(board.state.counts(None), Counts { done: 1, running: 1, waiting: 1, failed: 1, needless: 0 });
    let first = &board.moves[0];
    assert_eq!(first.runs_on.as_deref(), Some("hv2"));
    assert_eq!(first.migration.as_ref().unwrap().total_seconds, Some(12.34));
    assert!(first.verdict.is_some());
    assert_eq!(board.moves[3], MoveSeen::default(), "the way back is another move");
    let hv1 = board.hosts().into_iter().find(|(name, _)| name == "hv1").unwrap().1;
    assert_eq!((hv1.leaving.all(), hv1.leaving.done, hv1.coming.waiting), (3, 1, 1));
}

#[test]
fn the_page_says_what_the_board_has_and_obeys_no_guest() {
    let place = Place::new();
    let change = eventful(&place.file());
    let page = page(&board(&place.file(), &change), jiff::Timestamp::now()).unwrap();
    for wanted in [
        "1 of 4 moves done, 1 running, 1 to come, 1 failed",
        "12.3 s</td><td>11 s (9 s to 14 s)",
        "71 ms</td><td>80 ms (50 ms to 0.2 s)",
        "CHG &lt;b&gt;7&lt;&#x2f;b&gt;",
        "not certain",
    ] {
        assert!(page.contains(wanted), "{wanted} is not in {page}");
    }
    for danger in ["<img", "<b>7", "\u{1b}"] {
        assert!(!page.contains(danger), "{danger:?}");
    }
    assert_eq!(page.matches("</main>").count(), 1);
}

#[test]
fn prometheus_reads_the_board() {
    let place = Place::new();
    let change = eventful(&place.file());
    let text = metrics(&board(&place.file(), &change));
    let change = "change=\"CHG <b>7</b>\"";
    for wanted in [
        format!("vmgate_campaign_moves{{{change},state=\"failed\"}} 1"),
        format!("vmgate_campaign_host_moves{{{change},host=\"hv1\",direction=\"out\",state=\"done\"}} 1"),
        format!("vmgate_campaign_wave_moves{{{change},wave=\"back to r1\",state=\"waiting\"}} 1"),
        format!("vmgate_campaign_migration_seconds{{{change}}} 12.34"),
        format!("vmgate_campaign_migrations_within_forecast{{{change}}} 1"),
        format!("vmgate_campaign_error_budget{{{change}}} 3"),
    ] {
        assert!(text.lines().any(|line| line == wanted), "{wanted} is not in {text}");
    }
    let names: Vec<&str> = text.lines().filter(|line| line.starts_with("# TYPE")).collect();
    assert_eq!(names.len(), 12);
}

/// For `tests/browser/check`, which looks at the page that vmgate serves of it.
#[test]
#[ignore = "writes the ledger that VMGATE_BROWSER_LEDGER names"]
fn a_ledger_for_the_browser() {
    eventful(Path::new(&std::env::var("VMGATE_BROWSER_LEDGER").unwrap()));
}
