//! Verification after the migration: interfaces, clock, sockets and flows that worked before must work now.

use std::{
    collections::BTreeSet,
    thread,
    time::{Duration, Instant},
};

use vmgate_collect::{CollectRequest, HostedVm, after_migration};
use vmgate_facts::{Fact, Facts, Guest, TcpState, VmNic};

use super::campaign::uptime_seconds;

/// Longest wait for the guest to answer and for its interfaces to come up.
const PATIENCE: Duration = Duration::from_secs(15);
/// Largest step of the guest's clock against a steady one, in addition to the blackout: libvirt reports whole seconds.
const CLOCK_SECONDS: f64 = 2.0;
/// Lowest packet rate of a steady flow: a slower one may pause for as long as flows are watched.
const STEADY_PACKETS_PER_SECOND: f64 = 5.0;

/// State of the VM before the migration, which the VM must have again after it.
#[derive(Debug, Clone)]
pub(super) struct Baseline {
    links_up: Vec<String>,
    talking: Vec<String>,
    clock_offset_seconds: Option<f64>,
    sockets: BTreeSet<String>,
    flows: BTreeSet<String>,
}

impl Baseline {
    /// Takes the baseline. `facts` are those of a moment ago, `earlier` those that the verdict was reached on, where they are
    /// at hand: only a socket or flow that is in both counts as lasting.
    pub(super) fn of(vm: &HostedVm, facts: &Facts, earlier: Option<&Facts>) -> Result<Self, String> {
        let nics = vm.nics().map_err(|why| why.reason)?;
        let talks = |nic: &&VmNic| {
            nic.tap.as_deref().is_some_and(|tap| vm.frames_sent(tap).is_some_and(|sent| sent > 0))
        };
        let both = |of: &dyn Fn(&Guest) -> BTreeSet<String>| {
            let now = facts.guest.known().map(of).unwrap_or_default();
            match earlier.and_then(|earlier| earlier.guest.known()).map(of) {
                Some(before) => now.intersection(&before).cloned().collect(),
                None => BTreeSet::new(),
            }
        };
        let mut lasting = both(&sockets);
        lasting.extend(facts.guest.known().map(listeners).unwrap_or_default());
        Ok(Self {
            talking: nics.iter().filter(talks).map(|nic| nic.mac.clone()).collect(),
            links_up: nics.into_iter().map(|nic| nic.mac).collect(),
            clock_offset_seconds: clock_offset_seconds(vm).ok(),
            sockets: lasting,
            flows: both(&steady_flows),
        })
    }

    /// Compares the VM on the destination with the baseline, one check after the other, with a short wait for each to
    /// settle. Yields each problem as soon as it is certain.
    pub(super) fn problems<'s>(
        &'s self,
        vm: &'s HostedVm,
        request: &'s CollectRequest,
        blackout_seconds: f64,
    ) -> impl Iterator<Item = String> + 's {
        let job = || {
            let job = vm.job().ok().flatten()?;
            Some(format!("a job still runs on the VM ({})", job.operation.name()))
        };
        let looks: [Box<dyn Fn() -> Option<String> + 's>; 5] = [
            Box::new(|| self.interfaces(vm)),
            Box::new(move || self.clock(vm, blackout_seconds)),
            Box::new(|| self.sockets(vm, request)),
            Box::new(|| self.flows(vm, request)),
            Box::new(job),
        ];
        looks.into_iter().filter_map(lasting_problem)
    }

    fn interfaces(&self, vm: &HostedVm) -> Option<String> {
        let nics = match vm.nics() {
            Ok(nics) => nics,
            Err(why) => return Some(why.reason),
        };
        let up = |mac: &&String| !nics.iter().any(|nic| nic.mac == **mac);
        let missing: Vec<&str> = self.links_up.iter().filter(up).map(String::as_str).collect();
        if !missing.is_empty() {
            return Some(format!(
                "interface {} was up before the move and is not up now; check its bridge or network on the destination",
                missing.join(", ")
            ));
        }
        // The guest, or QEMU in its name, announces itself from where it is now: switches learn the port by that.
        let silent = |nic: &&VmNic| {
            self.talking.contains(&nic.mac)
                && nic.tap.as_deref().is_some_and(|tap| vm.frames_sent(tap) == Some(0))
        };
        let silent: Vec<&str> = nics.iter().filter(silent).map(|nic| nic.mac.as_str()).collect();
        (!silent.is_empty()).then(|| {
            format!(
                "interface {} has sent no frame from the destination, so the switches do not know its new port",
                silent.join(", ")
            )
        })
    }

    fn clock(&self, vm: &HostedVm, blackout_seconds: f64) -> Option<String> {
        let before = self.clock_offset_seconds?;
        match clock_offset_seconds(vm) {
            Err(error) => {
                Some(format!("the guest agent answered before the move and does not answer now ({error})"))
            }
            Ok(now) if (now - before).abs() > CLOCK_SECONDS + blackout_seconds => {
                Some(format!("the guest's clock has changed by {:.0} s", now - before))
            }
            Ok(_) => None,
        }
    }

    fn sockets(&self, vm: &HostedVm, request: &CollectRequest) -> Option<String> {
        if self.sockets.is_empty() {
            return None;
        }
        match after_migration::guest(request, vm) {
            Ok(guest) => {
                let mut there = sockets(&guest);
                there.extend(listeners(&guest));
                lost("gone since the move", self.sockets.difference(&there))
            }
            Err(why) => Some(format!("the guest's sockets can no longer be read ({})", why.reason)),
        }
    }

    fn flows(&self, vm: &HostedVm, request: &CollectRequest) -> Option<String> {
        if self.flows.is_empty() {
            return None;
        }
        match after_migration::flows(request, vm, Duration::from_secs(2)) {
            Ok(capture) => {
                let guest = Guest {
                    udp: Fact::Known(vmgate_facts::Udp { flows: Fact::Known(capture), ..Default::default() }),
                    ..Guest::default()
                };
                let there = all_flows(&guest, 0.0);
                lost("silent since the move", self.flows.difference(&there))
            }
            Err(why) => {
                tracing::warn!("the VM's flows cannot be watched on the destination: {}", why.reason);
                None
            }
        }
    }
}

