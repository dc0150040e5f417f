"""Reads the reports in a folder with other people's parsers and compares what they find, format by format."""

import collections
import csv
import json
import sys
from pathlib import Path

import jsonschema
import yaml
from junitparser import Error, Failure, JUnitXml, Skipped
from prometheus_client.parser import text_string_to_metric_families

folder, sarif_schema = Path(sys.argv[1]), Path(sys.argv[2])


def text(name):
    # Not read_text: it would turn the line ends of CSV into others.
    return (folder / name).read_bytes().decode()


def expect(what, found, wanted):
    if found != wanted:
        sys.exit(f"{folder.name}: {what}: found {found}, expected {wanted}")
    print(f"{folder.name}: {what}: {found}")


def verdicts(document):
    return document.get("verdicts", [document])


def outcomes(document):
    return [outcome for verdict in verdicts(document) for outcome in verdict["outcomes"]]


def standing(outcome):
    """What an outcome is for those who read: waived goes before its status."""
    return "waived" if "waiver" in outcome else outcome["status"]


# The samples of JSON and YAML hold one verdict, those of the other formats that one and another.
source = json.loads(text("json"))
# JSON and YAML are the same document, to the last hostile character.
expect("YAML is JSON", yaml.safe_load(text("yaml")) == source, True)

sarif = json.loads(text("sarif"))
schema = json.loads(sarif_schema.read_text())
problems = [error.message for error in jsonschema.Draft7Validator(schema).iter_errors(sarif)]
expect("SARIF against its schema", problems, [])
(run,) = sarif["runs"]
results = [result for result in run["results"] if result.get("baselineState") != "absent"]
kinds = collections.Counter("waived" if result["suppressions"] else result["kind"] for result in results)
words = {"fail": "fail", "open": "unknown", "pass": "pass", "notApplicable": "not-applicable", "waived": "waived"}
seen = collections.Counter({words[kind]: count for kind, count in kinds.items()})

rows = list(csv.DictReader(text("csv").splitlines(keepends=True)))
expect("CSV has every outcome", collections.Counter("waived" if row["waived_by"] else row["status"] for row in rows), seen)
for row in rows:
    for cell in row.values():
        if cell[:1] in ("=", "+", "-", "@", "\t", "\r"):
            sys.exit(f"{folder.name}: a spreadsheet would evaluate {cell!r}")
if folder.name == "pack":
    expect("SARIF has every outcome of JSON", seen, collections.Counter(map(standing, outcomes(source))))
    states = collections.Counter(result["baselineState"] for result in run["results"])
    since = verdicts(source)[0]["since"]
    expect("new findings in SARIF", states["new"], len(since["new"]))
    expect("fixed findings in SARIF", states["absent"], len(since.get("fixed", [])))

junit = JUnitXml.fromfile(str(folder / "junit"))
cases = [case for suite in junit for case in suite]
expect("JUnit has every outcome", len(cases), len(rows))
junit_kinds = collections.Counter(type(kind).__name__ for case in cases for kind in case.result)
blocked = collections.Counter(row["status"] for row in rows if row["effect_now"] == "block")
wanted = {"Failure": blocked["fail"], "Error": blocked["unknown"], "Skipped": seen["waived"] + seen["not-applicable"]}
expect("JUnit says it in its own terms", {kind: junit_kinds[kind] for kind in wanted}, wanted)
totals = {"Failure": junit.failures, "Error": junit.errors, "Skipped": junit.skipped}
expect("JUnit's totals are those of its cases", totals, wanted)
for kind in (Failure, Error, Skipped):
    for case in cases:
        for result in case.result:
            if isinstance(result, kind) and not result.message:
                sys.exit(f"{folder.name}: {case.name}: no message")

families = {family.name: family for family in text_string_to_metric_families(text("prometheus"))}
metric = lambda name: families[f"vmgate_verdict_{name}"].samples
go = {sample.labels["vm"]: sample.value for sample in metric("go")}
expect("Prometheus says GO as CSV does", go, {row["vm"]: float(row["decision"] == "GO") for row in rows})
total = sum(sample.value for sample in metric("outcomes"))
expect("Prometheus counts every outcome", total, float(len(rows)))
series = [(s.name, tuple(sorted(s.labels.items()))) for f in families.values() for s in f.samples]
expect("no series stands twice", len(series) - len(set(series)), 0)

annotations = collections.Counter(line.split(" ")[0] for line in text("github").splitlines() if line.startswith("::"))
expect("only GitHub's own levels", set(annotations) - {"::error", "::warning", "::notice"}, set())
expect("NO-GO is an error for GitHub", annotations["::error"] > 0, any(row["decision"].startswith("NO-GO") for row in rows))
