//! What the options and vmgate.yaml together ask for: rules, waivers, time, limits.

use std::{fs, path::Path, time::Duration};

use jiff::Timestamp;

use super::{Failure, options::Shared};
use crate::{config::Config, preflight::Policy, rule::RuleSource, verdict::Waivers};

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// Options and configuration, brought together: what an option says goes before what the file says.
pub(super) struct Session<'a> {
    pub(super) shared: &'a Shared,
    pub(super) config: Config,
}

impl<'a> Session<'a> {
    /// Reads the configuration.
    pub(super) fn open(shared: &'a Shared) -> Result<Self, Failure> {
        let config = Config::load(shared.config.as_deref()).map_err(|error| Failure::usage(with_causes(&error)))?;
        Ok(Self { shared, config })
    }

    /// The time to evaluate at.
    pub(super) fn now(&self) -> Timestamp {
        self.shared.at.unwrap_or_else(Timestamp::now)
    }

    /// Longest wait for one remote answer.
    #[cfg_attr(not(feature = "libvirt"), allow(dead_code))]
    pub(super) fn timeout(&self) -> Duration {
        self.shared.timeout.or(self.config.timeout_seconds).unwrap_or(DEFAULT_TIMEOUT)
    }

    /// Where rules come from, in the order they are loaded.
    pub(super) fn rule_sources(&self) -> Vec<RuleSource> {
        let builtin = (!self.shared.no_builtin_rules).then_some(RuleSource::Builtin);
        let folders = self.config.rules.iter().chain(&self.shared.rules);
        builtin.into_iter().chain(folders.cloned().map(RuleSource::Dir)).collect()
    }

    /// Rules, catalogues and waivers.
    pub(super) fn policy(&self) -> Result<Policy, Failure> {
        let profile = self.shared.profile.as_deref().or(self.config.profile.as_deref());
        let policy = Policy::load(&self.rule_sources(), profile, &self.config.parameters).map_err(Failure::usage)?;
        let waivers = self.shared.waivers.as_deref().or(self.config.waivers.as_deref());
        Ok(match waivers {
            Some(file) => policy.with_waivers(read_waivers(file)?),
            None => policy,
        })
    }
}

fn read_waivers(file: &Path) -> Result<Waivers, Failure> {
    let bytes = fs::read(file)
        .map_err(|error| Failure::usage(format!("{}: cannot be read: {error}", file.display())))?;
    Waivers::parse(&file.display().to_string(), &bytes).map_err(Failure::usage)
}

/// An error and what caused it, in one line.
pub(super) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(deeper) = cause {
        text = format!("{text}: {deeper}");
        cause = deeper.source();
    }
    text
}
