//! Every domain of libvirt's tests is judged between two ideal hosts, and held against the oracle.

use std::collections::{BTreeMap, BTreeSet};

use vmgate_forecast::derive;
use vmgate_libvirt::domain_xml;
use vmgate_rules::{Pack, ParamOverrides, RuleSource, catalogue::Catalogues};
use vmgate_verdict::{Effect, Outcome, Status};

use crate::{ideal, refusals, source};

struct Judge {
    pack: Pack,
    catalogues: Catalogues,
}

impl Judge {
    fn new() -> Self {
        let pack = Pack::load(&[RuleSource::Builtin]).unwrap();
        let pack = pack.with_parameters(Some("standard"), &ParamOverrides::new()).unwrap();
        Self { pack, catalogues: Catalogues::shipped().unwrap() }
    }

    /// Outcomes that hold the move up: rule, status and subject.
    fn obstacles(&self, xml: &str) -> Vec<Outcome> {
        let facts = ideal::facts_of(&domain_xml::parse(xml).unwrap());
        let now = facts.collected_at;
        let (facts, forecast) = derive(facts, &self.catalogues);
        let outcomes = self.pack.evaluate(&facts, &forecast, now);
        outcomes.into_iter().filter(|outcome| outcome.effect_now() == Some(Effect::Block)).collect()
    }
}

fn is_for_qemu(domain: roxmltree::Node) -> bool {
    matches!(domain.attribute("type"), Some("kvm" | "qemu"))
}

#[test]
#[ignore = "needs libvirt's source"]
fn nothing_that_is_always_refused_is_go() {
    let judge = Judge::new();
    let mut refused: BTreeMap<&str, usize> = BTreeMap::new();
    let mut distinct = BTreeSet::new();
    let mut missed = Vec::new();
    for sample in source::domains() {
        let document = vmgate_facts::xml::parse(&sample.xml).unwrap();
        let reasons = refusals::of(document.root_element());
        if reasons.is_empty() || !is_for_qemu(document.root_element()) {
            continue;
        }
        for reason in &reasons {
            *refused.entry(reason.name).or_default() += 1;
        }
        distinct.insert(sample.name.split('.').next().unwrap().to_owned());
        if judge.obstacles(&sample.xml).is_empty() {
            let why: Vec<String> = reasons.iter().map(|r| format!("{} ({})", r.name, r.source)).collect();
            missed.push(format!("{}: {}", sample.name, why.join(", ")));
        }
    }
    println!("{} distinct configurations are always refused: {refused:#?}", distinct.len());
    let without_sample: Vec<&str> =
        refusals::ALL.iter().map(|refusal| refusal.name).filter(|name| !refused.contains_key(name)).collect();
    println!("not in libvirt's tests: {without_sample:?}");
    assert!(distinct.len() > 50, "{}", distinct.len());
    assert!(missed.is_empty(), "GO for what is always refused:\n{}", missed.join("\n"));
}

#[test]
#[ignore = "needs libvirt's source"]
fn everything_in_domain_capabilities_has_a_name_that_rules_can_use() {
    let mut lists = 0;
    for (name, xml) in source::domain_capabilities() {
        let offer = vmgate_libvirt::domain_capabilities::parse(&xml).unwrap();
        let document = vmgate_facts::xml::parse(&xml).unwrap();
        for list in document.descendants().filter(|node| node.has_tag_name("enum")) {
            let ending = format!("/{}", list.attribute("name").unwrap());
            let values: Vec<&str> = list
                .children()
                .filter(|value| value.has_tag_name("value"))
                .filter_map(|value| value.text())
                .collect();
            let told =
                offer.device_models.iter().any(|kind| kind.kind.ends_with(&ending) && kind.models == values);
            assert!(told, "{name}: {ending}");
            lists += 1;
        }
        let supported = document.descendants().filter(|node| node.has_attribute("supported"));
        for node in supported.filter(|node| !node.has_tag_name("mode")) {
            let element = node.tag_name().name();
            let told = |kind: &str| {
                let kind = kind.trim_end_matches("/supported");
                kind == element || kind.ends_with(&format!("/{element}"))
            };
            assert!(offer.device_models.iter().any(|offer| told(&offer.kind)), "{name}: {element}");
        }
    }
    assert!(lists > 500, "{lists}");
}

/// Domains as libvirt itself prints them for its newest QEMU.
fn printed_by_libvirt() -> Vec<source::Sample> {
    let mut samples = source::domains();
    samples
        .retain(|sample| sample.name.starts_with("qemuxmlconfdata/") && sample.name.ends_with("-latest.xml"));
    samples
}

#[test]
#[ignore = "needs libvirt's source"]
fn what_migrates_is_rarely_held_up() {
    let judge = Judge::new();
    let (mut all, mut go) = (0, 0);
    let mut failed: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut unknown: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let (mut no_go, mut untold, mut of_hosts, mut of_boards) = (0, 0, 0, 0);
    for sample in printed_by_libvirt() {
        let document = vmgate_facts::xml::parse(&sample.xml).unwrap();
        if !is_for_qemu(document.root_element()) || !refusals::of(document.root_element()).is_empty() {
            continue;
        }
        let obstacles = judge.obstacles(&sample.xml);
        if obstacles.iter().any(depends_on_hosts) {
            of_hosts += 1;
            continue;
        }
        if obstacles
            .iter()
            .any(|outcome| outcome.subject.as_deref().is_some_and(|s| s.starts_with("machine ")))
        {
            of_boards += 1;
            continue;
        }
        all += 1;
        match (obstacles.is_empty(), obstacles.iter().any(|outcome| outcome.status == Status::Fail)) {
            (true, _) => go += 1,
            (_, true) => no_go += 1,
            _ => untold += 1,
        }
        for outcome in obstacles {
            let kind = format!("{} {}", outcome.rule, kind_of(&outcome));
            let list = if outcome.status == Status::Fail { &mut failed } else { &mut unknown };
            list.entry(kind).or_default().push(sample.name.clone());
        }
    }
    println!("{of_boards} emulate old boards, of which QEMU promises nothing, and are unknown by name");
    println!(
        "{all} domains: {go} GO, {no_go} NO-GO, {untold} unknown, {of_hosts} with devices that only their hosts can judge"
    );
    for (title, list) in [("NO-GO", &failed), ("unknown", &unknown)] {
        println!("\n{title}");
        for (kind, samples) in list {
            println!(
                "{:4} {kind}   {}",
                samples.len(),
                samples.iter().take(2).cloned().collect::<Vec<_>>().join(" ")
            );
        }
    }
    assert!(all > 800, "{all}");
    // Of what the sources do not refuse, at most one in a hundred is refused, and one in twenty unknown.
    assert!(no_go * 100 <= all, "{no_go} of {all} are NO-GO");
    assert!(untold * 20 <= all, "{untold} of {all} are unknown");
}

/// Devices of a host, shared folders and processes beside QEMU: the hosts decide, and no ideal is known.
fn depends_on_hosts(outcome: &Outcome) -> bool {
    matches!(&*outcome.rule, "devices-migratable" | "destination-has-host-devices" | "tpm-compatible")
}

/// Subject without names of single disks or addresses.
fn kind_of(outcome: &Outcome) -> String {
    match (&*outcome.rule, &outcome.subject) {
        ("components-migratable" | "destination-has-device-models", Some(subject)) => {
            subject.trim().to_owned()
        }
        ("devices-migratable", Some(subject)) => subject.split(' ').next().unwrap_or_default().to_owned(),
        _ => outcome.message.chars().take(70).collect(),
    }
}
