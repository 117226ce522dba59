#!/usr/bin/python3
"""A stand-in for the fabric manager: it runs only with NVSwitches, and with the driver of its own version loaded."""

import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, "/opt/stand-in")
import played

LOG = Path("/var/log/fabricmanager.log")


def log(line: str) -> None:
    """Write to the log that people are told to look at."""
    with LOG.open("a", encoding="utf-8") as file:
        file.write(f"{line}\n")


if "--version" in sys.argv or "-v" in sys.argv:
    sys.stdout.write("Fabric Manager version is : @VERSION@\n")
    raise SystemExit
LOADED = played.loaded_version()
if not played.scenario()["switches"] or LOADED is None:
    log("failed to initialize the NVSwitch driver interface: no NVSwitch device found")
    raise SystemExit(1)
if LOADED != "@VERSION@":
    log(
        f"fabric manager NVIDIA GPU driver interface version @VERSION@ don't match with driver version {LOADED}. "
        "Please update with matching NVIDIA driver package."
    )
    raise SystemExit(1)
if os.fork():
    while not played.fabric_manager_runs():
        os.sched_yield()
    os._exit(0)
played.FABRIC_MANAGER.write_text(str(os.getpid()), encoding="ascii")
log("Successfully configured all the available NVSwitches to route GPU NVLink traffic.")
signal.sigwait({signal.SIGTERM, signal.SIGINT})
played.FABRIC_MANAGER.unlink()