fn lost<'a>(how: &str, missing: impl Iterator<Item = &'a String>) -> Option<String> {
    let missing: Vec<&str> = missing.map(String::as_str).collect();
    (!missing.is_empty()).then(|| format!("{how}: {}", missing.join(", ")))
}

/// Sockets that wait for connections: a service does not take them down and up again.
fn listeners(guest: &Guest) -> BTreeSet<String> {
    let listeners = guest.tcp.known().and_then(|tcp| tcp.listeners.known());
    listeners.into_iter().flatten().map(|listener| format!("TCP listener {}", listener.local)).collect()
}

/// Connections and UDP sockets.
fn sockets(guest: &Guest) -> BTreeSet<String> {
    let connections = guest.tcp.known().and_then(|tcp| tcp.connections.known());
    let connections = connections.into_iter().flatten().filter(|one| one.state == TcpState::Established);
    let connections = connections.map(|one| format!("TCP connection {} -> {}", one.local, one.remote));
    let sockets = guest.udp.known().and_then(|udp| udp.sockets.known());
    let sockets = sockets.into_iter().flatten().map(|socket| format!("UDP socket {}", socket.local));
    connections.chain(sockets).collect()
}

fn steady_flows(guest: &Guest) -> BTreeSet<String> {
    all_flows(guest, STEADY_PACKETS_PER_SECOND)
}

fn all_flows(guest: &Guest, least: f64) -> BTreeSet<String> {
    let capture = guest.udp.known().and_then(|udp| udp.flows.known());
    let flows = capture.into_iter().flat_map(|capture| &capture.flows);
    flows
        .filter(|flow| flow.packets_per_second >= least)
        .map(|flow| format!("UDP flow {} - {}", flow.local, flow.remote))
        .collect()
}

/// Difference of the guest's clock and the uptime of this machine, in seconds. The machine's wall clock may be set while the
/// move runs, which says nothing about the guest.
#[allow(clippy::cast_precision_loss)] // seconds since the epoch
fn clock_offset_seconds(vm: &HostedVm) -> Result<f64, String> {
    let guest = vm.guest_time().map_err(|why| why.reason)?;
    Ok(guest as f64 - uptime_seconds())
}

/// Repeats a check until it finds no problem or [`PATIENCE`] has passed; returns the last problem.
fn lasting_problem(look: impl Fn() -> Option<String>) -> Option<String> {
    let start = Instant::now();
    loop {
        let problem = look();
        if problem.is_none() || start.elapsed() > PATIENCE {
            return problem;
        }
        thread::sleep(Duration::from_millis(200));
    }
}
