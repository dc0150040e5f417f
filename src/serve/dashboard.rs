//! Dashboard of a campaign, for the status page and Prometheus: its own records, and those of its runs.

use std::{collections::HashMap, slice};

use serde::Serialize;
use vmgate_execute::campaign::{CampaignState, Counts, Task, TaskState};
use vmgate_facts::{Uri, Uuid};
use vmgate_ledger::{
    Entry, Record, Selection,
    entry::{EntryKind, Migration, VerdictSummary},
};
use vmgate_verdict::NameAndUuid;

use super::checks::Checks;

/// A campaign with the verdicts, runs and migrations of its moves, after the records that were read.
#[derive(Debug, Clone)]
pub struct Dashboard {
    /// State of the campaign.
    pub state: CampaignState,
    /// Verdict, migration and host of each move, in the order of the change.
    pub moves: Vec<MoveStatus>,
    /// Indexes of the moves of each VM, by its name in the change.
    of_vm: HashMap<String, Vec<usize>>,
    runs: HashMap<String, usize>,
    /// Checks of the whole site.
    pub checks: Checks,
    seen: u64,
}

/// Status of a move from the ledger's records of its runs.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MoveStatus {
    /// Newest verdict on the move.
    pub verdict: Option<VerdictSummary>,
    /// Migration of the move: its forecast and its measured result.
    pub migration: Option<Migration>,
    /// Host that the VM runs on after its last run; `None` if that is not certain or no run has ended.
    pub runs_on: Option<String>,
}

/// Numbers of moves of one host in a campaign.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct HostCounts {
    /// Moves that leave the host.
    pub leaving: Counts,
    /// Moves that come to the host.
    pub coming: Counts,
}

impl Dashboard {
    /// Dashboard of the campaign with this digest, before any record was read.
    pub fn new(campaign: &str) -> Self {
        Self {
            state: CampaignState::new(campaign),
            moves: Vec::new(),
            of_vm: HashMap::new(),
            runs: HashMap::new(),
            checks: Checks::default(),
            seen: 0,
        }
    }

    /// Selection of the records that have not been read.
    pub fn unread(&self) -> Selection {
        let kinds = vec![
            EntryKind::Campaign,
            EntryKind::Expulsion,
            EntryKind::Verdict,
            EntryKind::RunStarted,
            EntryKind::RunEnded,
            EntryKind::Migration,
        ];
        Selection { kinds, after: self.seen, ..Selection::default() }
    }

    /// Applies records in their order. `uptime_seconds` is the reader's.
    pub fn read(&mut self, records: &[Record], uptime_seconds: f64) {
        for record in records {
            self.seen = record.sequence;
            self.state.read(slice::from_ref(record), uptime_seconds);
            if self.moves.len() < self.state.tasks.len() {
                self.begin();
            }
            self.apply(&record.entry);
            self.checks.read(record);
        }
    }

    fn begin(&mut self) {
        self.moves = vec![MoveStatus::default(); self.state.tasks.len()];
        for (at, task) in self.state.tasks.iter().enumerate() {
            self.of_vm.entry(task.the_move.vm.clone()).or_default().push(at);
        }
    }

    fn apply(&mut self, entry: &Entry) {
        let is_ours = |change: &Option<String>| change.as_deref() == Some(&self.state.id);
        match entry {
            Entry::Verdict(given) if is_ours(&given.change) && !given.simulated => {
                if let Some(seen) =
                    self.task_of(&given.moved.vm, |_| true).and_then(|at| self.moves.get_mut(at))
                {
                    seen.verdict = Some(given.clone());
                }
            }
            Entry::RunStarted(run) if is_ours(&run.change) => {
                let same_way = |task: &Task| task.the_move.from == run.from && task.the_move.to == run.to;
                if let Some(at) = self.task_of(&run.vm, same_way) {
                    self.runs.insert(run.run.clone(), at);
                }
            }
            Entry::RunEnded(run) => {
                if let Some(seen) = self.move_of_run(&run.run) {
                    seen.runs_on.clone_from(&run.runs_on);
                }
            }
            Entry::Migration(migration) => {
                if let Some(seen) = self.move_of_run(&migration.run) {
                    seen.migration = Some(migration.clone());
                }
            }
            _ => {}
        }
    }

