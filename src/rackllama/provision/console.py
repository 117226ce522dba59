"""The console log of a host that does not answer: what its boot has shown, fetched from whoever made it."""

import re
import subprocess
from collections.abc import Mapping
from typing import Any

from rackllama.lab.podman import podman_argv

LINES = 30
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f]")  # would be obeyed by our own terminal
SECONDS = 30
ELSEWHERE = "look at its console yourself: the page of whoever rents it out, or the remote console of its BMC"


def console_log(console: Mapping[str, Any], lines: int = LINES) -> str:
    """The last lines of the console log that `console` of `outputs.DescribedHost` names, or why there are none."""
    tries = _commands(console, lines)
    if not tries:
        return ELSEWHERE
    for command in tries:
        said, complaint = _run(command)
        if said:
            return "\n".join(said.splitlines()[-lines:])
    return f"it could not be had, {' '.join(tries[-1])}: {complaint or 'it is empty'}; {ELSEWHERE}"


def _commands(console: Mapping[str, Any], lines: int) -> list[list[str]]:
    """The commands that print the log, in the order in which they are tried."""
    if console.get("kind") == "aws":
        of_instance = ["aws", "ec2", "get-console-output", "--instance-id", str(console.get("instance", ""))]
        command = [*of_instance, "--region", str(console.get("region", "")), "--query", "Output", "--output", "text"]
        # The latest is had of newer instance types alone; of others, it is what it was some minutes ago.
        return [[*command, "--latest"], command]
    if console.get("kind") == "podman":
        container = str(console.get("container", ""))
        return [
            podman_argv("logs", f"--tail={lines}", container),
            podman_argv("exec", container, "journalctl", "--boot", "--no-pager", f"--lines={lines}"),
        ]
    return []


def _run(command: list[str]) -> tuple[str, str]:
    """What a command says, and what it complains of. It is never asked to wait for anybody."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return "", f"no answer in {SECONDS} s"
    except OSError as error:
        return "", str(error)
    said = CONTROL.sub("", done.stdout).strip()
    return ("" if done.returncode or said == "None" else said), done.stderr.strip()
