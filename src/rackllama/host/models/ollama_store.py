"""Ollama's models on the disk, as Ollama itself keeps them below OLLAMA_MODELS.

    blobs/sha256-HEX                     weights, settings, licences: each once, whoever refers to it
    manifests/HOST/NAMESPACE/NAME/TAG    JSON that names the blobs of one model; its sha256 is the model's digest
    landing/                             ours: what is not whole yet, as Ollama removes strange names from blobs/

A landed file becomes a blob by a link, which copies nothing, and keeps its other name until a manifest refers to it:
Ollama removes blobs that no manifest names whenever it starts.
"""

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Tuple

from ..errors import RackllamaError
from ..files import name_atomically, read_record, sync_directory, write_atomically

BLOBS, MANIFESTS, LANDING = "blobs", "manifests", "landing"
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
# As Ollama takes names apart; what it leaves out is filled in.
NAME = re.compile(
    r"(?:(?:(?P<host>[\w][\w.:-]*)/)?(?P<namespace>[\w][\w.-]*)/)?(?P<model>[\w][\w.-]*)(?::(?P<tag>[\w][\w.-]*))?",
    re.ASCII,
)
DEFAULTS = {"host": "registry.ollama.ai", "namespace": "library", "tag": "latest"}
LONGEST_NAME = 320
WEIGHTS = "application/vnd.ollama.image.model"
MANIFEST_TYPE = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG_TYPE = "application/vnd.docker.container.image.v1+json"
# Ollama reads what kind of model it is from the weights, when it creates the model that is served from this one.
CONFIG = {"model_format": "gguf", "architecture": "amd64", "os": "linux"}


@dataclass(frozen=True)
class Layer:
    """One blob of a model: `digest` as `sha256:…`, `size` in bytes."""

    media_type: str
    digest: str
    size: int


@dataclass(frozen=True)
class StoredModel:
    """A model's manifest: its own `digest` in hexadecimal, and all blobs that it names."""

    digest: str
    layers: Tuple[Layer, ...]

    @property
    def weights(self) -> Optional[Layer]:
        """The blob of its weights."""
        return next((layer for layer in self.layers if layer.media_type == WEIGHTS), None)


