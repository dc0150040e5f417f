//! What the options and vmgate.yaml together ask for: rules, waivers, time, limits.

#[cfg(feature = "ledger")]
use std::{env, path::PathBuf};
use std::{fs, path::Path, time::Duration};

use jiff::Timestamp;

use super::{Failure, options::Shared};
#[cfg(feature = "ledger")]
use crate::ledger::{Entry, Ledger};
#[cfg(feature = "libvirt")]
use crate::{
    change::ChangeFile,
    collect::{
        Uri,
        transport::{GuestWay, SshTarget, Transport},
    },
};
use crate::{
    config::Config,
    error::with_causes,
    preflight::Policy,
    rule::RuleSource,
    verdict::{Verdict, Waivers},
};

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// Options and configuration, brought together: what an option says goes before what the file says.
pub(super) struct Session<'a> {
    pub(super) shared: &'a Shared,
    pub(super) config: Config,
}

impl<'a> Session<'a> {
    /// Reads the configuration.
    pub(super) fn open(shared: &'a Shared) -> Result<Self, Failure> {
        let config =
            Config::load(shared.config.as_deref()).map_err(|error| Failure::usage(with_causes(&error)))?;
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

    /// The ledger, where one is named.
    #[cfg(feature = "ledger")]
    pub(super) fn ledger(&self) -> Result<Option<Ledger>, Failure> {
        let Some(path) = self.ledger_path() else { return Ok(None) };
        Ledger::open(path).map(Some).map_err(Failure::failed)
    }

    /// Where the ledger is, if that is said.
    #[cfg(feature = "ledger")]
    pub(super) fn ledger_path(&self) -> Option<&Path> {
        self.shared.ledger.as_deref().or(self.config.ledger.as_deref())
    }

    /// Where the ledger is that moves are written down in: there is always one.
    #[cfg(feature = "ledger")]
    pub(super) fn ledger_for_moves(&self) -> Result<PathBuf, Failure> {
        if let Some(path) = self.ledger_path() {
            return Ok(path.to_owned());
        }
        let state = env::var_os("XDG_STATE_HOME").filter(|folder| !folder.is_empty()).map(PathBuf::from);
        let home = || env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/state"));
        state.or_else(home).map(|folder| folder.join("vmgate/ledger.db")).ok_or_else(|| {
            Failure::usage("there is no ledger: name one with --ledger FILE, or `ledger:` in vmgate.yaml")
        })
    }

    /// Writes verdicts into the ledger, where one is named.
    pub(super) fn record(&self, verdicts: &[Verdict]) -> Result<(), Failure> {
        #[cfg(feature = "ledger")]
        if let Some(ledger) = self.ledger()? {
            for verdict in verdicts {
                ledger.append(&Entry::Verdict(verdict.into())).map_err(Failure::failed)?;
            }
        }
        #[cfg(not(feature = "ledger"))]
        let _ = verdicts;
        Ok(())
    }

    /// The way to a host's probe that the configuration names for it.
    #[cfg(feature = "libvirt")]
    pub(super) fn probe(&self, uri: &Uri) -> Result<Option<Transport>, Failure> {
        let Some(host) = uri.host.as_ref() else { return Ok(None) };
        let Some(config) = self.config.hosts.get(host) else { return Ok(None) };
        if let Some(command) = &config.exec {
            return Ok(Some(Transport::Exec(command.clone())));
        }
        let Some(target) = &config.ssh else { return Ok(None) };
        ssh_target(target, &format!("hosts.{host}.ssh")).map(Transport::Ssh).map(Some)
    }

    /// The way into a VM's guest: what the option says, else what the configuration names, else the agent.
    #[cfg(feature = "libvirt")]
    pub(super) fn guest_way(&self, vm: &str, option: Option<&str>) -> Result<GuestWay, Failure> {
        let config = self.config.guests.get(vm);
        let exec = config.and_then(|config| config.exec.clone()).map(GuestWay::Exec);
        let ssh = || {
            let target = config.and_then(|config| config.ssh.as_deref());
            target
                .map(|target| ssh_target(target, &format!("guests.{vm}.ssh")).map(GuestWay::Ssh))
                .transpose()
        };
        let not_named = |what: &str| {
            Failure::usage(format!("--guest {what}: vmgate.yaml has no guests.{vm}.{what}; name it there"))
        };
        match option {
            None => Ok(exec.map_or_else(ssh, |exec| Ok(Some(exec)))?.unwrap_or_default()),
            Some("agent") => Ok(GuestWay::Agent),
            Some("none") => Ok(GuestWay::None("the guest was not asked, as --guest none says".to_owned())),
            Some("exec") => exec.ok_or_else(|| not_named("exec")),
            Some("ssh") => ssh()?.ok_or_else(|| not_named("ssh")),
            Some(target) if target.starts_with("ssh://") => ssh_target(target, "--guest").map(GuestWay::Ssh),
            Some(other) => Err(Failure::usage(format!(
                "--guest {other}: give agent, none, exec, ssh or ssh://USER@HOST[:PORT]"
            ))),
        }
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
        let policy =
            Policy::load(&self.rule_sources(), profile, &self.config.parameters).map_err(Failure::usage)?;
        let waivers = self.shared.waivers.as_deref().or(self.config.waivers.as_deref());
        Ok(match waivers {
            Some(file) => policy.with_waivers(read_waivers(file)?),
            None => policy,
        })
    }
}

#[cfg(feature = "libvirt")]
fn ssh_target(text: &str, named_by: &str) -> Result<SshTarget, Failure> {
    text.parse().map_err(|_| {
        Failure::usage(format!(
            "{named_by}: `{text}` is not USER@HOST or USER@HOST:PORT, with or without ssh://"
        ))
    })
}

/// A change file.
#[cfg(feature = "libvirt")]
pub(super) fn read_change(file: &Path) -> Result<ChangeFile, Failure> {
    let bytes = fs::read(file)
        .map_err(|error| Failure::usage(format!("{}: cannot be read: {error}", file.display())))?;
    ChangeFile::parse(&file.display().to_string(), &bytes).map_err(Failure::usage)
}

fn read_waivers(file: &Path) -> Result<Waivers, Failure> {
    let bytes = fs::read(file)
        .map_err(|error| Failure::usage(format!("{}: cannot be read: {error}", file.display())))?;
    Waivers::parse(&file.display().to_string(), &bytes).map_err(Failure::usage)
}
