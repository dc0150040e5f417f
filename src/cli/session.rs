//! Session: the settings of a command from options and vmgate.yaml together: rules, waivers, time, limits.

use std::{
    env,
    path::{Path, PathBuf},
    sync::OnceLock,
    time::Duration,
};

use vmgate_attest::{PrivateKey, PublicKey};
#[cfg(feature = "libvirt")]
use vmgate_collect::{guest_probe::GuestAccess, transport::Transport};
#[cfg(feature = "libvirt")]
use vmgate_execute::{
    Door, HostConnection, Hosts, RunOrder,
    nova::{Cloud, Nova},
};
#[cfg(feature = "libvirt")]
use vmgate_facts::Facts;
#[cfg(feature = "libvirt")]
use vmgate_facts::HostUri;
use vmgate_facts::Uri;
#[cfg(feature = "libvirt")]
use vmgate_judge::change::{GuestWay, LARGEST_BYTES as LARGEST_CHANGE};
use vmgate_judge::{InvalidPolicy, Policy, change::ChangeFile};
#[cfg(feature = "libvirt")]
use vmgate_ledger::LedgerError;
use vmgate_ledger::{Entry, Ledger, LedgerUrl};
#[cfg(feature = "libvirt")]
use vmgate_probe::host::{ManagerQuestions, SettingsFile};
use vmgate_reach::{HostShell, Logins, SshTarget};
#[cfg(feature = "libvirt")]
use vmgate_rules::Catalogues;
use vmgate_rules::RuleSource;
use vmgate_verdict::{Verdict, Waivers};

#[cfg(feature = "libvirt")]
use super::nova::{self, NOVA};
use super::{Failure, key_files, options::GlobalOptions, output};
#[cfg(feature = "libvirt")]
use crate::config::ManagerConfig;
use crate::{
    config::{Config, HostConfig},
    fleet::inventory::Inventory,
};

/// Environment variable with the private key in PEM, used if no file is named.
pub(super) const KEY_VARIABLE: &str = "VMGATE_SIGNING_KEY";

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// Folder for what vmgate keeps of this user's work (XDG Base Directory Specification); `None` without a home folder.
pub(super) fn state_folder() -> Option<PathBuf> {
    let state = env::var_os("XDG_STATE_HOME").filter(|folder| !folder.is_empty()).map(PathBuf::from);
    let home = || env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/state"));
    state.or_else(home).map(|folder| folder.join("vmgate"))
}

/// Options and configuration together: an option takes precedence over the file.
pub(super) struct Session<'a> {
    pub(super) shared: &'a GlobalOptions,
    pub(super) config: Config,
    /// The inventory that the configuration names, once it is read.
    pub(super) inventory: OnceLock<Option<Inventory>>,
    /// Questions about managers of VMs, once the catalogues are read.
    #[cfg(feature = "libvirt")]
    managers: OnceLock<ManagerQuestions>,
    /// Logins at hosts.
    logins: Logins,
}

impl<'a> Session<'a> {
    /// Reads the configuration.
    pub(super) fn open(shared: &'a GlobalOptions) -> Result<Self, Failure> {
        let config = Config::load(shared.config.as_deref()).map_err(Failure::usage)?;
        Ok(Self {
            shared,
            config,
            inventory: OnceLock::new(),
            #[cfg(feature = "libvirt")]
            managers: OnceLock::new(),
            logins: Logins::default(),
        })
    }

    /// Longest wait for one remote answer.
    pub(super) fn timeout(&self) -> Duration {
        self.shared.timeout.or(self.config.timeout()).unwrap_or(DEFAULT_TIMEOUT)
    }

    /// The ledger, if one is named, for commands that only look: they need no key, so without it their records are not signed.
    pub(super) fn ledger(&self) -> Result<Option<Ledger>, Failure> {
        let Some(place) = self.ledger_place() else { return Ok(None) };
        let key = self.signing_key().unwrap_or_else(|failure| {
            tracing::warn!("what this command writes to the ledger is not signed: {}", failure.text);
            None
        });
        Ok(Some(Ledger::open(place).map_err(Failure::failed)?.signed_with(key)))
    }

