//! Limits of a trusted key: when it is valid, and which VMs from which hosts it may sign for.

use std::{fmt, str::FromStr};

use jiff::{Timestamp, civil::Date, tz::TimeZone};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use vmgate_attest::Permit;

use vmgate_facts::{Uuid, text::glob};

/// Limits of a key, under the name of its file in hook.yaml. What is left out has no limit.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", default)]
pub struct KeyRule {
    /// First moment of its validity; a date means its beginning in UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Moment>,
    /// Last moment of its validity; a date means its end in UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_after: Option<Moment>,
    /// VMs that it may sign for: UUIDs, or names in which `*` and `?` stand for other characters.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub vms: Vec<String>,
    /// Hosts from which these VMs may come: UUIDs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<String>,
}

/// A point in time, or a day in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, JsonSchema)]
#[schemars(with = "String")]
pub enum Moment {
    /// A point in time.
    Time(Timestamp),
    /// A day.
    Day(Date),
}

impl FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let time = text.parse().map(Self::Time).ok();
        time.or_else(|| text.parse().map(Self::Day).ok()).ok_or_else(|| {
            format!("`{text}` is not a day such as 2027-06-30, nor a time such as 2027-06-30T12:00:00Z")
        })
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Time(time) => time.fmt(f),
            Self::Day(day) => day.fmt(f),
        }
    }
}

vmgate_facts::serde_by_text!(Moment);

impl Moment {
    fn begins(self) -> Timestamp {
        match self {
            Self::Time(time) => time,
            Self::Day(day) => day.to_zoned(TimeZone::UTC).map_or(Timestamp::MAX, |day| day.timestamp()),
        }
    }

    /// First moment that is no longer part of it.
    fn ends(self) -> Timestamp {
        match self {
            Self::Time(time) => time,
            Self::Day(day) => day.tomorrow().map_or(Timestamp::MIN, |next| Self::Day(next).begins()),
        }
    }
}

/// True if a text of hook.yaml is this UUID.
fn is_uuid(allowed: &str, uuid: Option<&Uuid>) -> bool {
    uuid.is_some() && Uuid::parse(allowed).as_ref() == uuid
}

impl KeyRule {
    /// Reason why the key is not valid at `now`.
    pub fn invalid_at(&self, now: Timestamp) -> Option<String> {
        match (self.not_before, self.not_after) {
            (Some(first), _) if now < first.begins() => {
                Some(format!("it is valid from {first} on, and the time is {now}"))
            }
            (_, Some(last)) if last.ends() <= now => {
                Some(format!("it expired (`not-after: {last}`), and the time is {now}"))
            }
            _ => None,
        }
    }

    /// Reason why the key may not sign for a move. `incoming` is the VM's name at libvirt; a VM of a wide name with the UUID
    /// of another one is not let in.
    pub fn forbids(&self, permit: &Permit, incoming: Option<&str>) -> Option<String> {
        let vm = &permit.moved.vm;
        if !self.vms.is_empty() {
            let uuid = vm.uuid.as_ref();
            let names: Vec<&str> = vm.name.as_deref().into_iter().chain(incoming).collect();
            let by_name =
                |pattern: &str| !names.is_empty() && names.iter().all(|name| glob::fits(pattern, name));
            if !self.vms.iter().any(|allowed| is_uuid(allowed, uuid) || by_name(allowed)) {
                return Some(format!(
                    "`vms` in hook.yaml allows {}, and the VM is {} ({})",
                    self.vms.join(", "),
                    names.join(", here "),
                    uuid.map_or("without a UUID", Uuid::as_str),
                ));
            }
        }
        let source = permit.moved.source.uuid.as_ref();
        if !self.sources.is_empty() && !self.sources.iter().any(|allowed| is_uuid(allowed, source)) {
            return Some(format!(
                "`sources` in hook.yaml allows {}, and the source host is {}",
                self.sources.join(", "),
                source.map_or("(not named)", Uuid::as_str)
            ));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_counts_whole_and_a_moment_to_the_second() {
        let rule: KeyRule =
            serde_json::from_str(r#"{"not-before": "2026-11-01", "not-after": "2026-11-30"}"#).unwrap();
        let at = |text: &str| rule.invalid_at(text.parse().unwrap());
        assert!(at("2026-10-31T23:59:59Z").unwrap().contains("valid from 2026-11-01"));
        assert_eq!((at("2026-11-01T00:00:00Z"), at("2026-11-30T23:59:59Z")), (None, None));
        assert!(at("2026-12-01T00:00:00Z").unwrap().contains("expired"));
        let rule: KeyRule = serde_json::from_str(r#"{"not-after": "2026-11-30T12:00:00Z"}"#).unwrap();
        assert!(rule.invalid_at("2026-11-30T12:00:00Z".parse().unwrap()).is_some());
        assert!(
            serde_json::from_str::<KeyRule>(r#"{"not-after": "soon"}"#)
                .unwrap_err()
                .to_string()
                .contains("2027-06-30")
        );
    }
}
