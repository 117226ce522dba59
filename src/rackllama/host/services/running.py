"""Bring a unit to run what is declared, restarting or reloading it only where what runs differs.

Nothing is remembered between runs: the process itself carries, in its environment, the digest of the declaration that
it was started with. A converge that died in the middle, a crash, a reboot, an edit by hand: each shows as a difference.
"""

import http.client
import pwd
import socket
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, List, Mapping, Optional

from .. import systemd
from ..errors import RackllamaError
from ..files import read_json, read_text
from ..systemd import Process
from .unit import DIGEST_VARIABLE, DROP_IN, SECRETS, SERVICES, UNITS, declared_digest

POLL_SECONDS = 0.2
CRASHES_UNTIL_HOPELESS = 3
RELOAD_SECONDS = 30


@dataclass(frozen=True)
class Wanted:
    """What ought to run: the digest and environment that the process must carry, its user and its program.

    `program` is None where a script is run, as the kernel then names the interpreter; `interpreter` is that of the
    script's own virtual environment, if it has one. `files_changed_at` is the newest mtime of the unit's files;
    `reload_files` are the mtimes of those that a reload reads.
    """

    digest: str
    environment: Mapping[str, str]
    uid: Optional[int]
    program: Optional[str]
    files_changed_at: float
    health: Mapping[str, Any]
    reload_files: Mapping[str, float] = field(default_factory=dict)
    interpreter: Optional[str] = None


def differences(wanted: Wanted, found: Optional[Process], now: float) -> List[str]:
    """Why the service must be restarted, one reason a line; empty where what runs is what is wanted. Pure.

    `now` is the wall clock: a file from the future, after a clock that was set back, says nothing.
    """
    if found is None:
        return ["it does not run"]
    reasons = [
        f"its {name} is {found.environment.get(name, 'not set')!r} and ought to be {value!r}"
        for name, value in sorted(wanted.environment.items())
        if found.environment.get(name) != value
    ]
    if None not in (wanted.program, found.program) and wanted.program != found.program:
        reasons.append(f"it runs {found.program} and ought to run {wanted.program}")
    if wanted.interpreter not in (None, found.command):
        reasons.append(f"it runs by {found.command} and ought to run by {wanted.interpreter}")
    if wanted.uid not in (None, found.uid):
        reasons.append(f"it runs as the user id {found.uid} and ought to run as {wanted.uid}")
    if found.environment.get(DIGEST_VARIABLE) != wanted.digest:
        reasons.append("it was started with an earlier declaration")
    elif found.started_at < wanted.files_changed_at <= now and not reasons:
        reasons.append("its unit files were repaired after it had started")
    return reasons


def unread_files(wanted: Wanted, loaded_at: float, now: float) -> List[str]:
    """Why the service must be reloaded: the files that changed after it last read them, one reason a line. Pure."""
    return [
        f"{path} changed after it was read"
        for path, changed_at in sorted(wanted.reload_files.items())
        if loaded_at < changed_at <= now
    ]


def wanted(name: str) -> Optional[Wanted]:
    """What the files on this host declare of a service, or None where it was never configured."""
    env_path = SECRETS / f"{name}.env"
    record, env_file = read_json(SERVICES / f"{name}.json"), read_text(env_path)
    value = declared_digest(env_file) if env_file else None
    if record is None or value is None:
        return None
    unit = UNITS / f"{name}.service"
    files = [env_path, unit, unit.with_name(f"{unit.name}.d") / DROP_IN]
    return Wanted(
        digest=value,
        environment=record["environment"],
        uid=_uid(record["user"]),
        program=native_program(Path(record["program"])),
        interpreter=script_interpreter(Path(record["program"])),
        files_changed_at=max((path.stat().st_mtime for path in files if path.exists()), default=0.0),
        health=record["health"],
        reload_files={
            path: Path(path).stat().st_mtime for path in record.get("reload_files", []) if Path(path).exists()
        },
    )


def running(name: str) -> Optional[Process]:
    """What runs of a service on this host, or None."""
    pid = systemd.unit_state(f"{name}.service").main_pid
    return systemd.process(pid) if pid else None


def differences_here(name: str) -> List[str]:
    """`differences` of a service on this host."""
    declared = wanted(name)
    return differences(declared, running(name), time.time()) if declared else ["it was never configured"]


def reasons_to_reload(name: str) -> List[str]:
    """`unread_files` of a service on this host; empty as well where it does not run.

    A program that reloads lets a new child read its files and take over, and keeps the old one where they are wrong:
    so its youngest process says what was read last, however it was told to.
    """
    declared, pid = wanted(name), systemd.unit_state(f"{name}.service").main_pid
    if declared is None or not declared.reload_files or not pid:
        return []
    started = [process.started_at for process in map(systemd.process, [pid, *systemd.children(pid)]) if process]
    return unread_files(declared, max(started, default=0.0), time.time())


