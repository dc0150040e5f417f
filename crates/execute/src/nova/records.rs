//! Nova's records: servers, computes and server groups.

use serde::Deserialize;
use serde_json::Value;
use ureq::http::StatusCode;
use vmgate_facts::{Uuid, text::plain};

use super::{Nova, NovaError};

/// Most pages of a list, each of a thousand where nobody changed that.
const MOST_PAGES: usize = 1000;

/// A server (instance).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Server {
    /// Its id, which is the UUID of its VM.
    pub id: String,
    /// Its name; any number of servers may have the same.
    pub name: String,
    /// `ACTIVE`, `PAUSED`, `MIGRATING`, …
    pub status: String,
    /// Name of its compute, which only administrators are shown.
    #[serde(rename = "OS-EXT-SRV-ATTR:host", default)]
    pub host: Option<String>,
    /// Name of its VM in libvirt.
    #[serde(rename = "OS-EXT-SRV-ATTR:instance_name", default)]
    pub instance_name: Option<String>,
    /// Task that Nova has in hand with it.
    #[serde(rename = "OS-EXT-STS:task_state", default)]
    pub task: Option<String>,
}

/// A nova-compute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compute {
    /// Its name in Nova's records (`host` of nova.conf).
    pub host: String,
    /// Name of the machine, as libvirt has it.
    pub hypervisor: String,
    /// True if it reports to Nova.
    pub is_up: bool,
    /// True if Nova places servers there.
    pub is_enabled: bool,
}

/// A server group: servers that belong on one compute, or apart.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ServerGroup {
    /// Its name.
    pub name: String,
    /// `affinity`, `anti-affinity`, and both with `soft-` before them. A list before microversion 2.64.
    #[serde(alias = "policies", deserialize_with = "one_or_first")]
    pub policy: String,
    /// Ids of its servers.
    #[serde(default)]
    pub members: Vec<String>,
}

fn one_or_first<'d, D: serde::Deserializer<'d>>(deserializer: D) -> Result<String, D::Error> {
    let value = Value::deserialize(deserializer)?;
    Ok(value.as_str().or_else(|| value.get(0)?.as_str()).unwrap_or_default().to_owned())
}

impl Nova {
    /// The server of this id or name; `None` if Nova has none. The name of its VM in libvirt is none of its names.
    pub fn server(&self, text: &str) -> Result<Option<Server>, NovaError> {
        if Uuid::parse(text).is_some() {
            return match self.server_by_id(text) {
                Err(NovaError::Refused { status: StatusCode::NOT_FOUND, .. }) => Ok(None),
                found => found.map(Some),
            };
        }
        // Nova takes an expression of its database: what it means by it is sorted out here.
        let found: Vec<Server> =
            self.list(&format!("/servers/detail?all_tenants=1&name={}", in_query(text)), "servers")?;
        let named: Vec<&Server> = found.iter().filter(|server| server.name == text).collect();
        match named.as_slice() {
            [] => Ok(None),
            [one] => Ok(Some((*one).clone())),
            several => {
                let ids: Vec<&str> = several.iter().map(|server| server.id.as_str()).collect();
                Err(NovaError::NotOne(format!(
                    "there are {} servers {}: give the id of one: {}",
                    ids.len(),
                    plain(text),
                    ids.join(", ")
                )))
            }
        }
    }

    pub(super) fn server_by_id(&self, id: &str) -> Result<Server, NovaError> {
        let path = format!("/servers/{}", in_query(id));
        read(&path, taken(&mut self.get(&path)?, "server"))
    }

    /// All computes.
    pub fn computes(&self) -> Result<Vec<Compute>, NovaError> {
        let hypervisors: Vec<Value> = self.list("/os-hypervisors/detail", "hypervisors")?;
        let text = |value: &Value| plain(value.as_str().unwrap_or_default());
        Ok(hypervisors
            .iter()
            .map(|one| Compute {
                host: text(one.pointer("/service/host").unwrap_or_default()),
                hypervisor: text(&one["hypervisor_hostname"]),
                is_up: one["state"] == "up",
                is_enabled: one["status"] == "enabled",
            })
            .collect())
    }

    /// The server groups of all projects.
    pub fn server_groups(&self) -> Result<Vec<ServerGroup>, NovaError> {
        self.list("/os-server-groups?all_projects=true", "server_groups")
    }

    /// True if the nova-compute of this name reports to Nova.
    pub(super) fn is_up(&self, host: &str) -> Result<bool, NovaError> {
        let path = format!("/os-services?binary=nova-compute&host={}", in_query(host));
        Ok(self.list::<Value>(&path, "services")?.iter().any(|service| service["state"] == "up"))
    }

    /// A whole list: Nova gives long ones in pages.
    pub(super) fn list<T: for<'d> Deserialize<'d>>(
        &self,
        path: &str,
        key: &str,
    ) -> Result<Vec<T>, NovaError> {
        let (mut all, mut page) = (Vec::new(), path.to_owned());
        for _ in 0..MOST_PAGES {
            let mut body = self.get(&page)?;
            all.extend(read::<Vec<T>>(path, taken(&mut body, key))?);
            let links = body.get(format!("{key}_links")).and_then(Value::as_array).into_iter().flatten();
            let next = links.filter(|link| link["rel"] == "next").find_map(|link| link["href"].as_str());
            let Some((_, query)) = next.and_then(|href| href.split_once('?')) else { return Ok(all) };
            page = format!("{}?{query}", path.split('?').next().unwrap_or_default());
        }
        Err(NovaError::Answer {
            url: path.to_owned(),
            why: format!("the list has more than {MOST_PAGES} pages"),
        })
    }
}

/// The value of a key; null where there is none.
pub(super) fn taken(object: &mut Value, key: &str) -> Value {
    object.get_mut(key).map(Value::take).unwrap_or_default()
}

fn read<T: for<'d> Deserialize<'d>>(path: &str, value: Value) -> Result<T, NovaError> {
    serde_json::from_value(value)
        .map_err(|why| NovaError::Answer { url: path.to_owned(), why: why.to_string() })
}

/// Percent-encoding of all but letters, digits, `-`, `_` and `.`.
pub(super) fn in_query(text: &str) -> String {
    let digit = |value: u8| char::from_digit(value.into(), 16).unwrap_or('0').to_ascii_uppercase();
    text.bytes().fold(String::new(), |mut out, byte| {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => out.push(byte.into()),
            other => out.extend(['%', digit(other >> 4), digit(other & 15)]),
        }
        out
    })
}
