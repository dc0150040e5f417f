"""Prints an SVG of a session with vmgate: each command is run, and what it says is shown as a terminal would.

    record.py VMGATE FACTS_FILE      a check without a hypervisor
    record.py VMGATE lab LAB VM      the first minutes with the lab's two hosts, and a VM that runs on the first
"""

import io
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

vmgate = Path(sys.argv[1])
THEME = TerminalTheme(
    (22, 27, 34),
    (230, 237, 243),
    [(72, 79, 88), (255, 123, 114), (63, 185, 80), (210, 153, 34), (88, 166, 255), (188, 140, 255), (57, 197, 207), (177, 186, 196)],
    [(110, 118, 129), (255, 161, 152), (86, 211, 100), (227, 179, 65), (121, 192, 255), (210, 168, 255), (86, 212, 221), (255, 255, 255)],
)
AT = ["--at", "2026-11-23T01:05:00Z"]

console = Console(width=80, record=True, file=io.StringIO(), force_terminal=True, color_system="truecolor")


def run(*arguments, before=(), more=()):
    shown = " ".join(arguments)
    console.print(Text(f"$ vmgate {shown}", style="bold"))
    done = subprocess.run([*before, vmgate, "--color", "always", *arguments, *more], capture_output=True, text=True)
    console.print(Text.from_ansi((done.stdout + done.stderr).rstrip("\n")))
    console.print(Text(f"$ echo $?\n{done.returncode}\n", style="dim"))


def without_hypervisor(facts):
    """A check, its explanation, and the check after the cure."""
    healthy = facts.read_text()
    big = re.sub(r"^  memory_max_bytes: .*", "  memory_max_bytes: 4398046511104", healthy, flags=re.M)
    Path("facts.yaml").write_text(big)
    run("check", "--facts", "facts.yaml", more=AT)
    run("explain", "destination-memory-fits", "--facts", "facts.yaml", more=AT)
    Path("facts.yaml").write_text(healthy)
    run("check", "--facts", "facts.yaml", more=AT)


def first_minutes(lab, vm):
    """From an installed program to the first verdict on one's own hosts, which are the lab's."""
    before = [lab, "run"]
    run("init", "--yes", "root@lab-a", "root@lab-b", before=before)
    run("doctor", before=before)
    run("check", vm, "--to", "lab-b", before=before)


with tempfile.TemporaryDirectory() as folder:
    os.chdir(folder)
    if sys.argv[2] == "lab":
        first_minutes(sys.argv[3], sys.argv[4])
    else:
        without_hypervisor(Path(sys.argv[2]))

svg = console.export_svg(title="vmgate", theme=THEME)
# Nothing is loaded from elsewhere: the reader's own monospaced font will do. Ids are the same in every run.
svg = re.sub(r"@font-face \{.*?\}", "", svg, flags=re.S)
svg = re.sub(r"terminal-\d+-", "terminal-", svg).replace("Fira Code,", "")
print(re.sub(r"\n\s*\n+", "\n", svg))
