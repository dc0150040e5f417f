//! A change file as a plan writes it: in the form that people review, and over an earlier one with as few lines changed
//! as can be.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use super::{Versions, load::LIMIT};
use vmgate_documents::{Problems, SourceFile, parse};

/// A change that is to be written.
#[derive(Debug, Clone, Default)]
pub struct Draft {
    /// Its id in the operator's own books.
    pub id: String,
    /// What it is for, in a line.
    pub title: String,
    /// When its moves may run, as the file writes it.
    pub window: Option<(jiff::Timestamp, jiff::Timestamp)>,
    /// Longest silence of a guest, where another than the default is accepted.
    pub longest_blackout_seconds: Option<f64>,
    /// Longest duration of a migration that is accepted.
    pub deadline_seconds: Option<f64>,
    /// Moves out of one host, into one host and over one link at once.
    pub per_source: u32,
    /// See [`Self::per_source`].
    pub per_destination: u32,
    /// How many at once altogether.
    pub at_once: Option<u32>,
    /// Its parts; empty where it has but one.
    pub waves: Vec<DraftWave>,
    /// The moves in their order.
    pub moves: Vec<DraftMove>,
    /// VMs that stay.
    pub stays: Vec<Stays>,
}

/// A part of the change.
#[derive(Debug, Clone)]
pub struct DraftWave {
    /// Its name.
    pub name: String,
    /// Hosts that it waits for, by URI, and what they must have.
    pub wait_for: Option<(Vec<String>, Versions)>,
}

/// One move.
#[derive(Debug, Clone, PartialEq)]
pub struct DraftMove {
    /// Name or UUID of the VM.
    pub vm: String,
    /// Libvirt URI of its host.
    pub from: String,
    /// Libvirt URI of the destination.
    pub to: String,
    /// Address that takes the traffic.
    pub migrate_address: Option<String>,
    /// Its part of the links.
    pub bandwidth_limit_bytes_per_second: Option<u64>,
    /// The part of the change that it belongs to.
    pub wave: Option<String>,
    /// Groups of which no other member moves meanwhile.
    pub exclusive: Vec<String>,
    /// How long it takes.
    pub expected_seconds: f64,
}

/// A VM that stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stays {
    /// The VM.
    pub vm: String,
    /// Libvirt URI of its host.
    pub on: String,
    /// Why.
    pub because: Vec<String>,
    /// The cheapest way out.
    pub way_out: String,
}

impl Draft {
    /// The change as YAML.
    pub fn text(&self) -> String {
        let mut document = json!({ "schema": "vmgate/change/v1", "id": self.id, "title": self.title });
        if let Some(fields) = document.as_object_mut() {
            if let Some((start, end)) = self.window {
                fields.insert("window".into(), json!({ "start": start, "end": end }));
            }
            let goals = [
                ("longest_blackout_seconds", self.longest_blackout_seconds),
                ("deadline_seconds", self.deadline_seconds),
            ];
            let goals: Map<String, Value> =
                goals.into_iter().filter_map(|(name, goal)| Some((name.to_owned(), json!(goal?)))).collect();
            if !goals.is_empty() {
                fields.insert("goals".into(), Value::Object(goals));
            }
            // A move that cannot be made is no reason to leave the other VMs on a host that goes down.
            fields.insert("after_no_go".into(), json!("continue"));
            self.lay_plan(fields, self.moves.iter().map(DraftMove::document).collect());
        }
        yaml(&document)
    }

    /// The change as YAML, laid over an earlier one: what people wrote into that stays, as do moves that are planned as
    /// they were, in their order. Of comments only those at its head are kept.
    pub fn over(&self, name: &str, earlier: &[u8]) -> Result<String, Problems> {
        let file = SourceFile::bounded(name, earlier.to_vec(), LIMIT)?;
        let Some(node) = parse(&file).node else { return Ok(self.text()) };
        let mut document = node.to_json();
        let Some(fields) = document.as_object_mut() else { return Ok(self.text()) };
        let written = fields.remove("moves").and_then(|moves| match moves {
            Value::Array(moves) => Some(moves),
            _ => None,
        });
        let moves = self.merged(written.unwrap_or_default());
        for gone in ["waves", "stays", "limits", "at_once"] {
            fields.shift_remove(gone);
        }
        self.lay_plan(fields, moves);
        let comments = file.text.lines().take_while(|line| line.starts_with('#'));
        let head: String = comments.flat_map(|line| [line, "\n"]).collect();
        Ok(head + &yaml(&document))
    }

