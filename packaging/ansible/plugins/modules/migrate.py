#!/usr/bin/python
# Copyright: the vmgate developers
# Apache License 2.0 (see https://www.apache.org/licenses/LICENSE-2.0)
"""Module that migrates a VM on GO."""

from __future__ import annotations

DOCUMENTATION = """
module: migrate
short_description: Migrate a VM if the verdict is GO
description:
  - Runs C(vmgate migrate), which checks the move, migrates only on GO, and verifies that the VM works at the destination.
  - Nothing is done if the VM runs at the destination already.
version_added: 0.1.0
author:
  - The vmgate developers (@vmgate)
attributes:
  check_mode:
    description: The move is checked and not made.
    support: full
options:
  vm:
    description: Name or UUID of the VM.
    type: str
    required: true
  from:
    description: The host that the VM runs on. It is found out if this is left out.
    type: str
  to:
    description: The destination host.
    type: str
    required: true
extends_documentation_fragment: [vmgate.migration.program]
"""

EXAMPLES = """
- name: Migrate web1
  vmgate.migration.migrate:
    vm: web1
    to: hv2
"""

RETURN = """
decision:
  description: The verdict, GO or NO-GO.
  returned: if the move was checked
  type: str
exit_code:
  description: Exit code of vmgate.
  returned: always
  type: int
moves:
  description: The VM, its hosts, the decision and the rules that block.
  returned: if the move was checked
  type: list
  elements: dict
report:
  description: The document of C(--output json).
  returned: if the move was checked
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.vmgate.migration.plugins.module_utils import program

THERE_ALREADY = "are the same host"


def main():
    """Runs the module."""
    spec = {
        "vm": {"type": "str", "required": True},
        "from": {"type": "str"},
        "to": {"type": "str", "required": True},
    }
    module = AnsibleModule(argument_spec=dict(spec, **program.OPTIONS), supports_check_mode=True)
    given = module.params
    words = ["check" if module.check_mode else "migrate", "--output", "json", *given["options"]]
    words += ["--from", given["from"]] if given["from"] else []
    words += ["--to", given["to"], "--", given["vm"]]
    code, out, err = program.run(module, words)
    if code == 2 and THERE_ALREADY in err:
        module.exit_json(changed=False, exit_code=0, msg="the VM runs there already")
    report = program.document(module, code, out, err)
    result = {
        "exit_code": code,
        "decision": program.decision(code),
        "moves": program.answers(report),
        "report": report,
    }
    if code != 0:
        module.fail_json(msg=err.strip() or "NO-GO", changed=False, **result)
    module.exit_json(changed=True, **result)


if __name__ == "__main__":
    main()
