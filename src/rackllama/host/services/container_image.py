"""The files of a container image, as a release: `/opt/<name>/<version>-<digest>/root`.

podman or docker, whichever the host has, gets the image by its digest and unpacks it; no container is ever run. A unit
of ours runs it, with that folder as its root directory: by its own path, as systemd takes no link there (252 says that
the device is busy). What lies there belongs to root, and keeps no set-user-id bits,
capabilities or device nodes: on a container's own disk only the container could use them, here everybody could.
"""

import json
import os
import re
import shutil
import stat
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence

from ..errors import RackllamaError
from ..files import read_json, write_json
from .release import FETCH, RECORD, WantedRelease, put_in_place, tree_digest

ENGINES = ("podman", "docker")
ROOT = "root"
# Mounted over when it runs, so that nothing below them is ever seen.
HIDDEN = ("dev", "proc", "run", "sys", "tmp")
# The host's own, shown to what runs. The last two are where distributions keep the authorities that a host trusts.
BUNDLES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt")
HOST_FILES = ("/etc/group", "/etc/hosts", "/etc/passwd", "/etc/resolv.conf", *BUNDLES)
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SAID_LINES = 4
_HOST = r"(?:localhost|[a-z0-9-]+(?:\.[a-z0-9-]+)+)(?::\d+)?|[a-z0-9-]+:\d+"
_REFERENCE = re.compile(
    rf"(?P<name>(?:{_HOST})(?:/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)+)(?::[\w.-]+)?(?:@sha256:(?P<digest>[0-9a-f]{{64}}))?"
)
_PLAIN = re.compile(r"[\w@+=:,./-]+")
# What engines say when an image cannot be had, and what is to be done then; the first that fits.
_REFUSALS = (
    ("no space left on device", "the disk is full", "free space where {engine} keeps images, and run again"),
    (
        "unauthorized|authentication required|denied|forbidden",
        "its registry does not let this host have it",
        "log in on the host, as root: {engine} login {registry}; or correct the name",
    ),
    (
        "manifest unknown|name unknown|not found|does not exist|status.*404",
        "its registry has no such image",
        "correct name and digest; see: skopeo inspect docker://{name}:TAG",
    ),
    (
        "digest",
        "what its registry gives does not have this digest",
        "do not use it; see whether the digest is the one that the publisher tells",
    ),
    (
        "dial tcp|no such host|timeout|refused|unreachable|reset by peer|x509|tls|EOF",
        "its registry is not reached",
        "see on the host: {engine} pull {image}; proxy and trust are those of {engine}",
    ),
)


@dataclass(frozen=True)
class Reference:
    """An image: its full name, and the sha256 of its manifest."""

    name: str
    digest: str

    def __str__(self) -> str:
        return f"{self.name}@sha256:{self.digest}"

    @property
    def registry(self) -> str:
        """The host that has it."""
        return self.name.partition("/")[0]


@dataclass(frozen=True)
class WantedImage:
    """An image, as `version` of the program `name`."""

    name: str
    version: str
    reference: Reference
    root: Path = Path("/opt")

    @property
    def release(self) -> WantedRelease:
        """The same as a release. Its name changes with the digest, as none can be replaced in its place."""
        digest = self.reference.digest
        return WantedRelease(self.name, f"{self.version}-{digest[:8]}", None, digest, root=self.root)

    @property
    def container(self) -> str:
        """The container that is made to unpack it, and never run."""
        return f"rackllama-{self.name}-{self.reference.digest[:8]}"


def parse_reference(text: str) -> Reference:
    """The image that `REGISTRY/NAME@sha256:DIGEST` names; a tag before the digest is for people."""
    found = _REFERENCE.fullmatch(text)
    if not found:
        raise RackllamaError(
            f"{text!r} is no full name of an image",
            "write REGISTRY/NAME@sha256:DIGEST, as registry.example.com/open-webui@sha256: and 64 hexadecimal digits",
        )
    if not found["digest"]:
        raise RackllamaError(
            f"{text} is a name that may stand for another image tomorrow",
            f"add its digest, @sha256:…; any machine with skopeo tells it: skopeo inspect docker://{text}",
        )
    return Reference(found["name"], found["digest"])


def find_engine() -> str:
    """The first container engine that is there."""
    for engine in ENGINES:
        if shutil.which(engine):
            return engine
    raise RackllamaError("no container engine is there to get the image", "install podman, or docker")


