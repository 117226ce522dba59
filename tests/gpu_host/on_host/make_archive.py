#!/usr/bin/python3
"""Makes the stand-in for NVIDIA's package archive, as /opt/stand-in/archive.json describes it, by Debian's own tools.

Beside it another one stands in for Debian's, for the headers of the played kernels; it is as sound as Debian's.

Real: .deb files, index, signature, and what apt and dpkg do with them. Stand-ins: what is in the packages. Names and
version strings are those of NVIDIA's archive for Debian 12, and so is that dependencies have no upper bound. Not known,
and made up: what is in nvidia-driver-pinning-<version>, and how its archive names itself in its Release file.
"""

import gzip
import json
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HOME = Path("/opt/stand-in")
POOL = HOME / "pool"
KEYS = HOME / "keys"
SERVED = Path("/srv/stand-in-archive/debian12/x86_64")
KERNELS = Path("/srv/stand-in-archive/kernels")
KERNELS_KEY = "kernels"
KEY_FILE = "3bf863cc.pub"
COMPANIONS_WITHOUT_BRANCH = 580  # before that, the fabric's packages have the branch in their names
LIBRARIES = "usr/lib/x86_64-linux-gnu"
# What dh_installsystemd writes, shortened. $1 is not looked at: a start that fails fails no installation, as there.
START = "systemctl daemon-reload; systemctl -q enable {unit}; deb-systemd-invoke restart {unit} >/dev/null || true\n"
STOP = '[ "$1" != remove ] || systemctl -q disable --now {unit} || true\n'
# What dh_dkms writes, shortened.
DKMS_ADD = '[ "$1" != configure ] || /usr/lib/dkms/common.postinst nvidia {version} /usr/share/nvidia-dkms "" "$2"\n'
DKMS_REMOVE = (
    'case "$1" in remove|upgrade|deconfigure)\n'
    '  if [ "$(dkms status -m nvidia -v {version})" ]; then dkms remove -m nvidia -v {version} --all; fi ;;\n'
    "esac\n"
)
NEW_HEADERS = (
    "[ ! -d /etc/kernel/header_postinst.d ] || run-parts --report --exit-on-error --arg={kernel}"
    " /etc/kernel/header_postinst.d\n"
)


@dataclass(frozen=True)
class Package:
    """A package: `files` are texts by path, or the path that a link leads to where the text begins with `-> `."""

    name: str
    version: str
    relations: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    scripts: Mapping[str, str] = field(default_factory=dict)
    variant: str = ""  # packages of one name and version that differ

    @property
    def file_name(self) -> str:
        """As the archive names it."""
        return f"{self.name}_{self.version}_amd64.deb"

    @property
    def control(self) -> str:
        """Its control file."""
        fields = {
            "Package": self.name,
            "Version": self.version,
            "Architecture": "amd64",
            "Maintainer": "rackllama's tests <nobody@example.invalid>",
            **self.relations,
            "Description": f"Stand-in for {self.name}",
        }
        return "".join(f"{name}: {value}\n" for name, value in fields.items())


def source(path: str, **values: str) -> str:
    """A file of the folder beside this program, with its @NAMES@ replaced."""
    text = (HOME / "packages" / path).read_text(encoding="utf-8")
    for name, value in values.items():
        text = text.replace(f"@{name.upper()}@", value)
    return text


def library(name: str, version: str) -> dict[str, str]:
    """A library and its link."""
    file = f"{name}.so.{version}"
    return {f"{LIBRARIES}/{file}": "stand-in\n", f"{LIBRARIES}/{name}.so.1": f"-> {file}"}


def kernel_modules(name: str, other: str, version: str, licence: str, compiles: bool) -> Package:
    """The sources of the kernel modules, which dkms builds as they are installed."""
    values = {"version": version, "license": licence, "break": "" if compiles else "#error too new a kernel"}
    sources = ("dkms.conf", "Makefile", "Kbuild", "nvidia.c", "nvidia-uvm.c")
    return Package(
        name,
        f"{version}-1",
        {"Depends": "dkms, gcc, make", "Conflicts": other, "Replaces": other},
        {f"usr/src/nvidia-{version}/{file}": source(f"kernel/{file}", **values) for file in sources},
        {"postinst": DKMS_ADD.format(version=version), "prerm": DKMS_REMOVE.format(version=version)},
        "" if compiles else "broken",
    )


