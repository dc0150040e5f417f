//! A batch of cases in one direction: the VMs are started, vmgate judges them, and then libvirt is asked for each.

use std::{collections::BTreeMap, fmt::Write as _, fs};

use jiff::Timestamp;
use serde_json::Value;

use super::{
    Case,
    configuration::{Fill, When},
    results::{Block, Came, Line, Said, Twin},
    stage,
};
use crate::harness::{lab, on_host, setting, vmgate};

/// Rules that do not speak of what libvirt and QEMU accept: of the guest's inside, which these VMs do not have, of its packets, and of
/// how long the move takes. Their findings are waived, as an operator would who wants to know the others.
const NOT_OF_ACCEPTANCE: [&str; 13] = [
    "control-sessions-survive-silence",
    "destination-network-mtu-fits",
    "dirty-rate-below-goodput",
    "forecast-blackout-within-limit",
    "forecast-converges",
    "guest-network-follows-soon",
    "media-flows-tolerate-blackout",
    "memory-sync-survives-blackout",
    "sctp-paths-survive-blackout",
    "tcp-retransmission-budget",
    "tcp-user-timeout-above-blackout",
    "udp-detectors-tolerate-blackout",
    "vm-is-running",
];

/// Both answers to each case.
pub(super) fn run(cases: &[Case]) -> Vec<Line> {
    let (from, to) = (cases[0].from.to_string(), cases[0].to.to_string());
    for case in cases {
        fs::write(stage::folder().join(format!("{}.xml", case.number)), case.configuration.xml(&case.fill()))
            .unwrap();
    }
    script(&to, cases, |case| {
        let here = |when| case.configuration.commands(when, "destination", &case.fill());
        quietly(&(here(When::Before) + &here(When::Ready)))
    });
    let started = script(&from, cases, start);
    let running: Vec<&Case> = cases.iter().filter(|case| started[&case.number].0 == 0).collect();
    let judged = judge(&running, &[]);
    let open: Vec<&Case> = running
        .iter()
        .copied()
        .filter(|case| {
            judged.get(&case.name()).is_some_and(|(said, blocks)| asking_may_settle(*said, blocks))
        })
        .collect();
    let asked = judge(&open, &["--allow-monitor", "--trial"]);
    let moved = script(&from, running.iter().copied(), migrate);
    let twins: BTreeMap<usize, Twin> = running
        .iter()
        .filter(|case| {
            moved
                .get(&case.number)
                .is_some_and(|(code, words)| *code != 0 && refusal(words) == Came::RefusedAtTheEnd)
        })
        .map(|case| (case.number, rehearse(case)))
        .collect();
    clear(cases);
    cases
        .iter()
        .map(|case| {
            let (said, blocks) = judged
                .get(&case.name())
                .cloned()
                .map_or((None, Vec::new()), |(said, blocks)| (Some(said), blocks));
            let (came, words) = match moved.get(&case.number) {
                None => (Came::NotStarted, started[&case.number].1.clone()),
                Some((0, _)) => (Came::Accepted, String::new()),
                Some((_, words)) => (refusal(words), words.clone()),
            };
            Line {
                topic: case.configuration.topic.clone(),
                id: case.configuration.id.clone(),
                from: case.from,
                to: case.to,
                said,
                blocks,
                asked: asked.get(&case.name()).map(|(said, _)| *said),
                twin: twins.get(&case.number).copied(),
                came,
                words: words.chars().take(400).collect(),
            }
        })
        .collect()
}

impl Case {
    fn fill(&self) -> Fill {
        Fill { number: self.number, from: self.from, to: self.to }
    }

    fn name(&self) -> String {
        self.configuration.name(&self.fill())
    }

    /// The name as a word of a shell.
    fn quoted(&self) -> String {
        format!("'{}'", self.name().replace('\'', "'\\''"))
    }
}

fn quietly(commands: &str) -> String {
    if commands.trim().is_empty() {
        String::new()
    } else {
        format!("{{\n{commands}}} >/dev/null 2>&1 </dev/null\n")
    }
}

