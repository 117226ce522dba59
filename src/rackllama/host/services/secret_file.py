"""A secret that the host makes for itself once, and keeps: it is in one file, for root alone, and nowhere else."""

import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from ..errors import RackllamaError
from ..files import read_text, write_atomically

MODE = 0o600
RANDOM_BYTES = 24


@dataclass(frozen=True)
class SecretChange:
    """What has to change so that a secret is there as wanted; `reason` is empty where nothing has."""

    path: Path
    reason: str
    value: Optional[str] = None

    def carry_out(self) -> None:
        """Write it, made on the spot where no value was given; a secret that is there and is only open gets closed."""
        if self.reason:
            write_atomically(self.path, f"{self.value or secrets.token_urlsafe(RANDOM_BYTES)}\n", MODE)


def change(path: Path, wanted: Optional[str] = None) -> SecretChange:
    """Compare the secret in `path` with `wanted`; without one, any that is there is kept."""
    text = read_text(path)
    found = text.strip() if text else ""
    if not found:
        return SecretChange(path, "it is not there", wanted)
    if wanted and wanted != found:
        return SecretChange(path, "it is another one", wanted)
    if path.stat().st_mode & 0o777 != MODE:
        return SecretChange(path, "others could read it", found)
    return SecretChange(path, "")


def read_secret(path: Path) -> str:
    """The secret in a file. Raises RackllamaError where there is none."""
    found = (read_text(path) or "").strip()
    if not found:
        raise RackllamaError(f"there is no secret in {path}", "converge again")
    return found
