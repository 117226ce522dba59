"""Models of a hub: `hf:OWNER/REPO[@REVISION]:QUANT` and the like, and which files of the repository that means."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import unquote

from rackllama.host.errors import RackllamaError
from rackllama.landing.shard_sets import chosen
from rackllama.mirror.http import HUGGING_FACE, MODELSCOPE, endpoint
from rackllama.mirror.hubs import Repository, hugging_face, model_scope
from rackllama.mirror.lock import LockedFile
from rackllama.mirror.metadata import Fetch

PART = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"
REFERENCE = re.compile(
    rf"(?P<repository>{PART}/{PART})(?:@(?P<revision>[^:/\s]+))?(?::(?P<quant>{PART})|/(?P<path>[^:]+\.gguf))?"
)


class Hub(NamedTuple):
    """A kind of hub: its own address, its usual branch, and how its repositories are read."""

    address: str
    branch: str
    read: Callable[[str, str, Fetch, str], Repository]


HUBS = {"hf": Hub(HUGGING_FACE, "main", hugging_face), "ms": Hub(MODELSCOPE, "master", model_scope)}


@dataclass(frozen=True)
class Reference:
    """What of a repository is meant: `wanted` is a quantization or a file's path; None means the one model in it."""

    hub: Hub
    repository: str
    revision: str
    wanted: str | None


def reference(kind: str, subject: str) -> Reference:
    """The reference that stands behind `hf:` or `ms:`. Raises RackllamaError where it has another form."""
    found = REFERENCE.fullmatch(subject)
    if not found:
        raise RackllamaError(
            f"{kind}:{subject} names no model of a hub",
            f"write {kind}:OWNER/REPO:QUANT or {kind}:OWNER/REPO/FILE.gguf, with @REVISION behind REPO if need be",
        )
    hub = HUBS[kind]
    return Reference(hub, found["repository"], found["revision"] or hub.branch, found["quant"] or found["path"])


def files_of(meant: Reference, fetch: Fetch, environment: Mapping[str, str]) -> tuple[LockedFile, ...]:
    """All shards, in order, with their published sha256. Raises RackllamaError telling what the repository has."""
    found = meant.hub.read(meant.repository, meant.revision, fetch, endpoint(meant.hub.address, environment))
    where = f"revision {meant.revision} of {meant.repository}"
    files = tuple(found.files[path] for path in chosen(found.files, meant.wanted, where))
    for file in files:
        if not file.sha256:
            raise RackllamaError(
                f"{where} tells no sha256 of {unquote(file.name)}", "give its address, which lands it unverified"
            )
    return files
