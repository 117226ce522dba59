"""What `rackllama key` learns from the gateways of an inventory."""

import json

import pytest

from rackllama.gateway.remote import read_answers
from rackllama.host.errors import RackllamaError
from rackllama.host.gateway.keys import Key

ALICE = {"sha256": "a" * 64, "user": "alice"}


def test_a_gateway_that_left_no_answer_is_named(tmp_path):
    (tmp_path / "g1.json").write_text(json.dumps({"keys": [ALICE], "revoked": []}))
    (tmp_path / "gateways").write_text('["g1", "g2"]')
    answers = read_answers(tmp_path, "unreachable")
    assert answers.present == {"g1": [Key(**ALICE)]}
    assert answers.failed == ("g2",)
    assert "no key was created: g2 failed:\nunreachable" in str(answers.error("no key was created"))


def test_an_inventory_without_gateways_is_told(tmp_path):
    (tmp_path / "gateways").write_text("[]")
    with pytest.raises(RackllamaError, match="no host is in the group gateway"):
        read_answers(tmp_path, "")
