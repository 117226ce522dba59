"""Keys of the gateway: kept as their SHA-256, told to every worker, found again by user or by their first digits."""

import grp
import os

import pytest

from rackllama.host import module
from rackllama.host.errors import RackllamaError
from rackllama.host.gateway import keys
from rackllama.host.gateway.keys import Key, key_of, named, new_key, parse_keys, tell_workers, workers

ALICE, BOB = Key("a" * 64, "alice"), Key("b" * 64, "bob")
# As HAProxy 2.6 answers, after a reload.
PROCESSES = """\
#<PID>          <type>          <reloads>       <uptime>        <version>
1312            master          1 [failed: 0]   0d00h10m02s     2.6.12-1+deb12u4
# workers
1340            worker          0               0d00h00m02s     2.6.12-1+deb12u4
# old workers
1314            worker          1               0d00h10m02s     2.6.12-1+deb12u4
# programs
"""


@pytest.fixture
def gateway(tmp_path, monkeypatch):
    """A gateway with a list of keys and no HAProxy that runs: its file, with this test's own group."""
    path = tmp_path / "keys.map"
    path.write_text("")
    monkeypatch.setattr(keys, "KEYS", path)
    monkeypatch.setattr(keys, "SOCKET", tmp_path / "master.sock")
    monkeypatch.setattr(keys, "GROUP", grp.getgrgid(os.getgid()).gr_name)
    monkeypatch.setattr(module, "LOCKS", tmp_path / "locks")
    return path


def test_a_key_is_random_and_only_its_hash_is_kept():
    first, second = new_key(), new_key()
    assert first != second
    assert first.startswith("rl-")
    assert len(first) >= len("rl-") + 256 / 6
    assert first not in repr(key_of(first, "alice"))


@pytest.mark.parametrize("user", ["", "Alice", "a b", "-a", "a\nb", "a" * 64, "ü"])
def test_a_name_that_could_break_a_line_or_be_taken_for_another_is_refused(user):
    with pytest.raises(RackllamaError, match="cannot name a user"):
        key_of("rl-x", user)


def test_what_is_no_key_is_passed_over():
    text = f"# who may use it\n\n{ALICE.sha256} alice\nabc bob\n{BOB.sha256} bob\n"
    assert parse_keys(text) == [ALICE, BOB]


def test_keys_are_named_by_their_user_or_by_their_first_digits():
    assert named([ALICE, BOB], "alice") == [ALICE]
    assert named([ALICE, BOB], "b" * 8) == [BOB]
    assert named([ALICE, BOB], "b" * 7) == []  # so few digits may be anybody's
    assert named([ALICE, BOB], "carol") == []


def test_digits_that_begin_several_keys_name_none():
    with pytest.raises(RackllamaError, match="2 keys begin with aaaaaaaa"):
        named([ALICE, Key("a" * 63 + "b", "bob")], "aaaaaaaa")


def test_every_worker_is_told_also_those_of_earlier_configurations():
    told = []

    def tell(command):
        told.append(command)
        return PROCESSES if command == "show proc" else "\n"

    tell_workers(tell, "del map FILE abc", accepted="Key not found.")
    assert workers(PROCESSES) == ["1340", "1314"]
    assert told == ["show proc", "@!1340 del map FILE abc", "@!1314 del map FILE abc"]


def test_a_worker_that_refuses_is_an_error():
    with pytest.raises(RackllamaError, match="worker 1340 was not told: Unknown map"):
        tell_workers(lambda command: PROCESSES if command == "show proc" else "Unknown map\n", "add map", accepted="")


def test_a_key_is_added_once_and_revoked_alone(gateway):
    gateway.write_text("# ours")  # without the end of its line
    assert keys.add(ALICE)
    assert not keys.add(ALICE)
    assert keys.add(BOB)
    assert keys.revoke("alice") == [ALICE]
    assert keys.revoke("alice") == []
    assert gateway.read_text() == f"# ours\n{BOB.sha256} bob\n"
    assert gateway.stat().st_mode & 0o777 == 0o640


def test_a_host_without_a_list_of_keys_is_no_gateway(gateway):
    gateway.unlink()
    with pytest.raises(RackllamaError, match="this host is no gateway"):
        keys.add(ALICE)
