//! The emergency override: lets migrations in without a verdict for some minutes, with a name and a reason on record.

use std::{fs, io};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use vmgate_facts::Uuid;

use super::{
    Layout,
    trust::{self, UntrustedFile},
};

/// Longest duration of an override, minutes.
pub(super) const LONGEST_MINUTES: u32 = 24 * 60;
const MOST: u64 = 64 << 10;

/// An emergency override.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Override {
    /// Reason of the override.
    pub reason: String,
    /// Person responsible for the override.
    pub by: String,
    /// Start of the override.
    pub since: Timestamp,
    /// End of the override.
    pub until: Timestamp,
    /// UUID of the only VM; all VMs if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vm: Option<Uuid>,
}

impl Override {
    /// Creates an override that begins now.
    pub(super) fn starting(
        now: Timestamp,
        minutes: u32,
        reason: &str,
        by: &str,
        vm: Option<Uuid>,
    ) -> Result<Self, String> {
        if minutes == 0 || minutes > LONGEST_MINUTES {
            return Err(format!("an override can last 1 to {LONGEST_MINUTES} minutes, not {minutes}"));
        }
        for (text, what) in [(reason, "--reason"), (by, "--by")] {
            if text.trim().is_empty() {
                return Err(format!("{what} is empty: an override needs a reason and a name"));
            }
        }
        let until = now.saturating_add(SignedDuration::from_mins(minutes.into())).unwrap_or(now);
        Ok(Self { reason: reason.trim().to_owned(), by: by.trim().to_owned(), since: now, until, vm })
    }

    /// True if the override lets this VM in at `now`. False also if the clock jumped back to before the start.
    pub(super) fn covers(&self, vm: &Uuid, now: Timestamp) -> bool {
        let longest = SignedDuration::from_mins(LONGEST_MINUTES.into());
        let stands =
            self.since <= now && now < self.until && self.until.duration_since(self.since) <= longest;
        stands && self.vm.as_ref().is_none_or(|only| only == vm)
    }
}

/// Reads the override file, if there is one. An error means that the file is not trusted or is damaged.
pub(super) fn load(layout: &Layout) -> Result<Option<Override>, String> {
    let path = layout.override_file();
    let bytes = match trust::read(&path, MOST) {
        Ok(bytes) => bytes,
        Err(why) if UntrustedFile::is_missing(&why) => return Ok(None),
        Err(why) => return Err(why.to_string()),
    };
    serde_json::from_slice(&bytes).map(Some).map_err(|why| format!("{}: {why}", path.display()))
}

pub(super) fn save(layout: &Layout, set: &Override) -> io::Result<()> {
    trust::write(&layout.override_file(), &serde_json::to_vec_pretty(set)?, 0o600)
}

/// Removes the override; `false` if there was none.
pub(super) fn withdraw(layout: &Layout) -> io::Result<bool> {
    match fs::remove_file(layout.override_file()) {
        Ok(()) => trust::sync_folder(&layout.state()).map(|()| true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VM: &str = "5e7c9b3e-0000-4000-8000-00000000000a";

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn it_stands_for_its_minutes_and_for_its_vm() {
        let now = at("2026-11-23T10:00:00Z");
        let other = "11111111-2222-4333-8444-555555555555".parse().unwrap();
        let own: Uuid = VM.parse().unwrap();
        let set = Override::starting(now, 30, " fire in room 2 ", "ops", Some(own.clone())).unwrap();
        assert!(set.covers(&own, now) && set.covers(&own, at("2026-11-23T10:29:59Z")));
        assert!(!set.covers(&own, at("2026-11-23T10:30:00Z")), "over");
        assert!(!set.covers(&own, at("2026-11-23T09:59:59Z")), "the clock jumped back");
        assert!(!set.covers(&other, now), "another VM");
        let all = Override { vm: None, ..set.clone() };
        assert!(all.covers(&other, now));
        let forever = Override { until: at("2036-11-23T10:00:00Z"), ..all };
        assert!(!forever.covers(&other, now), "nobody sets that through vmgate");
    }

    #[test]
    fn it_needs_an_end_a_reason_and_a_name() {
        let now = at("2026-11-23T10:00:00Z");
        assert!(Override::starting(now, 0, "r", "b", None).is_err());
        assert!(Override::starting(now, LONGEST_MINUTES + 1, "r", "b", None).is_err());
        assert!(Override::starting(now, 1, "  ", "b", None).unwrap_err().contains("--reason"));
        assert!(Override::starting(now, 1, "r", "", None).unwrap_err().contains("--by"));
    }
}
