#!/usr/bin/python3
"""Makes a stand-in for the runfile of CUDA beside the archive: `make_runfile.py VERSION [broken]` prints its sha256.

As the real one it takes `--silent --extract=FOLDER` and holds an installer of the driver, which knows the options that
rackllama gives it, builds the modules by the real dkms, and leaves an `nvidia-uninstall`. Nothing else of it is real.
"""

import hashlib
import shlex
import sys
from pathlib import Path

from make_archive import LIBRARIES, SERVED, library, source

NAME = "cuda_12.8.0_{version}_linux.run"
KNOWN = (
    *("--silent", "--ui=none", "--kernel-module-type=open", "--dkms", "--skip-module-load", "--no-drm"),
    *("--no-nouveau-check", "--no-check-for-alternate-installs"),
)
UNINSTALL = """\
#!/bin/sh
for version in /usr/src/nvidia-*; do dkms remove -m nvidia -v "${version##*-}" --all; rm -r "$version"; done
rm -f /usr/bin/nvidia-smi /usr/bin/nvidia-modprobe /usr/bin/nvidia-persistenced LIBRARIES/libnvidia-ml.so.*
rm -f /usr/bin/nvidia-uninstall
"""


def write(path: str, text: str) -> str:
    """Shell that writes a file."""
    mode = "0755" if text.startswith("#!") else "0644"
    folder = shlex.quote(str(Path(path).parent))
    return f"mkdir -p {folder}; printf %s {shlex.quote(text)} >{shlex.quote(path)}; chmod {mode} {shlex.quote(path)}\n"


def installer(version: str, compiles: bool) -> str:
    """The driver's own installer, as shell."""
    values = {"version": version, "license": "Dual MIT/GPL", "break": "" if compiles else "#error too new a kernel"}
    kernel = {
        f"/usr/src/nvidia-{version}/{file}": source(f"kernel/{file}", **values)
        for file in ("dkms.conf", "Makefile", "Kbuild", "nvidia.c", "nvidia-uvm.c")
    }
    files = {
        **kernel,
        "/usr/bin/nvidia-smi": source("nvidia_smi.py"),
        "/usr/bin/nvidia-modprobe": source("nvidia_modprobe.py"),
        "/usr/bin/nvidia-persistenced": source("nvidia_persistenced.py", version=version),
        "/usr/bin/nvidia-uninstall": UNINSTALL.replace("LIBRARIES", f"/{LIBRARIES}"),
        f"/{LIBRARIES}/libnvidia-ml.so.{version}": library("libnvidia-ml", version)[
            f"{LIBRARIES}/libnvidia-ml.so.{version}"
        ],
    }
    known = "|".join(KNOWN)
    return (
        "#!/bin/sh\nset -e\n"
        f'for option in "$@"; do case "$option" in {known}) ;; *) echo "unknown: $option" >&2; exit 2;; esac; done\n'
        "[ ! -x /usr/bin/nvidia-uninstall ] || nvidia-uninstall --silent\n"
        f"{''.join(write(path, text) for path, text in files.items())}"
        f"ln -sf libnvidia-ml.so.{version} /{LIBRARIES}/libnvidia-ml.so.1\n"
        f"dkms install -m nvidia -v {version}\n"
    )


def runfile(version: str, compiles: bool) -> str:
    """The whole runfile, as shell."""
    inner = shlex.quote(installer(version, compiles))
    return (
        "#!/bin/sh\nset -e\n"
        'for option in "$@"; do case "$option" in\n'
        '  --silent) ;; --extract=/*) folder="${option#*=}" ;; *) exit 2 ;;\n'
        "esac; done\n"
        'mkdir -p "$folder"\n'
        f'printf %s {inner} >"$folder/NVIDIA-Linux-x86_64-{version}.run"\n'
        ': >"$folder/cuda-linux.12.8.0.run"\n'
    )


def main() -> None:
    """Serve it."""
    version, broken = sys.argv[1], sys.argv[2:] == ["broken"]
    path = SERVED.parents[1] / NAME.format(version=version)
    path.write_text(runfile(version, not broken), encoding="utf-8")
    sys.stdout.write(hashlib.sha256(path.read_bytes()).hexdigest())


if __name__ == "__main__":
    main()
