//! Promise 6: a verdict says what it rests on.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use serde_json::{Value, json};
use vmgate_attest::PrivateKey;
use vmgate_facts::Facts;

use crate::{
    destination::{Destination, OTHER, SITE, go, id, let_in, refused, vm},
    said::vmgate_in,
};

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

const IDLE: &str = include_str!("../../rules/fixtures/idle-vm.yaml");
/// A shipped rule.
const MEMORY_FITS: &str = include_str!("../../rules/1-prepare/destination-memory-fits.yaml");

/// The facts of a quiet VM, as if they had just been collected.
fn facts() -> String {
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M").to_string();
    IDLE.replace("2026-11-23T01:00", &now).replace("2026-11-23T00:59", &now)
}

/// A folder with facts, both keys, and whatever else a test writes.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    write(&folder, "facts.yaml", &facts());
    for (name, key) in [("site", SITE), ("collector", OTHER)] {
        write(&folder, &format!("{name}.key"), key.0);
        fs::set_permissions(folder.path().join(format!("{name}.key")), fs::Permissions::from_mode(0o600))
            .unwrap();
        write(&folder, &format!("{name}.pem"), key.1);
    }
    folder
}

fn write(folder: &tempfile::TempDir, name: &str, text: &str) {
    let path = folder.path().join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// The verdict on the facts of a file, with these options.
fn check(folder: &Path, facts: &str, options: &[&str]) -> Value {
    let said = vmgate_in(folder, &[&["check", "--facts", facts, "-o", "json"], options].concat());
    serde_json::from_str(&said.stdout).unwrap_or_else(|_| panic!("{}{}", said.stdout, said.stderr))
}

/// What a host with these settings says of a verdict that the site signs.
fn verified(folder: &Path, verdict: &Value, settings: &str) -> Result<(), String> {
    fs::write(folder.join("verdict.json"), verdict.to_string()).unwrap();
    fs::write(folder.join("hook.yaml"), settings).unwrap();
    let signed = vmgate_in(folder, &["verdict", "sign", "verdict.json", "--key", "site.key"]).exits(0);
    fs::write(folder.join("verdict.dsse.json"), signed.stdout).unwrap();
    let said = vmgate_in(
        folder,
        &["verdict", "verify", "verdict.dsse.json", "--key", "site.pem", "--policy", "hook.yaml"],
    );
    if said.code == 0 { Ok(()) } else { Err(said.stderr) }
}

fn origins(verdict: &Value) -> Vec<String> {
    let groups = verdict["basis"]["facts"].as_array().unwrap();
    let mut origins: Vec<String> =
        groups.iter().map(|group| group["origin"].as_str().unwrap().to_owned()).collect();
    origins.dedup();
    origins
}

/// Promise 6: facts are edited by hand, and the verdict names for every group the file that they were read from, so that a
/// host that demands live facts refuses it.
#[test]
fn a_verdict_on_a_facts_file_says_so() {
    let folder = folder();
    let verdict = check(folder.path(), "facts.yaml", &[]);
    assert_eq!(origins(&verdict), ["file"]);
    for format in ["table", "markdown"] {
        let said = vmgate_in(folder.path(), &["check", "--facts", "facts.yaml", "-o", format]);
        assert!(
            said.stdout.replace('\\', "").to_lowercase().contains("facts read from a file (facts.yaml)"),
            "{}",
            said.stdout
        );
    }
    let groups = verdict["basis"]["facts"].as_array().unwrap();
    for name in ["vm", "measurements", "guest", "source", "destination", "path"] {
        let group = groups.iter().find(|group| group["group"] == name).unwrap();
        assert_eq!(group["file"], "facts.yaml", "{name}");
    }
    verified(folder.path(), &verdict, "").unwrap();
    let why = verified(folder.path(), &verdict, "demand: {facts: [live]}\n").unwrap_err();
    assert!(why.contains("read from a file (facts.yaml)"), "{why}");
}

/// Promise 6: facts that a collector signed are edited afterwards, signed by another key, or believed without a key; only the
/// untouched ones of a trusted key count as signed.
#[test]
fn facts_are_signed_where_they_are_collected() {
    let folder = folder();
    let facts: Facts = serde_yaml::from_str(&facts()).unwrap();
    let key = PrivateKey::from_pem("test", OTHER.0).unwrap();
    let envelope = serde_json::to_string(&vmgate_judge::sign_facts(facts, &key).unwrap()).unwrap();
    write(&folder, "signed.json", &envelope);
    let trusting = ["--facts-key", "collector.pem"];
    let verdict = check(folder.path(), "signed.json", &trusting);
    assert_eq!(origins(&verdict), ["signed"]);
    assert_eq!(verdict["basis"]["facts"][0]["signed_by"], id(OTHER).as_str());
    let demand = format!("demand: {{facts: [{}]}}\n", id(OTHER));
    verified(folder.path(), &verdict, &demand).unwrap();
    verified(folder.path(), &verdict, "demand: {facts: [live]}\n").unwrap_err();

    assert_eq!(origins(&check(folder.path(), "signed.json", &[])), ["file"], "no key vouches for it");
    write(&folder, "vmgate.yaml", "facts_keys: [collector.pem]\n");
    assert_eq!(origins(&check(folder.path(), "signed.json", &[])), ["signed"]);
    fs::remove_file(folder.path().join("vmgate.yaml")).unwrap();
    let other = ["check", "--facts", "signed.json", "--facts-key", "site.pem"];
    let said = vmgate_in(folder.path(), &other).exits(2);
    assert!(said.stderr.contains("no signature of the envelope is valid"), "{}", said.stderr);
    let mut edited: Value = serde_json::from_str(&envelope).unwrap();
    let payload = edited["payload"].as_str().unwrap().to_owned();
    let changed = if payload.as_bytes()[800] == b'A' { "B" } else { "A" };
    edited["payload"] = format!("{}{changed}{}", &payload[..800], &payload[801..]).into();
    write(&folder, "edited.json", &edited.to_string());
    vmgate_in(folder.path(), &["check", "--facts", "edited.json", "--facts-key", "collector.pem"]).exits(2);
}

/// Promise 6: a repository leaves the shipped rules out, replaces one, or sets a parameter, and the verdict names it, so that
/// a host that demands the shipped rules refuses it.
#[test]
fn a_verdict_names_everything_that_shaped_it() {
    let folder = folder();
    let demand = "demand: {rules: [builtin]}\n";
    let judged = |options: &[&str]| check(folder.path(), "facts.yaml", options);
    let refused = |verdict: &Value, why: &str| {
        let said = verified(folder.path(), verdict, demand).unwrap_err();
        assert!(said.contains(why), "`{why}` is not in: {said}");
    };
    verified(folder.path(), &judged(&[]), demand).unwrap();
    refused(&judged(&["--profile", "strict"]), "parameters of the profile strict");

    // A rule of the repository that always holds, in place of a shipped one.
    let fits = "assert: destination.memory.available_bytes >= needed_bytes + promised_bytes";
    let weaker = MEMORY_FITS.replace(
        fits,
        "assert: destination.memory.available_bytes >= 1 || needed_bytes + promised_bytes > 0",
    );
    assert_ne!(weaker, MEMORY_FITS);
    write(
        &folder,
        "rules/destination-memory-fits.yaml",
        &format!("{weaker}replaces: destination-memory-fits\n"),
    );
    let replaced = judged(&["--rules", "rules"]);
    assert_eq!(replaced["basis"]["rules"][1]["replaces"], json!(["destination-memory-fits"]));
    refused(&replaced, "which replace destination-memory-fits");
    write(&folder, "rules/destination-memory-fits.yaml", &weaker);
    refused(&judged(&["--rules", "rules", "--no-builtin-rules"]), "was not judged by the shipped rules");
    let parameters =
        |bytes| format!("parameters: {{destination-memory-fits: {{overhead_bytes: {bytes}}}}}\n");
    write(&folder, "vmgate.yaml", &parameters(0));
    refused(&judged(&[]), "parameters");

    // A key that signs the folder stands for it, until the folder is changed.
    let with_site = || judged(&["--rules", "site"]);
    write(&folder, "vmgate.yaml", "# nothing\n");
    write(
        &folder,
        "site/destination-memory-fits.yaml",
        &format!("{weaker}replaces: destination-memory-fits\n"),
    );
    vmgate_in(folder.path(), &["rules", "sign", "site", "--key", "collector.key"]).exits(0);
    let signed = format!("demand: {{rules: [builtin, {}]}}\n", id(OTHER));
    verified(folder.path(), &with_site(), &signed).unwrap();
    write(
        &folder,
        "site/destination-memory-fits.yaml",
        &format!("{weaker}replaces: destination-memory-fits\n# more\n"),
    );
    let why = verified(folder.path(), &with_site(), &signed).unwrap_err();
    assert!(why.contains("rules that the key"), "{why}");

    // The site consents by naming the digests, which it can print.
    write(&folder, "vmgate.yaml", &parameters(0));
    let digests = vmgate_in(folder.path(), &["rules", "digest"]).exits(0).stdout;
    let named: Vec<&str> = digests.split_whitespace().filter(|word| word.starts_with("sha256:")).collect();
    assert_eq!(named.len(), 2, "{digests}");
    let consent = format!("demand: {{rules: ['{}', '{}']}}\n", named[0], named[1]);
    verified(folder.path(), &judged(&[]), &consent).unwrap();
    write(&folder, "vmgate.yaml", &parameters(1));
    verified(folder.path(), &judged(&[]), &consent).unwrap_err();
}
