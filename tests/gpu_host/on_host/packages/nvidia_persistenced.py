#!/usr/bin/python3
"""A stand-in for nvidia-persistenced: holds every GPU's device open until it is stopped, as the real one does."""

import os
import signal
import subprocess
import sys

sys.path.insert(0, "/opt/stand-in")
import played

if "--version" in sys.argv:
    sys.stdout.write("nvidia-persistenced:  version @VERSION@\n")
    raise SystemExit
if played.loaded_version() is None or played.loaded_version() != played.library_version():
    played.end(
        "Failed to query NVIDIA devices. Please ensure that the NVIDIA device files (/dev/nvidia*) exist, and that "
        "user 0 has read and write permissions for those files.",
        1,
    )
MINORS = [f"-c={minor}" for minor in range(len(played.scenario()["gpus"]))]
subprocess.run(["/usr/bin/nvidia-modprobe", *MINORS], check=True)
HELD = [os.open(f"/dev/nvidia{minor}", os.O_RDONLY) for minor in range(len(MINORS))]
if os.fork():
    os._exit(0)  # the devices are held from here on
signal.sigwait({signal.SIGTERM, signal.SIGINT})
