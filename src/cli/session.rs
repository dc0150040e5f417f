//! Session: the settings of a command from options and vmgate.yaml together: rules, waivers, time, limits.

use std::{
    env, fs,
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::Timestamp;
#[cfg(feature = "libvirt")]
use vmgate_attest::PrivateKey;
#[cfg(feature = "libvirt")]
use vmgate_collect::{guest_probe::GuestAccess, transport::Transport};
#[cfg(feature = "libvirt")]
use vmgate_facts::Facts;
use vmgate_facts::Uri;
use vmgate_judge::{InvalidPolicy, Policy, change::ChangeFile};
use vmgate_ledger::{Entry, Ledger, LedgerUrl};
use vmgate_reach::{HostShell, SshTarget};
use vmgate_rules::RuleSource;
use vmgate_verdict::{Verdict, Waivers};

use super::{Failure, options::GlobalOptions, output};
use crate::config::Config;
#[cfg(feature = "libvirt")]
use crate::config::HostConfig;

/// Environment variable with the private key in PEM, used if no file is named.
pub(super) const KEY_VARIABLE: &str = "VMGATE_SIGNING_KEY";

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// Options and configuration together: an option takes precedence over the file.
pub(super) struct Session<'a> {
    pub(super) shared: &'a GlobalOptions,
    pub(super) config: Config,
}

impl<'a> Session<'a> {
    /// Reads the configuration.
    pub(super) fn open(shared: &'a GlobalOptions) -> Result<Self, Failure> {
        let config = Config::load(shared.config.as_deref()).map_err(Failure::usage)?;
        Ok(Self { shared, config })
    }

    /// The time to evaluate at.
    pub(super) fn now(&self) -> Timestamp {
        self.shared.at.unwrap_or_else(Timestamp::now)
    }

    /// Longest wait for one remote answer.
    pub(super) fn timeout(&self) -> Duration {
        self.shared.timeout.or(self.config.timeout()).unwrap_or(DEFAULT_TIMEOUT)
    }

    /// The ledger, if one is named.
    pub(super) fn ledger(&self) -> Result<Option<Ledger>, Failure> {
        self.ledger_place().map(Ledger::open).transpose().map_err(Failure::failed)
    }

    /// File or database of the ledger, if one is named.
    pub(super) fn ledger_place(&self) -> Option<LedgerUrl> {
        self.shared.ledger.clone().or_else(|| self.config.ledger.clone())
    }

    /// File or database of the ledger for moves: the default one if none is named.
    pub(super) fn ledger_for_moves(&self) -> Result<LedgerUrl, Failure> {
        if let Some(place) = self.ledger_place() {
            return Ok(place);
        }
        let state = env::var_os("XDG_STATE_HOME").filter(|folder| !folder.is_empty()).map(PathBuf::from);
        let home = || env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/state"));
        state.or_else(home).map(|folder| folder.join("vmgate/ledger.db").into()).ok_or_else(|| {
            Failure::usage("no ledger is known: give one with --ledger PLACE, or `ledger:` in vmgate.yaml")
        })
    }

    /// The facts with the ledger's history of earlier moves and of this VM, if a ledger is named.
    #[cfg(feature = "libvirt")]
    pub(super) fn with_history(&self, mut facts: Facts) -> Result<Facts, Failure> {
        if let Some(ledger) = self.ledger()? {
            ledger.add_history(&mut facts).map_err(Failure::failed)?;
        }
        Ok(facts)
    }

    /// Writes verdicts to the ledger, if one is named.
    pub(super) fn record(&self, verdicts: &[Verdict]) -> Result<(), Failure> {
        let Some(ledger) = self.ledger()? else { return Ok(()) };
        for verdict in verdicts {
            ledger.append(&Entry::Verdict(verdict.into())).map_err(Failure::failed)?;
        }
        Ok(())
    }

    /// Transport to the probe on a host, if the configuration names one.
    #[cfg(feature = "libvirt")]
    pub(super) fn probe(&self, uri: &Uri) -> Result<Option<Transport>, Failure> {
        let Some(host) = uri.host.as_ref() else { return Ok(None) };
        let Some(config) = self.config.hosts.get(host) else { return Ok(None) };
        probe_way(host, config)
    }

    /// Reason in the configuration against placing VMs on a host; `None` if there is none.
    #[cfg(feature = "libvirt")]
    pub(super) fn maintenance(&self, uri: &Uri) -> Option<String> {
        self.config.hosts.get(uri.host.as_ref()?)?.maintenance.clone()
    }

