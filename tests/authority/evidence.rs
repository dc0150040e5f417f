//! Promise 6: a verdict says what it rests on.

use serde_json::{Value, json};

use crate::destination::{Destination, OTHER, SITE, go, id, let_in, refused, vm};

/// The rules that are shipped, and facts that were measured live.
fn basis() -> Value {
    let digest = |digit: &str| format!("sha256:{}", digit.repeat(64));
    json!({
        "rules": [{"origin": "builtin", "digest": digest("1")}],
        "facts": [{"group": "vm", "origin": "live"}, {"group": "source", "origin": "live"}],
        "of-a-newer-version": true,
        "site": {"origin": "folder", "name": "site-rules", "digest": digest("2"), "replaces": ["destination-memory-fits"]},
        "parameters": {"origin": "parameters", "digest": digest("3")},
    })
}

/// A GO on the VM of this number that rests on this.
fn resting_on(number: usize, basis: &Value) -> Value {
    let mut verdict = go(number);
    verdict["basis"] = basis.clone();
    verdict["counts"] = json!({"waived": 0});
    verdict
}

#[track_caller]
fn refuses(settings: &str, verdict: &Value, why: &str) {
    let host = Destination::new();
    // Sent before the demand was made, and after.
    host.push(verdict, SITE).unwrap();
    host.configure(settings);
    refused(&host.migrate("web1", &vm(1)), why);
    let said = host.push(verdict, SITE).unwrap_err();
    assert!(said.contains(why), "`{why}` is not in: {said}");
}

#[track_caller]
fn accepts(settings: &str, verdict: &Value) {
    let host = Destination::new();
    host.configure(settings);
    host.push(verdict, SITE).unwrap();
    let_in(&host.migrate("web1", &vm(1)));
}

/// Promise 6: the shipped rules were left out, other rules judged beside them or in place of one, or parameters were
/// changed, and a host that demands the shipped rules refuses the verdict, unless it names the rest too.
#[test]
fn a_host_that_demands_rules_takes_no_others() {
    let demand = "demand:\n  rules: [builtin]\n";
    let with = |packs: &[&str]| {
        let mut changed = basis();
        changed["rules"] = packs
            .iter()
            .map(|pack| if *pack == "rules" { basis()["rules"][0].clone() } else { basis()[*pack].clone() })
            .collect();
        resting_on(1, &changed)
    };
    accepts(demand, &with(&["rules"]));
    refuses(demand, &with(&["site"]), "was not judged by the shipped rules");
    refuses(demand, &with(&["rules", "site"]), "which replace destination-memory-fits");
    refuses(demand, &with(&["rules", "parameters"]), "parameters");
    refuses(demand, &with(&[]), "does not say which rules it rests on");
    refuses(demand, &go(1), "does not say which rules it rests on");
    let named =
        format!("demand:\n  rules: [builtin, 'sha256:{}', 'sha256:{}']\n", "2".repeat(64), "3".repeat(64));
    accepts(&named, &with(&["rules", "site", "parameters"]));
    refuses(&named, &with(&["rules", "site"]), "was not judged by the rules sha256:333");
    let mut of_a_key = basis();
    of_a_key["rules"][0]["signed_by"] = json!(id(OTHER));
    let by_key = format!("demand:\n  rules: [{}]\n", id(OTHER));
    accepts(&by_key, &resting_on(1, &of_a_key));
    refuses(&by_key, &with(&["rules"]), "rules that the key");
}

/// Promise 6: one group of facts was read from a file, which may be edited by hand, or signed by a key that the host does not
/// name, and a host that demands live facts refuses the verdict.
#[test]
fn a_host_that_demands_live_facts_takes_no_file() {
    let demand = "demand:\n  facts: [live]\n";
    let with = |group: Value| {
        let mut changed = basis();
        changed["facts"][1] = group;
        resting_on(1, &changed)
    };
    accepts(demand, &resting_on(1, &basis()));
    let file = json!({"group": "source", "origin": "file", "file": "web1.yaml"});
    refuses(demand, &with(file), "read from a file (web1.yaml): source");
    let signed =
        |key| with(json!({"group": "source", "origin": "signed", "file": "web1.json", "signed_by": id(key)}));
    refuses(demand, &signed(OTHER), "signed by key");
    let by_key = format!("demand:\n  facts: [live, {}]\n", id(OTHER));
    accepts(&by_key, &signed(OTHER));
    refuses(&by_key, &signed(SITE), "signed by key");
    refuses(
        demand,
        &with(json!({"group": "source", "origin": "oracle"})),
        "an origin that this version does not know",
    );
    refuses(demand, &go(1), "does not say which facts it rests on");
}

/// Promise 6: a finding was waived, and a host that refuses waivers refuses the verdict.
#[test]
fn a_host_may_refuse_waivers() {
    let demand = "demand:\n  waivers: refused\n";
    accepts(demand, &resting_on(1, &basis()));
    let mut waived = resting_on(1, &basis());
    waived["counts"]["waived"] = json!(2);
    refuses(demand, &waived, "rests on 2 waived findings");
    refuses(demand, &go(1), "does not say which waivers it rests on");
}
