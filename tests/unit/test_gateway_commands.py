"""`rackllama key` before several gateways of which some are down: what works, what is told, and how it converges."""

import pytest

from rackllama.cli import main
from rackllama.gateway import cli
from rackllama.gateway.remote import Answers
from rackllama.host.gateway.keys import named


class Gateways:
    """Two gateways as the playbook finds them: the keys of each, and which is down."""

    def __init__(self):
        self.keys = {"g1": [], "g2": []}
        self.down = set()

    def ask(self, _inventory, added=(), revoked=()):
        gone = {}
        for host in self.keys.keys() - self.down:
            self.keys[host] += [key for key in added if key not in self.keys[host]]
            gone[host] = [key for name in revoked for key in named(self.keys[host], name)]
            self.keys[host] = [key for key in self.keys[host] if key not in gone[host]]
        up = sorted(self.keys.keys() - self.down)
        return Answers({host: list(self.keys[host]) for host in up}, gone, tuple(sorted(self.down)), "unreachable")


@pytest.fixture
def gateways(monkeypatch):
    made = Gateways()
    monkeypatch.setattr(cli, "ask_gateways", made.ask)
    return made


def test_a_key_works_where_the_gateway_is_up_and_the_others_get_it_later(gateways, capsys):
    gateways.down = {"g2"}
    assert main(["key", "create", "alice", "-i", "inventories/on prem"]) == 2
    said = capsys.readouterr()
    (key,) = gateways.keys["g1"]
    assert said.out.startswith("rl-")
    assert f"{key.id} of alice is let in at g1" in said.err
    assert f"not every gateway lets {key.id} in yet: g2 failed" in said.err
    again = f"rackllama key create alice --id {key.id} -i 'inventories/on prem'"
    assert again in said.err

    assert main(["key", "create", "alice", "--id", key.id]) == 2  # it is still down
    gateways.down = set()
    assert main(["key", "create", "alice", "--id", key.id]) == 0
    assert gateways.keys == {"g1": [key], "g2": [key]}
    assert capsys.readouterr().out == ""  # the key itself is known to nobody any more


def test_no_key_is_shown_that_works_nowhere(gateways, capsys):
    gateways.down = {"g1", "g2"}
    assert main(["key", "create", "alice"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "no key was created for alice: g1, g2 failed" in said.err


def test_a_key_is_revoked_where_the_gateway_is_up_and_at_the_others_later(gateways, capsys):
    assert main(["key", "create", "alice"]) == 0
    gateways.down = {"g2"}
    assert main(["key", "revoke", "alice"]) == 2
    said = capsys.readouterr().err
    assert "not every gateway refuses alice yet: g2 failed" in said
    assert "when they are back, type: rackllama key revoke alice" in said
    gateways.down = set()
    assert main(["key", "revoke", "alice"]) == 0
    assert gateways.keys == {"g1": [], "g2": []}


def test_an_id_of_another_user_or_of_none_is_refused(gateways, capsys):
    assert main(["key", "create", "alice"]) == 0
    (key,) = gateways.keys["g1"]
    for user, name in (("bob", key.id), ("alice", "0" * 12)):
        assert main(["key", "create", user, "--id", name]) == 2
        assert f"0 keys of {user} begin with {name}" in capsys.readouterr().err
