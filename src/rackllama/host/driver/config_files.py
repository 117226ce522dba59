"""Several small files as one thing: their texts by path. A file without text is one that is not to be there."""

from pathlib import Path
from typing import Dict, Iterable, Mapping

from ..files import read_text, write_atomically

GONE = ""


def texts(paths: Iterable[Path]) -> Dict[Path, str]:
    """What is there now."""
    return {path: read_text(path) or GONE for path in paths}


def different(files: Mapping[Path, str]) -> Dict[Path, str]:
    """Those that are not as they are wanted."""
    now = texts(files)
    return {path: text for path, text in files.items() if now[path] != text}


def write(files: Mapping[Path, str]) -> None:
    """Have each as it is wanted."""
    for path, text in files.items():
        if text:
            write_atomically(path, text)
        else:
            path.unlink(missing_ok=True)
