"""What the tests of `rackllama land` share: a tiny model in shards, and the command itself."""

import hashlib
import json
from pathlib import Path

import pytest

from rackllama.cli import main
from rackllama.host.lander import gguf, layout

from .gguf_files import EVERY_TYPE, ODD_SHAPES, Model, Tensor, placed, split

BEFORE_SPLIT = Model(EVERY_TYPE, [*ODD_SHAPES, Tensor("large", (1000, 700))])
SHARDS = {
    f"tiny-{number:05}-of-00004.gguf": shard.file for number, shard in enumerate(split(BEFORE_SPLIT, 0, 2, 4, 1), 1)
}
FIRST = next(iter(SHARDS))


def merged(*, drop_split_keys: bool = False) -> bytes:
    shards = list(SHARDS.values())
    headers = [gguf.from_bytes(shard) for shard in shards]
    return placed(layout.merged(headers, [len(shard) for shard in shards], drop_split_keys), shards)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def landed(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict:
    code = main(["land", "--json", *map(str, arguments)])
    told = capsys.readouterr()
    assert code == 0, told.err
    return json.loads(told.out)


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main(["land", *map(str, arguments)]) == 2
    return capsys.readouterr().err


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Landings keep their state here; no proxy stands between them and the stand-ins."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return tmp_path / "state" / "rackllama" / "land"
