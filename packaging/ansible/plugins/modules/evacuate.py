#!/usr/bin/python
# Copyright: the vmgate developers
# Apache License 2.0 (see https://www.apache.org/licenses/LICENSE-2.0)
"""Module that plans how hosts are emptied."""

from __future__ import annotations

DOCUMENTATION = """
module: evacuate
short_description: Write a change file that empties hosts
description:
  - Runs C(vmgate evacuate), which asks the hosts and plans destinations, order and duration. C(vmgate run) executes the change.
version_added: 0.1.0
author:
  - The vmgate developers (@vmgate)
attributes:
  check_mode:
    description: The plan is made and not written.
    support: full
options:
  hosts:
    description: Hosts, pools or racks to empty.
    type: list
    elements: str
    required: true
  into:
    description: Hosts, pools or racks that take the VMs.
    type: list
    elements: str
    required: true
  dest:
    description: The change file to write.
    type: path
    required: true
extends_documentation_fragment: [vmgate.migration.program]
"""

EXAMPLES = """
- name: Plan how rack r1 is emptied
  vmgate.migration.evacuate:
    hosts: [r1]
    into: [compute]
    dest: /etc/vmgate/changes/empty-r1.yaml
"""

RETURN = """
plan:
  description: The plan in words.
  returned: always
  type: str
exit_code:
  description: Exit code of vmgate.
  returned: always
  type: int
"""

import os
import tempfile

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.vmgate.migration.plugins.module_utils import program


def content(path):
    """Bytes of a file; none where there is no file."""
    if not os.path.exists(path):
        return None
    with open(path, "rb") as file:
        return file.read()


def main():
    """Runs the module."""
    spec = {
        "hosts": {"type": "list", "elements": "str", "required": True},
        "into": {"type": "list", "elements": "str", "required": True},
        "dest": {"type": "path", "required": True},
    }
    module = AnsibleModule(argument_spec=dict(spec, **program.OPTIONS), supports_check_mode=True)
    given = module.params
    with tempfile.TemporaryDirectory(dir=module.tmpdir) as folder:
        draft = os.path.join(folder, "change.yaml")
        words = ["evacuate", *given["options"], "--output", draft, *given["hosts"], "--into", *given["into"]]
        code, out, err = program.run(module, words)
        if code != 0:
            module.fail_json(msg=err.strip() or out, exit_code=code, plan=out)
        changed = content(draft) != content(given["dest"])
        if changed and not module.check_mode:
            module.atomic_move(draft, given["dest"])
    module.exit_json(changed=changed, exit_code=code, plan=out)


if __name__ == "__main__":
    main()
