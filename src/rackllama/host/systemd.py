"""Talk to systemd: the few questions and orders that the rest needs."""

import os
import re
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, List, Mapping, Optional

from .errors import RackllamaError

SHOWN = ("ActiveState", "MainPID", "NeedDaemonReload", "NRestarts", "UnitFileState")


@dataclass(frozen=True)
class UnitState:
    """What systemd says of a unit; `main_pid` is 0 where nothing runs, `restarts` counts since it was last started."""

    active: bool
    failed: bool
    enabled: bool
    needs_reload: bool
    main_pid: int
    restarts: int


@dataclass(frozen=True)
class Process:
    """A process: the environment it was started with, its program, its user's id, when it started, and its command.

    `program` is None where not even root may see it, as in a container without SYS_PTRACE. `command` is the first word
    of the command line, which is the interpreter where a script was started.

    `started_at` is in seconds of the present wall clock, and so comparable with the mtime of a file.
    """

    environment: Mapping[str, str]
    program: Optional[str]
    uid: int
    started_at: float
    command: str = ""


def run(*argv: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
    """Run a command to its end. With `check`, a failure is a RackllamaError with what the command said."""
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if check and done.returncode != 0:
        command = " ".join(argv)
        raise RackllamaError(f"{argv[0]} failed: {done.stdout.strip()}", f"see on the host what it says to: {command}")
    return done


def unit_state(unit: str) -> UnitState:
    """Ask systemd about one unit."""
    shown = run("systemctl", "show", unit, "--property", ",".join(SHOWN)).stdout
    found: Dict[str, str] = dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)
    return UnitState(
        active=found.get("ActiveState") == "active",
        failed=found.get("ActiveState") == "failed",
        enabled=found.get("UnitFileState") == "enabled",
        needs_reload=found.get("NeedDaemonReload") == "yes",
        main_pid=int(found.get("MainPID") or 0),
        restarts=int(found.get("NRestarts") or 0),
    )


def active_state(unit: str) -> str:
    """What systemd calls its state: active, activating, inactive, failed, …"""
    return run("systemctl", "show", unit, "--property", "ActiveState", "--value").stdout.strip()


def last_pid(unit: str) -> int:
    """The main process of its last run, which may have ended; 0 where it never ran."""
    return int(run("systemctl", "show", unit, "--property", "ExecMainPID", "--value").stdout.strip() or 0)


def journal(unit: str, lines: int = 25) -> str:
    """The last lines that a unit wrote."""
    return run("journalctl", "-u", unit, "-n", str(lines), "--no-pager", "-o", "short", check=False).stdout


def verify_units(paths: List[Path]) -> List[str]:
    """What `systemd-analyze verify` has to say about these unit files, one complaint a line.

    Unknown directives are only warnings to systemd, and then ignored; here they count, as an ignored sandbox is none.
    """
    said = run("systemd-analyze", "verify", "--man=no", *map(str, paths), check=False).stdout
    names = {path.name for path in paths} | {f"{path.name}.d" for path in paths}
    # A program that is not there yet is no fault of the unit: its release becomes `current` when the service is run.
    return [
        line.strip()
        for line in said.splitlines()
        if any(name in line for name in names) and "is not executable" not in line
    ]


def security_score(unit: str) -> float:
    """The exposure that `systemd-analyze security` computes, from 0.0 (closed) to 10.0."""
    said = run("systemd-analyze", "security", "--no-pager", unit, check=False).stdout
    for line in reversed(said.splitlines()):
        if "Overall exposure level" in line:
            return float(line.split(":")[1].split()[0])
    raise RackllamaError(
        f"systemd-analyze does not score {unit}: {said.strip()[-200:]}", "check that the unit is loaded"
    )


def _program(folder: Path) -> Optional[str]:
    try:
        return str((folder / "exe").readlink())
    except PermissionError:
        return None


def children(pid: int) -> List[int]:
    """The processes that a process started itself and that are still there."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
        if parent == pid:
            found.append(int(stat.parent.name))
    return found


def process(pid: int) -> Optional[Process]:
    """What the kernel says of a process, or None where it is gone."""
    folder = Path(f"/proc/{pid}")
    try:
        raw = (folder / "environ").read_bytes()
        program = _program(folder)
        uid = int(re.search(r"^Uid:\s+(\d+)", (folder / "status").read_text(), re.MULTILINE)[1])  # type: ignore[index]
        command = (folder / "cmdline").read_bytes().partition(b"\0")[0].decode(errors="replace")
        after_command = (folder / "stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    pairs = (entry.decode(errors="replace").partition("=") for entry in raw.split(b"\0") if entry)
    started_seconds_after_boot = int(after_command[19]) / os.sysconf("SC_CLK_TCK")
    return Process(
        environment={name: value for name, _, value in pairs},
        program=program,
        uid=uid,
        started_at=time.time() - (time.clock_gettime(time.CLOCK_BOOTTIME) - started_seconds_after_boot),
        command=command,
    )
