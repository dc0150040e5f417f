"""Prints an SVG of a short session with vmgate: each command is run, and what it says is shown as a terminal would."""

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

vmgate, facts = Path(sys.argv[1]), Path(sys.argv[2])
THEME = TerminalTheme(
    (22, 27, 34),
    (230, 237, 243),
    [(72, 79, 88), (255, 123, 114), (63, 185, 80), (210, 153, 34), (88, 166, 255), (188, 140, 255), (57, 197, 207), (177, 186, 196)],
    [(110, 118, 129), (255, 161, 152), (86, 211, 100), (227, 179, 65), (121, 192, 255), (210, 168, 255), (86, 212, 221), (255, 255, 255)],
)
AT = ["--at", "2026-11-23T01:05:00Z"]

console = Console(width=80, record=True, file=io.StringIO(), force_terminal=True, color_system="truecolor")


def run(*arguments):
    shown = " ".join(arguments)
    console.print(Text(f"$ vmgate {shown}", style="bold"))
    done = subprocess.run([vmgate, "--color", "always", *arguments, *AT], capture_output=True, text=True)
    console.print(Text.from_ansi(done.stdout.rstrip("\n")))
    console.print(Text(f"$ echo $?\n{done.returncode}\n", style="dim"))


healthy = facts.read_text()
with tempfile.TemporaryDirectory() as folder:
    os.chdir(folder)
    big = re.sub(r"^  memory_max_bytes: .*", "  memory_max_bytes: 4398046511104", healthy, flags=re.M)
    Path("facts.yaml").write_text(big)
    run("check", "--facts", "facts.yaml")
    run("explain", "destination-memory-fits", "--facts", "facts.yaml")
    Path("facts.yaml").write_text(healthy)
    run("check", "--facts", "facts.yaml")

svg = console.export_svg(title="vmgate", theme=THEME)
# Nothing is loaded from elsewhere: the reader's own monospaced font will do. Ids are the same in every run.
svg = re.sub(r"@font-face \{.*?\}", "", svg, flags=re.S)
svg = re.sub(r"terminal-\d+-", "terminal-", svg).replace("Fira Code,", "")
print(re.sub(r"\n\s*\n+", "\n", svg))
