//! `vmgate.yaml`: what a site sets once for all its checks.

use std::{
    collections::BTreeMap,
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;
use thiserror::Error;

use crate::rule::ParamOverrides;

/// The file that is read from the current folder when none is named.
pub const DEFAULT_FILE: &str = "vmgate.yaml";

/// Settings of a site. Paths are relative to the file.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Names this format; may be left out.
    schema: Option<ConfigSchema>,
    /// Folders with further rules.
    pub rules: Vec<PathBuf>,
    /// Named set of rule parameters.
    pub profile: Option<String>,
    /// Values of rule parameters, by rule id and parameter name.
    pub parameters: ParamOverrides,
    /// File of waivers.
    pub waivers: Option<PathBuf>,
    /// The ledger.
    pub ledger: Option<PathBuf>,
    /// Private key that `vmgate migrate` signs verdicts with, for destinations that demand it.
    pub signing_key: Option<PathBuf>,
    /// Longest wait for one answer of a host or guest, in seconds.
    #[serde(deserialize_with = "seconds")]
    pub timeout_seconds: Option<Duration>,
    /// How hosts are reached, by the host name in their URI.
    pub hosts: BTreeMap<String, HostConfig>,
    /// How guests are looked into, by the VM's name as it is given to vmgate.
    pub guests: BTreeMap<String, GuestConfig>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
enum ConfigSchema {
    #[serde(rename = "vmgate/config/v1")]
    V1,
}

/// How one host is reached, and whether it takes VMs.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HostConfig {
    /// Where `ssh` finds the host, such as `root@10.0.0.7` or `ssh://root@hv1:2222`; from the URI if not given.
    pub ssh: Option<String>,
    /// A command that runs `vmgate probe host` there and prints its answer; takes the place of ssh.
    pub exec: Option<Vec<String>>,
    /// libvirt's URI of the host, for `vmgate audit`; none leaves the host out where no host is named.
    pub uri: Option<String>,
    /// Why the host is not to be given VMs now; none while it may be.
    pub maintenance: Option<String>,
    /// Address that migrations to the host go to, for `vmgate audit`.
    pub migrate_address: Option<IpAddr>,
    /// A command that runs a shell script there: the script is added as one last argument, as `ssh HOST` and `sh -c`
    /// take it. Hooks are installed and verdicts brought by it instead of by ssh.
    pub shell: Option<Vec<String>>,
}

/// How one guest is looked into, where not through its agent.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GuestConfig {
    /// Where `ssh` finds the guest, such as `root@10.0.0.5` or `ssh://root@web1:2222`.
    pub ssh: Option<String>,
    /// A command that prints the answer of `vmgate probe guest` of that guest; goes before ssh.
    pub exec: Option<Vec<String>>,
}

/// A configuration file that cannot be used.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("{}: cannot be read", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not a configuration.
    #[error("{}: {problem}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and where.
        problem: String,
    },
}

impl Config {
    /// Reads `named`, or [`DEFAULT_FILE`] where it exists, or takes the defaults.
    pub fn load(named: Option<&Path>) -> Result<Self, ConfigError> {
        let path = named.unwrap_or(Path::new(DEFAULT_FILE));
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(missing) if named.is_none() && missing.kind() == io::ErrorKind::NotFound => {
                return Ok(Self::default());
            }
            Err(source) => return Err(ConfigError::Unreadable { path: path.to_owned(), source }),
        };
        let config: Self = if text.trim().is_empty() {
            Self::default()
        } else {
            serde_yaml::from_str(&text).map_err(|problem| ConfigError::Invalid {
                path: path.to_owned(),
                problem: problem.to_string(),
            })?
        };
        Ok(config.relative_to(path.parent().unwrap_or(Path::new(""))))
    }

    fn relative_to(mut self, folder: &Path) -> Self {
        let files = self.waivers.iter_mut().chain(self.ledger.as_mut()).chain(self.signing_key.as_mut());
        self.rules.iter_mut().chain(files).for_each(|path| *path = folder.join(&*path));
        self
    }
}

fn seconds<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let Some(number) = Option::<f64>::deserialize(deserializer)? else { return Ok(None) };
    if (0.01..=86_400.0).contains(&number) {
        Ok(Some(Duration::from_secs_f64(number)))
    } else {
        Err(serde::de::Error::custom("timeout_seconds must be from 0.01 to 86400"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_relative_to_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("site.yaml");
        fs::write(&file, "rules: [site-rules]\nwaivers: waivers.yaml\ntimeout_seconds: 2.5\n").unwrap();
        let config = Config::load(Some(&file)).unwrap();
        assert_eq!(config.rules, [folder.path().join("site-rules")]);
        assert_eq!(config.waivers, Some(folder.path().join("waivers.yaml")));
        assert_eq!(config.timeout_seconds, Some(Duration::from_millis(2500)));
    }

    #[test]
    fn a_misspelt_setting_is_an_error_that_names_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("site.yaml");
        fs::write(&file, "profil: strict\n").unwrap();
        let text = Config::load(Some(&file)).unwrap_err().to_string();
        assert!(text.contains("site.yaml") && text.contains("profil"), "{text}");
    }

    #[test]
    fn a_named_file_that_is_missing_is_an_error() {
        assert!(matches!(
            Config::load(Some(Path::new("no-such-file.yaml"))),
            Err(ConfigError::Unreadable { .. })
        ));
    }
}
