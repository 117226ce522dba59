"""A service's files on a host: written in order, shown without secrets, removed without a trace."""

import subprocess

import pytest

from rackllama.host.services import unit_state
from rackllama.host.services.unit import DROP_IN
from rackllama.host.services.unit_state import FileChange, UnitChange
from rackllama.host.systemd import UnitState

STOPPED = UnitState(active=False, failed=False, enabled=False, needs_reload=False, main_pid=0, restarts=0)


@pytest.fixture
def ordered(monkeypatch):
    """What systemd is told, in order; a stand-in, as unit tests need no root."""
    told = []

    def run(*argv, check=True):
        told.append(" ".join(argv))
        return subprocess.CompletedProcess(argv, 0, "")

    monkeypatch.setattr(unit_state.systemd, "run", run)
    monkeypatch.setattr(unit_state.systemd, "unit_state", lambda _: STOPPED)
    return told


def test_files_are_written_and_systemd_told_before_the_service_is_enabled(tmp_path, ordered):
    change = UnitChange("hello.service", (FileChange(tmp_path / "a" / "hello.env", None, "X=1\n", 0o600),), enable=True)
    change.carry_out()
    assert (tmp_path / "a" / "hello.env").read_text() == "X=1\n"
    assert (tmp_path / "a" / "hello.env").stat().st_mode & 0o777 == 0o600
    assert ordered == ["systemctl daemon-reload", "systemctl enable hello.service"]


def test_what_is_removed_leaves_no_folder_unless_a_site_put_something_into_it(tmp_path, ordered):
    for name in ("mine.service.d", "shared.service.d"):
        (tmp_path / name).mkdir()
        (tmp_path / name / DROP_IN).write_text("[Service]\n")
    (tmp_path / "shared.service.d" / "site.conf").write_text("[Service]\n")
    for name in ("mine", "shared"):
        path = tmp_path / f"{name}.service.d" / DROP_IN
        UnitChange(f"{name}.service", (FileChange(path, "[Service]\n", None),), disable=True).carry_out()
    assert [path.name for path in tmp_path.iterdir()] == ["shared.service.d"]
    assert ordered[0] == "systemctl disable --now mine.service"


def test_a_diff_shows_that_a_secret_changed_and_not_the_secret(tmp_path):
    change = UnitChange("hello.service", (FileChange(tmp_path / "hello.env", "KEY=old\n", "KEY=new\n", 0o600),))
    (shown,) = change.diff()
    assert shown["before"] != shown["after"]
    assert "new" not in shown["after"]


def test_nothing_to_do_is_no_change():
    assert not UnitChange("hello.service", ())
