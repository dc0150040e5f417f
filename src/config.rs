//! `vmgate.yaml`: settings of a site for all its checks.

use std::{
    collections::BTreeMap,
    io::ErrorKind,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use schemars::{JsonSchema, Schema, schema_for};
use serde::Deserialize;
use vmgate_documents::{LARGEST_BYTES, Node, Problem, Problems, Shape, SourceFile};
use vmgate_ledger::LedgerUrl;
use vmgate_rules::ParamOverrides;

/// The file in the current folder that is read if none is named.
pub const DEFAULT_FILE: &str = "vmgate.yaml";

static CONFIG: Shape<Config> = Shape::new();

/// The JSON Schema of the settings.
pub fn schema() -> Schema {
    schema_for!(Config)
}

/// Settings of a site. Paths are relative to the file.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Id of this format; may be left out.
    schema: Option<ConfigSchema>,
    /// Folders with additional rules.
    pub rules: Vec<PathBuf>,
    /// Named set of rule parameters.
    pub profile: Option<String>,
    /// Values of rule parameters, by rule id and parameter name.
    pub parameters: ParamOverrides,
    /// File of waivers.
    pub waivers: Option<PathBuf>,
    /// Trusted public keys for signed verdicts, in PEM.
    pub trusted_keys: Vec<PathBuf>,
    /// Trusted public keys for signed facts, in PEM.
    pub facts_keys: Vec<PathBuf>,
    /// The ledger: a file, or the URL of a PostgreSQL database.
    #[schemars(with = "Option<String>")]
    pub ledger: Option<LedgerUrl>,
    /// Folders with the change files that were executed: `vmgate recover` takes the commands and hosts of a move from them.
    pub changes: Vec<PathBuf>,
    /// Places outside of the ledger for copies of its head, by which a rewritten or shortened ledger is found out. Written at
    /// the end of each campaign and by `vmgate ledger anchor`.
    pub anchor: Option<AnchorConfig>,
    /// Private key that signs verdicts, for destinations that demand it, and records of the ledger.
    pub signing_key: Option<PathBuf>,
    /// Longest wait for one answer of a host or guest, in seconds.
    #[schemars(range(min = 0.01, max = 86400.0), example = 10.0)]
    pub timeout_seconds: Option<f64>,
    /// Inventory file: hosts under their names, with racks, pools, migration networks and addresses. The options that name a host
    /// take these names, and `vmgate check VM --to HOST` asks these hosts which of them runs the VM.
    pub inventory: Option<PathBuf>,
    /// Access to hosts, by the host name in their URI.
    pub hosts: BTreeMap<String, HostConfig>,
    /// Access to guests, by the VM's name as it is given to vmgate.
    pub guests: BTreeMap<String, GuestConfig>,
    /// Ways to managers of VMs that order migrations from them, by the id of the manager (`--as`). Nova needs none where the
    /// environment names its cloud.
    pub managers: BTreeMap<String, ManagerConfig>,
}

/// Way to a manager that orders migrations from it.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ManagerConfig {
    /// Program with its first arguments; the verb is added: start, progress, abort or where. It reads the move as JSON on its
    /// standard input and answers with one JSON object.
    #[serde(default)]
    #[schemars(example = vec!["/usr/local/lib/vmgate/ovirt-door"])]
    pub program: Vec<String>,
    /// Cloud of clouds.yaml whose API is asked, for nova without a program [default: OS_CLOUD, else the OS_ variables].
    #[schemars(example = &"production")]
    pub cloud: Option<String>,
    /// Longest time of one call, in seconds.
    #[serde(default = "ManagerConfig::usual_seconds")]
    #[schemars(range(min = 0.01, max = 3600.0), example = 60.0)]
    pub time_limit_seconds: f64,
}

impl ManagerConfig {
    /// Longest time of one call where nobody names one.
    pub(crate) fn usual_seconds() -> f64 {
        60.0
    }
}

/// Places for copies of the ledger's head.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AnchorConfig {
    /// File to which a line is added, `NUMBER:DIGEST TIME`: best on another machine's disk. `vmgate ledger verify` holds the
    /// ledger against it.
    pub file: Option<PathBuf>,
    /// Command that is given the same line on its standard input, such as `curl` to a web address.
    pub command: Option<Vec<String>>,
}

vmgate_facts::schema_id!(ConfigSchema = "vmgate/config/v1");

/// Access to one host, and its availability for VMs.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HostConfig {
    /// Address of the host for `ssh`, such as `root@10.0.0.7` or `ssh://root@hv1:2222`; from the URI if not given.
    pub ssh: Option<String>,
    /// Command that runs `vmgate probe ask` on the host and prints its answer; replaces ssh.
    pub exec: Option<Vec<String>>,
    /// libvirt URI of the host, which may have all of libvirt's parameters, or `ssh://USER@HOST` where it has no libvirt. It is used wherever a command of the hook, a change file, an inventory or a
    /// record names this host, and a command line names it without `://`; without it an audit of all hosts leaves this host out.
    pub uri: Option<String>,
    /// Reason why the host must not be given VMs now; none while it may be given VMs.
    pub maintenance: Option<String>,
    /// Address for migrations to the host, where a command gives none with --migrate-address.
    pub migrate_address: Option<IpAddr>,
    /// Command that runs a shell script on the host: the script is added as the last argument, as for `ssh HOST` and `sh -c`.
    /// Replaces ssh for installing hooks and sending verdicts.
    pub shell: Option<Vec<String>>,
}

