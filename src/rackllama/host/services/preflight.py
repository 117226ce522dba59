"""What must be true of a host before anything on it is changed."""

import shutil
import sys
from pathlib import Path
from typing import Any, List, Mapping, Sequence

from .. import systemd
from ..files import read_json
from ..lander.landing import unfinished
from ..models.model import WantedModel, found_model
from ..models.ollama_store import OllamaStore
from ..network.sockets import listeners
from ..report import Check
from .release import installed_releases
from .unit import SERVICES

BLOCK_BYTES = 512
OLDEST_PYTHON = (3, 9)
RELEASES = Path("/opt")
UNPACKED_FACTOR = 5  # an archive beside what it unpacks to, which is up to four times as large


def host_checks() -> List[Check]:
    """Checks of the host itself: systemd in charge, a Python that is new enough."""
    booted = Path("/run/systemd/system").is_dir()
    version = ".".join(map(str, sys.version_info[:3]))
    return [
        Check(
            "systemd", booted, "in charge of the host", "in charge" if booted else "not running", "boot with systemd"
        ),
        Check(
            "python",
            sys.version_info >= OLDEST_PYTHON,
            "3.9 or newer",
            version,
            "install a newer python3 and name it in ansible_python_interpreter",
        ),
    ]


def room_check(path: Path, needed_bytes: int) -> Check:
    """Whether the file system that `path` is on, or will be on, has that much free."""
    free = shutil.disk_usage(_existing(path)).free
    return Check(
        f"room at {path}",
        free >= needed_bytes,
        f"{needed_bytes / 2**30:.1f} GiB free",
        f"{free / 2**30:.1f} GiB free",
        f"free space on the file system of {path}, or choose a larger one",
    )


def bytes_for_releases(downloads: Sequence[Mapping[str, Any]], root: Path = RELEASES) -> int:
    """Room that installing these releases takes; what is installed already takes none."""
    return sum(
        UNPACKED_FACTOR * int(download.get("size") or 0)
        for download in downloads
        if download["sha256"] not in installed_releases(root / download["name"]).versions.values()
    )


def bytes_for_models(models: Sequence[WantedModel]) -> int:
    """Room that landing these models takes: the size of all their weights, each once, less what is there of them."""
    sizes = {
        model.weights_digest: sum(shard.size or 0 for shard in model.weights.shards) - _bytes_there(model)
        for model in models
        if not found_model(model).weights
    }
    return sum(max(0, size) for size in sizes.values())


def _bytes_there(model: WantedModel) -> int:
    """What an unfinished landing takes on the disk already."""
    landing = OllamaStore(model.store).landing
    files = [*unfinished(model.slug, landing), *landing.glob(f"{model.slug}.gguf")]
    return sum(path.lstat().st_blocks * BLOCK_BYTES for path in files)


def port_check(service: str, port: int) -> Check:
    """Whether a service can have its port: nobody listens there, or the service itself does."""
    taken = bool(listeners(port)) and not _is_ours(service, port)
    return Check(
        f"port {port}",
        not taken,
        f"free for {service}",
        "taken by another program" if taken else "free, or its own",
        f"see who listens (ss -tlnp 'sport = :{port}') and stop it, or choose another port",
    )


def _is_ours(service: str, port: int) -> bool:
    """Whether a service of ours by this name runs here and was declared with this port."""
    record = read_json(SERVICES / f"{service}.json") or {}
    declared = [*record.get("ports", []), *record.get("public_ports", [])]
    return port in declared and systemd.unit_state(f"{service}.service").active


def _existing(path: Path) -> Path:
    return path if path.exists() else _existing(path.parent)
