"""CUDA's toolkit of one version, where something is compiled, beside whatever others there are.

Only the toolkit's own package is installed: `cuda` and `cuda-12-8` would bring a driver of theirs. CUDA 12.8's headers
declare functions otherwise than glibc 2.41 does (opencv issue 27111, NVIDIA/cuda-samples issue 378), so that nothing
compiles there; CUDA 13 mended it.
"""

import platform
import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import List, Mapping, Optional, Sequence, Tuple

from .. import systemd
from ..errors import RackllamaError
from ..files import MARK
from ..hardware import pci
from ..hardware.machine import ask
from . import config_files
from .managers import PackageManager
from .packages import PackageChange

TOO_NEW_GLIBC = (2, 41)
FIRST_VERSION_FOR_IT = 13
PROFILE = Path("/etc/profile.d/rackllama-cuda.sh")
ENVIRONMENT = Path("/etc/rackllama/cuda.env")
PATHS = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# Each GPU adds to a number that only it can reach; what comes back is how many GPUs there are.
PROGRAM = """\
#include <cstdio>
__global__ void add_one(int *number) { atomicAdd(number, 1); }
int main() {
  int count = 0, sum = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess) return 1;
  for (int gpu = 0; gpu < count; gpu++) {
    int *number = nullptr, found = 0;
    if (cudaSetDevice(gpu) != cudaSuccess || cudaMalloc(&number, sizeof(int)) != cudaSuccess) return 2;
    cudaMemset(number, 0, sizeof(int));
    add_one<<<1, 1>>>(number);
    if (cudaMemcpy(&found, number, sizeof(int), cudaMemcpyDeviceToHost) != cudaSuccess) return 3;
    sum += found;
  }
  std::printf("%d\\n", sum);
  return 0;
}
"""


@dataclass(frozen=True)
class Toolkit:
    """A version of the toolkit, as `12.8.1`."""

    version: str

    @property
    def series(self) -> str:
        """Its first two numbers, by which packages and folders are named."""
        return ".".join(self.version.split(".")[:2])

    @property
    def package(self) -> str:
        """The package that brings it and no driver."""
        return f"cuda-toolkit-{self.series.replace('.', '-')}"

    @property
    def home(self) -> Path:
        """Where it lies, others beside it."""
        return Path(f"/usr/local/cuda-{self.series}")

    @property
    def files(self) -> Mapping[Path, str]:
        """What login shells and units are told."""
        profile = (
            f'PATH="{self.home}/bin:$PATH"\n'
            f'LD_LIBRARY_PATH="{self.home}/lib64${{LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}}"\n'
            "export PATH LD_LIBRARY_PATH\n"
        )
        environment = f"PATH={self.home}/bin:{PATHS}\nLD_LIBRARY_PATH={self.home}/lib64\nCUDA_HOME={self.home}\n"
        return {PROFILE: f"# {MARK}\n{profile}", ENVIRONMENT: f"# {MARK}\n{environment}"}


def glibc() -> Tuple[int, ...]:
    """The version of this host's C library."""
    return tuple(int(part) for part in re.findall(r"\d+", platform.libc_ver()[1])[:2])


def require_glibc(toolkit: Toolkit, found: Tuple[int, ...]) -> None:
    """Raise RackllamaError where this toolkit's headers clash with the C library. Pure."""
    if found >= TOO_NEW_GLIBC and int(toolkit.version.split(".")[0]) < FIRST_VERSION_FOR_IT:
        shown = ".".join(map(str, found))
        raise RackllamaError(
            f"nothing compiles with CUDA {toolkit.version} beside glibc {shown}: its headers declare cospi, sinpi and"
            " others otherwise",
            "compile on Debian 12 or Ubuntu, and ship what comes out; programs built there run here",
        )


def change(toolkit: Toolkit, installed: Optional[str], offered: Sequence[str]) -> PackageChange:
    """What leads to this version. Pure. Raises RackllamaError where the archive lacks it."""
    exact = next((told for told in offered if re.split("[-~+]", told)[0] == toolkit.version), None)
    if exact is None:
        there = ", ".join(offered) or "none"
        raise RackllamaError(
            f"the archive has no {toolkit.package} {toolkit.version}", f"choose one that it has (cuda_version): {there}"
        )
    wanted = {toolkit.package: exact}
    return PackageChange(wanted, wanted if installed != exact else {})


def installed_version(package: str) -> Optional[str]:
    """The version of an installed package; None where it is not installed."""
    told = ask("dpkg-query", "--show", "--showformat", "${db:Status-Abbrev} ${Version}", package)
    if told is None:
        return (ask("rpm", "--query", "--queryformat", "%{EVR}", package) or "").strip() or None
    return told.split()[-1] if told.startswith("ii") else None


def plan(toolkit: Toolkit, packager: PackageManager, source_is_there: bool) -> Tuple[PackageChange, Mapping[Path, str]]:
    """What is to be installed and written on this host. An archive that is no source yet is taken to have it."""
    require_glibc(toolkit, glibc())
    installed = installed_version(toolkit.package)
    if installed and re.split("[-~+]", installed)[0] == toolkit.version:
        offered: List[str] = [installed]
    else:
        offered = packager.offered([toolkit.package]).get(toolkit.package, []) if source_is_there else [toolkit.version]
    return change(toolkit, installed, offered), config_files.different(toolkit.files)


def verify(toolkit: Toolkit, try_it: bool) -> str:
    """See that the compiler is the one that was asked for; to `try_it`, that what it compiles runs where GPUs are.

    Says what was seen. Raises RackllamaError where it is not so.
    """
    nvcc = toolkit.home / "bin/nvcc"
    told = systemd.run(str(nvcc), "-V").stdout
    if f"release {toolkit.series}," not in told:
        raise RackllamaError(f"{nvcc} is not of CUDA {toolkit.series}: {told.strip()}", "converge again")
    gpus = len(pci.gpus(pci.read_devices()))
    if not (gpus and try_it):  # later on, engines may leave no memory to try it with
        return f"nvcc {toolkit.series}, on a host with {gpus} GPUs"
    with tempfile.TemporaryDirectory() as folder:
        source, program = Path(folder) / "add_one.cu", Path(folder) / "add_one"
        source.write_text(PROGRAM, encoding="ascii")
        systemd.run(str(nvcc), "-o", str(program), str(source))
        done = subprocess.run([str(program)], capture_output=True, text=True, check=False)
    if done.returncode or done.stdout.strip() in ("", "0"):
        raise RackllamaError(
            f"a program that CUDA {toolkit.version} compiled ends with {done.returncode} and runs on no GPU",
            "see nvidia-smi; the driver must be 570.26 or newer for CUDA 12.8",
        )
    return f"nvcc {toolkit.series}; a program of its runs on {done.stdout.strip()} of {gpus} GPUs"
