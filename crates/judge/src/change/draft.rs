//! Draft of a change file, written by a plan for people to review. A draft can be merged into an earlier file with as few
//! changed lines as possible.

use std::collections::HashMap;

use serde_json::{Map, Value, json};
use vmgate_documents::{Problems, SourceFile, parse};

use super::{Versions, load::LARGEST_BYTES};

/// A change that will be written to a file.
#[derive(Debug, Clone, Default)]
pub struct ChangeDraft {
    /// Id in the operator's ticket system.
    pub id: String,
    /// Purpose of the change, in one line.
    pub title: String,
    /// Time window in which the moves may run: start and end.
    pub window: Option<(jiff::Timestamp, jiff::Timestamp)>,
    /// Longest blackout that is accepted; the default if none.
    pub longest_blackout_seconds: Option<f64>,
    /// Longest duration of a migration that is accepted; no limit if none.
    pub deadline_seconds: Option<f64>,
    /// Dark time that was measured on the guests' network; derived if none.
    pub network_dark_seconds: Option<f64>,
    /// Limit on the moves out of one host at the same time.
    pub per_source: u32,
    /// Limit on the moves into one host at the same time.
    pub per_destination: u32,
    /// Limit on all moves at the same time.
    pub at_once: Option<u32>,
    /// True if each move is begun and taken back before it is judged.
    pub trial: bool,
    /// Manager that runs the moves, by its id in the catalogue; libvirt if none.
    pub run_by: Option<String>,
    /// True if the switchover is rehearsed on the networks before the moves are judged.
    pub probe_network: bool,
    /// Waves; empty if there is only one.
    pub waves: Vec<DraftWave>,
    /// Moves, in their order.
    pub moves: Vec<DraftMove>,
    /// VMs for which the plan found no destination.
    pub stays: Vec<UnplacedVm>,
}

/// A wave of the draft.
#[derive(Debug, Clone)]
pub struct DraftWave {
    /// Name of the wave.
    pub name: String,
    /// URIs of the hosts that the wave waits for, and the versions that they must have.
    pub wait_for: Option<(Vec<String>, Versions)>,
}

/// A move of the draft.
#[derive(Debug, Clone, PartialEq)]
pub struct DraftMove {
    /// Name or UUID of the VM.
    pub vm: String,
    /// Libvirt URI of the source.
    pub from: String,
    /// Libvirt URI of the destination.
    pub to: String,
    /// Address of the destination for the migration traffic.
    pub migrate_address: Option<String>,
    /// Limit on the migration traffic: the move's part of the links.
    pub bandwidth_limit_bytes_per_second: Option<u64>,
    /// Wave of the move.
    pub wave: Option<String>,
    /// Groups of which no other member moves at the same time.
    pub exclusive: Vec<String>,
    /// Forecast of the duration, in seconds.
    pub expected_seconds: f64,
}

/// A VM for which the plan found no destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnplacedVm {
    /// Name or UUID of the VM that stays.
    pub vm: String,
    /// Libvirt URI of the host that the VM stays on.
    pub on: String,
    /// Reasons.
    pub because: Vec<String>,
    /// The cheapest way out.
    pub way_out: String,
}

impl ChangeDraft {
    /// Returns the change as YAML.
    pub fn to_yaml(&self) -> String {
        let mut document = json!({ "schema": "vmgate/change/v1", "id": self.id, "title": self.title });
        if let Some(fields) = document.as_object_mut() {
            if let Some((start, end)) = self.window {
                fields.insert("window".into(), json!({ "start": start, "end": end }));
            }
            let goals = [
                ("longest_blackout_seconds", self.longest_blackout_seconds),
                ("deadline_seconds", self.deadline_seconds),
                ("network_dark_seconds", self.network_dark_seconds),
            ];
            let goals: Map<String, Value> =
                goals.into_iter().filter_map(|(name, goal)| Some((name.to_owned(), json!(goal?)))).collect();
            if !goals.is_empty() {
                fields.insert("goals".into(), Value::Object(goals));
            }
            // One move that cannot be made is no reason to leave the other VMs on a host that is shut down.
            fields.insert("after_no_go".into(), json!("continue"));
            self.insert_plan(fields, self.moves.iter().map(DraftMove::document).collect());
        }
        yaml(&document)
    }

    /// Merges the change into an earlier file and returns YAML: additions by people are kept, and so are unchanged moves, in
    /// their order. Only the comments at the head of the file are kept.
    pub fn merge_into(&self, name: &str, earlier: &[u8]) -> Result<String, Problems> {
        let file = SourceFile::bounded(name, earlier.to_vec(), LARGEST_BYTES)?;
        let Some(node) = parse(&file).node else { return Ok(self.to_yaml()) };
        let mut document = node.to_json();
        let Some(fields) = document.as_object_mut() else { return Ok(self.to_yaml()) };
        let written = fields.remove("moves").and_then(|moves| match moves {
            Value::Array(moves) => Some(moves),
            _ => None,
        });
        let moves = self.merged(written.unwrap_or_default());
        for gone in ["waves", "stays", "limits", "at_once"] {
            fields.shift_remove(gone);
        }
        self.insert_plan(fields, moves);
        let comments = file.text.lines().take_while(|line| line.starts_with('#'));
        let head: String = comments.flat_map(|line| [line, "\n"]).collect();
        Ok(head + &yaml(&document))
    }