    fn lay_plan(&self, fields: &mut Map<String, Value>, moves: Vec<Value>) {
        let limits = json!({
            "per_source": self.per_source, "per_destination": self.per_destination,
            "per_link": self.per_source.min(self.per_destination),
        });
        fields.insert("limits".into(), limits);
        if let Some(at_once) = self.at_once {
            fields.insert("at_once".into(), json!(at_once));
        }
        if !self.waves.is_empty() {
            fields.insert("waves".into(), self.waves.iter().map(DraftWave::document).collect());
        }
        if !self.stays.is_empty() {
            fields.insert("stays".into(), self.stays.iter().map(Stays::document).collect());
        }
        fields.insert("moves".into(), Value::Array(moves));
    }

    /// The planned moves, those of an earlier file first where they are still planned. One that goes elsewhere keeps what
    /// people added to it.
    fn merged(&self, written: Vec<Value>) -> Vec<Value> {
        let text =
            |value: &Value, key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let key = |moved: &DraftMove| (moved.vm.clone(), moved.from.clone());
        let mut planned: HashMap<(String, String), &DraftMove> =
            self.moves.iter().map(|moved| (key(moved), moved)).collect();
        let mut moves: Vec<(usize, Value)> = Vec::new();
        for old in written {
            let Some(moved) = planned.remove(&(text(&old, "vm"), text(&old, "from"))) else { continue };
            moves.push((self.wave_of(moved), moved.onto(old)));
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
        self.onto(json!({ "vm": self.vm, "from": self.from }))
    }

    /// Lays what the plan says of the move over what a file says of it.
    fn onto(&self, mut written: Value) -> Value {
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
        // A forecast differs a little each time: a move that stays as it was keeps its own.
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

impl Stays {
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

    fn draft(moves: Vec<DraftMove>) -> Draft {
        let versions = Versions { qemu_version: "10.0".parse().ok(), libvirt_version: None };
        Draft {
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
            stays: vec![Stays {
                vm: "gpu1".into(),
                on: "qemu+ssh://hv1/system".into(),
                because: vec!["devices-migratable: a GPU".into()],
                way_out: "unplug it".into(),
            }],
            moves,
            ..Draft::default()
        }
    }

    #[test]
    fn a_draft_is_read_back_as_it_was_meant() {
        let change = ChangeFile::parse("c.yaml", draft(vec![moved("db1", "hv2")]).text().as_bytes()).unwrap();
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
    fn over_an_earlier_change_only_what_is_planned_anew_differs() {
        let earlier = draft(vec![moved("db1", "hv2"), moved("db2", "hv2"), moved("gone", "hv2")]).text();
        let earlier =
            format!("# reviewed by ann\n{earlier}").replace("  - vm: db2", "  - guest: none\n    vm: db2");
        let earlier = earlier.replace("- vm: db2", "- guest: none\n  vm: db2");
        let again = draft(vec![
            moved("new", "hv3"),
            moved("db2", "hv3"),
            DraftMove { expected_seconds: 13.0, ..moved("db1", "hv2") },
        ]);
        let text = again.over("c.yaml", earlier.as_bytes()).unwrap();
        assert!(text.starts_with("# reviewed by ann\n"), "{text}");
        let change = ChangeFile::parse("c.yaml", text.as_bytes()).unwrap();
        let vms: Vec<&str> = change.moves.iter().map(|moved| moved.vm.as_str()).collect();
        assert_eq!(vms, ["db1", "db2", "new"]);
        assert_eq!(change.moves[1].guest.as_deref(), Some("none"));
        assert_eq!(change.moves[1].to.host.as_deref(), Some("hv3"));
        assert_eq!(change.moves[0].expected_seconds, Some(12.3), "it is as it was");
        assert_eq!(again.over("c.yaml", text.as_bytes()).unwrap(), text, "the same plan changes nothing");
    }
}
