"""Read what an engine stores, and name what is damaged: Ollama itself never checks a blob again."""

from pathlib import Path
from typing import Iterator, List, Set

from ..errors import RackllamaError
from ..files import hash_file
from ..report import Check
from .model import records
from .ollama_store import OllamaStore, full_name


def blob_checks(root: Path) -> Iterator[Check]:
    """A check of each blob below an OLLAMA_MODELS, as it was read. Takes as long as reading and hashing all of it."""
    store = OllamaStore(root)
    if not root.is_dir():
        raise RackllamaError(f"{root} is no directory", "give the folder that OLLAMA_MODELS names")
    landed = {full_name(str(record.get("name"))) for record in records()}
    for blob in store.blobs():
        hasher, size = hash_file(blob)
        found = hasher.hexdigest()
        whole = blob.name == f"sha256-{found}"
        models = store.models_of(blob)
        served = ", ".join(models) or "no model"
        yield Check(
            f"{blob.name[:19]} is whole",
            whole,
            blob.name,
            f"{size} bytes of {served}" if whole else f"sha256-{found}, of {served}",
            "" if whole else f"run on the host: rm {blob}; then {_again(models, landed)}",
        )


def _again(models: List[str], landed: Set[str]) -> str:
    """How to get back what is damaged, in words."""
    if set(models) & landed:
        return "converge again, which puts it back"
    return "pull or create again what it belonged to" if models else "nothing is lost"
