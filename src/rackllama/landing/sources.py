"""From what a user names to the shards of a model: which there are, and where they come from."""

from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from rackllama.catalog.models import slug_of
from rackllama.host.errors import RackllamaError
from rackllama.host.shards import Shard
from rackllama.mirror.lock import SHARD, Lock, LockedFile, find, in_shard_order


def shards_of(source: str, read_lock: Callable[[], Lock], mirror: str = "") -> tuple[Shard, ...]:
    """The shards, in order, of a model named by one of its shards (path or http(s) address) or as it is in the lock.

    With `mirror`, it is asked before upstream, and alone where no sha256 is known. Raises RackllamaError where
    the lock has no such model, or no checksum of it.
    """
    if urlsplit(source).scheme in ("http", "https"):
        parts = urlsplit(source)
        folder, _, name = parts.path.rpartition("/")
        return tuple(
            _published(LockedFile(parts._replace(path=f"{folder}/{sibling}").geturl()), mirror)
            for sibling in shard_names(name)
        )
    if "/" in source or source.endswith(".gguf"):
        path = Path(source).absolute()
        return tuple(Shard(name, (str(path.with_name(name)),)) for name in shard_names(path.name))
    return tuple(_published(file, mirror) for file in _locked(source, read_lock()))


def shard_names(name: str) -> list[str]:
    """The names of all shards of a model, in order, from that of one; of an unsplit model it is the only one."""
    found = SHARD.fullmatch(name)
    if not found:
        return [name]
    count = int(found["count"])
    if not 1 <= int(found["number"]) <= count:
        raise RackllamaError(f"there is no shard {found['number']} of {found['count']}", "name the first shard")
    return [f"{found['model']}-{number:05}-of-{count:05}.gguf" for number in range(1, count + 1)]


def _published(file: LockedFile, mirror: str) -> Shard:
    sources = file.sources(mirror)
    # With no digest to tell them apart, two sources might have two different files.
    return Shard(file.name, sources if file.sha256 else sources[:1], file.size, file.sha256)


def _locked(name: str, lock: Lock) -> tuple[LockedFile, ...]:
    models = {
        slug: artefact for slug, artefact in lock.items() if all(file.name.endswith(".gguf") for file in artefact.files)
    }
    slug = slug_of(*name.split(":", 1)) if ":" in name else name
    return in_shard_order(find(models, slug).files_for())
