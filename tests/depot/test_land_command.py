"""`rackllama land` on the depot's real model: the file is what upstream's own merge makes of the same shards."""

import json

from rackllama.cli import main
from rackllama.lab.depot.depot import default_depot, is_filled
from rackllama.lab.depot.recipes import GEMMA

MERGED_SHA256 = "d0bd36413a629ddcb89ffe21862ae44a39e4652512bebdfb15b563e33b49c393"


def test_the_depots_model(tmp_path, monkeypatch, capsys):
    assert is_filled(), "the depot is not filled; run: make depot"
    depot = default_depot()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    out = tmp_path / "gemma.gguf"
    known = ["--lock", str(depot.lock_path), "--mirror", str(depot.mirror_root)]
    assert main(["land", GEMMA.name, "--out", str(out), *known, "--json"]) == 0
    landed = json.loads(capsys.readouterr().out)
    assert (landed["sha256"], landed["verified"]) == (MERGED_SHA256, True)
    out.unlink()