def driver(version: str, suffix: str, pinning: bool, compiles: bool) -> Iterator[Package]:
    """All packages of one version of the driver; `suffix` is that of the fabric manager's, which may differ."""
    own, least = f"{version}-1", f"(>= {version})"
    needed = ("libcuda1", "libnvidia-ml1", "libnvidia-gpucomp", "nvidia-persistenced", "nvidia-modprobe")
    modules = f"nvidia-kernel-open-dkms {least} | nvidia-kernel-dkms {least}"
    yield Package(
        "nvidia-driver-cuda",
        own,
        {"Depends": ", ".join([*(f"{name} {least}" for name in needed), modules]), "Conflicts": "nvidia-smi"},
        {"usr/bin/nvidia-smi": source("nvidia_smi.py")},
    )
    yield kernel_modules("nvidia-kernel-open-dkms", "nvidia-kernel-dkms", version, "Dual MIT/GPL", compiles)
    yield kernel_modules("nvidia-kernel-dkms", "nvidia-kernel-open-dkms", version, "NVIDIA", compiles)
    yield Package("libcuda1", own, files=library("libcuda", version))
    yield Package("libnvidia-ml1", own, files=library("libnvidia-ml", version))
    yield Package("libnvidia-gpucomp", own, files=library("libnvidia-gpucomp", version))
    yield Package("nvidia-modprobe", own, files={"usr/bin/nvidia-modprobe": source("nvidia_modprobe.py")})
    unit = "nvidia-persistenced.service"
    yield Package(
        "nvidia-persistenced",
        own,
        {"Depends": "libnvidia-ml1, nvidia-modprobe"},
        {
            "usr/bin/nvidia-persistenced": source("nvidia_persistenced.py", version=version),
            f"lib/systemd/system/{unit}": source(unit),
        },
        {"postinst": START.format(unit=unit), "prerm": STOP.format(unit=unit)},
    )
    branch = "" if int(version.partition(".")[0]) >= COMPANIONS_WITHOUT_BRANCH else f"-{version.partition('.')[0]}"
    one = dict.fromkeys(("Provides", "Conflicts", "Replaces"), "fabricmanager")
    unit = "nvidia-fabricmanager.service"
    yield Package(
        f"nvidia-fabricmanager{branch}",
        f"{version}{suffix}",
        one,
        {
            "usr/bin/nv-fabricmanager": source("nv_fabricmanager.py", version=version),
            "usr/share/nvidia/nvswitch/fabricmanager.cfg": "LOG_FILE_NAME=/var/log/fabricmanager.log\n",
            f"lib/systemd/system/{unit}": source(unit),
        },
        {"postinst": "systemctl daemon-reload\n", "prerm": STOP.format(unit=unit)},
    )
    one = dict.fromkeys(("Provides", "Conflicts", "Replaces"), "nscq")
    yield Package(f"libnvidia-nscq{branch}", f"{version}{suffix}", one, library("libnvidia-nscq", version))
    if pinning:
        yield pinning_package(version)


def pinning_package(version: str) -> Package:
    """What keeps the driver at a version. Which file the real one installs, and what is in it, is not known."""
    packages = "*nvidia* libcuda1 cuda-drivers*"
    pin = f"Package: {packages}\nPin: version {version}-*\nPin-Priority: 1000\n"
    one = dict.fromkeys(("Provides", "Conflicts", "Replaces"), "nvidia-driver-pinning")
    files = {"etc/apt/preferences.d/nvidia-driver-pinning": pin}
    return Package(f"nvidia-driver-pinning-{version}", f"{version}-1", one, files)


def headers(kernel: str) -> Package:
    """The headers of a kernel, by which the stand-in for the kernel modules is built."""
    sources = f"usr/src/linux-headers-{kernel}"
    return Package(
        f"linux-headers-{kernel}",
        "1-1",
        files={
            f"{sources}/.config": "# stand-in\n",
            f"{sources}/Makefile": source("headers/Makefile", kernel=kernel),
            f"{sources}/include/linux/module.h": source("headers/module.h", kernel=kernel),
            f"lib/modules/{kernel}/build": f"-> /{sources}",
        },
        scripts={"postinst": NEW_HEADERS.format(kernel=kernel)},
    )


def bystanders(newer: bool) -> Iterator[Package]:
    """What is in the same archive, and has versions of its own."""
    program = "#!/bin/sh\necho stand-in\n"
    for patch in ("1", "2") if newer else ("1",):
        yield Package("datacenter-gpu-manager-4-core", f"1:4.4.{patch}-1", files={"usr/bin/dcgmi": program})
        yield Package("nvidia-container-toolkit", f"1.19.{patch}-1", files={"usr/bin/nvidia-ctk": program})
    cuda = "usr/local/cuda-12.8"
    yield Package("cuda-toolkit-12-8", "12.8.1-1", {"Depends": "cuda-nvcc-12-8 (>= 12.8.1)"})
    nvcc = {f"{cuda}/bin/nvcc": source("nvcc.sh"), f"{cuda}/lib64/libcudart.so": "stand-in\n"}
    yield Package("cuda-nvcc-12-8", "12.8.1-1", files=nvcc)


