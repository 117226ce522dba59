"""A Python package in a virtual environment of its own, as a release: `/opt/<name>/<version>/` behind `current`.

An environment cannot be moved, as its programs name it by its path. So it is built where it stays, and counts as there
only when its record has been written, last of all. What is installed is named by a file of requirements, each package
with its version and the hashes of its wheels; nothing else is installed, and nothing is built on the host.
"""

import hashlib
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import List, Mapping, Tuple

from ..errors import RackllamaError
from ..files import read_text, write_json
from .release import RECORD, WantedRelease, sizes

PYTHON_QUESTION = "import sys, venv, ensurepip; print('%d.%d' % sys.version_info[:2])"
SAID_LINES = 8


@dataclass(frozen=True)
class WantedVenv:
    """An environment and what is in it.

    `requirements` is a file on this host, `sha256` that of its content; `package` is the one that the environment is
    for, as `open-webui==0.12.4`. `pythons` are interpreters to choose from, the first that is there; `otherwise` is
    what else can be done where there is none. `index` is where packages come from, empty for what pip is configured
    with.
    """

    name: str
    version: str
    package: str
    requirements: Path
    sha256: str
    pythons: Tuple[str, ...] = ("python3",)
    otherwise: str = ""
    index: str = ""
    root: Path = Path("/opt")

    @property
    def release(self) -> WantedRelease:
        """The same as a release. Its name changes with the requirements, as none can be replaced in its place."""
        return WantedRelease(self.name, f"{self.version}-{self.sha256[:8]}", None, self.sha256, root=self.root)

    @property
    def folder(self) -> Path:
        """Where it is built, and stays."""
        return self.release.home / self.release.version


def build(wanted: WantedVenv) -> None:
    """Make the environment anew. Raises RackllamaError, and leaves nothing, where Python, pip or a hash refuses."""
    _require_requirements(wanted)
    python = find_python(wanted)
    shutil.rmtree(wanted.folder, ignore_errors=True)  # what a killed run left
    wanted.folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        _run([python, "-m", "venv", str(wanted.folder)], {}, "make sure that the package python3-venv is installed")
        index = {"PIP_INDEX_URL": wanted.index} if wanted.index else {}  # may hold a password, so no argument
        _run(pip_argv(wanted), index, "see what pip says; behind a proxy or without the Internet, set proxy and index")
        record = {"url": wanted.package, "sha256": wanted.sha256, "files": sizes(wanted.folder)}
        # One whose interpreter has left the host is not whole.
        write_json(wanted.folder / RECORD, {**record, "needs": ["bin/python"]})
    except BaseException:
        shutil.rmtree(wanted.folder, ignore_errors=True)
        raise


def pip_argv(wanted: WantedVenv) -> List[str]:
    """The command that fills the environment: wheels only, each by its hash, and nothing that is not named. Pure."""
    return [
        *(str(wanted.folder / "bin/python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"),
        *("--no-input", "--no-cache-dir", "--no-deps", "--require-hashes", "--only-binary", ":all:"),
        *("--requirement", str(wanted.requirements)),
    ]


def digest_of(requirements: Path, may_be_missing: bool = False) -> str:
    """The sha256 of the file; empty where it is not there, and may be missing."""
    text = read_text(requirements)
    if text is None and not may_be_missing:
        raise RackllamaError(f"there are no requirements in {requirements}", "converge again")
    return hashlib.sha256(text.encode()).hexdigest() if text else ""


def find_python(wanted: WantedVenv) -> str:
    """The path of the first of the interpreters that is there and can make environments."""
    for candidate in wanted.pythons:
        path = shutil.which(candidate)
        if path and subprocess.run([path, "-c", PYTHON_QUESTION], capture_output=True, check=False).returncode == 0:
            return path
    remedy = "install one of them with its venv package, or name one that is there"
    raise RackllamaError(
        f"{wanted.package} needs one of {', '.join(wanted.pythons)}, with its venv module, and the host has none",
        f"{remedy}; {wanted.otherwise}" if wanted.otherwise else remedy,
    )


def _require_requirements(wanted: WantedVenv) -> None:
    lines = wanted.requirements.read_text(encoding="utf-8").splitlines()
    pinned = [line.split()[0] for line in lines if line[:1].isalnum()]
    if wanted.package not in pinned:
        raise RackllamaError(
            f"{wanted.requirements} does not pin {wanted.package}", "give the requirements of that version"
        )


def _run(argv: List[str], environment: Mapping[str, str], remedy: str) -> None:
    done = subprocess.run(
        argv,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )
    if done.returncode != 0:
        said = "\n".join(done.stdout.strip().splitlines()[-SAID_LINES:])
        raise RackllamaError(f"{Path(argv[0]).name} {' '.join(argv[1:3])} failed: {said}", remedy)