    fn move_of_run(&mut self, run: &str) -> Option<&mut MoveStatus> {
        self.runs.get(run).and_then(|at| self.moves.get_mut(*at))
    }

    /// Index of the VM's move that is under way, else of its first move.
    fn task_of(&self, vm: &NameAndUuid, is_it: impl Fn(&Task) -> bool) -> Option<usize> {
        let names = [vm.name.as_deref(), vm.uuid.as_ref().map(Uuid::as_str)];
        let named = names.into_iter().filter_map(|name| self.of_vm.get(name?)).flatten();
        let mut found =
            named.filter_map(|at| Some((*at, self.state.tasks.get(*at)?))).filter(|(_, task)| is_it(task));
        let first = found.clone().next();
        found.find(|(_, task)| matches!(task.state, TaskState::Claimed { .. })).or(first).map(|(at, _)| at)
    }

    /// Numbers of moves by state, for each host they leave and each host they come to.
    pub fn hosts(&self) -> Vec<(String, HostCounts)> {
        let mut hosts: Vec<(String, HostCounts)> = Vec::new();
        let mut places: HashMap<String, usize> = HashMap::new();
        for task in &self.state.tasks {
            for (uri, leaves) in [(&task.the_move.from, true), (&task.the_move.to, false)] {
                let name = host_name(uri);
                let at = *places.entry(name.clone()).or_insert_with(|| {
                    hosts.push((name, HostCounts::default()));
                    hosts.len() - 1
                });
                if let Some((_, counts)) = hosts.get_mut(at) {
                    let counts = if leaves { &mut counts.leaving } else { &mut counts.coming };
                    self.state.count(task, counts);
                }
            }
        }
        hosts
    }
}