    fn insert_plan(&self, fields: &mut Map<String, Value>, moves: Vec<Value>) {
        let limits = json!({
            "per_source": self.per_source, "per_destination": self.per_destination,
            "per_link": self.per_source.min(self.per_destination),
        });
        fields.insert("limits".into(), limits);
        let asked = [("trial", self.trial), ("probe_network", self.probe_network)];
        let asked = asked.into_iter().filter(|(_, asked)| *asked).map(|(name, _)| (name, json!(true)));
        let run_by = self.run_by.as_ref().map(|manager| ("run_by", json!(manager)));
        for (name, value) in asked.chain(run_by) {
            let settings = fields.entry("settings").or_insert_with(|| json!({}));
            if let Some(settings) = settings.as_object_mut() {
                settings.insert(name.into(), value);
            }
        }
        if let Some(at_once) = self.at_once {
            fields.insert("at_once".into(), json!(at_once));
        }
        if !self.waves.is_empty() {
            fields.insert("waves".into(), self.waves.iter().map(DraftWave::document).collect());
        }
        if !self.stays.is_empty() {
            fields.insert("stays".into(), self.stays.iter().map(UnplacedVm::document).collect());
        }
        fields.insert("moves".into(), Value::Array(moves));
    }

    /// Planned moves as JSON: first those of the earlier file that are still planned, then the new ones. A move with another
    /// destination keeps the additions by people.
    fn merged(&self, written: Vec<Value>) -> Vec<Value> {
        let text =
            |value: &Value, key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let key = |moved: &DraftMove| (moved.vm.clone(), moved.from.clone());
        let mut planned: HashMap<(String, String), &DraftMove> =
            self.moves.iter().map(|moved| (key(moved), moved)).collect();
        let mut moves: Vec<(usize, Value)> = Vec::new();
        for old in written {
            let Some(moved) = planned.remove(&(text(&old, "vm"), text(&old, "from"))) else { continue };
            moves.push((self.wave_of(moved), moved.merge_into(old)));
        }
        let fresh = self.moves.iter().filter(|moved| planned.contains_key(&key(moved)));
        moves.extend(fresh.map(|moved| (self.wave_of(moved), moved.document())));
        moves.sort_by_key(|(wave, _)| *wave);
        moves.into_iter().map(|(_, moved)| moved).collect()
    }

    fn wave_of(&self, moved: &DraftMove) -> usize {
        self.waves.iter().position(|wave| Some(&wave.name) == moved.wave.as_ref()).unwrap_or_default()
    }
}

impl DraftWave {
    fn document(&self) -> Value {
        let Some((hosts, versions)) = &self.wait_for else { return json!({ "name": self.name }) };
        let mut wait_for = json!({ "hosts": hosts });
        if *versions != Versions::default()
            && let Some(fields) = wait_for.as_object_mut()
        {
            fields.insert("versions".into(), json!(versions));
        }
        json!({ "name": self.name, "wait_for": wait_for })
    }
}

impl DraftMove {
    fn document(&self) -> Value {
        self.merge_into(json!({ "vm": self.vm, "from": self.from }))
    }

    /// Writes the planned values of the move over its values in a file.
    fn merge_into(&self, mut written: Value) -> Value {
        let Some(fields) = written.as_object_mut() else { return written };
        let same = fields.get("to").and_then(Value::as_str) == Some(&self.to);
        fields.insert("to".into(), json!(self.to));
        let mut set = |key: &str, value: Option<Value>| match value {
            Some(value) => drop(fields.insert(key.into(), value)),
            None => drop(fields.shift_remove(key)),
        };
        set("migrate_address", self.migrate_address.as_ref().map(|address| json!(address)));
        set("wave", self.wave.as_ref().map(|wave| json!(wave)));
        set("exclusive", (!self.exclusive.is_empty()).then(|| json!(self.exclusive)));
        // Forecasts differ a little each time: an unchanged move keeps its earlier forecast.
        if !same || !fields.contains_key("expected_seconds") {
            fields.insert("expected_seconds".into(), json!((self.expected_seconds * 10.0).round() / 10.0));
        }
        if let Some(limit) = self.bandwidth_limit_bytes_per_second {
            let settings = fields.entry("settings").or_insert_with(|| json!({}));
            if let Some(settings) = settings.as_object_mut() {
                settings.insert("bandwidth_limit_bytes_per_second".into(), json!(limit));
            }
        }
        written
    }
}

impl UnplacedVm {
    fn document(&self) -> Value {
        json!({ "vm": self.vm, "on": self.on, "because": self.because, "way_out": self.way_out })
    }
}