class OllamaStore:
    """The models below one OLLAMA_MODELS. Whoever changes it is its owner (see `files.as_owner_of`)."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.landing = root / LANDING

    def model(self, name: str) -> Optional[StoredModel]:
        """The model of that name; None where there is none, or its manifest or one of its blobs is damaged."""
        model = _read(self._found(name))
        return model if model and all(self.has(layer.digest, layer.size) for layer in model.layers) else None

    def names(self) -> List[str]:
        """The names of all models, in the form `HOST/NAMESPACE/MODEL:TAG`."""
        return sorted(self._manifests())

    def blob(self, digest: str) -> Path:
        """Where a blob is, or would be."""
        if not DIGEST.fullmatch(digest):
            raise RackllamaError(f"{digest!r} is no digest of a blob", "give it as sha256: and 64 hexadecimal digits")
        return self.root / BLOBS / digest.replace(":", "-")

    def has(self, digest: str, size: Optional[int] = None) -> bool:
        """Whether a blob is there, with that size in bytes. It is not read."""
        path = self.blob(digest)
        return path.is_file() and not path.is_symlink() and size in (None, path.stat().st_size)

    def prepare(self) -> None:
        """Make the folders that Ollama makes at its first start, and the one for landings."""
        for folder in (self.root / BLOBS, self.root / MANIFESTS, self.landing):
            self._make(folder)

    def adopt(self, file: Path, digest: str) -> None:
        """Make a landed file a blob as well, in the place of what is there. Its own name stays: `release` gives it up.

        Raises RackllamaError where the blob is another model's, of another size: then the digest is not this file's.
        """
        blob, size = self.blob(digest), file.stat().st_size
        if self.has(digest, size) and blob.samefile(file):
            return
        if self.has(digest) and blob.stat().st_size != size and self.models_of(blob):
            raise RackllamaError(
                f"{digest} is a blob of {', '.join(self.models_of(blob))} already, and has another size than {file}",
                "correct the sha256 of the landed file in the lock (merged_sha256) or the declaration, or leave it out",
            )
        try:
            name_atomically(file, blob, temporary=file.with_name(f".{blob.name}"))
        except OSError as error:
            raise RackllamaError(
                f"{file} cannot be linked into {blob.parent} ({error.strerror})",
                "keep OLLAMA_MODELS on one file system, and on one that knows hard links",
            ) from error

    def release(self, file: Path) -> None:
        """Give up the name that a file was landed under."""
        file.unlink(missing_ok=True)
        sync_directory(file.parent)

    def write_bare_model(self, name: str, *digests: str) -> None:
        """Write a model that is its weights and nothing else, to create others from; or not even that."""
        config = json.dumps({**CONFIG, "rootfs": {"type": "layers", "diff_ids": digests}}, sort_keys=True)
        config_digest = f"sha256:{hashlib.sha256(config.encode()).hexdigest()}"
        self._write(self.blob(config_digest), config)
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": {"mediaType": CONFIG_TYPE, "digest": config_digest, "size": len(config)},
            "layers": [
                {"mediaType": WEIGHTS, "digest": digest, "size": self.blob(digest).stat().st_size} for digest in digests
            ],
        }
        self._write(self._manifest(name), json.dumps(manifest))

    def remove(self, name: str) -> None:
        """Remove a model, and the blobs that no other one has."""
        self._remove(self._found(name))

    def remove_bare_model(self, name: str) -> None:
        """Remove what `write_bare_model` wrote; its weights stay."""
        self._remove(self._manifest(name), spared=WEIGHTS)

    def blobs(self) -> Iterator[Path]:
        """All blobs, in the order of their names."""
        for path in sorted((self.root / BLOBS).glob("sha256-*")):
            if DIGEST.fullmatch(path.name.replace("-", ":", 1)):
                yield path

    def models_of(self, blob: Path) -> List[str]:
        """The names of the models that a blob belongs to."""
        digest = blob.name.replace("-", ":", 1)
        found = ((name, _read(path)) for name, path in sorted(self._manifests().items()))
        return [name for name, model in found if model and any(layer.digest == digest for layer in model.layers)]

    def _manifests(self) -> Dict[str, Path]:
        """The manifest of each model, by its full name."""
        folder = self.root / MANIFESTS
        paths = [path for path in folder.glob("*/*/*/*") if path.is_file()]
        parts = [path.relative_to(folder).parts for path in paths]
        return {f"{'/'.join(part[:3])}:{part[3]}": path for part, path in zip(parts, paths)}

    def _remove(self, manifest: Path, spared: str = "") -> None:
        """Remove a manifest, and of its blobs those that no other one names and that are not of the `spared` type."""
        model = _read(manifest)
        manifest.unlink(missing_ok=True)
        for layer in model.layers if model else ():
            blob = self.blob(layer.digest)
            if layer.media_type != spared and not self.models_of(blob):
                blob.unlink(missing_ok=True)

    def _found(self, name: str) -> Path:
        """The manifest of that name, whatever the case it was written in: to Ollama all are one."""
        exact = self._manifest(name)
        if exact.is_file():
            return exact
        alike = (path for full, path in sorted(self._manifests().items()) if is_same_name(full, name))
        return next(alike, exact)

    def _manifest(self, name: str) -> Path:
        return (self.root / MANIFESTS).joinpath(*_parts(name))

    def _write(self, path: Path, text: str) -> None:
        self._make(path.parent)
        write_atomically(path, text)

    def _make(self, folder: Path) -> None:
        if not folder.is_dir():
            self._make(folder.parent)
            folder.mkdir()
            folder.chmod(0o755)  # whatever the umask


def full_name(name: str) -> str:
    """A model's name as `HOST/NAMESPACE/MODEL:TAG`. Raises RackllamaError where it is none."""
    return "{}/{}/{}:{}".format(*_parts(name))


def is_same_name(one: str, other: str) -> bool:
    """Whether two names are one to Ollama, which fills in what is left out, and takes the case that is there."""
    return full_name(one).casefold() == full_name(other).casefold()


def _parts(name: str) -> Tuple[str, str, str, str]:
    found = NAME.fullmatch(name) if len(name) <= LONGEST_NAME else None
    if not found:
        raise RackllamaError(f"{name!r} is no name of a model", "give it as NAME:TAG, such as deepseek-r1:ud-iq1_m")
    host, namespace, model, tag = (found[part] or DEFAULTS.get(part, "") for part in NAME.groupindex)
    return host, namespace, model, tag


def _read(path: Path) -> Optional[StoredModel]:
    """The model of a manifest, None where there is none or it is damaged."""
    text = read_record(path)
    if text is None:
        return None
    try:
        manifest: Dict[str, Any] = json.loads(text)
        layers = tuple(
            Layer(layer["mediaType"], layer["digest"], int(layer["size"]))
            for layer in [*manifest["layers"], manifest["config"]]
        )
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    if not all(DIGEST.fullmatch(layer.digest) for layer in layers):
        return None
    return StoredModel(hashlib.sha256(text.encode()).hexdigest(), layers)
