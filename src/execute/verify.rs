//! After the migration: the VM runs on the destination and only there, and what worked before works now.

use std::{
    thread,
    time::{Duration, Instant},
};

use crate::{
    collect::{domain_xml, libvirt::Domain},
    fact::VmNic,
};

/// How long the guest gets to answer and its interfaces to be there.
const PATIENCE: Duration = Duration::from_secs(10);

/// What worked before the migration, and so must work after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Baseline {
    agent_answers: bool,
    links_up: Vec<String>,
}

/// One thing that was looked at after the migration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// What was looked at.
    pub what: &'static str,
    /// What is wrong with it; `None` where it is as it was.
    pub trouble: Option<String>,
}

impl Baseline {
    /// What works now.
    pub(super) fn of(domain: &Domain) -> Result<Self, String> {
        Ok(Self { agent_answers: domain.guest_time().is_ok(), links_up: links_up(domain)? })
    }

    /// Holds the domain on the destination against what worked before, waiting a little for it to settle.
    pub(super) fn verify(&self, domain: &Domain) -> Vec<Verified> {
        let interfaces = Verified { what: "interfaces up", trouble: settled(|| self.interfaces(domain)) };
        if !self.agent_answers {
            return vec![interfaces];
        }
        let agent = settled(|| domain.guest_time().err().map(|error| error.to_string()));
        vec![Verified { what: "guest agent answers", trouble: agent }, interfaces]
    }

    fn interfaces(&self, domain: &Domain) -> Option<String> {
        let up = match links_up(domain) {
            Ok(up) => up,
            Err(error) => return Some(error),
        };
        let missing: Vec<_> =
            self.links_up.iter().filter(|mac| !up.contains(mac)).map(String::as_str).collect();
        (!missing.is_empty()).then(|| {
            format!(
                "{} was up before and is not now; look at its bridge or network there",
                missing.join(", ")
            )
        })
    }
}

/// Hardware addresses of the interfaces that are up and have a device on the host.
fn links_up(domain: &Domain) -> Result<Vec<String>, String> {
    let xml = domain.xml().map_err(|error| error.to_string())?;
    let config = domain_xml::parse(&xml)
        .map_err(|error| format!("libvirt's domain XML is not well-formed: {error}"))?;
    let attached = |nic: &VmNic| {
        nic.link_up && (nic.tap.is_some() || !matches!(nic.kind.as_str(), "bridge" | "network"))
    };
    Ok(config.nics.into_iter().filter(attached).map(|nic| nic.mac).collect())
}

/// Looks again until nothing is wrong or patience is over.
fn settled(look: impl Fn() -> Option<String>) -> Option<String> {
    let start = Instant::now();
    loop {
        let trouble = look();
        if trouble.is_none() || start.elapsed() > PATIENCE {
            return trouble;
        }
        thread::sleep(Duration::from_millis(200));
    }
}
