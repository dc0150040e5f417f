//! Promise 16: keys end.

use serde_json::{Value, json};

use crate::destination::{
    Destination, OTHER, SITE, SOURCE, go, id, in_minutes, let_in, no_go, refused, vm, with,
};

/// A host that trusts both keys, with these settings.
fn host(settings: &str) -> Destination {
    let host = Destination::new();
    host.install(&[("ci.pem", OTHER.1)]);
    host.configure(settings);
    host
}

/// Settings for the key `SITE` alone; the other key has no limits.
fn limits(of_site: &str) -> String {
    format!("keys:\n  ci.pem:\n  site.pem: {of_site}\n")
}

#[track_caller]
fn accepted(host: &Destination, verdict: &Value, key: (&str, &str), number: usize) {
    host.push(verdict, key).unwrap();
    let_in(&host.migrate(&format!("web{number}"), &vm(number)));
}

/// Promise 16: a verdict is signed by a key after its last day, or before its first, and is refused when it is sent and when
/// it is used; `status` says so.
#[test]
fn a_key_signs_nothing_outside_its_days() {
    for (setting, why) in [
        ("{not-after: 2026-01-31}", "it expired (`not-after: 2026-01-31`)"),
        ("{not-before: 2199-01-01}", "valid from 2199-01-01"),
    ] {
        let host = host("");
        host.push(&go(1), SITE).unwrap();
        host.configure(&limits(setting));
        refused(&host.migrate("web1", &vm(1)), why);
        let said = host.push(&go(2), SITE).unwrap_err();
        assert!(said.contains(why), "{said}");
        let status = host.status();
        assert!(status["problems"].to_string().contains("site.pem: the key is not valid now"), "{status:#}");
        accepted(&host, &go(3), OTHER, 3);
        host.configure(&limits("{not-before: 2020-01-01, not-after: 2199-01-01}"));
        let_in(&host.migrate("web1", &vm(1)));
    }
}

/// Promise 16: a key for the VMs `web*` signs for another VM, for the UUID of another VM under such a name, and for VMs from
/// another host.
#[test]
fn a_key_signs_only_for_its_vms_and_hosts() {
    let host = host(&limits(&format!("{{vms: ['web?', {}], sources: [{SOURCE}]}}", vm(20))));
    accepted(&host, &go(1), SITE, 1);
    let by_uuid = with(go(20), "/move/vm/name", json!("db"));
    host.push(&by_uuid, SITE).unwrap();
    let_in(&host.migrate("db", &vm(20)));

    let other = with(go(2), "/move/vm/name", json!("db"));
    let why = host.push(&other, SITE).unwrap_err();
    assert!(why.contains("`vms` in hook.yaml allows web?"), "{why}");
    let source = with(go(3), "/move/source/uuid", json!(vm(3)));
    let why = host.push(&source, SITE).unwrap_err();
    assert!(why.contains("`sources` in hook.yaml allows"), "{why}");
    accepted(&host, &source, OTHER, 3);

    // The verdict has a name that is allowed, and the UUID of a VM that has another one here.
    host.push(&go(4), SITE).unwrap();
    refused(&host.migrate("db", &vm(4)), "`vms` in hook.yaml allows");
    let_in(&host.migrate("web4", &vm(4)));
    // A key cannot cancel either what it may not sign.
    host.push(&go(10), OTHER).unwrap();
    host.push(&no_go(10), SITE).unwrap_err();
    let_in(&host.migrate("web10", &vm(10)));
}

/// Promise 16: a key and a verdict are on the revocation list of the host, and neither lets anybody in; `status` shows the list.
#[test]
fn what_is_revoked_lets_nobody_in() {
    let host = host("");
    host.push(&go(1), SITE).unwrap();
    let verdict = host.push(&go(2), OTHER).unwrap()["verdict"].as_str().unwrap().to_owned();
    host.push(&go(3), OTHER).unwrap();
    host.configure(&format!("revoked:\n  keys: [{}]\n  verdicts: ['{verdict}']\n", id(SITE)));
    refused(&host.migrate("web1", &vm(1)), "is revoked (`revoked: keys` in hook.yaml)");
    refused(&host.migrate("web2", &vm(2)), "was revoked");
    let_in(&host.migrate("web3", &vm(3)));
    host.push(&go(4), SITE).unwrap_err();
    let status = host.status();
    assert_eq!(status["config"]["revoked"]["keys"], json!([id(SITE)]));
    assert!(status["problems"].to_string().contains("is revoked"), "{status:#}");
}

/// Promise 16: a key file is added beside a list of keys that does not name it, and signs nothing; without a list every key
/// of the folder signs, as before.
#[test]
fn a_key_that_is_not_on_the_list_signs_nothing() {
    let host = host("");
    accepted(&host, &go(1), OTHER, 1);
    host.configure("keys:\n  site.pem:\n  absent.pem:\n");
    let why = host.push(&go(2), OTHER).unwrap_err();
    assert!(why.contains("ci.pem: `keys` in hook.yaml does not list this file"), "{why}");
    accepted(&host, &go(3), SITE, 3);
    let problems = host.status()["problems"].to_string();
    assert!(problems.contains("ci.pem: `keys`") && problems.contains("lists absent.pem"), "{problems}");
}

/// Promise 16: hook.yaml has a misspelt limit, and the host lets nobody in rather than leave the limit out.
#[test]
fn a_misspelt_limit_is_no_limit_left_out() {
    let host = host("");
    host.push(&go(1), SITE).unwrap();
    host.configure("keys:\n  site.pem: {not-aftr: 2199-01-01}\n");
    refused(&host.migrate("web1", &vm(1)), "did you mean `not-after`?");
    host.configure("revokd: {}\n");
    refused(&host.migrate("web1", &vm(1)), "did you mean `revoked`?");
}

/// Promise 2: the host allows shorter lives than the default, and a verdict that lives longer is refused.
#[test]
fn the_host_sets_the_longest_life() {
    let host = host("max-lifetime-minutes: 10\n");
    let why = host.push(&go(1), SITE).unwrap_err();
    assert!(why.contains("at most 10m"), "{why}");
    accepted(&host, &with(go(1), "/expires_at", in_minutes(9)), SITE, 1);
}