/// A JSON value is always YAML.
fn yaml(document: &Value) -> String {
    serde_yaml::to_string(document).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::ChangeFile;

    fn moved(vm: &str, to: &str) -> DraftMove {
        DraftMove {
            vm: vm.into(),
            from: "qemu+ssh://hv1/system".into(),
            to: format!("qemu+ssh://{to}/system"),
            migrate_address: Some("10.0.0.2".into()),
            bandwidth_limit_bytes_per_second: Some(62_500_000),
            wave: Some("empty r1".into()),
            exclusive: vec!["galera".into()],
            expected_seconds: 12.34,
        }
    }

    fn draft(moves: Vec<DraftMove>) -> ChangeDraft {
        let versions = Versions { qemu_version: "10.0".parse().ok(), libvirt_version: None };
        ChangeDraft {
            id: "CHG-1".into(),
            title: "Empty hv1: for \"disks\"\n".into(),
            per_source: 2,
            per_destination: 1,
            waves: vec![
                DraftWave { name: "empty r1".into(), wait_for: None },
                DraftWave {
                    name: "back to r1".into(),
                    wait_for: Some((vec!["qemu+ssh://hv1/system".into()], versions)),
                },
            ],
            stays: vec![UnplacedVm {
                vm: "gpu1".into(),
                on: "qemu+ssh://hv1/system".into(),
                because: vec!["devices-migratable: a GPU".into()],
                way_out: "unplug it".into(),
            }],
            moves,
            ..ChangeDraft::default()
        }
    }

    #[test]
    fn a_draft_is_read_back_as_it_was_meant() {
        let change =
            ChangeFile::parse("c.yaml", draft(vec![moved("db1", "hv2")]).to_yaml().as_bytes()).unwrap();
        assert_eq!(change.title.as_deref(), Some("Empty hv1: for \"disks\"\n"));
        assert_eq!(
            (change.limits.per_source, change.limits.per_destination, change.limits.per_link),
            (2, 1, 1)
        );
        let wait_for = change.waves[1].wait_for.as_ref().unwrap();
        assert_eq!(wait_for.versions.qemu_version, "10.0".parse().ok());
        let db1 = &change.moves[0];
        assert_eq!((db1.wave, db1.exclusive.as_slice()), (0, ["galera".to_owned()].as_slice()));
        assert_eq!(db1.expected_seconds, Some(12.3));
        assert_eq!(db1.plan.settings.bandwidth_limit_bytes_per_second, Some(62_500_000));
    }

    #[test]
    fn a_draft_with_trials_asks_for_one_before_each_move() {
        let with = ChangeDraft { trial: true, ..draft(vec![moved("db1", "hv2")]) };
        let tried =
            |text: &str| ChangeFile::parse("c.yaml", text.as_bytes()).unwrap().moves[0].plan.settings.trial;
        assert_eq!(tried(&with.to_yaml()), Some(true));
        let without = draft(vec![moved("db1", "hv2")]).to_yaml();
        assert_eq!(tried(&without), None);
        assert_eq!(tried(&with.merge_into("old.yaml", without.as_bytes()).unwrap()), Some(true));
    }

    #[test]
    fn a_draft_for_a_manager_says_who_runs_each_move() {
        let of_nova = ChangeDraft { run_by: Some("nova".into()), ..draft(vec![moved("db1", "hv2")]) };
        let change = ChangeFile::parse("c.yaml", of_nova.to_yaml().as_bytes()).unwrap();
        assert_eq!(change.to_fact(&change.moves[0]).run_by.as_deref(), Some("nova"));
    }

    #[test]
    fn over_an_earlier_change_only_what_is_planned_anew_differs() {
        let earlier = draft(vec![moved("db1", "hv2"), moved("db2", "hv2"), moved("gone", "hv2")]).to_yaml();
        let earlier =
            format!("# reviewed by ann\n{earlier}").replace("  - vm: db2", "  - guest: none\n    vm: db2");
        let earlier = earlier.replace("- vm: db2", "- guest: none\n  vm: db2");
        let again = draft(vec![
            moved("new", "hv3"),
            moved("db2", "hv3"),
            DraftMove { expected_seconds: 13.0, ..moved("db1", "hv2") },
        ]);
        let text = again.merge_into("c.yaml", earlier.as_bytes()).unwrap();
        assert!(text.starts_with("# reviewed by ann\n"), "{text}");
        let change = ChangeFile::parse("c.yaml", text.as_bytes()).unwrap();
        let vms: Vec<&str> = change.moves.iter().map(|moved| moved.vm.as_str()).collect();
        assert_eq!(vms, ["db1", "db2", "new"]);
        assert_eq!(change.moves[1].guest, Some(crate::change::GuestWay::None));
        assert_eq!(change.moves[1].to.host(), Some("hv3"));
        assert_eq!(change.moves[0].expected_seconds, Some(12.3), "it is as it was");
        assert_eq!(
            again.merge_into("c.yaml", text.as_bytes()).unwrap(),
            text,
            "the same plan changes nothing"
        );
    }
}
