//! The door to Nova: a live migration by the action `os-migrateLive`, followed in Nova's records.
//!
//! Nova answers before it has checked the move, and its client says "Complete" after a failure too: only the record of the
//! migration tells what became of it, and the events of the action why.

use std::{
    thread,
    time::{Duration, Instant},
};

use serde::Deserialize;
use serde_json::{Value, json};
use vmgate_facts::{Uuid, text::plain};

use super::{
    Compute, Nova, NovaError,
    records::{in_query, taken},
};
use crate::door::{DoorError, DoorQuestion, DoorState, Manager};

/// Longest wait for Nova's record of a migration that was ordered: the scheduler looks for the host before it is there.
const RECORDED_WITHIN: Duration = Duration::from_mins(1);
const PAUSE: Duration = Duration::from_secs(1);

/// Record of a migration. All but its id and state are for people.
#[derive(Debug, Deserialize)]
struct Migration {
    id: u64,
    status: String,
    #[serde(default)]
    source_compute: String,
}

impl Manager for Nova {
    fn start(&self, question: &DoorQuestion) -> Result<String, DoorError> {
        let id = server_id(question)?;
        let server = self.server_by_id(id)?;
        let computes = self.computes()?;
        let source = compute_of(&computes, question.source.label())?;
        let destination = compute_of(&computes, question.destination.label())?;
        match server.host {
            None => {
                return Err(DoorError::Refused(format!(
                    "Nova does not tell this user on which compute {} runs: the login needs the role that Nova's policy demands of \
                     administrators",
                    plain(&server.name)
                )));
            }
            Some(host) if host != source.host => {
                return Err(DoorError::Refused(format!(
                    "Nova has {} on {}, and it runs on {}: correct Nova's record first",
                    plain(&server.name),
                    plain(&host),
                    source.host
                )));
            }
            Some(_) => {}
        }
        let before = self.migrations(id)?.into_iter().map(|migration| migration.id).max();
        let order = json!({"os-migrateLive": {"host": destination.host, "block_migration": "auto"}});
        let unanswered =
            match self.request("POST", &format!("/servers/{}/action", in_query(id)), Some(&order)) {
                Ok(_) => None,
                Err(error) if error.is_unanswered() => Some(error),
                Err(error) => return Err(error.into()),
            };
        let end = Instant::now() + RECORDED_WITHIN;
        let mut last = unanswered.as_ref().map(ToString::to_string);
        while Instant::now() < end {
            match self.newest_since(id, before) {
                Ok(Some(migration)) => return Ok(migration.id.to_string()),
                Ok(None) => {}
                Err(error) => last = Some(error.to_string()),
            }
            thread::sleep(PAUSE);
        }
        let last = last.unwrap_or_else(|| "it has no record of the migration".to_owned());
        Err(DoorError::Unclear(format!("within {} s: {last}", RECORDED_WITHIN.as_secs())))
    }

    fn progress(&self, question: &DoorQuestion) -> Result<DoorState, DoorError> {
        let (id, migration) = ids(question)?;
        let migrations = self.migrations(id)?;
        let Some(record) = migrations.iter().find(|one| one.id.to_string() == migration) else {
            return Err(DoorError::Refused(format!("Nova has no migration {migration} of server {id}")));
        };
        match record.status.as_str() {
            "completed" => Ok(DoorState::Finished),
            status @ ("failed" | "error" | "cancelled") => {
                let why =
                    self.reason(id).unwrap_or_else(|error| format!("its events cannot be read: {error}"));
                Ok(DoorState::Failed {
                    why: format!("migration {migration} has the state {}{why}", plain(status)),
                })
            }
            _ if self.is_up(&record.source_compute)? => Ok(DoorState::Running),
            _ => Err(DoorError::Refused(format!(
                "nova-compute on {} is down, so that Nova's record of migration {migration} stands still: start it there",
                plain(&record.source_compute)
            ))),
        }
    }

    fn abort(&self, question: &DoorQuestion) -> Result<(), DoorError> {
        let (id, migration) = ids(question)?;
        self.request(
            "DELETE",
            &format!("/servers/{}/migrations/{}", in_query(id), in_query(migration)),
            None,
        )?;
        Ok(())
    }

    fn recorded_host(&self, question: &DoorQuestion) -> Result<String, DoorError> {
        let host = self.server_by_id(server_id(question)?)?.host.unwrap_or_default();
        let computes = self.computes()?;
        let machine =
            computes.into_iter().find(|compute| compute.host == host).map(|compute| compute.hypervisor);
        Ok(machine.unwrap_or_else(|| plain(&host)))
    }
}

impl Nova {
    /// Live migrations of a server, in any state.
    fn migrations(&self, server: &str) -> Result<Vec<Migration>, NovaError> {
        self.list(
            &format!("/os-migrations?migration_type=live-migration&instance_uuid={}", in_query(server)),
            "migrations",
        )
    }

    fn newest_since(&self, server: &str, before: Option<u64>) -> Result<Option<Migration>, NovaError> {
        let all = self.migrations(server)?;
        Ok(all.into_iter().filter(|one| Some(one.id) > before).max_by_key(|one| one.id))
    }

    /// Words of the events of the newest live migration, to be put behind its state; empty where Nova has none.
    fn reason(&self, server: &str) -> Result<String, NovaError> {
        let path = format!("/servers/{}/os-instance-actions", in_query(server));
        let actions: Vec<Value> = self.list(&path, "instanceActions")?;
        let newest = actions.iter().find(|action| action["action"] == "live-migration");
        let Some(request) = newest.and_then(|action| action["request_id"].as_str()) else {
            return Ok(String::new());
        };
        let action = taken(&mut self.get(&format!("{path}/{}", in_query(request)))?, "instanceAction");
        let events = action.get("events").and_then(Value::as_array).into_iter().flatten();
        let failed = events.filter(|event| event["result"] == "Error").filter_map(|event| {
            // Before microversion 2.84 the words are only in the last line of the trace.
            let trace = || event["traceback"].as_str().and_then(|trace| trace.trim_end().lines().last());
            event["details"].as_str().or_else(trace).map(|words| plain(words.trim()))
        });
        let mut words: Vec<String> = failed.filter(|words| !words.is_empty()).collect();
        words.dedup();
        Ok(match words.as_slice() {
            [] => {
                "; Nova's API has no reason, which stands in the log of nova-compute on the source".to_owned()
            }
            words => format!(": {}", words.join("; ")),
        })
    }
}

fn server_id<'a>(question: &DoorQuestion<'a>) -> Result<&'a str, DoorError> {
    question
        .vm
        .uuid
        .as_ref()
        .map(Uuid::as_str)
        .ok_or_else(|| DoorError::Refused("the VM has no UUID, by which Nova knows it".to_owned()))
}

fn ids<'a>(question: &'a DoorQuestion<'a>) -> Result<(&'a str, &'a str), DoorError> {
    let migration = question.migration.as_deref();
    Ok((
        server_id(question)?,
        migration.ok_or_else(|| DoorError::Refused("the migration has no id".to_owned()))?,
    ))
}

/// The compute on a machine, by libvirt's name for it.
fn compute_of<'a>(computes: &'a [Compute], machine: &str) -> Result<&'a Compute, DoorError> {
    computes.iter().find(|compute| compute.hypervisor.eq_ignore_ascii_case(machine)).ok_or_else(|| {
        let known: Vec<&str> = computes.iter().map(|compute| compute.hypervisor.as_str()).collect();
        DoorError::Refused(format!("Nova has no compute on {machine}; it has {}", known.join(", ")))
    })
}
