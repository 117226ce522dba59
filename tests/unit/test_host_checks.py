"""Reports, listeners and directories: what is said of a host."""

import os
import pwd
import socket
import stat
from pathlib import Path

import pytest

from rackllama.host.errors import RackllamaError
from rackllama.host.lander.shards import Shard, Weights
from rackllama.host.models.model import FoundModel, LandedWeights, WantedModel
from rackllama.host.models.modelfile import ModelSettings
from rackllama.host.network.sockets import Listener, parse_listeners
from rackllama.host.report import Check, failed, in_words, report
from rackllama.host.services import directories, preflight
from rackllama.host.services.directories import Access, first_closed_parent
from rackllama.host.systemd import UnitState

TCP = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:2CAA 00000000:0000 0A 00000000:00000000 00:00000000 00000000   999        0 1 1 0 100 0 0 10 0
   1: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 2 1 0 100 0 0 10 0
   2: 0100007F:2CAA 0100007F:9C40 01 00000000:00000000 00:00000000 00000000   999        0 3 1 0 20 4 30 10 -1
"""
TCP6 = """\
  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when \
retrnsmt   uid  timeout inode
   0: 00000000000000000000000001000000:2CAA 00000000000000000000000000000000:0000 0A 0:0 00:00000000 0 999 0 4 1 0 100
   1: 00000000000000000000000000000000:0050 00000000000000000000000000000000:0000 0A 0:0 00:00000000 0 33 0 5 1 0 100
   2: 0000000000000000FFFF00000100007F:1F90 00000000000000000000000000000000:0000 0A 0:0 00:00000000 0 33 0 6 1 0 100
"""


def test_listeners_are_told_from_connections():
    assert parse_listeners(TCP) == [Listener("127.0.0.1", 11434), Listener("0.0.0.0", 22)]


def test_only_loopback_counts_as_closed():
    assert [listener.is_loopback for listener in parse_listeners(TCP) + parse_listeners(TCP6)] == [
        True,
        False,
        True,
        False,
        True,
    ]


def test_a_report_names_the_remedy_of_what_failed():
    document = report(
        "gpu1", [Check("disk", True, "10 GiB", "20 GiB"), Check("port 80", False, "free", "taken", "stop it")]
    )
    assert failed(document) == ["port 80"]
    assert in_words(document) == [
        "ok    disk     20 GiB",
        "FAIL  port 80  wanted free, found taken",
        "               remedy: stop it",
    ]


def test_the_first_folder_that_is_closed_to_a_service_is_named():
    root, home, data = Path("/"), Path("/home"), Path("/home/data")
    parents = [Access(root, 0, 0, 0o755), Access(home, 0, 50, 0o710), Access(data, 7, 7, 0o700)]
    assert first_closed_parent(parents, uid=7, gids=[50]) is None
    assert first_closed_parent(parents, uid=7, gids=[7]) == home
    assert first_closed_parent(parents, uid=8, gids=[50]) == data


@pytest.fixture
def me():
    return pwd.getpwuid(os.getuid()).pw_name


def test_a_directory_is_settled_below_parents_that_are_open(tmp_path, me):
    directories.settle(tmp_path / "a" / "b", me, 0o750)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o755
    assert stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) == 0o750


def test_a_link_in_the_place_of_a_directory_is_refused_and_not_followed(tmp_path, me):
    (tmp_path / "etc").mkdir(mode=0o700)
    (tmp_path / "models").symlink_to(tmp_path / "etc")
    with pytest.raises(RackllamaError, match="no directory"):
        directories.access(tmp_path / "models")
    with pytest.raises(OSError, match="models"):
        directories.settle(tmp_path / "models", me, 0o777)
    assert stat.S_IMODE((tmp_path / "etc").stat().st_mode) == 0o700


def test_a_port_is_ours_only_if_it_was_declared_by_a_service_that_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(preflight, "SERVICES", tmp_path)
    monkeypatch.setattr(preflight.systemd, "unit_state", lambda _: UnitState(True, False, True, False, 1, 0))
    (tmp_path / "hello.json").write_text('{"ports": [1]}')
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        assert not preflight.port_check("hello", taken).ok
        (tmp_path / "hello.json").write_text(f'{{"ports": [{taken}]}}')
        assert preflight.port_check("hello", taken).ok


def test_room_is_asked_of_the_file_system_a_path_will_be_on(tmp_path):
    assert preflight.room_check(tmp_path / "not" / "there", 1).ok
    too_much = preflight.room_check(tmp_path / "not" / "there", 1 << 60)
    assert not too_much.ok
    assert "free space" in too_much.remedy


def test_a_model_that_is_landed_needs_no_room(tmp_path, monkeypatch):
    weights = Weights((Shard("a", ("http://m/a",), 100, "a" * 64),))
    wanted = WantedModel("gemma", "gemma:q4", weights, ModelSettings(), tmp_path)
    monkeypatch.setattr(preflight, "found_model", lambda _: FoundModel({}, None, None))
    assert preflight.bytes_for_models([wanted]) == 100
    landed = LandedWeights(wanted.weights_digest, f"sha256:{'c' * 64}", 100, verified=True)
    monkeypatch.setattr(preflight, "found_model", lambda _: FoundModel({}, None, landed))
    assert preflight.bytes_for_models([wanted]) == 0
