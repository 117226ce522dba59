"""Model hubs: which files a repository has at a revision, with size, sha256 and address of each."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from rackllama.host.errors import RackllamaError
from rackllama.mirror.http import HUGGING_FACE, MODELSCOPE
from rackllama.mirror.lock import LockedFile
from rackllama.mirror.metadata import Fetch, json_document, published_sha256, well_formed

COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Repository:
    """A model repository at a revision: its files by path, with a sha256 of None where the hub tells none."""

    name: str
    revision: str
    files: Mapping[str, LockedFile]


def hugging_face(name: str, revision: str, fetch: Fetch, endpoint: str = HUGGING_FACE) -> Repository:
    """A repository of Hugging Face, pinned to the commit that the revision names."""
    source = f"{endpoint}/api/models/{name}/revision/{quote(revision, safe='')}?blobs=true"
    document = json_document(fetch(source), source, "sha", "siblings")
    commit = str(document["sha"])
    if not COMMIT.fullmatch(commit):
        raise RackllamaError(f"{source} names no commit", "check the origin in the lock")

    def listed(sibling: Mapping[str, Any]) -> tuple[str, LockedFile]:
        path, blob = _plain(sibling["rfilename"], source), sibling.get("lfs")
        url = f"{endpoint}/{name}/resolve/{commit}/{quote(path)}"
        if not blob:
            return path, LockedFile(url)
        return path, LockedFile(url, int(blob["size"]), published_sha256(blob["sha256"], source))

    with well_formed(source):
        return Repository(name, commit, dict(map(listed, document["siblings"])))


def model_scope(name: str, revision: str, fetch: Fetch, endpoint: str = MODELSCOPE) -> Repository:
    """A repository of ModelScope. Its addresses are as fixed as the revision: a branch may move on."""
    at = quote(revision, safe="")
    source = f"{endpoint}/api/v1/models/{name}/repo/files?Revision={at}&Recursive=True"
    document = json_document(fetch(source), source, "Data")

    def listed(file: Mapping[str, Any]) -> tuple[str, LockedFile]:
        path, sha256 = _plain(file["Path"], source), file.get("Sha256")
        url = f"{endpoint}/models/{name}/resolve/{at}/{quote(path)}"
        return path, LockedFile(url, int(file["Size"]), published_sha256(sha256, source) if sha256 else None)

    with well_formed(source):
        files = [file for file in document["Data"]["Files"] or () if file.get("Type") != "tree"]
        return Repository(name, revision, dict(map(listed, files)))


def _plain(path: str, source: str) -> str:
    """The path of a file within its repository; raises RackllamaError where it leads elsewhere."""
    if {"", ".", ".."} & set(path.split("/")) or not path.isprintable() or "\\" in path:
        raise RackllamaError(f"{source} lists {path!r}, which is no path in a repository", "do not take files from it")
    return path
