//! The walls of the house: which crate may never see which, whatever its manifest says one day.
//!
//! The compiler refuses an import that no manifest allows (each crate's documentation tries it, as `compile_fail`); this test
//! refuses the manifest that would allow it. Each wall is also tried with a hole in it, and must then be seen to fail.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::Command,
};

use serde_json::Value;

/// Direct dependencies of every package, without those for tests and builds.
type Graph = BTreeMap<String, BTreeSet<String>>;

/// Crates on the way from facts to verdict. `trust` reads the files that people write, with the standard library alone.
const PURE: &[&str] = &["facts", "trust", "documents", "attest", "verdict", "rules", "forecast", "judge"];

/// Crates that talk to something outside: processes, networks, databases, terminals.
const OUTSIDE: &[&str] = &[
    "virt",
    "virt-sys",
    "rusqlite",
    "tokio",
    "tokio-postgres",
    "rustls",
    "pnet",
    "procfs",
    "tempfile",
    "signal-hook",
    "hyper",
    "ureq",
    "clap",
    "indicatif",
    "vmgate-process",
    "vmgate-probe",
    "vmgate-reach",
    "vmgate-libvirt",
    "vmgate-ledger",
    "vmgate-collect",
    "vmgate-execute",
    "vmgate-hook",
    "vmgate",
];

/// What runs on hosts and in guests knows neither rules nor the command line, and no hypervisor's library.
const NOT_ON_HOSTS: &[&str] = &[
    "vmgate-rules",
    "vmgate-verdict",
    "vmgate-judge",
    "vmgate-forecast",
    "vmgate-reach",
    "vmgate-libvirt",
    "vmgate-ledger",
    "vmgate-collect",
    "vmgate-execute",
    "vmgate",
    "cel",
    "clap",
    "virt",
    "virt-sys",
    "rusqlite",
    "tokio",
];

/// Every wall: a crate, and what its whole graph may not hold.
fn walls() -> Vec<(&'static str, &'static [&'static str])> {
    let mut walls: Vec<_> = PURE.iter().map(|pure| (*pure, OUTSIDE)).collect();
    walls.extend([
        ("probe", NOT_ON_HOSTS),
        ("hook", NOT_ON_HOSTS),
        ("onhost", NOT_ON_HOSTS),
        ("process", NOT_ON_HOSTS),
        (
            "reach",
            &[
                "vmgate-rules",
                "vmgate-judge",
                "vmgate-probe",
                "vmgate-libvirt",
                "vmgate-execute",
                "clap",
                "virt",
            ],
        ),
        (
            "libvirt",
            &["vmgate-rules", "vmgate-judge", "vmgate-probe", "vmgate-ledger", "vmgate-execute", "clap"],
        ),
        ("collect", &["vmgate-ledger", "vmgate-execute", "vmgate-hook", "clap", "rusqlite"]),
        ("ledger", &["vmgate-collect", "vmgate-execute", "vmgate-libvirt", "vmgate-probe", "clap", "virt"]),
        ("execute", &["vmgate-hook", "clap", "vmgate", "hyper"]),
    ]);
    walls
}

fn graph() -> Graph {
    let rustc = Command::new("rustc").arg("-vV").output().unwrap();
    let host = String::from_utf8(rustc.stdout).unwrap();
    let host = host.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked", "--offline", "--all-features"])
        // What other platforms need was never downloaded.
        .args(["--filter-platform", host])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let names: BTreeMap<&str, &str> = metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|package| (package["id"].as_str().unwrap(), package["name"].as_str().unwrap()))
        .collect();
    let mut graph = Graph::new();
    for node in metadata["resolve"]["nodes"].as_array().unwrap() {
        let of = graph.entry(names[node["id"].as_str().unwrap()].to_owned()).or_default();
        for dependency in node["deps"].as_array().unwrap() {
            let kinds = dependency["dep_kinds"].as_array().unwrap();
            if kinds.iter().any(|kind| kind["kind"].is_null()) {
                of.insert(names[dependency["pkg"].as_str().unwrap()].to_owned());
            }
        }
    }
    graph
}

