"""Talk to systemd: the few questions and orders that the rest needs."""

import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, List, Mapping, Optional

from .errors import RackllamaError

SHOWN = (
    "LoadState",
    "ActiveState",
    "SubState",
    "MainPID",
    "NeedDaemonReload",
    "UnitFileState",
    "NRestarts",
    "InvocationID",
)


@dataclass(frozen=True)
class UnitState:
    """What systemd says of a unit; `main_pid` is 0 where nothing runs."""

    loaded: bool
    active: bool
    failed: bool
    enabled: bool
    needs_reload: bool
    main_pid: int
    restarts: int
    invocation: str


def run(*argv: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
    """Run a command to its end. With `check`, a failure is a RackllamaError with what the command said."""
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if check and done.returncode != 0:
        raise RackllamaError(
            f"{' '.join(argv)} failed: {done.stdout.strip()}", "look into the host's journal: journalctl -b"
        )
    return done


def unit_state(unit: str) -> UnitState:
    """Ask systemd about one unit."""
    shown = run("systemctl", "show", unit, "--property", ",".join(SHOWN)).stdout
    found: Dict[str, str] = dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)
    return UnitState(
        loaded=found.get("LoadState") == "loaded",
        active=found.get("ActiveState") == "active",
        failed=found.get("ActiveState") == "failed",
        enabled=found.get("UnitFileState") == "enabled",
        needs_reload=found.get("NeedDaemonReload") == "yes",
        main_pid=int(found.get("MainPID") or 0),
        restarts=int(found.get("NRestarts") or 0),
        invocation=found.get("InvocationID", ""),
    )


def journal(unit: str, invocation: str = "", lines: int = 25) -> str:
    """The last lines that a unit wrote, of one invocation where that is given."""
    which = (
        [f"_SYSTEMD_INVOCATION_ID={invocation}", "+", f"UNIT={unit}", f"INVOCATION_ID={invocation}"]
        if invocation
        else []
    )
    unit_argument = [] if invocation else ["-u", unit]
    return run("journalctl", *unit_argument, "-n", str(lines), "--no-pager", "-o", "short", *which, check=False).stdout


def verify_units(paths: List[Path]) -> List[str]:
    """What `systemd-analyze verify` has to say about these unit files, one complaint a line.

    Unknown directives are only warnings to systemd, and then ignored; here they count, as an ignored sandbox is none.
    """
    said = run("systemd-analyze", "verify", "--man=no", *map(str, paths), check=False).stdout
    names = {path.name for path in paths} | {f"{path.name}.d" for path in paths}
    return [line.strip() for line in said.splitlines() if any(name in line for name in names)]


def security_score(unit: str) -> float:
    """The exposure that `systemd-analyze security` computes, from 0.0 (closed) to 10.0."""
    said = run("systemd-analyze", "security", "--no-pager", unit, check=False).stdout
    for line in reversed(said.splitlines()):
        if "Overall exposure level" in line:
            return float(line.split(":")[1].split()[0])
    raise RackllamaError(
        f"systemd-analyze does not score {unit}: {said.strip()[-200:]}", "check that the unit is loaded"
    )


def process_environment(pid: int) -> Optional[Mapping[str, str]]:
    """The environment that a process was started with, or None where it is gone."""
    try:
        raw = Path(f"/proc/{pid}/environ").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    pairs = (entry.decode(errors="replace").partition("=") for entry in raw.split(b"\0") if entry)
    return {name: value for name, _, value in pairs}


def process_started_at(pid: int) -> float:
    """When a process started, in seconds of the present wall clock (so comparable with the mtime of a file)."""
    after_command = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    started_seconds_after_boot = int(after_command[19]) / os.sysconf("SC_CLK_TCK")
    return time.time() - (time.clock_gettime(time.CLOCK_BOOTTIME) - started_seconds_after_boot)
