"""The driver's kernel module: which kernels have it, of which version and signed by whom; and how it is built."""

from pathlib import Path
from typing import Optional, Sequence

from .. import systemd
from ..errors import RackllamaError
from ..hardware.machine import ask

MODULE = "nvidia"
DKMS_LOGS = Path("/var/lib/dkms")
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
            said = systemd.run("dkms", "autoinstall", "-k", kernel, check=False).stdout
            if module_version(kernel) != version:
                raise RackllamaError(
                    f"there is no module of {version} for kernel {kernel} after its build: {_end_of_log(said)}",
                    "see /var/lib/dkms/nvidia*/*/build/make.log; take another nvidia_driver_version, or another kernel",
                )
        if must_be_signed and signer(kernel) is None:
            raise RackllamaError(
                f"the module of {version} for kernel {kernel} is not signed, and Secure Boot would refuse it",
                "let DKMS sign by a key that is enrolled (mok_signing_key in /etc/dkms/framework.conf), and run again",
            )


def _told(kernel: str, field: str) -> Optional[str]:
    return (ask("modinfo", "-k", kernel, "--field", field, MODULE) or "").strip() or None


def _end_of_log(otherwise: str) -> str:
    logs = sorted(DKMS_LOGS.glob("nvidia*/*/build/make.log"), key=lambda path: path.stat().st_mtime)
    text = logs[-1].read_text(encoding="utf-8", errors="replace") if logs else otherwise
    return " | ".join(line.strip() for line in text.strip().splitlines()[-LOG_LINES:])
