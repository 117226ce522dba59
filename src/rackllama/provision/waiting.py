"""Waiting for a host: until one can log in to it, become root there, and its boot has ended.

It is Ansible's own connection that is tried, and no other client: only that has the ways in that the inventory names,
through Session Manager, bastions and kept connections, and what is to be proved is that the next task gets through.
"""

import re
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rackllama.host.errors import RackllamaError
from rackllama.provision.console import console_log

BEFORE = "Failed to connect to the host via ssh: "
PAUSE_SECONDS = 2
TELL_SECONDS = 30
LONGEST_SECONDS = 86400
PROGRAMS = {
    "aws": "install the AWS command line, version 2",
    "session-manager-plugin": "install the Session Manager plugin of the AWS command line",
}
# What no waiting mends, in the words of ssh, of Ansible and of AWS, with what does.
FINAL = {
    r"Host key verification failed|REMOTE HOST IDENTIFICATION HAS CHANGED": (
        "the host has another key than the one that is known; where it was installed anew, and only then, "
        "remove the old one: ssh-keygen -R NAME -f FILE, both as `ansible-inventory --host` shows them in "
        "ansible_ssh_common_args"
    ),
    r"(Missing|Incorrect) \w+ password": "give the password of sudo by --ask-become-pass, or let the user do without",
    r"Unable to locate credentials|ExpiredToken|AccessDenied|token has expired|SSO session": (
        "log in to AWS: `aws sts get-caller-identity` has to work, and the user to be allowed ssm:StartSession"
    ),
    r"No python interpreters found|python\S*: (not found|No such file or directory)": "install python3 on the host",
}
REMEDIES = {
    "SSH": "a firewall or security group may keep this machine out, or the host has not booted: its console log tells",
    "cloud-init": "see /var/log/cloud-init-output.log on the host",
    "reboot": "see `journalctl -b -1` on the host once it is back",
    "packages": "wait for it, or see on the host what it does",
}


@dataclass(frozen=True)
class Seen:
    """What one look has found: what is waited for, such as SSH, and why. A host with no `subject` is ready."""

    subject: str = ""
    why: str = ""
    failed: bool = False
    remedy: str = ""
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.subject}: {self.why}"


@dataclass(frozen=True)
class HostWait:
    """One host, how long it is waited for, and what its maker tells of it."""

    host: str
    seconds: int
    described: Mapping[str, Any]
    tell: Callable[[str], None]
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep

    @classmethod
    def of(cls, host: str, arguments: Mapping[str, Any], tell: Callable[[str], None]) -> "HostWait":
        """From the arguments of the module `boot`. Raises RackllamaError for those that cannot be."""
        given = arguments.get("wait_seconds", 900)
        if not re.fullmatch(r"\d+", str(given)) or not 1 <= int(given) <= LONGEST_SECONDS:
            raise RackllamaError(
                f"rackllama_wait_seconds is {given!r}", f"give a number of seconds from 1 to {LONGEST_SECONDS}"
            )
        described = arguments.get("described") or {}
        if not isinstance(described, Mapping):
            raise RackllamaError(f"rackllama_host of {host} is no mapping", "let the inventory plugin set it")
        return cls(host, int(given), described, tell)

    def until_ready(self, look: Callable[[bool], Mapping[str, Any]]) -> tuple[float, tuple[str, ...]]:
        """How many seconds it took, and what is worth knowing.

        `look` logs in and gives what the module has found; it is told whether this is the first time. Raises
        RackllamaError where a program is missing here, where waiting is of no use, and where the time is up.
        """
        self._require_programs()
        started = self.clock()
        told, told_at = "", started
        first = True
        while True:
            found = seen(look(first))
            now, first = self.clock(), False
            if not found.subject:
                for note in found.notes:
                    self.tell(f"{self.host}: {note}")
                return now - started, found.notes
            if found.failed:
                raise self._failure(f"{self.host} is not ready, {found.subject} has failed: {found.why}", found)
            if now - started >= self.seconds:
                raise self._failure(
                    f"{self.host} is not ready after {round(now - started)} s, and was waited for: {found}", found
                )
            if found.subject != told or now - told_at >= TELL_SECONDS:
                self.tell(f"{self.host}: waiting for {found} ({round(now - started)} of {self.seconds} s)")
                told, told_at = found.subject, now
            self.sleep(min(PAUSE_SECONDS, max(0.0, started + self.seconds - now)))

    def _require_programs(self) -> None:
        if (self.described.get("via") or {}).get("kind") != "session-manager":
            return
        for program, remedy in PROGRAMS.items():
            if not shutil.which(program):
                raise RackllamaError(
                    f"{self.host} is reached through AWS Session Manager, and {program} is not on the PATH here", remedy
                )

    def _failure(self, message: str, found: Seen) -> RackllamaError:
        remedy = found.remedy or REMEDIES[found.subject]
        more = "" if found.failed else "; rackllama_wait_seconds gives it longer"
        past = "; --skip-tags wait goes on as it is" if found.subject in ("cloud-init", "packages") else ""
        self.tell(f"{self.host}: the end of its console log:\n{console_log(self.described.get('console') or {})}")
        return RackllamaError(message, f"{remedy}{more}{past}")


def seen(found: Mapping[str, Any]) -> Seen:
    """What was found, from what the action has: the module's own answer, its failure, or why nothing was reached."""
    if "unreachable" in found:
        return _in_ssh(str(found["unreachable"]))
    if "boot" not in found:
        return _in_ssh("its Python fails:", *(str(found.get(key) or "") for key in ("module_stderr", "msg")))
    boot = found["boot"]
    if boot["failure"] or boot["pending"]:
        return Seen(boot["subject"], boot["failure"] or boot["pending"], failed=bool(boot["failure"]))
    return Seen(notes=tuple(boot["notes"]))


def _in_ssh(*told: str) -> Seen:
    """What it means that this was told of an attempt to log in: some things no waiting mends."""
    lines = [line.strip() for words in told for line in words.splitlines() if line.strip()]
    lines = [line.removeprefix(BEFORE) for line in lines if not line.startswith("Warning: Permanently added")]
    for pattern, remedy in FINAL.items():
        for line in lines:
            if re.search(pattern, line):
                return Seen("SSH", line, failed=True, remedy=remedy)
    return Seen("SSH", " / ".join(lines[-2:]) or "nothing was told")