/// All that a package is built with.
fn closure(graph: &Graph, package: &str) -> BTreeSet<String> {
    let (mut all, mut next) = (BTreeSet::new(), vec![package.to_owned()]);
    while let Some(package) = next.pop() {
        for dependency in graph.get(&package).into_iter().flatten() {
            if all.insert(dependency.clone()) {
                next.push(dependency.clone());
            }
        }
    }
    all
}

fn breaches(graph: &Graph) -> Vec<String> {
    let mut found = Vec::new();
    for (name, forbidden) in walls() {
        let all = closure(graph, &format!("vmgate-{name}"));
        for other in forbidden.iter().filter(|other| all.contains(**other)) {
            found.push(format!("crates/{name} is built with {other}"));
        }
    }
    let tappers = graph.iter().filter(|(of, uses)| uses.contains("tappers") && *of != "vmgate-onhost");
    found.extend(tappers.map(|(of, _)| format!("{of} can make interfaces, which crates/onhost alone may")));
    let holders: Vec<&String> = graph
        .iter()
        .filter(|(_, uses)| uses.contains("virt-sys") || uses.contains("virt"))
        .map(|(of, _)| of)
        .collect();
    for holder in holders.into_iter().filter(|holder| !["virt", "vmgate-libvirt"].contains(&holder.as_str()))
    {
        found.push(format!("{holder} links libvirt (LGPL), which crates/libvirt alone may"));
    }
    found
}

#[test]
fn no_crate_sees_what_its_wall_keeps_from_it() {
    assert_eq!(breaches(&graph()), Vec::<String>::new());
}

#[test]
fn every_wall_is_seen_to_fail_with_a_hole_in_it() {
    let graph = graph();
    for (name, forbidden) in walls() {
        for other in forbidden {
            let mut holed = graph.clone();
            holed.entry(format!("vmgate-{name}")).or_default().insert((*other).to_owned());
            let wanted = format!("crates/{name} is built with {other}");
            assert!(breaches(&holed).contains(&wanted), "no wall noticed: {wanted}");
        }
    }
    for (other, wanted) in [("virt-sys", "LGPL"), ("tappers", "can make interfaces")] {
        let mut holed = graph.clone();
        holed.entry("vmgate-collect".into()).or_default().insert(other.into());
        assert!(breaches(&holed).iter().any(|breach| breach.contains(wanted)), "no wall noticed: {wanted}");
    }
}

/// Crates that may hold `unsafe`: libvirt's C functions, and system calls. The executor allows it in its private `hand`.
const UNSAFE: &[&str] = &["execute", "libvirt", "probe"];

#[test]
fn unsafe_code_which_raw_calls_to_libvirt_need_is_forbidden_but_in_three_crates() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut crates: Vec<_> =
        fs::read_dir(root.join("crates")).unwrap().map(|entry| entry.unwrap().path()).collect();
    crates.push(root.to_owned());
    for folder in crates {
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        if UNSAFE.contains(&name.as_str()) {
            continue;
        }
        let main = ["src/lib.rs", "src/main.rs"]
            .map(|file| folder.join(file))
            .into_iter()
            .find(|file| file.exists());
        let text = fs::read_to_string(main.unwrap()).unwrap();
        assert!(text.contains("#![forbid(unsafe_code)]"), "{name} does not forbid unsafe code");
    }
    let execute = fs::read_to_string(root.join("crates/execute/src/lib.rs")).unwrap();
    assert!(execute.contains("#![deny(unsafe_code)]"));
    assert_eq!(execute.matches("allow(unsafe_code").count(), 1, "only the module `hand` may");
    assert!(execute.contains("\nmod hand;") && !execute.contains("pub mod hand"));
}
