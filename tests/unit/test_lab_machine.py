"""What a machine needs to run a lab."""

import os

import pytest

from rackllama.host.errors import RackllamaError
from rackllama.lab import machine

MEMINFO = "MemTotal:       25276502 kB\nMemFree:        24300000 kB\nMemAvailable:   8388608 kB\n"


@pytest.mark.parametrize("os_release", [{"ID": "debian"}, {"ID": "ubuntu", "ID_LIKE": "debian"}])
def test_debian_and_its_kin_can_run_a_lab(os_release):
    machine.require_debian(os_release)


def test_another_system_is_named_in_the_error():
    with pytest.raises(RackllamaError, match="this is Fedora Linux 42"):
        machine.require_debian({"ID": "fedora", "PRETTY_NAME": "Fedora Linux 42"})


def test_what_is_missing_is_what_is_not_installed():
    assert machine.missing_packages(["podman", "mmdebstrap", "zstd"], ["zstd"]) == ["mmdebstrap", "podman"]


def test_memory_that_is_available_counts_not_only_what_is_free():
    assert machine.memory_available_gib(MEMINFO) == 8


def test_four_hosts_fit_in_eight_gib_and_five_do_not():
    machine.require_room(4, MEMINFO, disk_free_bytes=100 * 2**30)
    with pytest.raises(RackllamaError, match=r"8\.0 GiB of memory are free, and 5 new hosts need 10 GiB"):
        machine.require_room(5, MEMINFO, disk_free_bytes=100 * 2**30)


def test_a_disk_too_small_for_one_host_is_an_error():
    with pytest.raises(RackllamaError, match=r"3\.0 GiB of disk are free for containers, and a new host needs 4 GiB"):
        machine.require_room(1, MEMINFO, disk_free_bytes=3 * 2**30)


@pytest.fixture
def user(monkeypatch, tmp_path):
    """An ordinary user, whose only programs lie in the folder that is returned."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("PATH", str(tmp_path))
    machine._sudo.cache_clear()
    yield tmp_path
    machine._sudo.cache_clear()


def test_root_runs_commands_as_they_are(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    machine._sudo.cache_clear()

    assert machine.as_root(["podman", "ps"]) == ["podman", "ps"]
    machine._sudo.cache_clear()


@pytest.mark.parametrize("sudo", [None, "#!/bin/sh\nexit 1\n"])
def test_a_user_without_passwordless_sudo_is_told_so(user, sudo):
    if sudo:
        (user / "sudo").write_text(sudo)
        (user / "sudo").chmod(0o755)

    with pytest.raises(RackllamaError, match="neither root nor allowed to use sudo without a password"):
        machine.as_root(["podman", "ps"])


def test_a_user_with_passwordless_sudo_runs_commands_behind_it(user):
    (user / "sudo").write_text("#!/bin/sh\nexit 0\n")
    (user / "sudo").chmod(0o755)

    assert machine.as_root(["podman", "ps"]) == ["sudo", "-n", "podman", "ps"]


def test_a_failed_command_is_told_with_the_end_of_what_it_said():
    with pytest.raises(RackllamaError, match="counting failed with exit status 3: two / three / four"):
        machine.run(["sh", "-c", "printf 'one\\ntwo\\nthree\\nfour\\n' >&2; exit 3"], what="counting")
