"""The settings that podman needs: what is tried, in which order, and how it is written down."""

import tomllib

import pytest

from rackllama.host.errors import RackllamaError
from rackllama.lab import podman
from rackllama.lab.podman import Settings, candidates, hard_limits


def test_podman_is_tried_as_it_comes_before_anything_else():
    tried = candidates({"nofile": 20000, "nproc": 32768})

    ulimits = ("nofile=20000:20000", "nproc=32768:32768")
    assert tried == [Settings(), Settings(ulimits), Settings(runtime="runc"), Settings(ulimits, "runc")]


def test_the_defaults_need_no_containers_conf():
    assert Settings().containers_conf == ""


def test_containers_conf_says_the_settings_in_toml():
    settings = Settings(("nofile=20000:20000", "nproc=32768:32768"), "runc")

    assert tomllib.loads(settings.containers_conf) == {
        "containers": {"default_ulimits": ["nofile=20000:20000", "nproc=32768:32768"]},
        "engine": {"runtime": "runc"},
    }


def test_a_container_has_at_most_the_limits_of_this_process_and_as_many_processes_as_there_are_pids():
    assert hard_limits("NOFILE 20000\nNPROC  96365\n", pid_max=32768) == {"nofile": 20000, "nproc": 32768}
    assert hard_limits("NOFILE 20000\nNPROC  1000\n", pid_max=32768) == {"nofile": 20000, "nproc": 1000}


def test_unlimited_files_stay_podmans_choice():
    assert hard_limits("NOFILE unlimited\nNPROC unlimited\n", pid_max=4194304) == {"nproc": 4194304}


class Machine:
    """A machine whose podman runs with what `accepts` says of a containers.conf; it remembers what was tried."""

    def __init__(self):
        self.accepts = lambda conf: conf == ""
        self.tried = []

    def refusal(self, _image, conf):
        text = conf.read_text() if conf else ""
        self.tried.append(text)
        return None if self.accepts(text) else "error setting rlimit type 7: operation not permitted"


@pytest.fixture
def machine(tmp_path, monkeypatch):
    machine = Machine()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(podman, "ensure_packages", lambda _names: None)
    monkeypatch.setattr(podman, "_hard_limits", lambda: {"nofile": 20000, "nproc": 32768})
    monkeypatch.setattr(podman, "_refusal", machine.refusal)
    return machine


def test_where_the_defaults_do_no_file_is_written(machine):
    podman.detect_settings("image")

    assert not podman.containers_conf().exists()


def test_the_first_settings_that_work_are_kept_and_tried_first_the_next_time(machine):
    machine.accepts = lambda conf: "nofile" in conf
    podman.detect_settings("image")
    machine.tried.clear()
    podman.detect_settings("image")

    assert podman.containers_conf().read_text() == candidates({"nofile": 20000, "nproc": 32768})[1].containers_conf
    assert len(machine.tried) == 1


def test_settings_that_are_needed_no_more_go_when_they_stop_working(machine):
    machine.accepts = lambda conf: "nofile" in conf
    podman.detect_settings("image")
    machine.accepts = lambda conf: not conf
    podman.detect_settings("image")

    assert not podman.containers_conf().exists()


def test_a_kernel_that_refuses_everything_is_told_with_podmans_own_words(machine):
    machine.accepts = lambda _conf: False

    with pytest.raises(RackllamaError, match=r"rlimit type 7.*virtual machine"):
        podman.detect_settings("image")
    assert not list(podman.containers_conf().parent.iterdir())
