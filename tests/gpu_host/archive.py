"""A stand-in for NVIDIA's package archive, on the played host itself: which versions it has, and what is wrong with it.

Headers of kernels come from another one, which the host knows from the start, as it knows Debian's own.

See on_host/make_archive.py for what is real of it.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

URL = "http://127.0.0.1:8900"
KERNELS_KEY = "/etc/apt/keyrings/stand-in-kernels.asc"
KERNELS_SOURCE = "/etc/apt/sources.list.d/stand-in-kernels.list"
RIGHT_KEY, OTHER_KEY = "right", "other"
# The host learns of new headers at once, as a host does that refreshes its lists every day.
LEARN_KERNELS = f"""
python3 -c "import urllib.request as u; print(u.urlopen('{URL}/kernels/3bf863cc.pub').read().decode())" >{KERNELS_KEY}
echo 'deb [signed-by={KERNELS_KEY}] {URL}/kernels/ /' >{KERNELS_SOURCE}
apt-get -qq update -o Dir::Etc::SourceList={KERNELS_SOURCE} -o Dir::Etc::SourceParts=- -o APT::Get::List-Cleanup=0
"""
# Suffixes of the fabric manager's packages differ within one branch, and are not the driver's.
FABRIC_SUFFIXES = {"580.126.20": "-1ubuntu1"}
PINNABLE = ("580.105.08", "580.126.20")  # those that NVIDIA has a pinning package for


@dataclass
class Archive:
    """The archive, changed by each call and served so when it returns. `run` is a root shell of the host."""

    run: Callable[[str], str]
    drivers: dict[str, dict[str, Any]] = field(default_factory=dict)
    headers: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    newer_bystanders: bool = False
    signed_by: str = RIGHT_KEY
    key_file: str = RIGHT_KEY

    @property
    def fingerprint(self) -> str:
        """That of the key which signs it when all is well."""
        return self.run(f"python3 /opt/stand-in/make_archive.py fingerprint {RIGHT_KEY}")

    def publish(self, version: str, *, pinning: bool | None = None, compiles: bool = True) -> None:
        """Add a version of the driver; with a package that pins it, where NVIDIA has one or `pinning` says so."""
        self.add(version, pinning=pinning, compiles=compiles)
        self.serve()

    def add(self, version: str, *, pinning: bool | None = None, compiles: bool = True) -> None:
        """As `publish`, seen when the archive is served next."""
        self.drivers[version] = {
            "suffix": FABRIC_SUFFIXES.get(version, "-1"),
            "pinning": version in PINNABLE if pinning is None else pinning,
            "compiles": compiles,
        }

    def withdraw(self, version: str) -> None:
        """Take a version of the driver out."""
        del self.drivers[version]
        self.serve()

    def publish_headers(self, *kernels: str) -> None:
        """Have the headers of these kernels, and of no others."""
        self.headers = list(kernels)
        self.serve()

    def publish_bystanders(self) -> None:
        """Add newer versions of what has nothing to do with the driver's version."""
        self.newer_bystanders = True
        self.serve()

    def damage(self, *packages: str) -> None:
        """Have other bytes in these packages than the index tells, and in no others."""
        self.damaged = list(packages)
        self.serve()

    def sign_with(self, key: str) -> None:
        """Sign with this key; its public half is served as before."""
        self.signed_by = key
        self.serve()

    def serve_key(self, key: str) -> None:
        """Serve the public half of this key; the archive is signed as before."""
        self.key_file = key
        self.serve()

    def serve(self) -> None:
        """Make the archive as it is described here."""
        described = {name: value for name, value in vars(self).items() if name != "run"}
        self.run(
            f"cat >/opt/stand-in/archive.json <<'EOF'\n{json.dumps(described)}\nEOF\n"
            f"python3 /opt/stand-in/make_archive.py\n{LEARN_KERNELS}"
        )
