"""What the controller does for a host's certificate: say whether it must be renewed, and sign a request."""

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rackllama.gateway.authority import Authority, authority, read_authority, reasons_to_renew, sign


@dataclass(frozen=True)
class Signing:
    """Certificates for the `names` of one host by the authority kept in `folder`, of `FOLDER/SITE/ca`."""

    folder: Path
    names: Sequence[str]
    renewal_days: int

    def reasons(self, present: str) -> list[str]:
        """Why the present certificate (PEM, or empty) must be replaced; makes no authority."""
        return reasons_to_renew(present, self.names, read_authority(self.folder), self.renewal_days, _now())

    def authority_pem(self) -> str:
        """The authority's certificate; it is made where there is none."""
        return self._authority().pem

    def sign(self, request: str) -> str:
        """A certificate for a host's request, both in PEM."""
        return sign(self._authority(), request, self.names, _now())

    def _authority(self) -> Authority:
        return authority(self.folder, self.folder.parent.name)


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
