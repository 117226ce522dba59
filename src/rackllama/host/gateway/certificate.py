"""The certificate of a service, with its key in one file that only root and the service may read.

The key is made on this host by openssl and never leaves it: a request for a certificate goes to the controller, whose
authority signs it. Or certificate and key are given as files of this host, such as an ACME client renews.
"""

import grp
import re
import ssl
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from .. import systemd
from ..errors import RackllamaError
from ..files import read_text, write_atomically

MODE = 0o640
SECRET_MODE = 0o600
CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----\n.+?-----END CERTIFICATE-----\n?", re.DOTALL)


@dataclass(frozen=True)
class CertificateFile:
    """Where a service finds its certificate, chain and key, as `group` may read them."""

    path: Path
    group: str

    @property
    def _new_key(self) -> Path:
        """The key of a request that is not answered yet."""
        return self.path.with_name(f".{self.path.name}.key")

    def certificate(self) -> str:
        """The certificate with its chain in PEM, without the key; empty where there is none, or none that is of use."""
        text = read_text(self.path) or ""
        return "".join(CERTIFICATE.findall(text)) if text and _fits(self.path, None) is None else ""

    def is_readable(self) -> bool:
        """Whether it has the mode and the group that it ought to have."""
        found = self.path.stat()
        return (found.st_mode & 0o777, found.st_gid) == (MODE, grp.getgrnam(self.group).gr_gid)

    def request(self) -> str:
        """A certificate request in PEM for a new key, which is kept until the certificate comes."""
        key = systemd.run("openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256").stdout
        write_atomically(self._new_key, key, SECRET_MODE)
        return systemd.run("openssl", "req", "-new", "-key", str(self._new_key), "-subj", "/CN=host").stdout

    def answer(self, certificate: str) -> None:
        """Put the certificate that came for the request in place, with its key."""
        self._write(certificate, read_text(self._new_key) or "")
        self._new_key.unlink()

    def differs(self, certificate: Path, key: Path) -> bool:
        """Whether another certificate and key are given than are in place. Raises RackllamaError for unusable ones."""
        text = _given(certificate, key)
        return read_text(self.path) != text or not self.is_readable()

    def take(self, certificate: Path, key: Path) -> None:
        """Put a given certificate and key in place."""
        self._write(_given(certificate, key), "")

    def _write(self, certificate: str, key: str) -> None:
        write_atomically(self.path, _joined(certificate, key), MODE, grp.getgrnam(self.group).gr_gid)


def _given(certificate: Path, key: Path) -> str:
    complaint = _fits(certificate, key)
    if complaint:
        raise RackllamaError(
            f"{certificate} and {key} are no certificate and its key: {complaint}",
            "give the full chain and the key of a certificate that is valid now",
        )
    return _joined(certificate.read_text(), key.read_text())


def _joined(certificate: str, key: str) -> str:
    return "".join(f"{part.strip()}\n" for part in (certificate, key) if part.strip())


def _fits(certificate: Path, key: Optional[Path]) -> Optional[str]:
    """What is wrong with a certificate and its key, which may be in one file; None where nothing is."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password="")
    except (OSError, ValueError) as error:  # an SSLError is an OSError
        return str(error)
    shown = systemd.run("openssl", "x509", "-noout", "-enddate", "-in", str(certificate), check=False).stdout
    ended = ssl.cert_time_to_seconds(shown.partition("=")[2].strip()) < time.time()
    return f"it has ended: {shown.strip()}" if ended else None