def native_program(path: Path) -> Optional[str]:
    """The file behind all links, as the kernel names the program of a process; None for a script or no file."""
    try:
        with path.open("rb") as file:
            return None if file.read(2) == b"#!" else str(path.resolve())
    except OSError:
        return None


def script_interpreter(path: Path) -> Optional[str]:
    """The interpreter that a script names and that lies beside it, as in a virtual environment; None for all others."""
    try:
        with path.open("rb") as file:
            mark, first = file.read(2), file.readline(4096).split()
    except OSError:
        return None
    named = first[0].decode(errors="replace") if mark == b"#!" and first else ""
    return named if named and Path(named).parent == path.resolve().parent else None


def _uid(user: str) -> Optional[int]:
    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError:
        return None


def reasons_to_restart(name: str) -> List[str]:
    """Why a service on this host must be restarted; one that runs as declared, but does not answer, must be too."""
    declared, reasons = wanted(name), differences_here(name)
    if declared is not None and not reasons:
        try:
            wait_until_healthy(name, declared.health)
        except RackllamaError as error:
            reasons = [error.message.split(". Its journal", maxsplit=1)[0]]
    return reasons


def restart_until_healthy(name: str) -> None:
    """Restart a service and wait until it is healthy and runs what is declared.

    Raises RackllamaError with the end of its journal where it does not answer, and with the remaining differences where
    something else on the host (a drop-in of somebody's) overrides the declaration.
    """
    declared, unit = wanted(name), f"{name}.service"
    if declared is None:
        raise RackllamaError(f"the service {name} was never configured", "run the role's configure step first")
    systemd.run("systemctl", "reset-failed", unit, check=False)
    systemd.run("systemctl", "restart", unit, check=False)  # a failed start is told below, with its journal
    wait_until_healthy(name, declared.health)
    remaining = differences_here(name)
    if remaining:
        raise RackllamaError(
            f"the service {name} runs, but not as declared: {'; '.join(remaining)}",
            f"see which file overrides it: systemctl cat {unit}",
        )


def reload_until_read(name: str) -> None:
    """Let a service read its files again, without an interruption, and wait until it has, and is healthy.

    Raises RackllamaError with the end of its journal where it refuses them; it then goes on with what it read before.
    """
    declared, unit = wanted(name), f"{name}.service"
    reloaded = systemd.run("systemctl", "reload", unit, check=False).returncode == 0
    deadline = time.monotonic() + RELOAD_SECONDS
    while reloaded and reasons_to_reload(name) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    if not reloaded or reasons_to_reload(name):
        raise _unhealthy(name, "it does not take its new files, and goes on with those it had")
    wait_until_healthy(name, declared.health if declared else {})


def wait_until_healthy(name: str, health: Mapping[str, Any]) -> None:
    """Wait until a service answers its health check, at most `health["timeout_seconds"]`.

    `health` is `{"url": ...}` (any answer of 200) or `{"port": ...}` on loopback (accepts a connection), each with
    `timeout_seconds`; without either, an active unit is healthy. A service that keeps crashing fails at once.
    """
    unit = f"{name}.service"
    deadline = time.monotonic() + float(health.get("timeout_seconds", 60))
    probe, restarts_before = _probe(health), systemd.unit_state(unit).restarts
    while True:
        state = systemd.unit_state(unit)
        complaint = probe() if state.active else "it is not active"
        if complaint is None:
            return
        if state.failed or state.restarts - restarts_before >= CRASHES_UNTIL_HOPELESS:
            raise _unhealthy(name, "it does not stay up")
        if time.monotonic() > deadline:
            raise _unhealthy(name, f"not healthy after {health.get('timeout_seconds', 60)} s: {complaint}")
        time.sleep(POLL_SECONDS)


def _probe(health: Mapping[str, Any]) -> Callable[[], Optional[str]]:
    """A function that says what is wrong with the service's answer, or None."""

    def get_url() -> Optional[str]:
        try:
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(health["url"], timeout=5) as answer:
                return None if answer.status == http.client.OK else f"{health['url']} answered {answer.status}"
        except (OSError, http.client.HTTPException) as error:
            return f"{health['url']}: {error}"

    def connect() -> Optional[str]:
        try:
            socket.create_connection(("127.0.0.1", int(health["port"])), timeout=5).close()
        except OSError as error:
            return f"port {health['port']}: {error.strerror}"
        return None

    if "url" in health:
        return get_url
    return connect if "port" in health else lambda: None


def _unhealthy(name: str, complaint: str) -> RackllamaError:
    journal = systemd.journal(f"{name}.service")
    return RackllamaError(
        f"the service {name} is not healthy: {complaint}. Its journal ends:\n{journal.rstrip()}\n",
        f"mend what the journal names and converge again; more of it: journalctl -u {name}",
    )
