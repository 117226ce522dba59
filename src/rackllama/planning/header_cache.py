"""Headers of models on the controller, so that each host reads them once."""

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from rackllama.host.errors import RackllamaError
from rackllama.host.files import write_atomically
from rackllama.host.lander.gguf import GgufError, Header
from rackllama.host.lander.layout import is_split, require_one_model
from rackllama.host.models.packed_headers import unpacked
from rackllama.paths import cache_dir


@dataclass(frozen=True)
class HeaderCache:
    """A folder with a file for each model, named by the sha256 of all its shards: headers as a host has packed them."""

    folder: Path

    def get(self, host: str, shards: Sequence[Mapping[str, Any]]) -> list[Header] | None:
        """The headers of the model of these shards, as that host told them; None where there are none, or damaged."""
        try:
            return opened(json.loads(self._path(host, shards).read_text("utf-8")), shards)
        except (OSError, ValueError, TypeError, RackllamaError):
            return None

    def keep(self, host: str, shards: Sequence[Mapping[str, Any]], packed: Sequence[Mapping[str, Any]]) -> list[Header]:
        """Keep the headers of a model where that can be, and give them. Raises GgufError where these are none."""
        headers = opened(packed, shards)
        # Without a folder to write to, they are read again the next time.
        with contextlib.suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True)
            write_atomically(self._path(host, shards), json.dumps(list(packed)), mode=0o600)
        return headers

    def _path(self, host: str, shards: Sequence[Mapping[str, Any]]) -> Path:
        """A host is believed of itself alone: what it tells is no other's plan."""
        told = " ".join([host, *(shard["sha256"] for shard in shards)])
        return self.folder / sha256(told.encode()).hexdigest()


def opened(packed: Sequence[Mapping[str, Any]], shards: Sequence[Mapping[str, Any]]) -> list[Header]:
    """The headers of all shards in order, or the one of the landed model. Raises GgufError."""
    if len(packed) not in {1, len(shards)}:
        raise GgufError(f"a host sent {len(packed)} headers of a model of {len(shards)} shards")
    headers = [unpacked(one) for one in packed]
    if is_split(headers):
        require_one_model(headers)
    return headers


def default_header_cache() -> HeaderCache:
    """The one of this user."""
    return HeaderCache(cache_dir() / "headers")
