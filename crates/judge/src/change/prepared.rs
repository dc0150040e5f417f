//! Effect of a change's preparation on the facts: the guest without the services that will be stopped.

use std::collections::BTreeSet;

use vmgate_facts::{ControlSession, Fact, Facts, Guest};
use vmgate_rules::catalogue::is_process_name;

use super::{ActionKind, MovePlan, load::CATALOGUES};

/// Characters of a process name that the kernel keeps.
const KERNEL_NAME: usize = 15;

impl MovePlan {
    /// Removes from the facts everything that the plan stops: the processes of its services, their sockets and their flows. A
    /// verdict on these facts is about the move as planned; the check directly before the migration removes nothing and sees
    /// the real processes.
    pub fn apply_preparation(&self, facts: &mut Facts) {
        let stopped: BTreeSet<String> = self
            .actions
            .iter()
            .filter_map(|action| match &action.deed {
                ActionKind::StopService { processes, .. } | ActionKind::TakeOut { processes, .. } => {
                    Some(processes)
                }
                ActionKind::Run { .. } => None,
            })
            .flatten()
            .map(|name| name.chars().take(KERNEL_NAME).collect())
            .collect();
        if let Fact::Known(guest) = &mut facts.guest
            && !stopped.is_empty()
        {
            let udp = guest.udp.clone();
            remove_stopped(guest, &stopped);
            // A facts file may tell of the members themselves.
            if let Fact::Known(members) = &mut guest.memory_sync {
                members.retain(|member| !self.takes_out(member.take_out.as_deref()));
            }
            // Its heartbeats end with it.
            let goes_on = |session: &ControlSession| {
                CATALOGUES.speaker(&session.protocol, &udp).is_none_or(|entry| {
                    !self.takes_out(Some(&entry.id)) && !stopped.iter().any(|process| entry.is_name(process))
                })
            };
            if let Fact::Known(wire) = &mut guest.wire {
                wire.control.retain(goes_on);
            }
            if let Fact::Known(sessions) = &mut guest.control_sessions {
                sessions.retain(goes_on);
            }
        }
    }

    fn takes_out(&self, member: Option<&str>) -> bool {
        self.actions.iter().any(|action| {
            matches!(&action.deed, ActionKind::TakeOut { software, .. } if Some(software.as_str()) == member)
        })
    }
}

fn remove_stopped(guest: &mut Guest, stopped: &BTreeSet<String>) {
    let ends = |process: &str| stopped.iter().any(|name| is_process_name(name, process));
    let goes = |owner: &Fact<Option<String>>| matches!(owner, Fact::Known(Some(name)) if ends(name));
    if let Fact::Known(processes) = &mut guest.processes {
        let gone: BTreeSet<u32> =
            processes.extract_if(.., |process| ends(&process.name)).map(|process| process.pid).collect();
        if let Fact::Known(detectors) = &mut guest.detectors {
            detectors.retain(|detector| detector.pid.is_none_or(|pid| !gone.contains(&pid)));
        }
    }
    if let Fact::Known(tcp) = &mut guest.tcp {
        if let Fact::Known(connections) = &mut tcp.connections {
            connections.retain(|connection| !goes(&connection.owner));
        }
        if let Fact::Known(listeners) = &mut tcp.listeners {
            listeners.retain(|listener| !goes(&listener.owner));
        }
    }
    let Fact::Known(udp) = &mut guest.udp else { return };
    let Fact::Known(sockets) = &mut udp.sockets else { return };
    let (gone, stay): (Vec<_>, Vec<_>) = sockets.drain(..).partition(|socket| goes(&socket.owner));
    *sockets = stay;
    let ports: BTreeSet<String> = gone.iter().map(|socket| format!(":{}", socket.port)).collect();
    if let Fact::Known(capture) = &mut udp.flows {
        capture.flows.retain(|flow| !ports.iter().any(|port| flow.local.ends_with(port.as_str())));
    }
}
