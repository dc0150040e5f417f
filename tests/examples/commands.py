"""Prints the commands of one step of a CI example, as its CI system would run them."""

import re
import sys
from pathlib import Path

import yaml

system, file, step = sys.argv[1], Path(sys.argv[2]), sys.argv[3].replace("_", " ")
text = file.read_text()


def github():
    steps = [step for job in yaml.safe_load(text)["jobs"].values() for step in job["steps"]]
    (found,) = [one["run"] for one in steps if one.get("name") == step]
    return found


def gitlab():
    return "\n".join(yaml.safe_load(text)[step]["script"])


def jenkins():
    _, stage = text.split(f"stage('{step}')")
    return re.search(r"sh '''(.*?)'''", stage, re.S)[1]


def pre_commit():
    hooks = [hook for repo in yaml.safe_load(text)["repos"] for hook in repo["hooks"]]
    return "\n".join(hook["entry"] for hook in hooks)


def page():
    """Writes the files of a page of the documentation to a folder."""
    for name, body in re.findall(r"<!-- file: (\S+) -->\n```yaml\n(.*?)```", text, re.S):
        file = Path(sys.argv[3]) / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(body)
    return ""


commands = {"github": github, "gitlab": gitlab, "jenkins": jenkins, "pre-commit": pre_commit, "page": page}
print(commands[system](), end="\n" if system != "page" else "")