    /// Shell on a host: the command in the configuration, else ssh, else the local shell.
    pub(super) fn shell(&self, uri: &Uri) -> Result<HostShell, Failure> {
        let config = uri.host.as_ref().and_then(|host| Some((host, self.config.hosts.get(host)?)));
        let Some((host, config)) = config else { return Ok(HostShell::for_uri(uri)) };
        if let Some(command) = &config.shell {
            return Ok(HostShell::Command(command.clone()));
        }
        let Some(target) = &config.ssh else { return Ok(HostShell::for_uri(uri)) };
        ssh_target(target, &format!("hosts.{host}.ssh")).map(HostShell::Ssh)
    }

    /// Private key that signs verdicts: from the environment, else from the file in the configuration.
    #[cfg(feature = "libvirt")]
    pub(super) fn signing_key(&self) -> Result<Option<PrivateKey>, Failure> {
        if let Ok(pem) = env::var(KEY_VARIABLE) {
            return PrivateKey::from_pem(KEY_VARIABLE, &pem).map(Some).map_err(Failure::usage);
        }
        let Some(file) = &self.config.signing_key else { return Ok(None) };
        let pem = fs::read_to_string(file).map_err(|error| {
            Failure::usage(format!("signing_key: {}: cannot be read: {error}", file.display()))
        })?;
        PrivateKey::from_pem(&file.display().to_string(), &pem).map(Some).map_err(Failure::usage)
    }

    /// Access to a VM's guest: by the option, else by the configuration, else the agent.
    #[cfg(feature = "libvirt")]
    pub(super) fn guest_access(&self, vm: &str, option: Option<&str>) -> Result<GuestAccess, Failure> {
        let config = self.config.guests.get(vm);
        let exec = config.and_then(|config| config.exec.clone()).map(GuestAccess::Exec);
        let ssh = || {
            let target = config.and_then(|config| config.ssh.as_deref());
            target
                .map(|target| ssh_target(target, &format!("guests.{vm}.ssh")).map(GuestAccess::Ssh))
                .transpose()
        };
        let not_named = |what: &str| {
            Failure::usage(format!("--guest {what}: vmgate.yaml has no guests.{vm}.{what}; name it there"))
        };
        match option {
            None => Ok(exec.map_or_else(ssh, |exec| Ok(Some(exec)))?.unwrap_or_default()),
            Some("agent") => Ok(GuestAccess::Agent),
            Some("none") => Ok(GuestAccess::None("the guest was not asked, as --guest none says".to_owned())),
            Some("exec") => exec.ok_or_else(|| not_named("exec")),
            Some("ssh") => ssh()?.ok_or_else(|| not_named("ssh")),
            Some(target) if target.starts_with("ssh://") => {
                ssh_target(target, "--guest").map(GuestAccess::Ssh)
            }
            Some(other) => Err(Failure::usage(format!(
                "--guest {other}: give agent, none, exec, ssh or ssh://USER@HOST[:PORT]"
            ))),
        }
    }

    /// Sources of rules, in the order they are loaded.
    pub(super) fn rule_sources(&self) -> Vec<RuleSource> {
        let builtin = (!self.shared.no_builtin_rules).then_some(RuleSource::Builtin);
        let folders = self.config.rules.iter().chain(&self.shared.rules);
        builtin.into_iter().chain(folders.cloned().map(RuleSource::Dir)).collect()
    }

    /// Rules with their parameters, and catalogues.
    pub(super) fn rules(&self) -> Result<Policy, InvalidPolicy> {
        let profile = self.shared.profile.as_deref().or(self.config.profile.as_deref());
        Policy::load(&self.rule_sources(), profile, &self.config.parameters)
    }

    /// Rules, catalogues and waivers.
    pub(super) fn policy(&self) -> Result<Policy, Failure> {
        let policy = self.rules().map_err(Failure::usage)?;
        let waivers = self.shared.waivers.as_deref().or(self.config.waivers.as_deref());
        Ok(match waivers {
            Some(file) => policy.with_waivers(Waivers::read(file).map_err(Failure::usage)?),
            None => policy,
        })
    }
}

/// Transport to the probe on a host, from its configuration.
#[cfg(feature = "libvirt")]
pub(super) fn probe_way(host: &str, config: &HostConfig) -> Result<Option<Transport>, Failure> {
    if let Some(command) = &config.exec {
        return Ok(Some(Transport::Exec(command.clone())));
    }
    let Some(target) = &config.ssh else { return Ok(None) };
    ssh_target(target, &format!("hosts.{host}.ssh")).map(Transport::Ssh).map(Some)
}

fn ssh_target(text: &str, named_by: &str) -> Result<SshTarget, Failure> {
    text.parse().map_err(|_| {
        Failure::usage(format!(
            "{named_by}: `{text}` is not USER@HOST or USER@HOST:PORT, with or without ssh://"
        ))
    })
}

/// Reads a change file.
pub(super) fn read_change(file: &Path) -> Result<ChangeFile, Failure> {
    let bytes = output::bytes_of(file)?;
    ChangeFile::parse(&file.display().to_string(), &bytes).map_err(Failure::usage)
}
