#!/usr/bin/python
# Copyright: the vmgate developers
# Apache License 2.0 (see https://www.apache.org/licenses/LICENSE-2.0)
"""Module for the verdict on a move."""

from __future__ import annotations

DOCUMENTATION = """
module: check
short_description: Say GO or NO-GO for a move
description:
  - Runs C(vmgate check), which only reads, and returns its verdicts.
version_added: 0.1.0
author:
  - The vmgate developers (@vmgate)
attributes:
  check_mode:
    description: It only reads, in check mode too.
    support: full
options:
  vm:
    description: Name or UUID of the VM. Without it every VM of O(from) is checked.
    type: str
  from:
    description: The host that the VM runs on. It is found out if this is left out.
    type: str
  to:
    description: The destination host, a pool or a rack, or V(any).
    type: str
  fail_on_no_go:
    description: Fail if a verdict is NO-GO.
    type: bool
    default: true
extends_documentation_fragment: [vmgate.migration.program]
"""

EXAMPLES = """
- name: Choose the best destination for web1
  vmgate.migration.check:
    vm: web1
    to: any
  register: best
"""

RETURN = """
decision:
  description: GO if every verdict is GO, else NO-GO.
  returned: always
  type: str
exit_code:
  description: Exit code of vmgate.
  returned: always
  type: int
moves:
  description: For each move its VM, hosts, decision and the rules that block.
  returned: always
  type: list
  elements: dict
report:
  description: The document of C(--output json).
  returned: always
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.vmgate.migration.plugins.module_utils import program


def main():
    """Runs the module."""
    spec = {
        "vm": {"type": "str"},
        "from": {"type": "str"},
        "to": {"type": "str"},
        "fail_on_no_go": {"type": "bool", "default": True},
    }
    module = AnsibleModule(
        argument_spec=dict(spec, **program.OPTIONS),
        required_one_of=[("vm", "from")],
        supports_check_mode=True,
    )
    given = module.params
    words = ["check", "--output", "json", *given["options"]]
    words += ["--from", given["from"]] if given["from"] else []
    words += ["--to", given["to"]] if given["to"] else []
    words += ["--", given["vm"]] if given["vm"] else ["--all"]
    code, out, err = program.run(module, words)
    report = program.document(module, code, out, err)
    result = {
        "changed": False,
        "exit_code": code,
        "decision": program.decision(code),
        "moves": program.answers(report),
        "report": report,
    }
    if given["fail_on_no_go"] and result["decision"] != "GO":
        blocked = ["%(vm)s: %(blocking)s" % move for move in result["moves"] if move["decision"] != "GO"]
        module.fail_json(msg="NO-GO: " + "; ".join(blocked), **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
