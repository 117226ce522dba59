"""Bring a model into Ollama: fetch its shards, merge them, create it with its Modelfile.

This is the way of the manuals, by upstream's own tools: it needs twice the model's size where it is put together and
three times where Ollama keeps models, while it works. Each step that ended is kept: a failure costs its own step again,
and a model that is there as declared is neither fetched nor read again.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Tuple

from . import systemd
from .errors import RackllamaError
from .fetch import fetch, require_free_space
from .files import digest, hash_file, read_json, read_text, sync_directory, sync_file, write_atomically, write_json
from .modelfile import ModelSettings, render
from .module import difference
from .ollama import Ollama

RECORDS = Path("/var/lib/rackllama/models")
MODELFILES = Path("/etc/rackllama/models")
STAGED_COPIES = 2  # the shards, and the file that they are merged to
STORED_COPIES = 3  # what was uploaded, Ollama's copy of it, and the copy of that which it keeps


@dataclass(frozen=True)
class Shard:
    """One file of a model, as published; `size` is in bytes where it is known."""

    name: str
    url: str
    sha256: str
    size: Optional[int] = None


@dataclass(frozen=True)
class WantedModel:
    """A model to be served under `name`, from shards in order."""

    slug: str
    name: str
    shards: Tuple[Shard, ...]
    settings: ModelSettings

    @property
    def weights_digest(self) -> str:
        """What the weights are made from."""
        return digest([shard.sha256 for shard in self.shards])

    @property
    def declaration_digest(self) -> str:
        """What the whole model is made from."""
        return digest([self.weights_digest, self.settings.for_api()])


@dataclass(frozen=True)
class FoundModel:
    """What is there: the record of the last landing, and what the server really has under the name."""

    record: Mapping[str, Any]
    manifest: Optional[str]
    has_weights: bool


def wanted_model(given: Mapping[str, Any]) -> WantedModel:
    """A model from plain data, as filter `rackllama.llm.models` gives it; further keys are for others."""
    return WantedModel(
        slug=given["slug"],
        name=given["name"],
        shards=tuple(Shard(**shard) for shard in given["shards"]),
        settings=ModelSettings(given["template"], given["system"], given["licence"], given["parameters"]),
    )


def plan(wanted: WantedModel, found: FoundModel) -> List[str]:
    """The steps to do: none, `apply` other settings, `create` from weights that are there, or all of it. Pure.

    Settings are applied to the model as it is, which copies nothing, unless one is to disappear: Ollama keeps those.
    """
    was = found.record
    if was.get("weights") != wanted.weights_digest or not found.has_weights:
        return ["fetch", "merge", "create"] if len(wanted.shards) > 1 else ["fetch", "create"]
    if was.get("declaration") == wanted.declaration_digest and was.get("manifest") == found.manifest:
        return []
    untouched = found.manifest is not None and was.get("manifest") == found.manifest
    return ["apply"] if untouched and set(was["settings"]) <= set(wanted.settings.names) else ["create"]


def recorded(wanted: WantedModel) -> Mapping[str, Any]:
    """What the last landing of a model recorded on this host; empty where it was never landed."""
    return read_json(_record_path(wanted)) or {}


def found_model(wanted: WantedModel, server: Ollama, may_be_absent: bool = False) -> FoundModel:
    """Look at the record and at the server, which may be absent only in check mode on a fresh host."""
    record = recorded(wanted)
    if may_be_absent and not record:
        return FoundModel(record, None, has_weights=False)
    listed = {model.name: model.digest for model in server.models()}
    blob = str(record.get("blob") or "")
    return FoundModel(record, listed.get(wanted.name), has_weights=bool(blob) and server.has_blob(blob))


def land(wanted: WantedModel, steps: List[str], server: Ollama, staging: Path, merge_tool: Path) -> None:
    """Do the steps. A failure leaves what is served as it was, and keeps what the steps before it have made."""
    folder, settings = staging / wanted.slug, wanted.settings.for_api()
    if "fetch" in steps:
        gguf = _gguf(wanted, folder, merge_tool)
        blob = _upload(server, gguf)
        _record(wanted, blob=blob)  # from here on, the weights need not be fetched again
        shutil.rmtree(folder)
    if "apply" in steps:
        server.create(wanted.name, {"from": wanted.name, **settings})
    else:
        server.create(wanted.name, {"files": {"model.gguf": recorded(wanted)["blob"]}, **settings})
    _record(
        wanted,
        blob=server.weights_of(wanted.name),
        manifest={model.name: model.digest for model in server.models()}[wanted.name],
        declaration=wanted.declaration_digest,
        settings=wanted.settings.names,
    )


def _record(wanted: WantedModel, **done: Any) -> None:
    write_json(_record_path(wanted), {"name": wanted.name, "weights": wanted.weights_digest, **done})


def modelfile_text(wanted: WantedModel) -> str:
    """The Modelfile that people read on the host."""
    return render(wanted.shards[0].name, wanted.settings)


def modelfile_change(wanted: WantedModel) -> List[Dict[str, str]]:
    """The difference to the Modelfile on this host, in the form of Ansible's `--diff`; empty where there is none."""
    path, after = _modelfile_path(wanted), modelfile_text(wanted)
    before = read_text(path) or ""
    if before == after:
        return []
    return [difference(before.splitlines(), after.splitlines(), header=str(path))]


def write_modelfile(wanted: WantedModel) -> None:
    """Keep the Modelfile on the host."""
    write_atomically(_modelfile_path(wanted), modelfile_text(wanted))


def _record_path(wanted: WantedModel) -> Path:
    return RECORDS / f"{wanted.slug}.json"


def _modelfile_path(wanted: WantedModel) -> Path:
    return MODELFILES / f"{wanted.slug}.Modelfile"


def _gguf(wanted: WantedModel, folder: Path, merge_tool: Path) -> Path:
    """The whole model as one GGUF in `folder`, of checked shards; what an earlier run has made of it is kept."""
    shards = [folder / shard.name for shard in wanted.shards]
    merged = folder / "merged.gguf"
    if merged.exists():  # under this name it is whole
        return merged
    folder.mkdir(parents=True, exist_ok=True)
    total = sum(shard.size or 0 for shard in wanted.shards)
    have = sum(path.stat().st_size for path in folder.iterdir())
    require_free_space(folder, (STAGED_COPIES if len(shards) > 1 else 1) * total - have)
    for shard, path in zip(wanted.shards, shards):
        if not path.exists():
            fetch(shard.url, path, shard.sha256, shard.size)
    if len(shards) == 1:
        return shards[0]
    if not merge_tool.exists():
        raise RackllamaError(f"{merge_tool} is missing", "install llama.cpp first: role llama_cpp")
    part = folder / "merging.gguf"
    part.unlink(missing_ok=True)  # of a run that was killed
    systemd.run(str(merge_tool), "--merge", str(shards[0]), str(part))
    sync_file(part)
    part.replace(merged)
    sync_directory(folder)
    for path in shards:
        path.unlink()
    return merged


def _upload(server: Ollama, gguf: Path) -> str:
    """Put a file into the server's store, unless it is there, and give its digest."""
    hasher, _ = hash_file(gguf)
    blob = f"sha256:{hasher.hexdigest()}"
    if not server.has_blob(blob):
        server.upload_blob(blob, gguf)
    return blob
