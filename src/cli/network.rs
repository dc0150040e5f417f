//! `--probe-network`: the switchover is rehearsed on the VM's networks before the verdict, and the time until they followed is a
//! fact, in the ledger too.

use std::sync::atomic::AtomicBool;

use vmgate_execute::{Hosts, NetworkRehearsalOrder};
use vmgate_facts::{Fact, Facts, Host, NetworkRehearsal, Provenance};
use vmgate_ledger::{Entry, Ledger, NetworkRehearsed};
use vmgate_verdict::NameAndUuid;

use super::{Failure, hook, output, session::Session};

/// Rehearses on all networks of the VM, whatever is known of them.
pub(super) fn rehearse(
    hosts: &Hosts,
    session: &Session,
    (ledger, stop): (Option<&Ledger>, &AtomicBool),
    facts: &mut Facts,
) -> Result<(), Failure> {
    if let Fact::Known(path) = &mut facts.path {
        path.network_rehearsals = Fact::default();
    }
    complete(hosts, session, (ledger, stop), facts)
}

/// Rehearses on the networks of the VM of which no rehearsal is known that still counts.
pub(super) fn complete(
    hosts: &Hosts,
    session: &Session,
    (ledger, stop): (Option<&Ledger>, &AtomicBool),
    facts: &mut Facts,
) -> Result<(), Failure> {
    let Fact::Known(path) = &facts.path else { return Ok(()) };
    let mut known = path.network_rehearsals.known().cloned().unwrap_or_default();
    let made = match NetworkRehearsalOrder::for_move(facts).map(|order| order.without(&known)) {
        Ok(order) if order.is_empty() => return Ok(()),
        Ok(order) => {
            output::say(
                session.shared,
                "rehearsing the switchover on the VM's networks, for up to two minutes each",
            );
            hosts.rehearse_network(&order, stop)
        }
        Err(why) => Fact::Unknown(why),
    };
    if let (Some(ledger), Fact::Known(made)) = (ledger, &made) {
        for result in made {
            ledger.append(&entry(facts, result)).map_err(Failure::failed)?;
        }
    }
    if let Fact::Unknown(why) = &made {
        output::say(session.shared, &why.reason);
    }
    let Fact::Known(path) = &mut facts.path else { return Ok(()) };
    path.network_rehearsals = match made {
        Fact::Known(made) => {
            known.extend(made);
            Fact::Known(known)
        }
        Fact::Unknown(_) if !known.is_empty() => Fact::Known(known),
        unknown @ Fact::Unknown(_) => unknown,
    };
    let from = Provenance {
        collector: "network rehearsal".to_owned(),
        method: "a throw-away interface that moved from bridge to bridge".to_owned(),
        at: jiff::Timestamp::now(),
        window_seconds: None,
    };
    facts.provenance.insert("path.network_rehearsals".to_owned(), from);
    Ok(())
}

fn entry(facts: &Facts, result: &NetworkRehearsal) -> Entry {
    let host = |host: &Fact<Host>| {
        let host = host.known();
        NameAndUuid {
            name: host.and_then(|host| host.hostname.known().cloned()),
            uuid: host.and_then(|host| host.uuid.known().cloned()),
        }
    };
    Entry::NetworkRehearsed(NetworkRehearsed {
        source: host(&facts.source),
        destination: host(&facts.destination),
        by: hook::operator(),
        result: result.clone(),
    })
}
