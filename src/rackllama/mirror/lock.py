"""`artefacts.lock`: every file that any role, model or tool downloads, with its size and sha256.

The file is YAML written by this module alone, so that a change of one checksum is a diff of one line:

    ollama:
      version: 0.33.0
      licence: MIT
      origin: github-release:ollama/ollama
      files:
        - architecture: amd64
          url: https://github.com/ollama/ollama/releases/download/v0.33.0/ollama-linux-amd64.tar.zst
          size: null
          sha256: null

`origin` says where upstream publishes the checksums, and so how `rackllama lock` learns them. A `sha256` of null means
that nobody has learnt it yet; such an artefact cannot be installed, and the error names the command that fills it.
A model may have a `pattern` beside its origin: its files are then what the pattern matches in upstream's repository.
`merged_sha256` is that of the one file which its shards become; nobody publishes it, a verified landing tells it.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import yaml

from rackllama.host.errors import RackllamaError

SHA256 = re.compile(r"[0-9a-f]{64}")
SHARD = re.compile(r"(?P<model>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")
# What `uname -m` (and Ansible's `ansible_facts.architecture`) says -> what the lock and most upstreams say.
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True)
class LockedFile:
    """One download. `architecture` is None where the file is the same for all; `size` is in bytes."""

    url: str
    size: int | None = None
    sha256: str | None = None
    architecture: str | None = None

    @property
    def mirror_path(self) -> str:
        """`HOST/PATH`: where a mirror keeps what upstream serves at `https://HOST/PATH`."""
        parts = urlsplit(self.url)
        return f"{parts.netloc}{parts.path}"

    @property
    def name(self) -> str:
        """The file's own name, the last part of its address."""
        return PurePosixPath(urlsplit(self.url).path).name

    def sources(self, mirror: str = "") -> tuple[str, ...]:
        """Where to fetch from, in order of preference: the mirror, if any, before upstream.

        What is no http(s) address is in the site's own hands, and no mirror has it.
        """
        mirrored = self.mirrored(mirror) if self.url.startswith(("http://", "https://")) else self.url
        return tuple(dict.fromkeys((mirrored, self.url)))

    def mirrored(self, mirror: str) -> str:
        """The address to fetch from: upstream's own, or the mirror's where `mirror` is not empty.

        Raises RackllamaError for a mirror with a password in its address, which would be told and written everywhere.
        """
        if "@" in urlsplit(mirror).netloc:
            raise RackllamaError(
                "the mirror's address has a password in it", "let the mirror know its clients by their addresses"
            )
        return f"{mirror.rstrip('/')}/{self.mirror_path}" if mirror else self.url

    def as_data(self, mirror: str = "") -> dict[str, Any]:
        """Plain data for a module: name, url (at the mirror, if any), size in bytes (or None) and sha256."""
        return {"name": self.name, "url": self.mirrored(mirror), "size": self.size, "sha256": self.sha256}


@dataclass(frozen=True)
class Artefact:
    """One thing at one version: a tool with a file for each architecture, or a model with all its shards in order.

    `merged_sha256` is that of the file which a model's shards become, where a landing has told it.
    """

    name: str
    version: str
    licence: str
    origin: str
    files: tuple[LockedFile, ...] = field(default_factory=tuple)
    pattern: str | None = None
    merged_sha256: str | None = None

    @property
    def is_locked(self) -> bool:
        """Whether every file and its sha256 is known."""
        return bool(self.files) and all(file.sha256 for file in self.files)

    def files_for(self, machine: str = "") -> tuple[LockedFile, ...]:
        """The files that a host needs whose `uname -m` is `machine`, each with a known sha256.

        With no machine, those that are the same for all. Raises RackllamaError where there is none for this
        architecture, or where a sha256 was never learnt.
        """
        architecture = ARCHITECTURES.get(machine, machine)
        files = tuple(file for file in self.files if file.architecture in (None, architecture))
        place = f" for {machine}" if machine else ""
        if self.files and not files:
            known = ", ".join(sorted({file.architecture or "any" for file in self.files}))
            raise RackllamaError(
                f"{self.name} {self.version} has no file{place} in the lock (it has: {known})",
                "use a host of another architecture, or add the file to artefacts.lock",
            )
        if not files or any(file.sha256 is None for file in files):
            raise RackllamaError(
                f"the checksum of {self.name} {self.version}{place} was never learnt from upstream",
                f"run: rackllama lock {self.name}",
            )
        return files

    def file_for(self, machine: str) -> LockedFile:
        """The one file that a host needs, as `files_for`. Raises RackllamaError as well where there are several."""
        files = self.files_for(machine)
        if len(files) > 1:
            raise RackllamaError(
                f"{self.name} {self.version} is {len(files)} files for {machine}, where one was asked for",
                "name an artefact that is one archive; a model's shards are asked for through rackllama_models",
            )
        return files[0]


Lock = dict[str, Artefact]


def read_lock(path: Path) -> Lock:
    """The whole lock, by artefact name. Raises RackllamaError with the place where it is not well-formed."""
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RackllamaError(
            f"cannot read the lock {path}: {error.strerror}", "give the path of artefacts.lock"
        ) from error
    except yaml.YAMLError as error:
        raise RackllamaError(f"{path} is not YAML: {error}", "restore it from version control") from error
    if not isinstance(document, dict):
        raise RackllamaError(f"{path} is not a table of artefacts", "restore it from version control")
    return {name: _artefact(path, name, entry) for name, entry in document.items()}