fn start(case: &Case) -> String {
    let here = |when| quietly(&case.configuration.commands(when, "source", &case.fill()));
    let (before, ready, after) = (here(When::Before), here(When::Ready), here(When::After));
    let (number, name) = (case.number, case.quoted());
    format!(
        "{before}{ready}o=$( {{ timeout 30 virsh -q define /lab/guests/acceptance/{number}.xml && timeout 40 virsh -q start {name}; }} 2>&1 </dev/null )\n\
         echo \"@@ {number} $?\"; echo \"$o\"\n{after}"
    )
}

/// As vmgate itself asks libvirt: its flags, with the migration's address.
fn migrate(case: &Case) -> String {
    let Case { number, to, .. } = case;
    let (name, address) = (case.quoted(), address(*to));
    format!(
        "p=; virsh dominfo {name} 2>/dev/null | grep -q 'Persistent: *yes' && p='--persistent --undefinesource'\n\
         o=$(timeout 60 virsh -q migrate --live --abort-on-error $p {name} qemu+tcp://lab-{to}/system tcp://{address} 2>&1 </dev/null)\n\
         r=$?; [ $r = 124 ] && o=\"no answer within 60 s $o\"\n\
         case $o in *'domain is not running'*) o=\"$o; its log: $(tail -n 3 /var/log/libvirt/qemu/{name}.log)\";; esac\n\
         echo \"@@ {number} $r\"; echo \"$o\"\n"
    )
}

/// Runs a script of a part for each case; the exit code and the words of each.
fn script<'a>(
    host: &str,
    cases: impl IntoIterator<Item = &'a Case>,
    part: impl Fn(&Case) -> String,
) -> BTreeMap<usize, (i32, String)> {
    let text: String = cases.into_iter().map(part).collect();
    let said = on_host(host, "exec sh -s", text.as_bytes()).stdout;
    let mut found: BTreeMap<usize, (i32, String)> = BTreeMap::new();
    let mut present = 0;
    for line in said.lines() {
        if let Some(("@@", rest)) = line.split_once(' ') {
            let (number, code) = rest.split_once(' ').unwrap();
            present = number.parse().unwrap();
            found.insert(present, (code.parse().unwrap(), String::new()));
        } else if let Some((_, words)) = found.get_mut(&present) {
            format!("{words} {line}").trim().clone_into(words);
        }
    }
    found
}

/// True if vmgate could not tell, or shows a way to ask that it was not allowed.
fn asking_may_settle(said: Said, blocks: &[Block]) -> bool {
    let offers = |block: &Block| {
        ["--allow-monitor", "--trial"]
            .iter()
            .any(|option| format!("{} {}", block.message, block.way_out).contains(option))
    };
    said == Said::Unknown || said == Said::NoGo && blocks.iter().all(offers)
}

fn uri(host: char) -> String {
    setting(&format!("VMGATE_LAB_URI_{}", host.to_ascii_uppercase()))
}

fn address(host: char) -> String {
    setting(&format!("VMGATE_LAB_MIGRATE_{}", host.to_ascii_uppercase()))
}

/// Word of the VM's twin. What it finds stays out of the ledger of the other cases.
fn rehearse(case: &Case) -> Twin {
    let folder = tempfile::tempdir().unwrap();
    let ledger = folder.path().join("ledger.db");
    let (name, from, to, address) = (case.name(), uri(case.from), uri(case.to), address(case.to));
    let said = vmgate(&[
        "rehearse",
        &name,
        "--from",
        &from,
        "--to",
        &to,
        "--migrate-address",
        &address,
        "--config",
        &stage::config(),
        "--ledger",
        ledger.to_str().unwrap(),
    ]);
    match said.code {
        0 => Twin::Passed,
        20 => Twin::Failed,
        _ => Twin::NotRehearsed,
    }
}

