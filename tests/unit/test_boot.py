"""How far a host is with its boot, from the files that cloud-init keeps in all of its releases, and real locks."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rackllama.host.boot import SETTLE_SECONDS, cloud_init, held_locks, look

NOW = 1_800_000_000.0
HOLD = """
import fcntl, sys
with open(sys.argv[1], "a") as file:
    fcntl.lockf(file, fcntl.LOCK_EX)
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run" / "cloud-init"
    folder.mkdir(parents=True)
    (folder / "enabled").touch()
    return folder


def writes(run: Path, name: str, ago: float = 600, **told: Any) -> None:
    (run / name).write_text(json.dumps({"v1": told}))
    os.utime(run / name, (NOW - ago, NOW - ago))


def test_no_cloud_init_is_nothing_to_wait_for(tmp_path: Path) -> None:
    assert cloud_init(tmp_path / "run" / "cloud-init", boot_has_ended=False, now=NOW) == ("", "", "", ())


def test_a_cloud_init_that_found_no_source_of_data_is_none(run: Path) -> None:
    (run / "disabled").touch()
    assert not cloud_init(run, boot_has_ended=False, now=NOW).pending


def test_it_is_waited_for_until_it_has_a_result(run: Path) -> None:
    assert cloud_init(run, boot_has_ended=False, now=NOW).pending == "between two stages"
    writes(run, "status.json", stage="modules-final")
    assert cloud_init(run, boot_has_ended=False, now=NOW).pending == "in the stage modules-final"
    writes(run, "result.json", errors=[], datasource="DataSourceEc2")
    assert cloud_init(run, boot_has_ended=True, now=NOW) == ("cloud-init", "", "", ())


def test_a_file_that_is_being_written_is_none_yet(run: Path) -> None:
    (run / "result.json").write_text('{"v1": {"err')
    assert cloud_init(run, boot_has_ended=False, now=NOW).pending


def test_it_may_reboot_right_after_its_result(run: Path) -> None:
    writes(run, "result.json", ago=SETTLE_SECONDS - 1, errors=[])
    assert "may reboot" in cloud_init(run, boot_has_ended=True, now=NOW).pending


def test_a_clock_that_was_put_back_is_not_waited_for(run: Path) -> None:
    writes(run, "result.json", ago=-3600, errors=[])
    assert not cloud_init(run, boot_has_ended=True, now=NOW).pending


def test_its_errors_are_told(run: Path) -> None:
    writes(run, "result.json", errors=["('scripts-user', RuntimeError('1 failed'))", "('ntp', ...)"])
    assert cloud_init(run, boot_has_ended=True, now=NOW).failure == (
        "('scripts-user', RuntimeError('1 failed')); ('ntp', ...)"
    )


def test_what_it_went_on_after_is_only_noted(run: Path) -> None:
    writes(run, "result.json", errors=[])
    writes(run, "status.json", init={"recoverable_errors": {"DEPRECATED": ["key x"]}, "errors": []}, stage=None)
    found = cloud_init(run, boot_has_ended=True, now=NOW)
    assert (found.failure, found.notes) == ("", ("cloud-init: key x",))


def test_one_that_was_installed_after_the_boot_is_not_waited_for(run: Path) -> None:
    found = cloud_init(run, boot_has_ended=True, now=NOW)
    assert (found.pending, found.failure) == ("", "")
    assert "has not run in this boot" in found.notes[0]


def test_one_that_was_killed_has_failed(run: Path) -> None:
    writes(run, "status.json", stage="modules-config")
    assert cloud_init(run, boot_has_ended=True, now=NOW).failure == "it was ended before it had a result"


@pytest.mark.parametrize(
    ("after", "pending", "notes"), [(60, "it reboots in 60 s", ()), (7200, "", ("it reboots in 120 min",))]
)
def test_a_reboot_that_comes_soon_is_waited_for(tmp_path: Path, after: int, pending: str, notes: tuple[str]) -> None:
    scheduled = tmp_path / "run" / "systemd" / "shutdown" / "scheduled"
    scheduled.parent.mkdir(parents=True)
    scheduled.write_text(f"USEC={int((NOW + after) * 1e6)}\nWARN_WALL=1\nMODE=reboot\n")
    found = look(900, root=tmp_path, now=NOW)
    assert (found.pending, found.notes) == (pending, notes)


def test_who_holds_the_lock_of_dpkg_is_named(tmp_path: Path) -> None:
    lock = tmp_path / "var" / "lib" / "dpkg" / "lock-frontend"
    lock.parent.mkdir(parents=True)
    lock.touch()
    (tmp_path / "proc").symlink_to("/proc")
    assert held_locks(tmp_path) == []
    command = [sys.executable, "-c", HOLD, str(lock)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == "held\n"
        found = look(900, root=tmp_path, now=NOW)
        assert found.subject == "packages"
        assert f"(process {holder.pid}) holds {lock}" in found.pending
        assert holder.stdin
        holder.stdin.close()
    assert look(900, root=tmp_path, now=NOW).pending == ""
