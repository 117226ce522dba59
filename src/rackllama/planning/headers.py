"""From what a user names to the headers of a model: on disk, or a few MiB of what is published."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rackllama.host.errors import RackllamaError
from rackllama.host.lander import gguf
from rackllama.host.lander.gguf import Header
from rackllama.host.lander.layout import is_split, require_one_model
from rackllama.landing.shard_sets import path_named, paths_on_disk
from rackllama.mirror.lock import SHARD

ELSEWHERE = ("hf", "ms", "ollama", "http", "https", "s3")


@dataclass(frozen=True)
class NamedHeaders:
    """A model's name for people, the headers of its shards in order, and the bytes of all of them together.

    `notes` say what of the model these are not.
    """

    name: str
    headers: tuple[Header, ...]
    total_bytes: int
    notes: tuple[str, ...] = ()


def find_headers(
    source: str, environment: Mapping[str, str] = os.environ, mirror: str = "", lock: Path | None = None
) -> NamedHeaders:
    """The headers of what `rackllama land` would take for the same words.

    A file that was cut off behind its header counts as what that tells. Raises RackllamaError where there is no such
    model, more than one, or a header cannot be read.
    """
    path = None if source.partition(":")[0] in ELSEWHERE else path_named(source)
    if path:
        return of_paths(paths_on_disk(path))
    # What speaks HTTP takes as long to load as a whole plan for a file that is here.
    from rackllama.planning.published import published_shards  # noqa: PLC0415

    found = published_shards(source, environment, mirror, lock)
    # A registry's weights are called by their digest.
    name = source.partition(":")[2] if source.startswith("ollama:") else found.names[0]
    return replace(_named(name, found.headers, found.sizes), notes=found.notes)


def of_paths(paths: Sequence[Path]) -> NamedHeaders:
    """The headers of these files, which have to be all shards of one model in order. Raises RackllamaError."""
    try:
        headers = [gguf.from_file(path) for path in paths]
        sizes = [path.stat().st_size for path in paths]
    except OSError as error:
        missing = Path(error.filename)
        raise RackllamaError(
            f"{missing}: {error.strerror}",
            "give a GGUF file that is there with all its shards, a folder, an address, or a name of the lock",
        ) from error
    return _named(paths[0].name, headers, sizes)


def _named(file: str, headers: Sequence[Header], sizes: Sequence[int]) -> NamedHeaders:
    if is_split(headers):
        require_one_model(headers)
    total = sum(max(size, header.data_offset + header.data_size) for header, size in zip(headers, sizes, strict=True))
    split = SHARD.fullmatch(file)
    return NamedHeaders(split["model"] if split else file.removesuffix(".gguf"), tuple(headers), total)