/// What vmgate says of the VMs, by their names.
fn judge(cases: &[&Case], options: &[&str]) -> BTreeMap<String, (Said, Vec<Block>)> {
    let Some(first) = cases.first() else { return BTreeMap::new() };
    let address = address(first.to);
    let today = Timestamp::now().strftime("%Y-%m-%d").to_string();
    let mut change =
        "schema: vmgate/change/v1\nid: acceptance\ntitle: configurations of the oracle\nwaivers:\n"
            .to_owned();
    for rule in NOT_OF_ACCEPTANCE {
        let _ = writeln!(
            change,
            "  - {{rule: {rule}, match: {{vm: '*'}}, owner: oracle, reason: not of acceptance, ticket: none, created: {today}, expires: {today}}}"
        );
    }
    change += "moves:\n";
    for case in cases {
        let name = serde_json::to_string(&case.name()).unwrap();
        let _ = writeln!(
            change,
            "  - {{vm: {name}, from: '{}', to: '{}', migrate_address: {address}}}",
            uri(first.from),
            uri(first.to)
        );
    }
    let file = tempfile::Builder::new().suffix(".yaml").tempfile().unwrap();
    fs::write(file.path(), change).unwrap();
    let (change, config) = (file.path().to_str().unwrap(), stage::config());
    let check = ["check", "--change", change, "--config", &config, "--output", "json", "--timeout", "60"];
    let said = vmgate(&[&check[..], options].concat());
    let Ok(report) = serde_json::from_str::<Value>(&said.stdout) else {
        eprintln!("no report, exit code {}: {}", said.code, said.stderr);
        return BTreeMap::new();
    };
    let one = |verdict: &Value| {
        (verdict["move"]["vm"]["name"].as_str().unwrap_or_default().to_owned(), answer(verdict))
    };
    // Of one move the report is its verdict alone.
    report["verdicts"]
        .as_array()
        .map_or_else(|| vec![&report], |all| all.iter().collect())
        .into_iter()
        .map(one)
        .collect()
}

fn answer(verdict: &Value) -> (Said, Vec<Block>) {
    let outcomes = verdict["outcomes"].as_array().unwrap();
    let text = |outcome: &Value, key: &str| outcome[key].as_str().unwrap_or_default().to_owned();
    let blocks = outcomes.iter().filter(|outcome| outcome["effect_now"] == "block").map(|outcome| Block {
        rule: text(outcome, "rule"),
        status: text(outcome, "status"),
        message: text(outcome, "message"),
        way_out: text(outcome, "remediation"),
    });
    let said = match (&verdict["decision"]["answer"], &verdict["decision"]["because"]) {
        (Value::String(answer), _) if answer == "GO" => Said::Go,
        (_, Value::String(because)) if because == "rule-violated" => Said::NoGo,
        _ => Said::Unknown,
    };
    (said, blocks.collect())
}

/// The end of a refused move: the destination's QEMU has either been sent memory, or not.
fn refusal(words: &str) -> Came {
    let at_the_end = [
        "load of migration",
        "job 'migration out'",
        "migration failed",
        "error while loading",
        "migration out job",
    ];
    if at_the_end.iter().any(|text| words.contains(text)) { Came::RefusedAtTheEnd } else { Came::Refused }
}

/// Removes the VMs from both hosts, and undoes what the cases did there.
fn clear(cases: &[Case]) {
    for (host, role) in [(cases[0].from, "source"), (cases[0].to, "destination")] {
        let host = host.to_string();
        script(&host, cases, |case| {
            let name = case.quoted();
            let undo = case.configuration.commands(When::Undo, role, &case.fill());
            quietly(&format!(
                "virsh -q destroy {name}; virsh -q undefine {name} --nvram --managed-save --snapshots-metadata || \
                 virsh -q undefine {name}\n{undo}"
            ))
        });
        if lab(&["host", &host, "virsh", "-q", "version"]).code != 0 {
            lab(&["up", &host]);
        }
    }
}
