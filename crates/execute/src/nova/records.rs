//! Nova's records: servers, computes and server groups.

use std::collections::BTreeMap;

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
    /// Availability zone that it is in.
    #[serde(rename = "OS-EXT-AZ:availability_zone", default)]
    zone: Option<String>,
    /// Availability zone that was asked for, null if none was. Absent before microversion 2.96.
    #[serde(rename = "pinned_availability_zone", default, deserialize_with = "present")]
    zone_asked_for: Option<Value>,
    #[serde(default)]
    flavor: Flavor,
}

/// Flavor of a server.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
struct Flavor {
    #[serde(default)]
    extra_specs: BTreeMap<String, String>,
}

/// Aggregate of computes.
#[derive(Debug, Deserialize)]
struct Aggregate {
    #[serde(default)]
    hosts: Vec<String>,
    #[serde(default)]
    metadata: BTreeMap<String, String>,
}

/// Availability zone with its computes.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Zone {
    zone_name: String,
    #[serde(default)]
    hosts: Option<BTreeMap<String, Value>>,
}

/// Key of the availability zone in the metadata of aggregates.
pub const ZONE: &str = "availability_zone";
/// Scope of the keys of a flavor that a compute's aggregates must have.
const OF_AGGREGATE: &str = "aggregate_instance_extra_specs:";

impl Server {
    /// Metadata that its compute's aggregates must have, by key and value: its zone, and what its flavor asks for. Where Nova does not
    /// tell which zone was asked for, it is the one that the server is in. Values with operators are left to Nova.
    pub fn asks_for(&self) -> Vec<(&str, &str)> {
        let zone = match &self.zone_asked_for {
            Some(asked) => asked.as_str(),
            None => self.zone.as_deref().filter(|zone| !zone.is_empty()),
        };
        let specs = self.flavor.extra_specs.iter().filter_map(|(key, value)| {
            let is_plain = !value.contains(['<', '=', '>']);
            Some((key.strip_prefix(OF_AGGREGATE)?, value.as_str())).filter(|_| is_plain)
        });
        zone.map(|zone| (ZONE, zone)).into_iter().chain(specs).collect()
    }
}

/// A value that is there, even if it is null.
fn present<'d, D: serde::Deserializer<'d>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
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

    /// The servers of a compute.
    pub fn servers_on(&self, compute: &str) -> Result<Vec<Server>, NovaError> {
        self.list(&format!("/servers/detail?all_tenants=1&host={}", in_query(compute)), "servers")
    }

    /// Metadata of the aggregates of each compute, as key and value, with its availability zone.
    pub fn aggregate_metadata(&self) -> Result<BTreeMap<String, Vec<(String, String)>>, NovaError> {
        let aggregates: Vec<Aggregate> = self.list("/os-aggregates", "aggregates")?;
        let zones: Vec<Zone> = self.list("/os-availability-zone/detail", "availabilityZoneInfo")?;
        let mut found: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
        for Aggregate { hosts, metadata } in aggregates {
            // A value may be a list, any part of which will do.
            let parts = |(key, value): (&String, &String)| -> Vec<(String, String)> {
                value.split(',').map(|part| (key.clone(), part.trim().to_owned())).collect()
            };
            for host in hosts {
                found.entry(host).or_default().extend(metadata.iter().flat_map(parts));
            }
        }
        for Zone { zone_name, hosts } in zones {
            for host in hosts.unwrap_or_default().into_keys() {
                found.entry(host).or_default().push((ZONE.to_owned(), zone_name.clone()));
            }
        }
        Ok(found)
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_server_keeps_to_the_zone_that_was_asked_for_and_to_the_aggregates_of_its_flavor() {
        let server = |more: Value| -> Server {
            let mut all =
                json!({"id": "u", "name": "web", "status": "ACTIVE", "OS-EXT-AZ:availability_zone": "az1"});
            all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            serde_json::from_value(all).unwrap()
        };
        assert_eq!(server(json!({})).asks_for(), [(ZONE, "az1")], "an older Nova does not tell");
        assert_eq!(server(json!({"pinned_availability_zone": null})).asks_for(), []);
        let specs = json!({"aggregate_instance_extra_specs:ssd": "true", "hw:cpu_policy": "shared",
                           "aggregate_instance_extra_specs:cores": ">= 8"});
        let asked = server(json!({"pinned_availability_zone": "az2", "flavor": {"extra_specs": specs}}));
        assert_eq!(asked.asks_for(), [(ZONE, "az2"), ("ssd", "true")]);
        assert_eq!(server(json!({"flavor": {"id": "1", "links": []}})).asks_for().len(), 1);
    }
}
