"""Headers of a model that is published elsewhere, by ranged reads."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from rackllama.host.lander.gguf import Header
from rackllama.host.lander.http_ranges import HttpSettings
from rackllama.host.lander.shards import HeaderReading, read_headers
from rackllama.host.proxies import require_proxies
from rackllama.landing.sources import Finder
from rackllama.mirror.http import tokens_from
from rackllama.mirror.lock import default_lock_path, read_lock


@dataclass(frozen=True)
class PublishedShards:
    """Names, headers and sizes in bytes of a model's shards, in order; `notes` say what of the model these are not."""

    names: tuple[str, ...]
    headers: tuple[Header, ...]
    sizes: tuple[int, ...]
    notes: tuple[str, ...]


def published_shards(
    source: str, environment: Mapping[str, str], mirror: str = "", lock: Path | None = None
) -> PublishedShards:
    """The shards of what `rackllama land` takes, with tokens and proxies of `environment`. Raises RackllamaError."""
    require_proxies(environment)
    model = Finder(lambda: read_lock(lock or default_lock_path()), environment, mirror, looks=True)(source)
    tokens = {urlsplit(site).netloc: token for site, token in tokens_from(environment).items()}
    read = read_headers(model.shards, HeaderReading(HttpSettings(tokens)))
    return PublishedShards(
        tuple(shard.name for shard in model.shards),
        tuple(header for header, _ in read),
        tuple(size for _, size in read),
        model.notes,
    )
