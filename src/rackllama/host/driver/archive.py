"""NVIDIA's package archive as a source of a host's packages, trusted by a key whose fingerprint is known beforehand."""

import http.client
import platform
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, Optional

from ..errors import RackllamaError
from ..files import MARK, read_text
from .branches import MACHINES, UPSTREAM, archive
from .openpgp import dearmoured, fingerprints
from .state import os_release

NAME = "rackllama-nvidia"
LARGEST_KEY_BYTES = 1 << 16
SOCKET_TIMEOUT_SECONDS = 30
APT_KEYRING = Path("/etc/apt/keyrings/rackllama-nvidia.asc")
APT_SOURCE = Path("/etc/apt/sources.list.d/rackllama-nvidia.sources")
RPM_KEY = Path("/etc/pki/rpm-gpg/RPM-GPG-KEY-rackllama-nvidia")
DNF_SOURCE = Path("/etc/yum.repos.d/rackllama-nvidia.repo")
SOURCES = (APT_SOURCE, DNF_SOURCE)


@dataclass(frozen=True)
class Copy:
    """Where an archive is had from instead of upstream: a base address below which lie the folders of all
    distributions, or a mirror of everything; and by which key it is signed, if by another one.
    """

    url: str = ""
    fingerprint: str = ""
    mirror: str = ""

    @property
    def base(self) -> str:
        """The address below which the folders lie."""
        mirrored = f"{self.mirror.rstrip('/')}/{UPSTREAM.partition('//')[2]}" if self.mirror else UPSTREAM
        return (self.url or mirrored).rstrip("/")


@dataclass(frozen=True)
class ArchiveSource:
    """An archive for one host: where it is, the key that signs it, and how its packages are named.

    `path` is the file that names it to the package manager, `key_path` the one that holds its key.
    """

    url: str
    key_url: str
    fingerprint: str
    naming: str

    @property
    def path(self) -> Path:
        """The file that names it to the package manager."""
        return DNF_SOURCE if self.naming == "rhel" else APT_SOURCE

    @property
    def key_path(self) -> Path:
        """The file that holds its key."""
        return RPM_KEY if self.naming == "rhel" else APT_KEYRING

    @property
    def text(self) -> str:
        """What the package manager is told."""
        if self.naming == "rhel":
            # Modular filtering would hide all but one stream of the driver; versions are locked one by one.
            return (
                f"# {MARK}\n[{NAME}]\nname=NVIDIA\nbaseurl={self.url}\nenabled=1\ngpgcheck=1\n"
                f"gpgkey=file://{self.key_path}\nmodule_hotfixes=1\n"
            )
        return f"# {MARK}\nTypes: deb\nURIs: {self.url}\nSuites: /\nSigned-By: {self.key_path}\n"


def archive_source(distribution: str, version: str, machine: str, copy: Copy) -> ArchiveSource:
    """The archive for a host. Raises RackllamaError where there is none, or its key is not known."""
    found, folder = archive(distribution, version), MACHINES.get(machine)
    if found is None or folder is None:
        raise RackllamaError(
            f"NVIDIA has no package archive for {distribution} {version} on {machine} that holds these branches",
            "install from the runfile (nvidia_driver_source: runfile), or use another distribution",
        )
    trusted = "".join(copy.fingerprint.split()).upper() or found.fingerprint
    if trusted is None:
        raise RackllamaError(
            f"the fingerprint of the key that signs {found.folder} is not known here",
            "learn it from NVIDIA and set nvidia_archive_fingerprint (gpg --show-keys tells that of a file)",
        )
    place = f"{copy.base}/{found.folder}/{folder}/"
    return ArchiveSource(place, place + found.key_file, trusted, found.naming)


def wanted_files(source: ArchiveSource, key: str) -> Dict[Path, str]:
    """The two files of a source: its key and itself. Pure. Raises RackllamaError where the key is another one."""
    found = fingerprints(dearmoured(key))
    if found != [source.fingerprint]:
        raise RackllamaError(
            f"the key at {source.key_url} is {', '.join(found) or 'none'} and ought to be {source.fingerprint}",
            "do not trust it: see whether NVIDIA has announced another key, and who serves that archive",
        )
    return {source.key_path: key, source.path: source.text}


def trusted_key(source: ArchiveSource, held: str) -> Optional[str]:
    """The key that a host holds already; None where that is none, or another one. Pure."""
    try:
        return held if fingerprints(dearmoured(held)) == [source.fingerprint] else None
    except RackllamaError:
        return None


def source_here(copy: Copy) -> ArchiveSource:
    """The archive for this host. Raises as `archive_source`."""
    told = os_release(read_text(Path("/etc/os-release")) or "")
    return archive_source(told.get("ID", ""), told.get("VERSION_ID", ""), platform.machine(), copy)


def fetch_key(url: str) -> str:
    """The text of a key. Raises RackllamaError where it cannot be had."""
    try:
        with urllib.request.urlopen(url, timeout=SOCKET_TIMEOUT_SECONDS) as response:
            data: bytes = response.read(LARGEST_KEY_BYTES)
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise RackllamaError(
            f"the signing key at {url} cannot be had ({reason})",
            "check nvidia_archive_url, rackllama_mirror, the proxy settings and the network of the host",
        ) from error
    return data.decode("ascii", errors="replace")
