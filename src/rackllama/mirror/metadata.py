"""Small published documents: how they are fetched, and what is told where one is not what it should be."""

import contextlib
import json
from collections.abc import Callable, Iterator
from typing import Any

from rackllama.host.errors import RackllamaError
from rackllama.mirror.lock import SHA256

Fetch = Callable[[str], bytes]


def json_document(content: bytes, source: str, *keys: str) -> dict[str, Any]:
    """What was fetched from `source` as a table; raises RackllamaError where it is none, or lacks one of the keys."""
    try:
        document = json.loads(content)
    except ValueError:
        document = None
    if not isinstance(document, dict) or not document.keys() >= set(keys):
        raise RackllamaError(f"{source} answered something else than metadata", "check the mirror or proxy")
    return document


@contextlib.contextmanager
def well_formed(source: str) -> Iterator[None]:
    """Tells of a document from `source` that lacks what is read from it within, or has it in another form."""
    try:
        yield
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise RackllamaError(f"{source} answered metadata of another form ({error!r})", "check the mirror") from error


def published_sha256(value: str, source: str) -> str:
    """The value, where it is a sha256; raises RackllamaError where it is none."""
    if not SHA256.fullmatch(value):
        raise RackllamaError(f"{source} publishes {value!r}, which is no sha256", "give the artefact another origin")
    return value