/// Access to one guest other than through its agent.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct GuestConfig {
    /// Address of the guest for `ssh`, such as `root@10.0.0.5` or `ssh://root@web1:2222`.
    pub ssh: Option<String>,
    /// Command that runs `vmgate probe ask` in that guest and prints its answer; takes precedence over ssh.
    pub exec: Option<Vec<String>>,
}

impl Config {
    /// Reads `named`, else [`DEFAULT_FILE`] if it exists, else takes the defaults.
    pub fn load(named: Option<&Path>) -> Result<Self, Problems> {
        let path = named.unwrap_or(Path::new(DEFAULT_FILE));
        if named.is_none() && path.symlink_metadata().is_err_and(|error| error.kind() == ErrorKind::NotFound)
        {
            return Ok(Self::default());
        }
        let config = Self::of(&SourceFile::read_trusted(path, LARGEST_BYTES)?)?;
        if config.ledger.as_ref().is_some_and(LedgerUrl::has_password) {
            // A password for everybody is none.
            vmgate_trust::read_secret(path, LARGEST_BYTES)
                .map_err(|why| Problem::of_untrusted(path, &why))?;
        }
        Ok(config.relative_to(path.parent().unwrap_or(Path::new(""))))
    }

    /// Parses a configuration from bytes. `name` is only for messages; paths stay as they are written.
    pub fn parse(name: &str, bytes: &[u8]) -> Result<Self, Problems> {
        Self::of(&SourceFile::new(name, bytes)?)
    }

    fn of(file: &Arc<SourceFile>) -> Result<Self, Problems> {
        let says_nothing = |line: &str| line.trim().is_empty() || line.trim().starts_with('#');
        if file.text.lines().all(says_nothing) {
            return Ok(Self::default());
        }
        let (config, _) = CONFIG.read(file, |root| wrong_timeout(file, root))?;
        Ok(config)
    }

    /// Longest wait for one answer, if set.
    pub fn timeout(&self) -> Option<Duration> {
        self.timeout_seconds.map(Duration::from_secs_f64)
    }

    fn relative_to(mut self, folder: &Path) -> Self {
        let ledger = match &mut self.ledger {
            Some(LedgerUrl::File(path)) => Some(path),
            _ => None,
        };
        let anchors = self.anchor.as_mut().and_then(|anchor| anchor.file.as_mut());
        let files = self
            .waivers
            .iter_mut()
            .chain(ledger)
            .chain(&mut self.inventory)
            .chain(&mut self.signing_key)
            .chain(anchors);
        self.rules
            .iter_mut()
            .chain(&mut self.trusted_keys)
            .chain(&mut self.facts_keys)
            .chain(&mut self.changes)
            .chain(files)
            .for_each(|path| *path = folder.join(&*path));
        self
    }
}

fn wrong_timeout(file: &Arc<SourceFile>, root: &Node) -> Vec<Problem> {
    let Some(node) = root.get("timeout_seconds") else { return Vec::new() };
    let fits = node.to_json().as_f64().is_none_or(|seconds| (0.01..=86_400.0).contains(&seconds));
    if fits {
        return Vec::new();
    }
    let problem = Problem::at(file, node.span.clone(), "`timeout_seconds` must be from 0.01 to 86400");
    vec![problem.label("out of range").help("leave it out for the default of 10")]
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn paths_are_relative_to_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("site.yaml");
        fs::write(
            &file,
            "rules: [site-rules]\nwaivers: waivers.yaml\nledger: ledger.db\ntimeout_seconds: 2.5\n",
        )
        .unwrap();
        let config = Config::load(Some(&file)).unwrap();
        assert_eq!(config.rules, [folder.path().join("site-rules")]);
        assert_eq!(config.waivers, Some(folder.path().join("waivers.yaml")));
        assert_eq!(config.ledger, Some(LedgerUrl::File(folder.path().join("ledger.db"))));
        assert_eq!(config.timeout(), Some(Duration::from_millis(2500)));
    }

    #[test]
    fn all_mistakes_are_errors_with_their_places() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("site.yaml");
        fs::write(
            &file,
            "profil: strict\ntimeout_seconds: 0\nhosts: {hv1: {shh: root@hv1, migrate_address: hv1}}\n",
        )
        .unwrap();
        let problems = Config::load(Some(&file)).unwrap_err().problems;
        let told: Vec<_> = problems.iter().map(|problem| (problem.message(), problem.position())).collect();
        assert_eq!(
            told,
            [
                ("`profil`: there is no such field", Some((1, 1))),
                ("`timeout_seconds` must be from 0.01 to 86400", Some((2, 18))),
                ("`hosts.hv1.shh`: there is no such field", Some((3, 15))),
                ("`hosts.hv1.migrate_address`: `hv1` is not an IP address", Some((3, 47))),
            ]
        );
        assert_eq!(problems[0].hint(), Some("did you mean `profile`?"));
    }

    #[test]
    fn a_named_file_that_is_missing_is_an_error() {
        let error = Config::load(Some(Path::new("no-such-file.yaml"))).unwrap_err().to_string();
        assert!(error.contains("no-such-file.yaml: cannot be read"), "{error}");
    }
}
