# Copyright: the vmgate developers
# Apache License 2.0 (see https://www.apache.org/licenses/LICENSE-2.0)
"""Options that every module takes."""

from __future__ import annotations


class ModuleDocFragment:
    """Documentation of `OPTIONS` in module_utils/program.py."""

    DOCUMENTATION = """
options:
  config:
    description: The vmgate.yaml to use.
    type: path
  program:
    description: The program.
    type: path
    default: vmgate
  options:
    description: Further options of the command, as on a command line.
    type: list
    elements: str
    default: []
"""
