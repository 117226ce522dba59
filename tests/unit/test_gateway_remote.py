"""What `rackllama key` learns from the gateways of an inventory."""

import json

from rackllama.gateway.remote import read_answers
from rackllama.host.keys import Key

ALICE = {"sha256": "a" * 64, "user": "alice"}


def test_a_gateway_that_left_no_answer_is_named(tmp_path):
    (tmp_path / "g1.json").write_text(json.dumps({"keys": [ALICE], "revoked": []}))
    answers = read_answers(tmp_path, ["g1", "g2"], "unreachable")
    assert answers.present == {"g1": [Key(**ALICE)]}
    assert answers.failed == ("g2",)
    assert "no key was created: g2 failed:\nunreachable" in str(answers.error("no key was created"))
