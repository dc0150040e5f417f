//! Login to an OpenStack cloud, as OpenStack's own clients read it: `clouds.yaml`, or variables `OS_…` of the environment.

use std::{
    collections::BTreeMap,
    env, fmt,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::NovaError;

/// Most bytes of `clouds.yaml`, `secure.yaml` and of a file of certificates.
const MOST_BYTES: u64 = 4 << 20;

/// Cloud and login. `Debug` shows no secret.
#[derive(Clone)]
pub struct Cloud {
    /// Settings by their names in `clouds.yaml`; those of `auth` are among them.
    settings: BTreeMap<String, String>,
}

impl fmt::Debug for Cloud {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cloud").field("auth_url", &self.get("auth_url")).finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct CloudsFile {
    #[serde(default)]
    clouds: BTreeMap<String, Value>,
}

impl Cloud {
    /// Finds the login: the cloud of this name in `clouds.yaml`, else that of `OS_CLOUD`, else the variables. `None` if the
    /// environment names no cloud at all.
    pub fn find(name: Option<&str>) -> Result<Option<Self>, NovaError> {
        let variables = env::vars().filter_map(|(name, value)| {
            let name = name.strip_prefix("OS_")?.to_ascii_lowercase();
            (!value.is_empty()).then_some((name, value))
        });
        Self::find_in(name, variables.collect(), &files())
    }

    fn find_in(
        name: Option<&str>,
        mut variables: BTreeMap<String, String>,
        files: &[PathBuf],
    ) -> Result<Option<Self>, NovaError> {
        let Some(name) = name.map(str::to_owned).or_else(|| variables.remove("cloud")) else {
            return Ok(variables.contains_key("auth_url").then_some(Self { settings: variables }));
        };
        let shown = || files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(", ");
        let file = files.iter().find(|file| file.exists()).ok_or_else(|| {
            NovaError::Login(format!(
                "the cloud `{name}` is looked for in clouds.yaml, and there is none: {}",
                shown()
            ))
        })?;
        let mut clouds = read(file)?;
        let Some(mut cloud) = clouds.remove(&name) else {
            let known: Vec<_> = clouds.into_keys().collect();
            let file = file.display();
            return Err(NovaError::Login(format!(
                "{file} has no cloud `{name}`; it has {}",
                if known.is_empty() { "none".to_owned() } else { known.join(", ") }
            )));
        };
        let secrets = file.with_file_name("secure.yaml");
        if secrets.exists() {
            merge(&mut cloud, read(&secrets)?.remove(&name).unwrap_or_default());
        }
        let mut settings = BTreeMap::new();
        flatten(&cloud, &mut settings);
        // As in OpenStack's clients, a region of the environment chooses among those of the cloud.
        settings.extend(variables.remove_entry("region_name"));
        let cloud = Self { settings };
        cloud.need("auth_url")?;
        Ok(Some(cloud))
    }

    /// URL of keystone, version 3.
    pub(super) fn keystone(&self) -> Result<String, NovaError> {
        let url = self.need("auth_url")?.trim_end_matches('/');
        Ok(if url.ends_with("/v3") { url.to_owned() } else { format!("{url}/v3") })
    }

    /// Region of the endpoints; any where none is named.
    pub(super) fn region(&self) -> Option<&str> {
        self.get("region_name")
    }

    /// Kind of endpoint that is asked.
    pub(super) fn interface(&self) -> &str {
        let interface = self.get("interface").or_else(|| self.get("endpoint_type")).unwrap_or("public");
        interface.trim_end_matches("URL")
    }

    /// Trusted certificate authorities in PEM; `None` for those of the system.
    pub(super) fn authorities(&self) -> Result<Option<Vec<u8>>, NovaError> {
        if matches!(self.get("verify"), Some("false" | "False"))
            || self.get("insecure").is_some_and(|value| value != "false")
        {
            return Err(NovaError::Login(
                "the login asks not to verify certificates, and a token is never sent to a server that nobody vouches for: name the \
                 authority of the cloud with `cacert`"
                    .to_owned(),
            ));
        }
        let Some(file) = self.get("cacert") else { return Ok(None) };
        // Who can write this file decides which server gets the password.
        let bytes = vmgate_trust::read(Path::new(file), MOST_BYTES);
        bytes.map(Some).map_err(|why| NovaError::Login(format!("cacert: {why}")))
    }

    /// Body of the request for a token.
    pub(super) fn token_request(&self) -> Result<Value, NovaError> {
        let domain = |whose: &str| {
            self.reference(&format!("{whose}_domain"), &["domain", "default_domain"], "default")
        };
        let mut scope = None;
        let identity = if let Some(secret) = self.get("application_credential_secret") {
            let credential = if let Some(id) = self.get("application_credential_id") {
                json!({"secret": secret, "id": id})
            } else {
                let name = self.need("application_credential_name")?;
                json!({"secret": secret, "name": name, "user": self.user(&domain("user"))?})
            };
            json!({"methods": ["application_credential"], "application_credential": credential})
        } else {
            let mut user = self.user(&domain("user"))?;
            user.insert("password".to_owned(), json!(self.need("password")?));
            scope =
                Some(match (self.get("project_id"), self.get("project_name"), self.get("system_scope")) {
                    (Some(id), ..) => json!({"project": {"id": id}}),
                    (None, Some(name), _) => json!({"project": {"name": name, "domain": domain("project")}}),
                    (None, None, Some(_)) => json!({"system": {"all": true}}),
                    (None, None, None) => {
                        return Err(NovaError::Login("the login names no project_name".to_owned()));
                    }
                });
            json!({"methods": ["password"], "password": {"user": user}})
        };
        let mut auth = Map::from_iter([("identity".to_owned(), identity)]);
        auth.extend(scope.map(|scope| ("scope".to_owned(), scope)));
        Ok(json!({"auth": auth}))
    }

    fn user(&self, domain: &Value) -> Result<Map<String, Value>, NovaError> {
        let fields = match self.get("user_id") {
            Some(id) => vec![("id", json!(id))],
            None => vec![("name", json!(self.need("username")?)), ("domain", domain.clone())],
        };
        Ok(fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
    }

    /// Reference by id or name: of this setting, else of one of the others, else to this id.
    fn reference(&self, setting: &str, others: &[&str], id: &str) -> Value {
        let named = |setting: &str| {
            let id = self.get(&format!("{setting}_id")).map(|id| json!({"id": id}));
            id.or_else(|| self.get(&format!("{setting}_name")).map(|name| json!({"name": name})))
        };
        let mut all = std::iter::once(setting).chain(others.iter().copied());
        all.find_map(named).unwrap_or_else(|| json!({"id": id}))
    }

    fn get(&self, setting: &str) -> Option<&str> {
        self.settings.get(setting).map(String::as_str)
    }

    fn need(&self, setting: &str) -> Result<&str, NovaError> {
        self.get(setting).ok_or_else(|| {
            NovaError::Login(format!(
                "the login has no {setting}: name it in clouds.yaml, or in OS_{}",
                setting.to_ascii_uppercase()
            ))
        })
    }
}

/// Places of `clouds.yaml`, in the order of OpenStack's clients.
fn files() -> Vec<PathBuf> {
    if let Some(file) = env::var_os("OS_CLIENT_CONFIG_FILE") {
        return vec![file.into()];
    }
    let home = env::var_os("HOME").map(|home| Path::new(&home).join(".config"));
    let user = env::var_os("XDG_CONFIG_HOME").filter(|folder| !folder.is_empty()).map(PathBuf::from).or(home);
    let folders = [
        Some(PathBuf::from(".")),
        user.map(|folder| folder.join("openstack")),
        Some("/etc/openstack".into()),
    ];
    folders.into_iter().flatten().map(|folder| folder.join("clouds.yaml")).collect()
}

/// Clouds of a file, by name. Who can write it decides which server gets the password.
fn read(file: &Path) -> Result<BTreeMap<String, Value>, NovaError> {
    let bytes = vmgate_trust::read(file, MOST_BYTES).map_err(|why| NovaError::Login(why.to_string()))?;
    let read = serde_yaml::from_slice::<serde_yaml::Value>(&bytes).and_then(|mut value| {
        // `<<: *other`, which a cloud for each region is often written with.
        value.apply_merge()?;
        serde_yaml::from_value::<CloudsFile>(value)
    });
    read.map(|file| file.clouds).map_err(|why| NovaError::Login(format!("{}: {why}", file.display())))
}

/// Lays `over` upon a value, objects key by key.
fn merge(value: &mut Value, over: Value) {
    match (value, over) {
        (Value::Object(value), Value::Object(over)) => {
            for (key, over) in over {
                merge(value.entry(key).or_insert(Value::Null), over);
            }
        }
        (_, Value::Null) => {}
        (value, over) => *value = over,
    }
}

/// Texts, numbers and truth values of an object, and of its `auth`.
fn flatten(value: &Value, into: &mut BTreeMap<String, String>) {
    for (key, value) in value.as_object().into_iter().flatten() {
        match value {
            Value::Object(_) if key == "auth" => flatten(value, into),
            Value::String(text) => drop(into.insert(key.clone(), text.clone())),
            Value::Bool(_) | Value::Number(_) => drop(into.insert(key.clone(), value.to_string())),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn variables(text: &str) -> BTreeMap<String, String> {
        text.split_whitespace()
            .map(|pair| pair.split_once('=').unwrap())
            .map(|(key, value)| (key.into(), value.into()))
            .collect()
    }

    #[test]
    fn an_environment_without_openstack_names_no_cloud() {
        assert!(Cloud::find_in(None, variables("username=me"), &[]).unwrap().is_none());
        let error =
            Cloud::find_in(Some("prod"), BTreeMap::new(), &["/nowhere/clouds.yaml".into()]).unwrap_err();
        assert!(error.to_string().contains("/nowhere/clouds.yaml"), "{error}");
    }

    #[test]
    fn variables_are_a_login_with_a_password() {
        let given = "auth_url=https://k:5000/v3/ username=admin password=p project_name=admin user_domain_name=Default";
        let cloud = Cloud::find_in(None, variables(given), &[]).unwrap().unwrap();
        assert_eq!(cloud.keystone().unwrap(), "https://k:5000/v3");
        let wanted = json!({"auth": {
            "identity": {"methods": ["password"], "password": {"user": {"name": "admin", "domain": {"name": "Default"}, "password": "p"}}},
            "scope": {"project": {"name": "admin", "domain": {"id": "default"}}}}});
        assert_eq!(cloud.token_request().unwrap(), wanted);
        assert!(!format!("{cloud:?}").contains("\"p\""));
        let no_password = variables("auth_url=http://k username=admin project_name=admin");
        let error = Cloud::find_in(None, no_password, &[]).unwrap().unwrap().token_request().unwrap_err();
        assert!(error.to_string().contains("OS_PASSWORD"), "{error}");
    }

    #[test]
    fn a_cloud_is_read_with_its_secrets_and_an_application_credential() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("clouds.yaml");
        let text = "clouds:\n  prod: &prod\n    auth_type: v3applicationcredential\n    region_name: North\n    auth: {auth_url: 'http://k:5000', \
                    application_credential_id: a1}\n\n  south:\n    <<: *prod\n    region_name: South\n";
        fs::write(&file, text).unwrap();
        let secret = "clouds: {prod: {auth: {application_credential_secret: s3}}}";
        fs::write(folder.path().join("secure.yaml"), secret).unwrap();
        let find = |name: &str, given: &str| {
            Cloud::find_in(Some(name), variables(given), std::slice::from_ref(&file))
        };
        let cloud = find("prod", "").unwrap().unwrap();
        assert_eq!((cloud.keystone().unwrap().as_str(), cloud.region()), ("http://k:5000/v3", Some("North")));
        let credential = json!({"auth": {"identity": {"methods": ["application_credential"],
            "application_credential": {"id": "a1", "secret": "s3"}}}});
        assert_eq!(cloud.token_request().unwrap(), credential);
        assert_eq!(find("prod", "region_name=South").unwrap().unwrap().region(), Some("South"));
        assert_eq!(find("south", "").unwrap().unwrap().keystone().unwrap(), "http://k:5000/v3");
        let unknown = find("test", "").unwrap_err().to_string();
        assert!(unknown.contains("no cloud `test`; it has prod, south"), "{unknown}");
    }

    #[test]
    fn a_login_that_would_not_verify_certificates_is_refused() {
        for given in ["auth_url=https://k verify=false", "auth_url=https://k insecure=true"] {
            let cloud = Cloud::find_in(None, variables(given), &[]).unwrap().unwrap();
            assert!(cloud.authorities().unwrap_err().to_string().contains("cacert"));
        }
    }
}
