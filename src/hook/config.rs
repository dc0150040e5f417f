//! `/etc/vmgate/hook.yaml`: what a destination enforces.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{Layout, trust};

/// More is no configuration.
const MOST: u64 = 64 << 10;

/// What a host does with incoming migrations.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct HookConfig {
    /// Names this format.
    pub schema: HookSchema,
    /// Whether a migration without a verdict is refused or only written down.
    pub mode: EnforcementMode,
    /// What happens where nothing can be decided.
    pub on_error: OnError,
    /// Longest time that libvirt waits for the decision, 0.1 to 60.
    #[serde(deserialize_with = "time_limit")]
    pub time_limit_seconds: f64,
    /// Size at which the log is put aside, 1 to 1024.
    #[serde(deserialize_with = "log_size")]
    pub log_mebibytes: u64,
}

/// The names of the format that this version reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum HookSchema {
    /// The first format.
    #[default]
    #[serde(rename = "vmgate/hook/v1")]
    V1,
}

/// Whether the host enforces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[derive(clap::ValueEnum)]
pub enum EnforcementMode {
    /// No migration comes in without a verdict.
    #[default]
    Enforce,
    /// All come in; what would have been refused is written down.
    AuditOnly,
}

/// What happens to a migration where the hook cannot decide: it is broken, out of time, or lacks what it needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[derive(clap::ValueEnum)]
pub enum OnError {
    /// It is refused.
    #[default]
    Closed,
    /// It comes in.
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

/// A configuration that cannot be used, and what it wants all the same.
#[derive(Debug, Error)]
#[error("{problem}")]
pub struct InvalidHookConfig {
    problem: String,
    /// Whether a line of it lets migrations in where nothing can be decided: a slip elsewhere in the file must not
    /// turn open into closed. A file that others can write is not looked at for that.
    pub lets_in: bool,
}

impl HookConfig {
    /// Reads the configuration of a host.
    pub fn load(layout: &Layout) -> Result<Self, InvalidHookConfig> {
        let path = layout.config();
        let bytes = trust::read(&path, MOST)
            .map_err(|why| InvalidHookConfig { problem: why.to_string(), lets_in: false })?;
        let text = String::from_utf8_lossy(&bytes);
        Self::parse(&text).map_err(|problem| InvalidHookConfig {
            problem: format!("{}: {problem}", path.display()),
            lets_in: lets_in(&text),
        })
    }

    fn parse(text: &str) -> Result<Self, serde_yaml::Error> {
        if text.trim().is_empty() { Ok(Self::default()) } else { serde_yaml::from_str(text) }
    }

    /// Longest time for a decision.
    pub fn time_limit(&self) -> Duration {
        Duration::from_secs_f64(self.time_limit_seconds)
    }

    /// The file, with a word on each setting.
    pub fn to_text(&self) -> String {
        let word = |value: Result<String, serde_yaml::Error>| value.unwrap_or_default().trim().to_owned();
        format!(
            "# What this host does with incoming migrations; docs/hook.md of vmgate. Read at each migration.\n\
             schema: vmgate/hook/v1\n\
             # enforce: only with a signed verdict. audit-only: all come in, and the log says which would not.\n\
             mode: {mode}\n\
             # Where nothing can be decided (no key, no space, out of time): closed refuses, open lets in.\n\
             on-error: {on_error}\n\
             # Longest time for a decision, while which libvirt waits.\n\
             time-limit-seconds: {limit}\n\
             # Size at which /var/log/vmgate/hook.jsonl is put aside; four older ones are kept.\n\
             log-mebibytes: {size}\n",
            mode = word(serde_yaml::to_string(&self.mode)),
            on_error = word(serde_yaml::to_string(&self.on_error)),
            limit = self.time_limit_seconds,
            size = self.log_mebibytes,
        )
    }
}

/// The two lines that the hook script looks for as well, when its program cannot be run.
fn lets_in(text: &str) -> bool {
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
                assert_eq!(lets_in(&config.to_text()), open);
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
        assert!(lets_in("mod: enforce\non-error: open # for now\n"));
        assert!(lets_in("mode:   audit-only\n["));
        for closed in ["on-error: closed", "# on-error: open", "x-on-error: open", "on-error: openish", ""] {
            assert!(!lets_in(closed), "{closed}");
        }
    }
}
