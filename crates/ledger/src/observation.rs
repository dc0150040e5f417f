//! Observations of the dirty rate of VMs over time, and their summary by the hour of the day.

use std::collections::BTreeMap;

use jiff::{Timestamp, tz::TimeZone};
use serde::{Deserialize, Serialize};
use vmgate_facts::{DirtyWindow, ObservedHour, PastMigration, Uuid};
use vmgate_verdict::NameAndUuid;

use super::{Entry, PastForecast, Record, entry::MigrationOutcome};

/// One measurement of a VM's dirty rate, at low cost.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Observation {
    /// The VM.
    pub vm: NameAndUuid,
    /// The host it ran on.
    pub host: NameAndUuid,
    /// Length of the observation, in seconds.
    pub watched_seconds: f64,
    /// Memory dirtied in a second.
    pub rate_bytes_per_second: u64,
    /// Memory dirtied in windows of several lengths.
    pub dirty_windows: Vec<DirtyWindow>,
    /// CPU time of the measurement divided by its duration.
    pub core_ratio: f64,
}

/// Hours of the day with observations of a VM, each with its highest dirty rate.
pub(super) fn hours(records: &[Record], vm: &Uuid) -> Vec<ObservedHour> {
    let mut hours: BTreeMap<u32, ObservedHour> = BTreeMap::new();
    for record in records {
        let Entry::Observation(seen) = &record.entry else { continue };
        if seen.vm.uuid.as_ref() != Some(vm) {
            continue;
        }
        let hour = hour_of(record.at);
        let one = ObservedHour {
            hour,
            rate_bytes_per_second: seen.rate_bytes_per_second,
            dirty_windows: seen.dirty_windows.clone(),
            observations: 1,
            last: record.at,
        };
        hours
            .entry(hour)
            .and_modify(|known| {
                let (observations, last) = (known.observations + 1, known.last.max(one.last));
                if one.rate_bytes_per_second > known.rate_bytes_per_second {
                    *known = one.clone();
                }
                (known.observations, known.last) = (observations, last);
            })
            .or_insert(one);
    }
    hours.into_values().collect()
}

fn hour_of(at: Timestamp) -> u32 {
    u32::try_from(at.to_zoned(TimeZone::UTC).hour()).unwrap_or(0)
}

/// Completed migrations with their forecasts.
pub(super) fn past_migrations(past: &[PastForecast]) -> Vec<PastMigration> {
    let completed = past.iter().filter(|past| past.migration.outcome == MigrationOutcome::Completed);
    completed
        .filter_map(|past| {
            Some(PastMigration {
                at: past.at,
                forecast_total_seconds: past.migration.replayed_total_seconds?,
                total_seconds: past.migration.total_seconds?,
                forecast_blackout_seconds: past.migration.replayed_blackout_seconds,
                downtime_seconds: past.migration.downtime_seconds,
                forecast_sent_bytes: past.migration.replayed_sent_bytes,
                sent_bytes: past.migration.sent_bytes,
                source_version: past.migration.pair.as_ref().map(|pair| pair.source_version),
                destination_version: past.migration.pair.as_ref().map(|pair| pair.destination_version),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_is_told_by_its_busiest_observation_over_all_days() {
        let record = |at: &str, uuid: &str, rate_bytes_per_second| {
            let vm = NameAndUuid { name: None, uuid: Some(uuid.parse().unwrap()) };
            let entry = Entry::Observation(Observation {
                vm,
                host: NameAndUuid::default(),
                watched_seconds: 5.0,
                rate_bytes_per_second,
                dirty_windows: Vec::new(),
                core_ratio: 0.01,
            });
            Record::sample(at.parse().unwrap(), entry)
        };
        let (one, other) = ("5e7c9b3e-6a0e-4c2e-9a53-0d6f5a5c9d11", "5e7c9b3e-6a0e-4c2e-9a53-0d6f5a5c9d12");
        let records = [
            record("2026-11-22T03:10:00Z", one, 5),
            record("2026-11-23T03:40:00Z", one, 9),
            record("2026-11-23T03:50:00Z", one, 7),
            record("2026-11-23T14:00:00Z", one, 50),
            record("2026-11-23T03:40:00Z", other, 90),
        ];
        let seen = hours(&records, &one.parse().unwrap());
        let told: Vec<_> =
            seen.iter().map(|hour| (hour.hour, hour.rate_bytes_per_second, hour.observations)).collect();
        assert_eq!(told, [(3, 9, 3), (14, 50, 1)]);
        assert_eq!(seen[0].last, "2026-11-23T03:50:00Z".parse().unwrap());
    }
}
