//! Laws of three-valued logic, and monotonicity: with fewer known facts a result may become unknown, but never another.

use super::*;

/// Three facts, each true, false or unknown.
fn three(values: [Option<bool>; 3]) -> Value {
    let fact = |value: Option<bool>| value.map_or_else(|| json!({"unknown": "not asked"}), Json::Bool);
    let mut facts = known_facts();
    facts["vm"]["persistent"] = fact(values[0]);
    facts["vm"]["has_agent_channel"] = fact(values[1]);
    facts["destination"]["offers_guest_cpu"] = fact(values[2]);
    root(&facts)
}

const A: &str = "vm.persistent";
const B: &str = "vm.has_agent_channel";
const C: &str = "destination.offers_guest_cpu";

fn all_values() -> impl Iterator<Item = [Option<bool>; 3]> {
    let one = [None, Some(false), Some(true)];
    one.into_iter()
        .flat_map(move |a| one.into_iter().flat_map(move |b| one.into_iter().map(move |c| [a, b, c])))
}

#[test]
fn kleenes_tables_hold() {
    for values in all_values() {
        let root = three(values);
        let [a, b, c] = values;
        let word =
            |value: Option<bool>| value.map_or_else(|| "unknown".to_owned(), |value| value.to_string());
        let and = |a: Option<bool>, b: Option<bool>| match (a, b) {
            (Some(false), _) | (_, Some(false)) => Some(false),
            (Some(true), Some(true)) => Some(true),
            _ => None,
        };
        let or = |a: Option<bool>, b: Option<bool>| and(a.map(|a| !a), b.map(|b| !b)).map(|both| !both);
        let conditional = |condition: Option<bool>| if condition? { b } else { c };
        assert_eq!(eval(&format!("{A} && {B}"), &root).0, word(and(a, b)));
        assert_eq!(eval(&format!("{A} || {B}"), &root).0, word(or(a, b)));
        assert_eq!(eval(&format!("!{A}"), &root).0, word(a.map(|a| !a)));
        assert_eq!(eval(&format!("{A} ? {B} : {C}"), &root).0, word(conditional(a)));
        assert_eq!(eval(&format!("{A} == {B}"), &root).0, word(a.zip(b).map(|(a, b)| a == b)));
    }
}

#[test]
fn the_laws_of_the_lattice_hold() {
    let laws = [
        (format!("{A} && {B}"), format!("{B} && {A}")),
        (format!("{A} || {B}"), format!("{B} || {A}")),
        (format!("({A} && {B}) && {C}"), format!("{A} && ({B} && {C})")),
        (format!("({A} || {B}) || {C}"), format!("{A} || ({B} || {C})")),
        (format!("{A} && ({B} || {C})"), format!("({A} && {B}) || ({A} && {C})")),
        (format!("{A} || ({B} && {C})"), format!("({A} || {B}) && ({A} || {C})")),
        (format!("!({A} && {B})"), format!("!{A} || !{B}")),
        (format!("!({A} || {B})"), format!("!{A} && !{B}")),
        (format!("{A} && ({A} || {B})"), format!("{A} || ({A} && {B})")),
        (format!("vm.nics.all(n, n.link_up || {A})"), format!("!vm.nics.exists(n, !(n.link_up || {A}))")),
    ];
    for values in all_values() {
        let root = three(values);
        for (left, right) in &laws {
            assert_eq!(eval(left, &root).0, eval(right, &root).0, "{left} = {right} for {values:?}");
        }
    }
}

/// Places of the facts that can each be unknown, as JSON pointers.
const PLACES: [&str; 22] = [
    "/vm",
    "/vm/name",
    "/vm/state",
    "/vm/persistent",
    "/vm/has_agent_channel",
    "/vm/vcpus",
    "/vm/huge_page_bytes",
    "/vm/job",
    "/vm/cpu_model",
    "/vm/nics",
    "/vm/disks",
    "/guest",
    "/guest/hostname",
    "/guest/sysctl",
    "/guest/sysctl/tcp_retries2",
    "/guest/tcp/connections",
    "/guest/tcp/connections/1/owner",
    "/source",
    "/destination/networks",
    "/destination/cpus",
    "/destination/offers_guest_cpu",
    "/path/transport",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn knowing_less_never_turns_true_into_false(
        text in bool_text(),
        more in prop::collection::vec(select(PLACES.to_vec()), 0..3),
        fewer in prop::collection::vec(select(PLACES.to_vec()), 1..5),
    ) {
        let Ok(_) = check(&text) else { return Ok(()) };
        let hide = |facts: &mut Json, places: &[&str]| {
            for place in places {
                if let Some(value) = facts.pointer_mut(place) {
                    *value = json!({"unknown": "taken away"});
                }
            }
        };
        let mut facts = known_facts();
        hide(&mut facts, &more);
        let before = eval(&text, &root(&facts)).0;
        hide(&mut facts, &fewer);
        let after = eval(&text, &root(&facts)).0;
        prop_assert!(after == before || after == "unknown", "{text}: {before} became {after} without {fewer:?}");
    }

    #[test]
    fn what_did_not_decide_can_be_taken_away(text in bool_text(), place in select(PLACES.to_vec())) {
        let Ok(_) = check(&text) else { return Ok(()) };
        let (before, evidence) = eval(&text, &root(&known_facts()));
        let path = place.trim_start_matches('/').replace("/1/", "[1].").replace('/', ".");
        // If nothing at or below the place decided, the result does not depend on it.
        if before == "unknown" || evidence.iter().any(|read| read.starts_with(&path) || path.starts_with(read.as_str())) {
            return Ok(());
        }
        let mut facts = known_facts();
        if let Some(value) = facts.pointer_mut(place) {
            *value = json!({"unknown": "taken away"});
        }
        let after = eval(&text, &root(&facts)).0;
        prop_assert!(after == before || after == "unknown", "{text}: {before} became {after} without {place}");
    }
}
