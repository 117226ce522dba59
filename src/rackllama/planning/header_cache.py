"""Headers of models on the controller, so that each is read once, whichever hosts serve it."""

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from rackllama.host.lander.gguf import GgufError, Header
from rackllama.host.models.packed_headers import unpacked
from rackllama.paths import cache_dir


@dataclass(frozen=True)
class HeaderCache:
    """A folder with a file for each model, named by the sha256 of all its shards: headers as a host has packed them."""

    folder: Path

    def get(self, shards: Sequence[Mapping[str, Any]]) -> list[Header] | None:
        """The headers of the model of these shards; None where they are not there, or damaged."""
        try:
            packed = json.loads(self._path(shards).read_text("utf-8"))
            return [unpacked(one) for one in packed]
        except (OSError, ValueError, TypeError, GgufError):
            return None

    def keep(self, shards: Sequence[Mapping[str, Any]], packed: Sequence[Mapping[str, Any]]) -> list[Header]:
        """Keep the headers of a model, and give them. Raises GgufError where one is none."""
        headers = [unpacked(one) for one in packed]
        self.folder.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=self.folder)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(list(packed), file)
        Path(temporary).replace(self._path(shards))
        return headers

    def _path(self, shards: Sequence[Mapping[str, Any]]) -> Path:
        return self.folder / sha256(" ".join(shard["sha256"] for shard in shards).encode()).hexdigest()


def default_header_cache() -> HeaderCache:
    """The one of this user."""
    return HeaderCache(cache_dir() / "headers")
