"""Waiting for a host, by a clock that goes on only where it is waited for."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from rackllama.host.errors import RackllamaError
from rackllama.provision.waiting import HostWait, seen

REFUSED = {"unreachable": "Failed to connect to the host via ssh: ssh: connect to host 10.0.0.2: Connection refused"}
READY = {"boot": {"subject": "", "pending": "", "failure": "", "notes": []}}
RUNNING = {"boot": {"subject": "cloud-init", "pending": "in the stage modules-final", "failure": "", "notes": []}}
APT = {"boot": {"subject": "packages", "pending": "unattended-upgr holds /lock", "failure": "", "notes": []}}


class Host:
    """A host that is found as the test says, each time for some seconds of its clock, and at last for ever."""

    def __init__(self, *stages: tuple[float, Mapping[str, Any]]) -> None:
        self.stages = stages
        self.now = 0.0
        self.firsts: list[bool] = []
        self.told: list[str] = []

    def look(self, first: bool) -> Mapping[str, Any]:
        self.firsts.append(first)
        until = 0.0
        for seconds, found in self.stages:
            until += seconds
            if self.now < until:
                return found
        return self.stages[-1][1]

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def wait(self, seconds: int = 900, described: Mapping[str, Any] | None = None) -> tuple[float, tuple[str, ...]]:
        clock = lambda: self.now  # noqa: E731
        wait = HostWait("gpu1", seconds, described or {}, self.told.append, clock, self.sleep)
        return wait.until_ready(self.look)


def test_a_host_that_is_up_is_looked_at_once_and_nothing_is_told() -> None:
    host = Host((1, READY))
    assert host.wait() == (0, ())
    assert (host.firsts, host.told) == ([True], [])


def test_what_is_waited_for_is_told_as_it_changes_and_every_now_and_then() -> None:
    host = Host((40, REFUSED), (10, RUNNING), (4, APT), (1, READY))
    waited, _ = host.wait()
    assert waited == 54
    assert [line.split(" (")[0] for line in host.told] == [
        "gpu1: waiting for SSH: ssh: connect to host 10.0.0.2: Connection refused",
        "gpu1: waiting for SSH: ssh: connect to host 10.0.0.2: Connection refused",
        "gpu1: waiting for cloud-init: in the stage modules-final",
        "gpu1: waiting for packages: unattended-upgr holds /lock",
    ]
    assert host.firsts == [True] + [False] * 27


def test_a_host_that_reboots_is_waited_for_again() -> None:
    assert Host((4, RUNNING), (20, REFUSED), (6, RUNNING), (1, READY)).wait()[0] == 30


def test_when_the_time_is_up_host_reason_and_console_are_told() -> None:
    host = Host((1, REFUSED))
    with pytest.raises(RackllamaError, match=r"not ready after 7 s.*SSH.*refused.*rackllama_wait_seconds gives"):
        host.wait(seconds=7)
    assert host.now == 7
    assert host.told[-1].startswith("gpu1: the end of its console log:\n")


def test_a_lock_that_is_never_released_names_its_holder() -> None:
    with pytest.raises(RackllamaError, match=r"packages: unattended-upgr holds /lock.*--skip-tags wait"):
        Host((1, APT)).wait(seconds=30)


def test_a_failed_cloud_init_is_no_reason_to_wait() -> None:
    failed = {"boot": {"subject": "cloud-init", "pending": "", "failure": "runcmd failed", "notes": []}}
    host = Host((1, failed))
    with pytest.raises(RackllamaError, match=r"cloud-init has failed: runcmd failed\. Remedy: see /var/log/cloud-init"):
        host.wait()
    assert host.now == 0


def test_what_cloud_init_has_warned_of_is_told_and_kept() -> None:
    host = Host((1, {"boot": {**READY["boot"], "notes": ["cloud-init: key x is deprecated"]}}))
    assert host.wait()[1] == ("cloud-init: key x is deprecated",)
    assert host.told == ["gpu1: cloud-init: key x is deprecated"]


@pytest.mark.parametrize(
    ("found", "remedy"),
    [
        ({"unreachable": "ssh:\nHost key verification failed."}, "ssh-keygen -R"),
        ({"unreachable": "Missing sudo password"}, "--ask-become-pass"),
        ({"unreachable": "Unable to locate credentials\nConnection closed by UNKNOWN port 65535"}, "log in to AWS"),
        ({"failed": True, "module_stderr": "/bin/sh: 1: /usr/bin/python3: not found\n"}, "install python3"),
    ],
)
def test_what_no_waiting_mends_is_told_at_once(found: Mapping[str, Any], remedy: str) -> None:
    host = Host((1, found))
    with pytest.raises(RackllamaError) as told:
        host.wait()
    assert remedy in told.value.remedy
    assert host.now == 0


@pytest.mark.parametrize(
    "why",
    [
        "ubuntu@10.0.1.12: Permission denied (publickey).",
        '"System is booting up. Unprivileged users are not permitted to log in yet."',
        "An error occurred (TargetNotConnected) when calling the StartSession operation",
        "ssh: Could not resolve hostname gpu1.example.com",
    ],
)
def test_what_a_booting_host_may_answer_is_waited_for(why: str) -> None:
    assert not seen({"unreachable": why}).failed


@pytest.mark.parametrize("given", ["soon", 0, -1, 86401, "12s", 1.5, None, ""])
def test_a_time_limit_that_is_none_is_refused(given: Any) -> None:
    with pytest.raises(RackllamaError, match="give a number of seconds from 1 to 86400"):
        HostWait.of("gpu1", {"wait_seconds": given}, print)


def test_a_time_limit_may_come_as_text() -> None:
    assert HostWait.of("gpu1", {"wait_seconds": "60"}, print).seconds == 60


@pytest.mark.parametrize("missing", ["aws", "session-manager-plugin"])
def test_a_missing_program_of_session_manager_is_named(
    missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for program in {"aws", "session-manager-plugin"} - {missing}:
        (tmp_path / program).touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    host = Host((1, READY))
    with pytest.raises(RackllamaError, match=f"{missing} is not on the PATH here"):
        host.wait(described={"via": {"kind": "session-manager"}})
    assert host.firsts == []