    /// Opens a ledger to write to it: records are signed if the site has a key.
    #[cfg(feature = "libvirt")]
    pub(super) fn open_ledger(&self, place: LedgerUrl) -> Result<Ledger, Failure> {
        Ok(Ledger::open(place).map_err(Failure::failed)?.signed_with(self.signing_key()?))
    }

    /// File or database of the ledger, if one is named. An empty variable of the environment names none.
    pub(super) fn ledger_place(&self) -> Option<LedgerUrl> {
        let is_named = |place: &LedgerUrl| *place != LedgerUrl::from("");
        self.shared.ledger.clone().filter(is_named).or_else(|| self.config.ledger.clone())
    }

    /// File or database of the ledger for moves: the default one if none is named.
    pub(super) fn ledger_for_moves(&self) -> Result<LedgerUrl, Failure> {
        if let Some(place) = self.ledger_place() {
            return Ok(place);
        }
        state_folder().map(|folder| folder.join("ledger.db").into()).ok_or_else(|| {
            Failure::usage("no ledger is known: give one with --ledger PLACE, or `ledger:` in vmgate.yaml")
        })
    }

    /// The facts with the history of earlier moves and of this VM, from the ledger that `migrate` would use: else a check could say GO
    /// and the migration NO-GO.
    #[cfg(feature = "libvirt")]
    pub(super) fn with_history(&self, mut facts: Facts) -> Result<Facts, Failure> {
        let Ok(place) = self.ledger_for_moves() else { return Ok(facts) };
        match (Ledger::open_existing(place), self.ledger_place()) {
            (Ok(ledger), _) => ledger.add_history(&mut facts).map_err(Failure::failed)?,
            (Err(LedgerError::Missing { .. }), _) => {}
            (Err(error), Some(_)) => return Err(Failure::failed(error)),
            (Err(error), None) => tracing::warn!("earlier moves are not known to this check: {error}"),
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

    /// URI to connect with, for a host that a document names: the site's for this name, which may say more, else the
    /// document's.
    #[cfg(feature = "libvirt")]
    pub(super) fn connection(&self, named: &HostUri) -> Result<Uri, Failure> {
        let site = named.host().map(|host| self.site_uri(host)).transpose()?.flatten();
        Ok(site.unwrap_or_else(|| named.into()))
    }

    /// URI of a host in the configuration.
    pub(super) fn site_uri(&self, host: &str) -> Result<Option<Uri>, Failure> {
        let Some(text) = self.config.hosts.get(host).and_then(|host| host.uri.as_deref()) else {
            return Ok(None);
        };
        let uri = Uri::from_operator(text);
        let uri = uri.map_err(|error| Failure::usage(format!("vmgate.yaml: hosts.{host}.uri: {error}")))?;
        Ok(Some(Uri { known_as: Some(host.to_owned()), ..uri }))
    }

    /// Settings of a host, by its name or else by the host of its URI, and the name that they have.
    pub(super) fn settings_of<'u>(&self, uri: &'u Uri) -> Option<(&'u str, &HostConfig)> {
        let names = [uri.name(), uri.host.as_deref()];
        names.into_iter().flatten().find_map(|name| Some((name, self.config.hosts.get(name)?)))
    }

    /// Transport to the probe on a host: the configuration's, else the one for the URI.
    #[cfg(feature = "libvirt")]
    pub(super) fn probe(&self, uri: &Uri) -> Result<Transport, Failure> {
        let named = self.settings_of(uri).map_or(Ok(None), |(host, config)| probe_way(host, config))?;
        Ok(named.unwrap_or_else(|| Transport::for_uri(uri)))
    }

    /// Transport to the probe on a host, over the login there that the whole command shares.
    #[cfg(feature = "libvirt")]
    pub(super) fn way(&self, uri: &Uri) -> Result<Transport, Failure> {
        Ok(match self.probe(uri)? {
            Transport::Ssh(target) => Transport::SharedLogin(self.logins.at(target, self.timeout())),
            other => other,
        })
    }

    /// Shell on a host: the command in the configuration, else ssh, else the local shell.
    pub(super) fn shell(&self, uri: &Uri) -> Result<HostShell, Failure> {
        let (host, config) = self.settings_of(uri).unzip();
        if let Some(command) = config.and_then(|config| config.shell.as_ref()) {
            return Ok(HostShell::Command(command.clone()));
        }
        let named = config.and_then(|config| config.ssh.as_ref());
        let shell = match named {
            Some(target) => {
                HostShell::Ssh(ssh_target(target, &format!("hosts.{}.ssh", host.unwrap_or_default()))?)
            }
            None => HostShell::for_uri(uri),
        };
        Ok(match shell {
            HostShell::Ssh(target) => HostShell::SharedLogin(self.logins.at(target, self.timeout())),
            other => other,
        })
    }

    /// Connections to both hosts of a move, each with its shell.
    #[cfg(feature = "libvirt")]
    pub(super) fn hosts(&self, from: &Uri, to: &Uri) -> Hosts {
        let connect = |uri: &Uri| {
            let connection = HostConnection::new(uri.clone(), self.timeout());
            match (self.shell(uri), self.way(uri)) {
                (Ok(shell), Ok(way)) => connection.with_shell(shell).over(way),
                // What is wrong with it is said where it is needed.
                _ => connection,
            }
        };
        Hosts { source: connect(from), destination: connect(to) }
    }

    /// Private key that signs verdicts and records: from the environment, else from the file in the configuration.
    pub(super) fn signing_key(&self) -> Result<Option<PrivateKey>, Failure> {
        if let Ok(pem) = env::var(KEY_VARIABLE) {
            return PrivateKey::from_pem(KEY_VARIABLE, &pem).map(Some).map_err(Failure::usage);
        }
        let Some(file) = &self.config.signing_key else { return Ok(None) };
        key_files::private_key(file)
            .map(Some)
            .map_err(|failure| Failure::usage(format!("signing_key: {}", failure.text)))
    }

    /// Public keys that are trusted to sign facts: those of the configuration, and these files.
    pub(super) fn facts_keys(&self, more: &[PathBuf]) -> Result<Vec<PublicKey>, Failure> {
        self.config.facts_keys.iter().chain(more).map(|file| key_files::public_key(file)).collect()
    }

    /// Access to the guest of a VM that a change file names.
    #[cfg(feature = "libvirt")]
    pub(super) fn planned_guest_access(
        &self,
        vm: &str,
        way: Option<&GuestWay>,
    ) -> Result<GuestAccess, Failure> {
        let option = match way {
            None => None,
            Some(GuestWay::Agent) => Some("agent"),
            Some(GuestWay::Wire) => Some("wire"),
            Some(GuestWay::None) => Some("none"),
            Some(GuestWay::Exec) => Some("exec"),
            Some(GuestWay::Ssh) => Some("ssh"),
            Some(GuestWay::Address(address)) => return Ok(GuestAccess::Ssh(address.into())),
        };
        self.guest_access(vm, option)
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
            Some("wire") => Ok(GuestAccess::Wire),
            Some("none") => Ok(GuestAccess::None("the guest was not asked, as --guest none says".to_owned())),
            Some("exec") => exec.ok_or_else(|| not_named("exec")),
            Some("ssh") => ssh()?.ok_or_else(|| not_named("ssh")),
            Some(target) if target.starts_with("ssh://") => {
                ssh_target(target, "--guest").map(GuestAccess::Ssh)
            }
            Some(other) => Err(Failure::usage(format!(
                "--guest {other}: give agent, wire, none, exec, ssh or ssh://USER@HOST[:PORT]"
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

    /// Door to the manager that runs a migration; none where libvirt does.
    #[cfg(feature = "libvirt")]
    pub(super) fn door(&self, run_by: Option<&str>) -> Result<Option<Door>, Failure> {
        let Some(manager) = run_by else { return Ok(None) };
        if let Some(config) = self.config.managers.get(manager).filter(|config| !config.program.is_empty()) {
            let time_limit = self.time_limit_of(manager)?;
            return Ok(Some(Door::by_program(manager, config.program.clone(), time_limit)));
        }
        if manager != NOVA {
            return Err(Failure::usage(format!(
                "{manager} would run the migration, and vmgate.yaml names no program that orders it: add `managers: {{{manager}: {{program: \
                 [PROGRAM]}}}}`, as docs/managers.md explains, or order the migration from {manager} yourself"
            )));
        }
        let nova = self.nova()?.ok_or_else(|| {
            Failure::usage(
                "Nova would run the migration, and no login to its API is known: set OS_CLOUD to a cloud of clouds.yaml, name it in \
                 vmgate.yaml (`managers: {nova: {cloud: NAME}}`), or source the cloud's openrc file",
            )
        })?;
        Ok(Some(Door::to_nova(manager, nova)))
    }

    /// Door to the manager that runs the migration of an order.
    #[cfg(feature = "libvirt")]
    pub(super) fn door_of(&self, order: &RunOrder) -> Result<Option<Door>, String> {
        self.door(order.plan.settings.run_by.as_deref()).map_err(|failure| failure.text)
    }

    /// Nova's API. `None` if nobody names its cloud, or a program of the site stands for it.
    #[cfg(feature = "libvirt")]
    pub(super) fn nova(&self) -> Result<Option<Nova>, Failure> {
        let config = self.config.managers.get(NOVA);
        if config.is_some_and(|config| !config.program.is_empty()) {
            return Ok(None);
        }
        let cloud = config.and_then(|config| config.cloud.as_deref());
        let Some(cloud) = Cloud::find(cloud).map_err(nova::failure)? else { return Ok(None) };
        Nova::new(cloud, self.time_limit_of(NOVA)?).map(Some).map_err(nova::failure)
    }

    /// Longest time of one call to a manager.
    #[cfg(feature = "libvirt")]
    fn time_limit_of(&self, manager: &str) -> Result<Duration, Failure> {
        let configured = self.config.managers.get(manager).map(|config| config.time_limit_seconds);
        Duration::try_from_secs_f64(configured.unwrap_or_else(ManagerConfig::usual_seconds)).map_err(
            |error| Failure::usage(format!("vmgate.yaml: managers.{manager}.time_limit_seconds: {error}")),
        )
    }

    /// Questions about managers of VMs, by which hosts' probes look for those of the catalogues.
    #[cfg(feature = "libvirt")]
    pub(super) fn manager_questions(&self) -> Result<ManagerQuestions, Failure> {
        if let Some(known) = self.managers.get() {
            return Ok(known.clone());
        }
        let catalogues = Catalogues::load(&self.rule_sources()).map_err(Failure::usage)?;
        let programs = catalogues.managers().iter().flat_map(|entry| entry.programs.clone()).collect();
        let files = catalogues.managers().iter().flat_map(|entry| {
            let program = entry.programs.first().cloned().unwrap_or_default();
            let names: Vec<String> =
                entry.settings.iter().filter_map(|setting| setting.name.clone()).collect();
            entry.files.iter().map(move |path| SettingsFile {
                program: program.clone(),
                path: path.clone(),
                names: names.clone(),
            })
        });
        let questions = ManagerQuestions { programs, files: files.collect() };
        Ok(self.managers.get_or_init(|| questions).clone())
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
fn probe_way(host: &str, config: &HostConfig) -> Result<Option<Transport>, Failure> {
    if let Some(command) = &config.exec {
        return Ok(Some(Transport::Exec(command.clone())));
    }
    let Some(target) = &config.ssh else { return Ok(None) };
    ssh_target(target, &format!("hosts.{host}.ssh")).map(Transport::Ssh).map(Some)
}

fn ssh_target(text: &str, named_by: &str) -> Result<SshTarget, Failure> {
    SshTarget::from_operator(text).map_err(|_| {
        Failure::usage(format!(
            "{named_by}: `{text}` is not USER@HOST or USER@HOST:PORT, with or without ssh://"
        ))
    })
}

/// Reads a change file to execute it. If it has commands, it is a program, and believed only if nobody else could have
/// written it.
#[cfg(feature = "libvirt")]
pub(super) fn read_order(file: &Path) -> Result<ChangeFile, Failure> {
    let change = read_change(file)?;
    if !change.has_commands() {
        return Ok(change);
    }
    let why_not = |why| Failure::usage(format!("the change has commands to run: {why}"));
    let bytes = vmgate_trust::read(file, LARGEST_CHANGE).map_err(why_not)?;
    ChangeFile::parse(&file.display().to_string(), &bytes).map_err(Failure::usage)
}

/// Reads a change file to look at it.
pub(super) fn read_change(file: &Path) -> Result<ChangeFile, Failure> {
    let bytes = output::bytes_of(file)?;
    ChangeFile::parse(&file.display().to_string(), &bytes).map_err(Failure::usage)
}
