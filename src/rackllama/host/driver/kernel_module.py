"""The driver's kernel module: which kernels have it, of which version and signed by whom; and how it is built."""

import time
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator, Optional, Sequence

from .. import systemd
from ..errors import RackllamaError
from ..files import write_atomically
from ..hardware.machine import ask

MODULE = "nvidia"
DKMS_LOGS = Path("/var/lib/dkms")
KEPT_LOG = Path("/var/log/rackllama-driver-build.log")
LOG_LINES = 15


def module_version(kernel: str) -> Optional[str]:
    """The version of the module that this kernel would load; None where it has none."""
    return _told(kernel, "version")


def signer(kernel: str) -> Optional[str]:
    """Who signed that module; None where nobody did."""
    return _told(kernel, "signer")


def build(kernels: Sequence[str], version: str, must_be_signed: bool) -> None:
    """Have DKMS build the module for those of these kernels that lack it, and see that each has it.

    Raises RackllamaError with the end of the build's log where one has it not, or not signed where it must be.
    """
    for kernel in kernels:
        if module_version(kernel) != version:
            with log_kept():
                systemd.run("dkms", "autoinstall", "-k", kernel, check=False)
                if module_version(kernel) != version:
                    raise RackllamaError(
                        f"DKMS has made no module of {version} for kernel {kernel}", "see why: dkms status"
                    )
        if must_be_signed and signer(kernel) is None:
            raise RackllamaError(
                f"the module of {version} for kernel {kernel} is not signed, and Secure Boot would refuse it",
                "let DKMS sign by a key that is enrolled (mok_signing_key in /etc/dkms/framework.conf), and run again",
            )


@contextmanager
def log_kept() -> Iterator[None]:
    """Where a build fails within, tell the end of its log, and keep it: what takes it back takes its log away."""
    started = time.time()
    try:
        yield
    except RackllamaError as error:
        logs = [path for path in DKMS_LOGS.glob("nvidia*/*/build/make.log") if path.stat().st_mtime >= started]
        if not logs:
            raise
        text = max(logs, key=lambda path: path.stat().st_mtime).read_text(encoding="utf-8", errors="replace")
        write_atomically(KEPT_LOG, text)
        end = " | ".join(line.strip() for line in text.strip().splitlines()[-LOG_LINES:])
        raise RackllamaError(
            f"{error.message}: {end}",
            f"see {KEPT_LOG}; take another nvidia_driver_version, or a kernel that it knows, and converge again",
        ) from error


def _told(kernel: str, field: str) -> Optional[str]:
    return (ask("modinfo", "-k", kernel, "--field", field, MODULE) or "").strip() or None
