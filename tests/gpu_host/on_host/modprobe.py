#!/usr/bin/python3
"""A stand-in for modprobe and rmmod: "loads" NVIDIA's and nouveau's modules into a folder in the place of /sys/module.

It loads what the real modinfo finds for the running kernel, with its version, and says what the real one says where
there is none. What else it is asked for is the real one's. It knows no parameters of modules, and no `install` lines.
"""

import os
import shutil
import sys
from pathlib import Path

sys.path.insert(0, "/opt/stand-in")
import played

OURS = ("nvidia", "nvidia_uvm", "nvidia_modeset", "nvidia_drm", "nvidia_peermem")


def load(name: str) -> None:
    """Load a module, and the driver before what builds on it."""
    if (played.LOADED / name).exists():
        return
    if name == "nouveau":
        (played.LOADED / name).mkdir()
        played.bind(name)
        return
    version = played.modinfo(name, "version")
    if version is None:
        raise SystemExit(f"modprobe: FATAL: Module {name} not found in directory /lib/modules/{os.uname().release}")
    if name != "nvidia":
        load("nvidia")
    elif not played.scenario()["gpus"] or (played.LOADED / "nouveau").exists():
        raise SystemExit(f"modprobe: ERROR: could not insert '{name}': No such device")
    if played.loaded_version() not in (None, version):
        raise SystemExit(f"modprobe: ERROR: could not insert '{name}': Invalid argument")
    folder = played.LOADED / name
    folder.mkdir()
    (folder / "version").write_text(f"{version}\n", encoding="ascii")
    (folder / "srcversion").write_text(f"{played.modinfo(name, 'srcversion')}\n", encoding="ascii")
    if name == "nvidia":
        played.bind(name)


def unload(name: str, said_by: str) -> None:
    """Take a module out, unless it is in use."""
    if not (played.LOADED / name).exists():
        raise SystemExit(f"{said_by}: ERROR: Module {name} is not currently loaded")
    others = [other for other in OURS if name == "nvidia" and other != name and (played.LOADED / other).exists()]
    if others or played.users():
        by = f" by: {' '.join(others)}" if others else ""
        told = f"FATAL: Module {name} is in use." if said_by == "modprobe" else f"ERROR: Module {name} is in use{by}"
        raise SystemExit(f"{said_by}: {told}")
    shutil.rmtree(played.LOADED / name)
    if name in ("nvidia", "nouveau"):
        played.bind(None)


def main() -> None:
    """As modprobe or rmmod, by the name it is called by."""
    program, arguments = Path(sys.argv[0]).name, sys.argv[1:]
    names = [argument.replace("-", "_") for argument in arguments if not argument.startswith("-")]
    if not names or names[0] not in (*OURS, "nouveau"):
        os.execv(played.KMOD, [program, *arguments])  # noqa: S606 - a program takes over
    removes = program == "rmmod" or {"-r", "--remove"} & set(arguments)
    with played.one_at_a_time():
        if removes:
            for name in names:
                unload(name, program)
        elif not {"-n", "--dry-run", "--show", "-D", "--show-depends", "-R"} & set(arguments):
            load(names[0])  # what follows the first name are parameters


if __name__ == "__main__":
    main()
