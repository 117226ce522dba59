"""From what a user names to the shards of a model: which there are, and where they come from."""

import contextlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from rackllama.catalog.models import slug_of
from rackllama.host.errors import RackllamaError
from rackllama.host.lander.shards import Shard
from rackllama.landing.hubs import HUBS, files_of, reference
from rackllama.landing.ollama_registry import MANIFEST, registry_model
from rackllama.landing.shard_sets import path_named, paths_on_disk, shard_names
from rackllama.mirror.http import Fetcher, tokens_from
from rackllama.mirror.lock import Artefact, Lock, LockedFile, find, in_shard_order


@dataclass(frozen=True)
class NamedModel:
    """The shards, in order, of what was named; `notes` say what of it they are not.

    `merged_sha256` is that of the file which they become, where that is known.
    """

    shards: tuple[Shard, ...]
    notes: tuple[str, ...] = ()
    merged_sha256: str | None = None


@dataclass(frozen=True)
class Finder:
    """Callable: what a user names -> the model meant. Raises RackllamaError where there is none, or more than one.

    With `mirror`, it is asked before upstream, and alone where no sha256 is known. `environment` has the hubs' tokens
    and endpoints. What only `looks` takes nothing, and so needs no sha256 in the lock.
    """

    read_lock: Callable[[], Lock]
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    mirror: str = ""
    looks: bool = False

    def __call__(self, source: str) -> NamedModel:
        kind, _, subject = source.partition(":")
        if kind in HUBS:
            return self._published(files_of(reference(kind, subject), self._fetch, self.environment))
        if kind == "ollama":
            found = registry_model(subject, partial(self._fetch, accept=MANIFEST))
            return self._published((found.weights,), found.notes)
        if kind in ("http", "https"):
            return self._published(_siblings(source))
        if kind == "s3":
            folder, _, name = source.rpartition("/")
            return NamedModel(tuple(Shard(shard, (f"{folder}/{shard}",)) for shard in shard_names(name)))
        if path := path_named(source):
            return NamedModel(tuple(Shard(shard.name, (str(shard),)) for shard in paths_on_disk(path)))
        artefact = _locked(source, self.read_lock())
        files = artefact.files if self.looks and artefact.files else artefact.files_for()
        model = self._published(in_shard_order(files))
        return replace(model, merged_sha256=artefact.merged_sha256)

    def _published(self, files: Iterable[LockedFile], notes: tuple[str, ...] = ()) -> NamedModel:
        return NamedModel(tuple(_published(file, self.mirror) for file in files), notes)

    def _fetch(self, url: str, accept: str = "*/*") -> bytes:
        """What is published at an address: by the mirror, or else by upstream."""
        tokens = tokens_from(self.environment)
        if urlsplit(self.mirror).scheme in ("http", "https"):
            with contextlib.suppress(RackllamaError):  # what is wrong with upstream is what is told
                return Fetcher(self.mirror, tokens, accept)(url)
        elif self.mirror:
            path = Path(LockedFile(url).mirrored(self.mirror))
            if path.is_file():
                return path.read_bytes()
        return Fetcher(tokens=tokens, accept=accept)(url)


def _siblings(address: str) -> list[LockedFile]:
    parts = urlsplit(address)
    folder, _, name = parts.path.rpartition("/")
    return [LockedFile(parts._replace(path=f"{folder}/{sibling}").geturl()) for sibling in shard_names(name)]


def _published(file: LockedFile, mirror: str) -> Shard:
    sources = file.sources(mirror)
    # With no digest to tell them apart, two sources might have two different files.
    return Shard(file.name, sources if file.sha256 else sources[:1], file.size, file.sha256)


def _locked(name: str, lock: Lock) -> Artefact:
    models = {
        slug: artefact for slug, artefact in lock.items() if all(file.name.endswith(".gguf") for file in artefact.files)
    }
    slug = slug_of(*name.split(":", 1)) if ":" in name else name
    return find(models, slug)
