#!/usr/bin/python
# Copyright: the vmgate developers
# Apache License 2.0 (see https://www.apache.org/licenses/LICENSE-2.0)
"""Module for the hook of a destination host."""

from __future__ import annotations

DOCUMENTATION = """
module: hook
short_description: Let migrations into a host only with a signed verdict
description:
  - Runs C(vmgate hook install) or C(vmgate hook remove). What is installed already and the same is no change.
version_added: 0.1.0
author:
  - The vmgate developers (@vmgate)
attributes:
  check_mode:
    description: Whether the hook is installed, and its mode, are compared.
    support: full
options:
  host:
    description: The destination host.
    type: str
    required: true
  state:
    description: Installed or not.
    type: str
    choices: [present, absent]
    default: present
  keys:
    description: Files with public keys, in PEM, that the host shall trust.
    type: list
    elements: path
    default: []
  mode:
    description: Refuse migrations without a verdict, or only log them.
    type: str
    choices: [enforce, audit-only]
  reload:
    description: Make libvirt look for hooks again if needed.
    type: bool
    default: false
extends_documentation_fragment: [vmgate.migration.program]
"""

EXAMPLES = """
- name: Install the hook
  vmgate.migration.hook:
    host: hv2
    keys: [/etc/vmgate/release.pub]
    mode: enforce
"""

RETURN = """
status:
  description: What C(vmgate hook status) says of the host afterwards.
  returned: always
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.vmgate.migration.plugins.module_utils import program


def status(module, host):
    """What the host enforces; nothing where the hook is not installed."""
    code, out, err = program.run(module, ["hook", "status", "--output", "json", host])
    found = program.document(module, code, out, err)["hosts"][0]
    if "status" not in found and not any("not installed" in text for text in found["trouble"]):
        module.fail_json(msg="; ".join(found["trouble"]), exit_code=code)
    return found


def settings(found):
    """The part of a status that an installation decides."""
    seen = found.get("status")
    return seen and {name: seen.get(name) for name in ("vmgate", "host_uuid", "config", "keys", "known")}


def main():
    """Runs the module."""
    spec = {
        "host": {"type": "str", "required": True},
        "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        "keys": {"type": "list", "elements": "path", "default": [], "no_log": False},
        "mode": {"type": "str", "choices": ["enforce", "audit-only"]},
        "reload": {"type": "bool", "default": False},
    }
    module = AnsibleModule(argument_spec=dict(spec, **program.OPTIONS), supports_check_mode=True)
    given = module.params
    before = status(module, given["host"])
    installed = bool((before.get("status") or {}).get("vmgate"))
    if module.check_mode or (given["state"] == "absent" and not installed):
        mode = ((before.get("status") or {}).get("config") or {}).get("mode")
        wanted = given["state"] == "present"
        differs = installed != wanted or (wanted and given["mode"] and mode != given["mode"])
        module.exit_json(changed=bool(differs), status=before)
    words = ["hook", "install" if given["state"] == "present" else "remove"]
    if given["state"] == "present":
        for key in given["keys"]:
            words += ["--key", key]
        words += ["--mode", given["mode"]] if given["mode"] else []
        words += ["--reload"] if given["reload"] else []
    code, out, err = program.run(module, words + given["options"] + [given["host"]])
    if code != 0:
        module.fail_json(msg=err.strip() or out, exit_code=code)
    after = status(module, given["host"])
    module.exit_json(changed=settings(before) != settings(after), status=after)


if __name__ == "__main__":
    main()