def build(package: Package) -> Path:
    """The package's file, made where it is not there yet."""
    path = POOL / package.variant / package.file_name
    if path.exists():
        return path
    tree = HOME / "tree"
    shutil.rmtree(tree, ignore_errors=True)
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN" / "control").write_text(package.control, encoding="utf-8")
    scripts = {f"DEBIAN/{name}": f"#!/bin/sh\nset -e\n{text}" for name, text in package.scripts.items()}
    for name, text in {**package.files, **scripts}.items():
        target = tree / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if text.startswith("-> "):
            target.symlink_to(text.removeprefix("-> "))
        else:
            target.write_text(text, encoding="utf-8")
            target.chmod(0o755 if text.startswith("#!") else 0o644)
    path.parent.mkdir(parents=True, exist_ok=True)
    run("dpkg-deb", "--root-owner-group", "-Zgzip", "-z1", "--build", str(tree), str(path))
    shutil.rmtree(tree)
    return path


def run(*command: str, cwd: Path | None = None, text: str | None = None) -> str:
    """What a program prints. Its failure ends this one with its words."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd, input=text)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: {done.stderr}")
    return done.stdout


def gpg(key: str, *arguments: str, text: str | None = None) -> str:
    """What gpg prints, with a key ring that holds this one key, made where it is not there yet."""
    ring = KEYS / key
    command = ("gpg", "--homedir", str(ring), "--batch", "--passphrase", "")
    if not ring.exists():
        ring.mkdir(parents=True, mode=0o700)
        run(*command, "--quick-generate-key", f"Stand-in ({key}) <nobody@example.invalid>", "rsa2048", "sign", "never")
    return run(*command, *arguments, text=text)


def fingerprint(key: str) -> str:
    """The key's fingerprint."""
    rows = [line.split(":") for line in gpg(key, "--list-keys", "--with-colons").splitlines()]
    return next(row[9] for row in rows if row[0] == "fpr")


def write_indexes(folder: Path, signed_by: str, key_file: str) -> None:
    """Packages, Release and InRelease of a flat archive, and its public key."""
    packages = run("apt-ftparchive", "packages", ".", cwd=folder)
    (folder / "Packages").write_text(packages, encoding="utf-8")
    (folder / "Packages.gz").write_bytes(gzip.compress(packages.encode()))
    names = ("Origin=NVIDIA", "Label=NVIDIA CUDA", "Architectures=amd64", "Description=Stand-in for NVIDIA's archive")
    options = [part for name in names for part in ("-o", f"APT::FTPArchive::Release::{name}")]
    release = run("apt-ftparchive", *options, "release", ".", cwd=folder)
    (folder / "Release").write_text(release, encoding="utf-8")
    (folder / "InRelease").write_text(gpg(signed_by, "--clearsign", text=release), encoding="utf-8")
    (folder / "Release.gpg").write_text(gpg(signed_by, "--armor", "--detach-sign", text=release), encoding="utf-8")
    (folder / KEY_FILE).write_text(gpg(key_file, "--armor", "--export"), encoding="utf-8")


def damage(path: Path) -> None:
    """Change a byte in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def wanted_packages(wanted: Mapping[str, Any]) -> Iterator[Package]:
    """All packages of the archive that is described."""
    for version, how in wanted["drivers"].items():
        yield from driver(version, how["suffix"], how["pinning"], how["compiles"])
    yield from bystanders(wanted["newer_bystanders"])


def publish(
    folder: Path, packages: Iterable[Package], signed_by: str, key_file: str, damaged: Sequence[str] = ()
) -> None:
    """Serve an archive of these packages in that folder, in the place of the one that is there."""
    new = folder.with_name(f"{folder.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    for package in packages:
        shutil.copy(build(package), new)
    write_indexes(new, signed_by, key_file)
    for name in damaged:
        for path in new.glob(f"{name}_*.deb"):
            damage(path)
    shutil.rmtree(folder, ignore_errors=True)
    new.rename(folder)


def main() -> None:
    """Tell a key's fingerprint, or serve what is described."""
    if sys.argv[1:2] == ["fingerprint"]:
        sys.stdout.write(fingerprint(sys.argv[2]))
        return
    wanted = json.loads((HOME / "archive.json").read_text(encoding="utf-8"))
    publish(SERVED, wanted_packages(wanted), wanted["signed_by"], wanted["key_file"], wanted["damaged"])
    publish(KERNELS, map(headers, wanted["headers"]), KERNELS_KEY, KERNELS_KEY)


if __name__ == "__main__":
    main()
