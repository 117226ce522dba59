"""Fill the depot: build what is not current, and publish each artefact in the mirror and the lock in one step."""

import fcntl
import hashlib
import json
import platform
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from rackllama.host.errors import RackllamaError
from rackllama.lab.depot import llama_cpp, model, ollama
from rackllama.lab.depot.progress import Progress
from rackllama.lab.depot.recipes import GEMMA, LLAMA_CPP, OLLAMA, Recipe
from rackllama.lab.depot.workshop import Product, Workshop
from rackllama.lab.machine import ensure_packages
from rackllama.mirror.lock import Artefact, Lock, LockedFile, read_lock, write_lock
from rackllama.paths import cache_dir

PACKAGES = (
    "binutils",
    "ccache",
    "cmake",
    "g++",
    "mold",
    "ninja-build",
    "python3-pip",
    "util-linux",
    "zstd",
)
FREE_GIB = 6
ORIGIN = "lab-depot"


class Builder(Protocol):
    """Builds what a recipe says, in the workshop."""

    def __call__(self, shop: Workshop, recipe: Any, /) -> tuple[Product, ...]:
        """The files that were built, in the lock's order."""


# In the order of their dependencies.
BUILDERS: tuple[tuple[Recipe, Builder], ...] = (
    (LLAMA_CPP, llama_cpp.build),
    (OLLAMA, ollama.build),
    (GEMMA, model.build),
)


@dataclass(frozen=True)
class Depot:
    """A depot at `root`. What it holds stands in the lock; `recipes.json` says by which recipe each was built."""

    root: Path

    @property
    def mirror_root(self) -> Path:
        """The folder to serve: `HOST/PATH` for upstream's `https://HOST/PATH`."""
        return self.root / "mirror"

    @property
    def lock_path(self) -> Path:
        """The lock of what the mirror holds, in the format of artefacts.lock."""
        return self.root / "artefacts.lock"

    @property
    def _digests_path(self) -> Path:
        return self.root / "recipes.json"

    def stale(self, recipes: Sequence[Recipe]) -> list[Recipe]:
        """Those of the recipes whose artefact is missing, incomplete, or built by another recipe."""
        lock, digests = self._lock(), self._digests()

        def is_current(recipe: Recipe) -> bool:
            return digests.get(recipe.name) == recipe.digest and all(map(self._is_there, lock[recipe.name].files))

        return [recipe for recipe in recipes if not is_current(recipe)]

    def publish(self, recipe: Recipe, products: Sequence[Product]) -> None:
        """Move what was built into the mirror and enter it in the lock, and drop what it replaces.

        The digest is written last: until then the artefact counts as missing, and would be built again.
        """
        files = tuple(_locked(product) for product in products)
        digests, lock = self._digests(), self._lock()
        replaced = set(lock[recipe.name].files if recipe.name in lock else ()) - set(files)
        for product, file in zip(products, files, strict=True):
            target = self.mirror_root / file.mirror_path
            target.parent.mkdir(parents=True, exist_ok=True)
            product.path.replace(target)
        lock[recipe.name] = Artefact(recipe.name, recipe.version, recipe.licence, ORIGIN, files)
        write_lock(self.lock_path, lock)
        for path in {file.mirror_path for file in replaced} - {file.mirror_path for file in files}:
            (self.mirror_root / path).unlink(missing_ok=True)
        temporary = self._digests_path.with_suffix(".new")
        temporary.write_text(json.dumps({**digests, recipe.name: recipe.digest}, indent=1), encoding="ascii")
        temporary.replace(self._digests_path)

    def _is_there(self, file: LockedFile) -> bool:
        path = self.mirror_root / file.mirror_path
        return path.is_file() and path.stat().st_size == file.size

    def _lock(self) -> Lock:
        return read_lock(self.lock_path) if self.lock_path.exists() else {}

    def _digests(self) -> dict[str, str]:
        """Recipe digests by artefact name, of artefacts that stand in the lock."""
        if not self._digests_path.exists():
            return {}
        lock = self._lock()
        digests: dict[str, str] = json.loads(self._digests_path.read_text(encoding="ascii"))
        return {name: digest for name, digest in digests.items() if name in lock}


def default_depot() -> Depot:
    """The depot of this user."""
    return Depot(cache_dir() / "depot")


def is_filled(builders: Sequence[tuple[Recipe, Builder]] = BUILDERS) -> bool:
    """Whether the depot holds all that the recipes say."""
    return not default_depot().stale([recipe for recipe, _ in builders])


def fill(progress: Progress, builders: Sequence[tuple[Recipe, Builder]] = BUILDERS) -> Depot:
    """The depot, after building all that it lacks. A filled one is left untouched.

    One process builds, others wait for it. Raises RackllamaError where this machine cannot build, or a build fails.
    """
    depot = default_depot()
    if is_filled(builders):
        return depot
    depot.root.mkdir(parents=True, exist_ok=True)
    with exclusive(depot.root / ".filling", progress):
        stale, started = depot.stale([recipe for recipe, _ in builders]), time.monotonic()
        if stale:
            progress.say(f"filling the lab depot {depot.root} with {', '.join(recipe.name for recipe in stale)}")
            require_machine(platform.machine(), shutil.disk_usage(depot.root).free)
            with progress.step("packages for building"):
                ensure_packages(PACKAGES)
            shop = Workshop(cache_dir() / "build" / "depot", depot.mirror_root, progress)
            for recipe, build in builders:
                if recipe in stale:
                    depot.publish(recipe, build(shop, recipe))
            _clean(shop.root)
            progress.say(f"the lab depot is filled, after {time.monotonic() - started:.0f} s")
    return depot


def require_machine(machine: str, free_bytes: int) -> None:
    """Raise RackllamaError where artefacts for lab hosts cannot be built here. `machine` is what `uname -m` says."""
    if machine != "x86_64":
        raise RackllamaError(
            f"the lab depot is built on x86_64 only, and this is {machine}",
            "run the lab on an x86_64 machine; hosts in the inventory may be of any supported architecture",
        )
    if free_bytes < FREE_GIB * 2**30:
        raise RackllamaError(
            f"building needs {FREE_GIB} GiB of disk, and {free_bytes / 2**30:.1f} GiB are free at {cache_dir()}",
            "make room there, or set XDG_CACHE_HOME to a folder on a larger disk",
        )


@contextmanager
def exclusive(path: Path, progress: Progress) -> Iterator[None]:
    """Hold the lock file `path`, after waiting for another process that holds it. A dead process holds nothing."""
    with path.open("a+", encoding="ascii") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress.say(f"waiting: another process is filling the lab depot (its lock is {path})")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _locked(product: Product) -> LockedFile:
    with product.path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return LockedFile(product.url, product.path.stat().st_size, sha256, product.architecture)


def _clean(root: Path) -> None:
    """Drop sources and build trees, some gigabytes, but not the compiler's cache, which makes the next build quick."""
    for path in root.iterdir():
        if path.name != "ccache":
            shutil.rmtree(path)
