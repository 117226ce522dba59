#!/usr/bin/python3
"""A stand-in for nvidia-smi: tells what a real one told of such a machine, as far as rackllama asks for it.

`-q -x` is a recording with the versions of the library that is installed; the fabric's state follows from whether the
fabric manager runs. `topo -m` is made up: every GPU reaches every other by NVLink where there are NVSwitches.
"""

import sys
from xml.etree import ElementTree

sys.path.insert(0, "/opt/stand-in")
import played

CAPABILITIES = {"0x2330": "9.0", "0x26b9": "8.9"}


def check_driver() -> str:
    """The version that library and module agree upon, or the real one's words where they do not."""
    library, loaded = played.library_version(), played.loaded_version()
    if library is None:
        played.end(
            "NVIDIA-SMI couldn't find libnvidia-ml.so library in your system. Please make sure that the NVIDIA "
            "Display Driver is properly installed and present in your system.",
            12,
        )
    if loaded is None:
        played.end(
            "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure that the "
            "latest NVIDIA driver is installed and running.\n",
            9,
        )
    if loaded != library:
        played.end(
            "Failed to initialize NVML: Driver/library version mismatch\n"
            f"NVML library version: {library.rpartition('.')[0]}",
            18,
        )
    for address in played.scenario()["fallen"]:
        played.end(
            f"Unable to determine the device handle for GPU{address}: GPU is lost.  Reboot the system to recover "
            "this GPU",
            15,
        )
    return loaded


def told_address(address: str) -> str:
    """As nvidia-smi writes it: `00000000:53:00.0`."""
    return f"0000{address.upper()}"


def shown() -> list[dict[str, str]]:
    """The GPUs that the driver could initialize."""
    scenario = played.scenario()
    return [gpu for gpu in scenario["gpus"] if gpu["address"] not in scenario["lost"]]


def report(version: str) -> str:
    """What `-q -x` prints."""
    scenario = played.scenario()
    recording = (played.HOME / "recorded" / scenario["recording"]).read_text(encoding="utf-8")
    log = ElementTree.fromstring(recording)  # noqa: S314 - a file of ours
    recorded = log.findtext("driver_version") or ""
    there = {told_address(gpu["address"]) for gpu in shown()}
    for gpu in log.findall("gpu"):
        if gpu.get("id") not in there:
            log.remove(gpu)
            continue
        if scenario["switches"] and not played.fabric_manager_runs():
            set_text(gpu, "fabric/state", "In Progress")
            set_text(gpu, "fabric/status", "N/A")
        for path, text in scenario["told"].get((gpu.get("id") or "")[4:].lower(), {}).items():
            set_text(gpu, path, text)
    set_text(log, "attached_gpus", str(len(there)))
    doctype = "\n".join(recording.splitlines()[:2])
    return f"{doctype}\n{ElementTree.tostring(log, encoding='unicode')}\n".replace(recorded, version)


def set_text(element: ElementTree.Element, path: str, text: str) -> None:
    """Tell something else there; a path that the recording has not is a fault of the test."""
    found = element.find(path)
    if found is None:
        played.end(f"stand-in: {path} is not in the recording", 2)
    found.text = text


def topology() -> str:
    """What `topo -m` prints, as far as links go."""
    gpus = shown()
    link = "NV18" if played.scenario()["switches"] else "SYS"
    names = [f"GPU{number}" for number in range(len(gpus))]
    rows = [
        "\t".join(
            [row, *("X" if row == column else link for column in names), "0-63", gpus[number].get("numa_node", "0")]
        )
        for number, row in enumerate(names)
    ]
    return "\n".join(["\t" + "\t".join([*names, "CPU Affinity", "NUMA Affinity"]), *rows, ""])


def main() -> None:
    """Answer what rackllama asks."""
    version, asked = check_driver(), sys.argv[1:]
    if asked == ["-q", "-x"]:
        sys.stdout.write(report(version))
    elif asked[:1] == ["--query-gpu=pci.bus_id,compute_cap"]:
        sys.stdout.writelines(f"{told_address(gpu['address'])}, {CAPABILITIES[gpu['device']]}\n" for gpu in shown())
    elif asked == ["topo", "-m"]:
        sys.stdout.write(topology())
    elif asked in ([], ["-L"]):
        sys.stdout.writelines(f"GPU {number}: {gpu['address']}\n" for number, gpu in enumerate(shown()))
    else:
        played.end(f"stand-in for nvidia-smi: does not know {' '.join(asked)}", 2)


if __name__ == "__main__":
    main()