def install(wanted: WantedImage) -> None:
    """Put the image's files in place, whole. A failure leaves neither image nor container that was not there before."""
    engine, home = find_engine(), wanted.release.home
    fetch, partial = home / FETCH, home / FETCH / wanted.release.version
    fetch.mkdir(mode=0o700, parents=True, exist_ok=True)  # until set-user-id bits are gone, only root comes in
    shutil.rmtree(partial, ignore_errors=True)  # what a killed run left
    try:
        with _image(engine, wanted, fetch / f"{wanted.release.version}.pulled") as found:
            _require_room(home, int(found.get("Size") or 0))
            (partial / ROOT).mkdir(parents=True)
            _unpack(engine, wanted, partial / ROOT)
        settle_files(partial / ROOT)
        run = run_of(found["Config"], partial / ROOT)
        make_ready(partial / ROOT, run["directory"])
        write_json(partial / RECORD, record(wanted.reference, partial, run))
        put_in_place(partial, home / wanted.release.version)
    finally:
        shutil.rmtree(fetch, ignore_errors=True)


def record(reference: Reference, folder: Path, run: Mapping[str, Any]) -> Dict[str, Any]:
    """What is recorded beside the files. There are too many for a list of them all."""
    parts = sorted(path.name for path in (folder / ROOT).iterdir() if path.is_dir() and not path.is_symlink())
    trees = {f"{ROOT}/{name}": tree_digest(folder / ROOT / name) for name in parts if name not in HIDDEN}
    return {"url": str(reference), "sha256": reference.digest, "files": {}, "trees": trees, "run": dict(run)}


def run_of(config: Mapping[str, Any], root: Path) -> Dict[str, Any]:
    """How the image wants to be run: `command`, its program by its full path, `environment` and `directory`."""
    environment = dict(pair.partition("=")[::2] for pair in config.get("Env") or ())
    directory = config.get("WorkingDir") or "/"
    command = [*(config.get("Entrypoint") or ()), *(config.get("Cmd") or ())]
    if not command:
        raise RackllamaError("the image does not say what to run", "choose one with an entrypoint or a command")
    program = _program(command[0], root, environment.get("PATH") or DEFAULT_PATH, directory)
    return {"command": [program, *command[1:]], "environment": environment, "directory": directory}


def _program(name: str, root: Path, path: str, directory: str) -> str:
    if "/" in name:
        return str(Path(directory) / name)
    for folder in path.split(":"):
        if os.path.lexists(root / folder.lstrip("/") / name):
            return str(Path(folder) / name)
    raise RackllamaError(f"the image wants to run {name}, which is not in it", "choose another image")


def settle_files(root: Path) -> None:
    """Give all files and folders the owner's rights for everybody, but for writing, and take out what is neither."""
    root.chmod(0o755)
    for name in HIDDEN:
        _remove(root / name)
        (root / name).mkdir()
    for parent, folders, files in os.walk(root):
        for path in (Path(parent) / name for name in [*folders, *files]):
            mode = path.lstat().st_mode
            if stat.S_ISDIR(mode) or stat.S_ISREG(mode):
                owner = mode >> 6 & 7 | (5 if stat.S_ISDIR(mode) else 4)
                path.chmod(owner << 6 | (owner & 5) << 3 | owner & 5)
            elif not stat.S_ISLNK(mode):
                path.unlink()


def make_ready(root: Path, directory: str) -> None:
    """Make what the host's files are mounted over, and the folder to start in; without following the image's links."""
    for path in map(Path, HOST_FILES):
        place = _folder_within(root, path.parent) / path.name
        if place.is_symlink():
            place.unlink()
        place.touch(mode=0o644)
    if not os.path.lexists(root / directory.lstrip("/")):
        _folder_within(root, Path(directory))


def _folder_within(root: Path, path: Path) -> Path:
    place = root
    for part in Path(os.path.normpath(path)).parts[1:]:
        place /= part
        if place.is_symlink():
            raise RackllamaError(f"in the image, {path} lies behind the link {part}", "choose another image")
        place.mkdir(mode=0o755, exist_ok=True)
    return place


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def service(folder: Path) -> Dict[str, Any]:
    """What a unit needs to run the release in `folder`: its directives, and the image's own environment.

    Where the release is not there yet, as in check mode, the command is not known.
    """
    found = (read_json(folder / RECORD) or {}).get("run") or {
        "command": ["(known when the image is there)"],
        "environment": {},
        "directory": "/",
    }
    here = [path for path in HOST_FILES if Path(path).exists()]
    bundle = [path for path in BUNDLES if path in here][:1]
    return {
        "service": {
            "RootDirectory": f"{folder}/{ROOT}",
            "RootDirectoryStartOnly": True,  # what is started before it is the host's
            "MountAPIVFS": True,
            "BindReadOnlyPaths": here,
            "WorkingDirectory": f"-{found['directory']}",  # which the host has not
            "ExecStart": exec_line(found["command"]),
        },
        "environment": {**({"SSL_CERT_FILE": bundle[0]} if bundle else {}), **found["environment"]},
    }


