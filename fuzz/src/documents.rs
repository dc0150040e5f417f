//! Documents: those that people write, whose errors are printed too, and those of programs.

use std::sync::LazyLock;

use serde::Serialize;
use serde_json::Value;
use vmgate::{audit::Audit, config::Config, fleet::inventory::Inventory, serve};
use vmgate_attest::{Digest, Permit, Predicate, PrivateKey, PublicKey};
use vmgate_documents::{Problems, facts_file};
use vmgate_judge::change::ChangeFile;
use vmgate_ledger::{Entry, Record};
use vmgate_verdict::{Verdict, Waivers};

fn shown<T>(read: Result<T, Problems>) -> Option<T> {
    read.map_err(|problems| drop(problems.render(true))).ok()
}

pub(crate) fn change(data: &[u8]) {
    shown(ChangeFile::parse("fuzz.yaml", data));
}

pub(crate) fn config(data: &[u8]) {
    shown(Config::parse("fuzz.yaml", data));
}

pub(crate) fn facts(data: &[u8]) {
    shown(facts_file::parse("fuzz.yaml", data));
}

pub(crate) fn inventory(data: &[u8]) {
    shown(Inventory::parse("fuzz.yaml", data));
}

pub(crate) fn waiver(data: &[u8]) {
    shown(Waivers::parse("fuzz.yaml", data));
}

pub(crate) fn audit(data: &[u8]) {
    if let Ok(audit) = Audit::read("fuzz", data) {
        audit.clone().compare_with(&audit);
    }
}

pub(crate) fn verdict(data: &[u8]) {
    for verdict in vmgate_verdict::read("fuzz", data).into_iter().flatten() {
        let written = serde_json::to_vec(&verdict).expect("a verdict can be written");
        assert_eq!(vmgate_verdict::read("again", &written).expect("what was written is read"), [verdict]);
    }
}

/// A predicate of any content.
#[derive(Serialize)]
struct Any(Value);

impl Predicate for Any {
    const TYPE: &'static str = <Verdict as Predicate>::TYPE;

    fn facts(&self) -> Option<Digest> {
        Some(Digest::of(b"facts"))
    }

    fn label(&self) -> &'static str {
        "fuzz"
    }
}

/// A key that signs nothing but what a fuzzer made.
const KEY: &str = "-----BEGIN PRIVATE KEY-----\n\
    MC4CAQAwBQYDK2VwBCIEIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f\n\
    -----END PRIVATE KEY-----\n";

static SIGNER: LazyLock<PrivateKey> =
    LazyLock::new(|| PrivateKey::from_pem("fuzz", KEY).expect("the key is one"));

/// An envelope of these bytes, and one that is signed and holds them.
pub(crate) fn envelope(data: &[u8]) {
    let trusted = [SIGNER.public()];
    drop(vmgate_attest::verify::<Permit>(data, &trusted));
    if let Ok(content) = serde_json::from_slice(data)
        && let Ok(signed) = vmgate_attest::sign(&Any(content), &SIGNER)
        && let Ok(bytes) = serde_json::to_vec(&signed)
    {
        drop(vmgate_attest::verify::<Permit>(&bytes, &trusted));
        drop(vmgate_attest::verify::<Verdict>(&bytes, &trusted));
    }
}

pub(crate) fn key(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let _ = (PrivateKey::from_pem("fuzz", &text), PublicKey::from_pem("fuzz", &text));
}

/// Records of a campaign, one a line: its state, its page and its metrics.
pub(crate) fn ledger(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let entries = text.lines().filter_map(|line| Some((serde_json::from_str::<Entry>(line).ok()?, line)));
    let records: Vec<Record> = entries
        .zip(1..)
        .map(|((entry, line), sequence)| Record {
            sequence,
            at: "2026-11-23T01:00:00Z".parse().expect("it is a time"),
            entry,
            role: None,
            body: line.to_owned(),
            digest: Digest::of(b"record"),
        })
        .collect();
    for record in &records {
        drop((record.entry.to_string(), serde_json::to_string(&record.entry)));
    }
    let mut board = serve::Dashboard::new("sha256:0");
    board.read(&records, 1000.0);
    drop(serve::page(&board, "2026-11-23T02:00:00Z".parse().expect("it is a time")));
    drop(serve::metrics(&board));
}
