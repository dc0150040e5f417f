//! Measurements of guests' networks: rehearsals of the switchover, and the silence that moves had.

use serde::{Deserialize, Serialize};
use vmgate_facts::{NetworkRehearsal, PastSilence, Uuid};
use vmgate_verdict::NameAndUuid;

use super::{Entry, PastForecast, Record, entry::MigrationOutcome};

/// Rehearsal of the switchover on a network between two hosts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NetworkRehearsed {
    /// Source host.
    pub source: NameAndUuid,
    /// Destination host.
    pub destination: NameAndUuid,
    /// Operator.
    pub by: String,
    /// Result.
    pub result: NetworkRehearsal,
}

/// Silence of one interface during a migration, as it was heard from the source's bridge.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NetworkSilence {
    /// Hardware address of the interface.
    pub mac: String,
    /// Network: kind, source and VLANs of the interface.
    pub network: String,
    /// Longest time in which the interface was not heard.
    pub silence_seconds: f64,
    /// True if it was heard again.
    pub heard_again: bool,
}

/// Newest rehearsal of each network between two hosts, by UUID, in that direction.
pub(super) fn rehearsals(records: &[Record], source: &Uuid, destination: &Uuid) -> Vec<NetworkRehearsal> {
    let between = |record: &Record| match &record.entry {
        Entry::NetworkRehearsed(one)
            if one.source.uuid.as_ref() == Some(source)
                && one.destination.uuid.as_ref() == Some(destination) =>
        {
            Some(one.result.clone())
        }
        _ => None,
    };
    let mut newest: Vec<NetworkRehearsal> = Vec::new();
    for result in records.iter().rev().filter_map(between) {
        if !newest.iter().any(|known| known.network == result.network) {
            newest.push(result);
        }
    }
    newest
}

/// Silences of completed migrations, each with the part that QEMU's downtime does not explain.
pub(super) fn past_silences(past: &[PastForecast]) -> Vec<PastSilence> {
    let completed = past.iter().filter(|past| past.migration.outcome == MigrationOutcome::Completed);
    let of = |past: &PastForecast| {
        let downtime = past.migration.downtime_seconds?;
        let heard = past.migration.silences.iter().filter(|silence| silence.heard_again);
        let silence = |heard: &NetworkSilence| PastSilence {
            at: past.at,
            network: heard.network.clone(),
            silence_seconds: heard.silence_seconds,
            dark_seconds: (heard.silence_seconds - downtime).max(0.0),
        };
        Some(heard.map(silence).collect::<Vec<_>>())
    };
    completed.filter_map(of).flatten().collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use vmgate_facts::{RehearsedSettings, SpanningTree, Uuid};

    use super::*;
    use crate::entry::{EntryKind, Migration};

    fn uuid(last: u32) -> Uuid {
        format!("6f0d3c4e-1111-4222-8333-{last:012}").parse().unwrap()
    }

    fn host(last: u32) -> NameAndUuid {
        NameAndUuid { name: None, uuid: Some(uuid(last)) }
    }

    #[test]
    fn the_newest_rehearsal_of_each_network_between_the_hosts_counts() {
        let record = |at: &str, from, to, network: &str, dark| {
            let at = at.parse().unwrap();
            let result = NetworkRehearsal {
                at,
                network: network.to_owned(),
                source_bridge: "br0".into(),
                destination_bridge: "br0".into(),
                settings: RehearsedSettings {
                    spanning_tree: Some(SpanningTree::None),
                    forward_delay_seconds: Some(15.0),
                    controlled_by: None,
                },
                dark_seconds: dark,
                waited_seconds: 75.0,
            };
            let by = "op".to_owned();
            Record::sample(
                at,
                Entry::NetworkRehearsed(NetworkRehearsed {
                    source: host(from),
                    destination: host(to),
                    by,
                    result,
                }),
            )
        };
        let records = [
            record("2026-11-22T01:00:00Z", 1, 2, "bridge br0", Some(30.0)),
            record("2026-11-22T02:00:00Z", 1, 2, "bridge br0", Some(0.02)),
            record("2026-11-22T03:00:00Z", 2, 1, "bridge br0", None),
            record("2026-11-22T04:00:00Z", 1, 2, "bridge br1", None),
        ];
        let found = rehearsals(&records, &uuid(1), &uuid(2));
        let found: Vec<_> = found.iter().map(|one| (one.network.as_str(), one.dark_seconds)).collect();
        assert_eq!(found, [("bridge br1", None), ("bridge br0", Some(0.02))]);
        assert_eq!(EntryKind::NetworkRehearsed.name(), "network-rehearsed");
    }

    fn migration(outcome: MigrationOutcome) -> Migration {
        let name = json!({ "name": "web1" });
        let written =
            json!({ "run": "r1", "vm": name, "source": name, "destination": name, "outcome": outcome });
        serde_json::from_value(written).unwrap()
    }

    #[test]
    fn the_downtime_is_not_the_networks() {
        let silence = |seconds, heard_again| NetworkSilence {
            mac: "52:54:00:00:00:01".into(),
            network: "bridge br0".into(),
            silence_seconds: seconds,
            heard_again,
        };
        let past = |outcome, downtime_seconds| PastForecast {
            at: "2026-11-22T01:00:00Z".parse().unwrap(),
            migration: Migration {
                downtime_seconds,
                silences: vec![silence(5.0, true), silence(60.0, false), silence(0.1, true)],
                ..migration(outcome)
            },
        };
        let all = [
            past(MigrationOutcome::Completed, Some(0.2)),
            past(MigrationOutcome::Completed, None),
            past(MigrationOutcome::Failed, Some(0.2)),
        ];
        let dark: Vec<f64> = past_silences(&all).iter().map(|past| past.dark_seconds).collect();
        assert_eq!(dark, [4.8, 0.0]);
    }
}
