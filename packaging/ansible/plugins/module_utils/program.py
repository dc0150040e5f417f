# Copyright: the vmgate developers
# Apache License 2.0 (see https://www.apache.org/licenses/LICENSE-2.0)
"""Runs of the program vmgate, and its documents."""

from __future__ import annotations

import json

GO = (0, 10)
NO_GO = (20, 21)

OPTIONS = {
    "config": {"type": "path"},
    "program": {"type": "path", "default": "vmgate"},
    "options": {"type": "list", "elements": "str", "default": []},
}


def run(module, words):
    """Runs vmgate with these words, and returns its exit code, output and messages."""
    command = [module.params["program"]]
    if module.params["config"]:
        command += ["--config", module.params["config"]]
    return module.run_command(command + words)


def document(module, code, out, err):
    """The JSON document on standard output; the module fails with vmgate's words if there is none."""
    try:
        return json.loads(out)
    except ValueError:
        module.fail_json(msg=err.strip() or "vmgate printed no document", exit_code=code)


def verdicts(found):
    """The verdicts of a report: one, or several."""
    return found.get("verdicts", [found])


def answers(found):
    """For each verdict its VM, hosts, decision and what blocks."""
    rows = []
    for verdict in verdicts(found):
        moved = verdict["move"]
        blocking = {o["rule"] for o in verdict["outcomes"] if o.get("effect_now") == "block"}
        rows.append(
            {
                "vm": moved["vm"].get("name"),
                "source": moved["source"].get("name"),
                "destination": moved["destination"].get("name"),
                "decision": verdict["decision"]["answer"],
                "blocking": sorted(blocking),
            }
        )
    return rows


def decision(code):
    """GO or NO-GO for an exit code of vmgate, else nothing."""
    return "GO" if code in GO else "NO-GO" if code in NO_GO else None
