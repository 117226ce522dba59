"""The program that runs on serving hosts, packed from `rackllama.host`: the same sources give the same bytes."""

import hashlib
import io
import tarfile
import zipfile
from base64 import b64encode
from importlib.metadata import version
from pathlib import Path

from rackllama import host

NAME = "rackllama-host.pyz"
PACKAGE = "rackllama_host"
MAIN = f"import sys\n\nfrom {PACKAGE}.program import main\n\nsys.exit(main())\n"
EPOCH = (1980, 1, 1, 0, 0, 0)  # the first moment that a zip archive can name


def host_program() -> dict[str, str]:
    """A release of the program as plain data: name, version with a digest of its sources, sha256, content in base64."""
    archive = _tar({NAME: host_zipapp()})
    sha256 = hashlib.sha256(archive).hexdigest()
    return {
        "name": "rackllama",
        "version": f"{version('rackllama')}-{sha256[:8]}",
        "sha256": sha256,
        "content": b64encode(archive).decode(),
    }


def host_zipapp() -> bytes:
    """The program alone, as a zip archive that Python runs."""
    return _zipapp(_sources())


def _sources() -> dict[str, bytes]:
    folder = Path(next(iter(host.__path__)))
    return {f"{PACKAGE}/{path.relative_to(folder)}": path.read_bytes() for path in sorted(folder.rglob("*.py"))}


def _zipapp(files: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, data in {"__main__.py": MAIN.encode(), **files}.items():
            entry = zipfile.ZipInfo(name, EPOCH)
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, data, zipfile.ZIP_DEFLATED)
    return b"#!/usr/bin/env python3\n" + packed.getvalue()


def _tar(files: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), 0o755
            archive.addfile(entry, io.BytesIO(data))
    return packed.getvalue()