def default_lock_path() -> Path:
    """The lock of the checkout this package runs from, or the one packed into the installed package."""
    checkout = Path(__file__).resolve().parents[3] / "artefacts.lock"
    return checkout if checkout.exists() else Path(__file__).resolve().with_name("artefacts.lock")


def lock_text(lock: Mapping[str, Artefact]) -> str:
    """The lock as the file's text, sorted by name."""
    entries = {name: _entry(lock[name]) for name in sorted(lock)}
    return "---\n" + yaml.safe_dump(entries, sort_keys=False, width=1000, default_flow_style=False, allow_unicode=True)


def write_lock(path: Path, lock: Mapping[str, Artefact]) -> None:
    """Write the lock, sorted by name, replacing the file in one step."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_text(lock_text(lock), encoding="utf-8")
    temporary.replace(path)


def find(lock: Mapping[str, Artefact], name: str) -> Artefact:
    """The artefact of that name. Raises RackllamaError naming those there are."""
    try:
        return lock[name]
    except KeyError:
        raise RackllamaError(
            f"nothing named {name!r} stands in the lock", f"choose one of: {', '.join(sorted(lock))}"
        ) from None


def with_checksums(artefact: Artefact, learnt: Mapping[str, tuple[int | None, str]]) -> Artefact:
    """The artefact with sizes and sha256 filled in for each address in `learnt` (address -> (size, sha256))."""
    files = tuple(
        replace(file, size=learnt[file.url][0], sha256=learnt[file.url][1]) if file.url in learnt else file
        for file in artefact.files
    )
    return replace(artefact, files=files)


def with_version(artefact: Artefact, version: str) -> Artefact:
    """The artefact at another version: its addresses rewritten, its sizes and sha256 unknown again.

    Raises RackllamaError where an address does not contain the old version, and so cannot be rewritten.
    """
    # Bounded, so that `0.3` is not found in `10.33`, nor `main` in `domain`; a tag's `v` may stand before it.
    old = re.compile(rf"(?<![0-9A-Za-z.])(v?){re.escape(artefact.version)}(?![0-9A-Za-z]|\.[0-9])")

    def moved(file: LockedFile) -> LockedFile:
        host, path = re.fullmatch(r"(https?://[^/]+)(/.*)", file.url).groups()  # type: ignore[union-attr]
        if not old.search(path):
            raise RackllamaError(
                f"the address {file.url} of {artefact.name} does not contain its version {artefact.version}",
                "edit version and url in artefacts.lock by hand",
            )
        return LockedFile(host + old.sub(lambda found: found[1] + version, path), architecture=file.architecture)

    return replace(artefact, version=version, files=tuple(map(moved, artefact.files)), merged_sha256=None)


def in_shard_order(files: Iterable[LockedFile]) -> tuple[LockedFile, ...]:
    """A model's files in the order of their `-NNNNN-of-NNNNN.gguf` numbers; a single unsplit file is fine.

    Raises RackllamaError where a shard is missing, or where the files are not of one model.
    """
    files = tuple(files)
    shards = {file.name: SHARD.fullmatch(file.name) for file in files}
    if len(files) == 1 and not shards[files[0].name]:
        return files
    found = {(match["model"], int(match["count"]), int(match["number"])) for match in shards.values() if match}
    expected = {(model, count, number) for model, count, _ in found for number in range(1, count + 1)}
    if found != expected or len({key[:2] for key in found}) != 1 or len(found) != len(files):
        raise RackllamaError(
            f"these are not all the shards of one model: {', '.join(sorted(shards)) or 'no file at all'}",
            "name every shard once, from -00001-of-NNNNN to the last, and nothing else",
        )
    return tuple(sorted(files, key=lambda file: file.name))


def _artefact(path: Path, name: str, entry: Any) -> Artefact:
    try:
        files = tuple(LockedFile(**file) for file in entry["files"])
        optional = {key: entry[key] for key in ("pattern", "merged_sha256") if key in entry}
        artefact = Artefact(name, str(entry["version"]), entry["licence"], entry["origin"], files, **optional)
    except (TypeError, KeyError) as error:
        raise RackllamaError(f"{path}: the entry {name!r} is not well-formed ({error})", "see docs/lock.md") from error
    if artefact.merged_sha256 is not None and not SHA256.fullmatch(str(artefact.merged_sha256)):
        raise RackllamaError(f"{path}: {name!r} has a merged_sha256 that is none", "see docs/lock.md")
    for file in files:
        if not re.fullmatch(r"https?://[^\s/]+/\S+", file.url) or ".." in urlsplit(file.url).path.split("/"):
            raise RackllamaError(f"{path}: {name!r} has an address that is none: {file.url!r}", "see docs/lock.md")
        if file.sha256 is not None and not SHA256.fullmatch(file.sha256):
            raise RackllamaError(f"{path}: {name!r} has a sha256 that is none: {file.sha256!r}", "see docs/lock.md")
    return artefact


def _entry(artefact: Artefact) -> dict[str, Any]:
    def file_entry(file: LockedFile) -> dict[str, Any]:
        architecture = {"architecture": file.architecture} if file.architecture else {}
        return {**architecture, "url": file.url, "size": file.size, "sha256": file.sha256}

    return {
        "version": artefact.version,
        "licence": artefact.licence,
        "origin": artefact.origin,
        **({"pattern": artefact.pattern} if artefact.pattern else {}),
        **({"merged_sha256": artefact.merged_sha256} if artefact.merged_sha256 else {}),
        "files": [file_entry(file) for file in artefact.files],
    }