def exec_line(command: Sequence[str]) -> str:
    """A command line as systemd reads it."""
    return " ".join(map(_word, command))


def _word(text: str) -> str:
    escaped = text.replace("%", "%%").replace("$", "$$")
    if _PLAIN.fullmatch(text):
        return escaped
    for character, written in (("\\", "\\\\"), ('"', '\\"'), ("\n", "\\n"), ("\t", "\\t")):
        escaped = escaped.replace(character, written)
    return f'"{escaped}"'


@contextmanager
def _image(engine: str, wanted: WantedImage, mark: Path) -> Iterator[Dict[str, Any]]:
    """Have the image, as the engine describes it; at the end it goes, unless it was there before.

    `mark` says that it was not, also to the run after one that was killed.
    """
    found = _described(engine, wanted.reference)
    if not found:
        mark.touch()
        try:
            found = _pulled(engine, wanted.reference)
        except RackllamaError:
            mark.unlink()
            raise
    try:
        yield found
    finally:
        _remove_container(engine, wanted.container)
        if mark.exists():
            _run([engine, "image", "rm", str(wanted.reference)])
            mark.unlink()


def _described(engine: str, reference: Reference) -> Optional[Dict[str, Any]]:
    done = subprocess.run([engine, "image", "inspect", str(reference)], capture_output=True, text=True, check=False)
    images: List[Dict[str, Any]] = json.loads(done.stdout) if done.returncode == 0 else []
    return images[0] if images else None


def _pulled(engine: str, reference: Reference) -> Dict[str, Any]:
    done = subprocess.run([engine, "pull", "--quiet", str(reference)], capture_output=True, text=True, check=False)
    found = _described(engine, reference) if done.returncode == 0 else None
    if not found:
        raise refusal(engine, reference, done.stderr)
    return found


def refusal(engine: str, reference: Reference, said: str) -> RackllamaError:
    """What to tell of an image that the engine does not get. Pure."""
    words = {"engine": engine, "registry": reference.registry, "name": reference.name, "image": str(reference)}
    last = _last_lines(said)
    for pattern, meaning, remedy in _REFUSALS:
        if re.search(pattern, last.replace(reference.digest, ""), re.IGNORECASE):
            return RackllamaError(f"{reference} cannot be had, {meaning}: {last}", remedy.format(**words))
    return RackllamaError(f"{reference} cannot be had: {last}", f"see on the host: {engine} pull {reference}")


def _require_room(home: Path, needed_bytes: int) -> None:
    free_bytes = shutil.disk_usage(home).free
    if free_bytes < needed_bytes:
        raise RackllamaError(
            f"the image takes {needed_bytes / 2**30:.1f} GiB, and {home} has {free_bytes / 2**30:.1f} GiB free",
            f"free space on the file system of {home}, and run again",
        )


def _unpack(engine: str, wanted: WantedImage, into: Path) -> None:
    """Stream the image's files from the engine to the disk."""
    _remove_container(engine, wanted.container)
    # The command is never run; docker makes no container without one.
    _run([engine, "create", "--name", wanted.container, "--network", "none", str(wanted.reference), "true"])
    # Neither owners nor set-user-id bits nor what everybody could write to. tar follows no link out of the folder.
    tar = ["tar", "--extract", "--file=-", f"--directory={into}", "--no-same-owner", "--no-same-permissions"]
    export = [engine, "export", wanted.container]
    with subprocess.Popen(export, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as source:
        unpacked = subprocess.run(tar, stdin=source.stdout, capture_output=True, text=True, check=False, umask=0o022)
        if source.stdout:
            source.stdout.close()  # so that an export to a tar that gave up ends as well
        complaint = source.stderr.read().decode(errors="replace") if source.stderr else ""
    if unpacked.returncode or source.returncode:
        raise RackllamaError(
            f"the image could not be unpacked into {into}: {_last_lines(unpacked.stderr or complaint)}",
            "free space there, or repair the file system, and run again",
        )


def _remove_container(engine: str, name: str) -> None:
    argv = [engine, "ps", "--all", "--quiet", "--filter", f"name=^{name}$"]
    if subprocess.run(argv, capture_output=True, text=True, check=False).stdout.strip():
        _run([engine, "rm", "--force", name])


def _run(argv: List[str]) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RackllamaError(
            f"{' '.join(argv[:2])} failed: {_last_lines(done.stderr)}", f"see on the host: {' '.join(argv)}"
        )


def _last_lines(said: str) -> str:
    return " / ".join(line.strip() for line in said.strip().splitlines()[-SAID_LINES:])