/// Host name in a libvirt URI, for people.
pub(super) fn host_name(uri: &str) -> String {
    Uri::from_operator(uri).map_or_else(|_| uri.to_owned(), |uri| uri.host_for_people().to_owned())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use vmgate_execute::campaign::{opened, uptime_seconds};
    use vmgate_facts::Quantiles;
    use vmgate_judge::change::{ChangeFile, MovePlan};
    use vmgate_ledger::{
        Campaign, Ledger,
        campaign::{CampaignEvent, ClaimResult},
        entry::{self, Driver, MigrationOutcome, RunEnded, RunStarted},
    };
    use vmgate_verdict::{ExitCode, sample};

    use super::*;
    use crate::serve::{metrics, page};

    fn driver() -> Driver {
        Driver { machine: "here".into(), boot: "b".into(), pid: 1, started_ticks: 1 }
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
        let named = |name: &str| NameAndUuid { name: Some(name.into()), uuid: None };
        campaign(opened(&change));
        campaign(CampaignEvent::Beat { runner: "night-1".into(), driver: driver() });
        let claim = |at| campaign(CampaignEvent::Claimed { runner: "night-1".into(), at });
        let released = |at, token, how| campaign(CampaignEvent::Released { at, token, how });

        let token = claim(0);
        let mut verdict = VerdictSummary::from(&sample::go());
        verdict.change = Some(change.id.clone());
        verdict.moved.vm = named("web1");
        ledger.append(&Entry::Verdict(verdict)).unwrap();
        let run_started = |run: &str, from: &str| {
            let started = RunStarted {
                run: run.into(),
                vm: named("web1"),
                source: named(from),
                destination: named("hv2"),
                from: format!("qemu+ssh://{from}/system"),
                to: "qemu+ssh://hv2/system".into(),
                change: Some(change.id.clone()),
                change_digest: None,
                plan: MovePlan::default(),
                driver: driver(),
                monitor: None,
                trial: false,
            };
            ledger.append(&Entry::RunStarted(started)).unwrap();
        };
        let run_ended = |run: &str, on: &str| {
            let ended = RunEnded {
                run: run.into(),
                vm: String::new(),
                ending: entry::RunEnding::Done,
                exit: ExitCode::Go,
                runs_on: Some(on.into()),
                why: None,
                recovered: false,
                trial: None,
            };
            ledger.append(&Entry::RunEnded(ended)).unwrap();
        };
        run_started("r1", "hv1");
        ledger
            .append(&Entry::Migration(Migration {
                run: "r1".into(),
                vm: named("web1"),
                source: named("hv1"),
                destination: named("hv2"),
                pair: None,
                outcome: MigrationOutcome::Completed,
                rehearsal: false,
                forecast_total_seconds: Some(Quantiles { p5: 9.0, p50: 11.0, p95: 14.0 }),
                replayed_total_seconds: None,
                replayed_blackout_seconds: None,
                replayed_sent_bytes: None,
                forecast_blackout_seconds: Some(Quantiles { p5: 0.05, p50: 0.08, p95: 0.2 }),
                total_seconds: Some(12.34),
                downtime_seconds: Some(0.071),
                sent_bytes: Some(1 << 30),
                rounds: Some(4),
                downtime_limit_seconds: Some(0.3),
                throttle_percent: None,
                silences: Vec::new(),
            }))
            .unwrap();
        run_ended("r1", "hv2");
        // Another way than the change has: none of its moves.
        run_started("r2", "hv9");
        run_ended("r2", "hv9");
        released(0, token, ClaimResult::Done);
        let token = claim(1);
        released(
            1,
            token,
            ClaimResult::Failed { why: "NO-GO: \u{1b}[2J</main>".into(), exit: ExitCode::RuleViolated },
        );
        claim(2);
        change
    }

    fn board(place: &Path, change: &ChangeFile) -> Dashboard {
        let mut board = Dashboard::new(&change.digest.to_string());
        let ledger = Ledger::open(place).unwrap();
        board.read(&ledger.records(&board.unread()).unwrap(), uptime_seconds());
        assert!(ledger.records(&board.unread()).unwrap().is_empty(), "nothing is read twice");
        board
    }

    #[test]
    fn the_board_has_forecast_and_outcome_of_each_move_and_where_its_vm_is() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("ledger.db");
        let change = eventful(&place);
        let board = board(&place, &change);
        assert_eq!(
            board.state.counts(None),
            Counts { done: 1, running: 1, waiting: 1, failed: 1, needless: 0 }
        );
        let first = &board.moves[0];
        assert_eq!(first.runs_on.as_deref(), Some("hv2"));
        assert_eq!(first.migration.as_ref().unwrap().total_seconds, Some(12.34));
        assert!(first.verdict.is_some());
        assert_eq!(board.moves[3], MoveStatus::default(), "the way back is another move");
        let hv1 = board.hosts().into_iter().find(|(name, _)| name == "hv1").unwrap().1;
        assert_eq!((hv1.leaving.all(), hv1.leaving.done, hv1.coming.waiting), (3, 1, 1));
    }

    #[test]
    fn the_page_says_what_the_board_has_and_obeys_no_guest() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("ledger.db");
        let change = eventful(&place);
        let page = page(&board(&place, &change), jiff::Timestamp::now()).unwrap();
        for wanted in [
            "1 of 4 moves done, 1 running, 1 to come, 1 failed",
            "12.3 s</td><td data-label=\"forecast\">11 s (9 s to 14 s)",
            "71 ms</td><td data-label=\"forecast\">80 ms (50 ms to 0.2 s)",
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
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("ledger.db");
        let change = eventful(&place);
        let text = metrics(&board(&place, &change));
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
        assert_eq!(names.len(), 16);
    }

    /// `tests/browser/check` names a place, and looks at the page that vmgate serves of it.
    #[test]
    fn a_ledger_for_the_browser() {
        let folder = tempfile::tempdir().unwrap();
        let named = std::env::var_os("VMGATE_BROWSER_LEDGER");
        let place = named.map_or_else(|| folder.path().join("ledger.db"), Into::into);
        eventful(&place);
        let held = Entry::Verdict(VerdictSummary::from(&sample::no_go()));
        Ledger::open(&place).unwrap().append(&held).unwrap();
        assert!(Ledger::open_existing(&place).unwrap().verify().unwrap().sequence > 5);
    }
}
