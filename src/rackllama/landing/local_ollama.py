"""The Ollama of this machine: where it listens, and where it keeps its models."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from rackllama.catalog.models import Catalogue, slug_of
from rackllama.host.errors import RackllamaError
from rackllama.host.models.modelfile import ModelSettings

PORT = 11434
# A host of ours, upstream's service, and a server that somebody started by hand.
USUAL = ("/var/lib/ollama/models", "/usr/share/ollama/.ollama/models", "~/.ollama/models")


@dataclass(frozen=True)
class LocalOllama:
    """`url` is where it is asked, `models_dir` the folder that its OLLAMA_MODELS names."""

    url: str
    models_dir: Path


def local_ollama(environment: Mapping[str, str], models_dir: Path | None = None) -> LocalOllama:
    """By OLLAMA_HOST and OLLAMA_MODELS, as Ollama itself reads them, or by the usual places.

    Raises RackllamaError where there is no folder of models.
    """
    named = models_dir or environment.get("OLLAMA_MODELS")
    places = [Path(place).expanduser() for place in ([named] if named else USUAL)]
    folder = next((place for place in places if os.access(place, os.W_OK | os.X_OK)), None)
    if folder is None:
        raise RackllamaError(
            f"there is no folder of Ollama's models at {' or '.join(map(str, places))} that can be written to",
            "start Ollama once, give its OLLAMA_MODELS by --models-dir, or run as root or as its owner",
        )
    return LocalOllama(_url(environment.get("OLLAMA_HOST", "")), folder.resolve())


def settings_of(source: str, catalogue: Catalogue) -> tuple[ModelSettings, bool]:
    """How the catalogue runs a model that is named as in the lock, and whether it thinks; nothing of one it lacks."""
    for entry in catalogue.values():
        names = {f"{entry.name}:{variant}" for variant in entry.variants}
        names |= {slug_of(entry.name, variant) for variant in entry.variants}
        if source in names:
            settings = ModelSettings(
                entry.template, entry.system, entry.licence, entry.renderer, entry.parser, entry.parameters
            )
            return settings, entry.reasoning
    return ModelSettings(), False


def _url(host: str) -> str:
    """Where a server with this OLLAMA_HOST is reached from its own machine."""
    parts = urlsplit(host if "://" in host else f"http://{host}")
    name = parts.hostname or "127.0.0.1"
    name = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(name, name)  # noqa: S104 - where it listens, not we
    port = parts.port or {"https": 443}.get(parts.scheme, 80 if "://" in host else PORT)
    return f"{parts.scheme}://{f'[{name}]' if ':' in name else name}:{port}"
