//! Settings of the hook on a destination host: `/etc/vmgate/hook.yaml`.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{Layout, trust};

/// Largest configuration file, bytes.
const MOST: u64 = 64 << 10;

/// Settings of a host for incoming migrations.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct HookConfig {
    /// Id of this format.
    pub schema: HookSchema,
    /// Enforcement: a migration without a verdict is refused, or only logged.
    pub mode: EnforcementMode,
    /// Fallback if no decision is possible.
    pub on_error: OnError,
    /// Longest time that libvirt waits for the decision, 0.1 to 60 seconds.
    #[serde(deserialize_with = "time_limit")]
    pub time_limit_seconds: f64,
    /// Size at which the log is rotated, 1 to 1024 MiB.
    #[serde(deserialize_with = "log_size")]
    pub log_mebibytes: u64,
}

/// Ids of the format that this version reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum HookSchema {
    /// The first format.
    #[default]
    #[serde(rename = "vmgate/hook/v1")]
    V1,
}

/// Enforcement mode of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[derive(strum::EnumString, strum::VariantNames)]
#[strum(serialize_all = "kebab-case")]
pub enum EnforcementMode {
    /// No migration comes in without a verdict.
    #[default]
    Enforce,
    /// All migrations come in; the log says which ones would have been refused.
    AuditOnly,
}

/// Fallback for a migration that the hook cannot decide on: an internal error, a timeout, or a missing file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[derive(strum::EnumString, strum::VariantNames)]
#[strum(serialize_all = "kebab-case")]
pub enum OnError {
    /// Refuse the migration.
    #[default]
    Closed,
    /// Let the migration in.
    Open,
}

impl Default for HookConfig {
    fn default() -> Self {
        Self {
            schema: HookSchema::V1,
            mode: EnforcementMode::default(),
            on_error: OnError::default(),
            time_limit_seconds: 5.0,
            log_mebibytes: 10,
        }
    }
}

/// An invalid configuration, with the fallback that it still asks for.
#[derive(Debug, Error)]
#[error("{problem}")]
pub struct InvalidHookConfig {
    problem: String,
    /// True if a line of the file lets migrations in when no decision is possible: a mistake elsewhere in the file must not
    /// turn open into closed. Always false for a file that other users can write.
    pub fallback_open: bool,
}

impl HookConfig {
    /// Reads the configuration of a host.
    pub fn load(layout: &Layout) -> Result<Self, InvalidHookConfig> {
        let path = layout.config();
        let bytes = trust::read(&path, MOST)
            .map_err(|why| InvalidHookConfig { problem: why.to_string(), fallback_open: false })?;
        let text = String::from_utf8_lossy(&bytes);
        Self::parse(&text).map_err(|problem| InvalidHookConfig {
            problem: format!("{}: {problem}", path.display()),
            fallback_open: fallback_open(&text),
        })
    }

    pub(super) fn parse(text: &str) -> Result<Self, serde_yaml::Error> {
        if text.trim().is_empty() { Ok(Self::default()) } else { serde_yaml::from_str(text) }
    }

    /// Longest time for a decision.
    pub fn time_limit(&self) -> Duration {
        Duration::from_secs_f64(self.time_limit_seconds)
    }

    /// The text of the file, with a comment on each setting.
    pub fn to_text(&self) -> String {
        let word = |value: Result<String, serde_yaml::Error>| value.unwrap_or_default().trim().to_owned();
        format!(
            "# Settings for incoming migrations on this host; see docs/hook.md of vmgate. Read at each migration.\n\
             schema: vmgate/hook/v1\n\
             # enforce: a migration needs a signed verdict. audit-only: all come in; the log says which would be refused.\n\
             mode: {mode}\n\
             # If no decision is possible (no key, disk full, timeout): closed refuses the migration, open lets it in.\n\
             on-error: {on_error}\n\
             # Longest time for a decision; libvirt waits meanwhile.\n\
             time-limit-seconds: {limit}\n\
             # Size at which /var/log/vmgate/hook.jsonl is rotated; four older files are kept.\n\
             log-mebibytes: {size}\n",
            mode = word(serde_yaml::to_string(&self.mode)),
            on_error = word(serde_yaml::to_string(&self.on_error)),
            limit = self.time_limit_seconds,
            size = self.log_mebibytes,
        )
    }
}

/// True if the text has one of the two lines that let migrations in. The hook script looks for the same lines when its
/// program cannot run.
fn fallback_open(text: &str) -> bool {
    text.lines().any(|line| {
        let line = line.split_once(" #").map_or(line, |(before, _)| before).trim_end();
        let is = |name: &str, value: &str| {
            line.strip_prefix(name)
                .and_then(|rest| rest.strip_prefix(':'))
                .is_some_and(|rest| rest.trim() == value)
        };
        is("on-error", "open") || is("mode", "audit-only")
    })
}

fn time_limit<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    let number = f64::deserialize(deserializer)?;
    if (0.1..=60.0).contains(&number) {
        Ok(number)
    } else {
        Err(serde::de::Error::custom("time-limit-seconds must be from 0.1 to 60"))
    }
}

fn log_size<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let number = u64::deserialize(deserializer)?;
    if (1..=1024).contains(&number) {
        Ok(number)
    } else {
        Err(serde::de::Error::custom("log-mebibytes must be from 1 to 1024"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        for mode in [EnforcementMode::Enforce, EnforcementMode::AuditOnly] {
            for on_error in [OnError::Closed, OnError::Open] {
                let config = HookConfig { mode, on_error, time_limit_seconds: 0.5, ..HookConfig::default() };
                assert_eq!(HookConfig::parse(&config.to_text()).unwrap(), config);
                let open = on_error == OnError::Open || mode == EnforcementMode::AuditOnly;
                assert_eq!(fallback_open(&config.to_text()), open);
            }
        }
        assert_eq!(HookConfig::parse("").unwrap(), HookConfig::default());
    }

    #[test]
    fn a_slip_is_an_error_that_names_it() {
        for (text, part) in [
            ("mod: enforce", "mod"),
            ("mode: off", "off"),
            ("time-limit-seconds: 0", "0.1 to 60"),
            ("log-mebibytes: 0", "1 to 1024"),
            ("schema: vmgate/hook/v2", "v2"),
        ] {
            let error = HookConfig::parse(text).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn a_slip_elsewhere_does_not_turn_open_into_closed() {
        assert!(fallback_open("mod: enforce\non-error: open # for now\n"));
        assert!(fallback_open("mode:   audit-only\n["));
        for closed in ["on-error: closed", "# on-error: open", "x-on-error: open", "on-error: openish", ""] {
            assert!(!fallback_open(closed), "{closed}");
        }
    }
}
