//! A site from a survey of live hosts: the facts of an audit, with dirty rates of VMs from the ledger.

use std::collections::HashMap;

use vmgate_collect::survey::Survey;
use vmgate_facts::{DirtyRate, DirtyRateMethod, Fact, Facts, Host, Provenance, Uuid};
use vmgate_ledger::{Entry, Record};

use super::{Site, SiteVm};

/// A site of surveyed hosts, in the inventory's order.
pub struct SurveySite {
    survey: Survey,
    hosts: Vec<Fact<Host>>,
    vms: Vec<SiteVm>,
    /// Index of each VM on its host.
    places: Vec<usize>,
    observed: HashMap<Uuid, (DirtyRate, jiff::Timestamp)>,
}

impl SurveySite {
    /// The site of a survey. `observations` are records of the ledger, oldest first: the newest of a VM counts.
    pub fn new(survey: Survey, observations: &[Record]) -> Self {
        let mut observed = HashMap::new();
        for record in observations {
            let Entry::Observation(seen) = &record.entry else { continue };
            let Some(uuid) = &seen.vm.uuid else { continue };
            let rate = DirtyRate {
                rate_bytes_per_second: seen.rate_bytes_per_second,
                window_seconds: seen.watched_seconds,
                method: DirtyRateMethod::Trace,
            };
            observed.insert(uuid.clone(), (rate, record.at));
        }
        let mut site =
            Self { hosts: survey.host_facts(), survey, vms: Vec::new(), places: Vec::new(), observed };
        let vms: Vec<(usize, usize)> = site.survey.vms().collect();
        for (host, place) in vms {
            let facts = site.looked_up(host, place, host);
            if let Some(Facts { vm: Fact::Known(vm), .. }) = facts {
                site.vms.push(SiteVm { host, vm });
                site.places.push(place);
            }
        }
        site
    }

    fn looked_up(&self, host: usize, place: usize, destination: usize) -> Option<Facts> {
        let mut facts = self.survey.facts(Survey::possible(host, place, destination))?;
        if let Fact::Known(vm) = &mut facts.vm
            && vm.dirty_rate.known().is_none()
            && let Some((rate, at)) = vm.uuid.known().and_then(|uuid| self.observed.get(uuid))
        {
            let by = Provenance {
                collector: "ledger".to_owned(),
                method: "vmgate observe".to_owned(),
                at: *at,
                window_seconds: Some(rate.window_seconds),
            };
            vm.dirty_rate = Fact::Known(rate.clone());
            facts.provenance.insert("vm.dirty_rate".to_owned(), by);
        }
        Some(facts)
    }
}

impl Site for SurveySite {
    fn hosts(&self) -> &[Fact<Host>] {
        &self.hosts
    }

    fn vms(&self) -> &[SiteVm] {
        &self.vms
    }

    fn facts(&self, vm: usize, destination: usize) -> Facts {
        let host = self.vms.get(vm).map(|seen| seen.host);
        let facts =
            host.zip(self.places.get(vm)).and_then(|(host, place)| self.looked_up(host, *place, destination));
        facts.unwrap_or_else(|| Facts::empty(jiff::Timestamp::UNIX_EPOCH))
    }
}
