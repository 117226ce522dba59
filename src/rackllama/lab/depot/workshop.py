"""Where artefacts are built: folders, programs run with a log and a count, and archives fetched by pip."""

import os
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rackllama.host.errors import RackllamaError
from rackllama.lab.depot.progress import Progress
from rackllama.lab.depot.recipes import Package, Recipe
from rackllama.mirror.lock import LockedFile

# The distribution's own: an interpreter made by uv has no pip.
PIP = ("/usr/bin/python3", "-m", "pip", "--disable-pip-version-check", "--no-cache-dir")


@dataclass(frozen=True)
class Product:
    """A file that was built, and upstream's address for it."""

    url: str
    path: Path
    architecture: str | None = None


@dataclass(frozen=True)
class Workshop:
    """The folder `root` to build in, next to the mirror that the products go to: on the same file system."""

    root: Path
    mirror_root: Path
    progress: Progress

    def published(self, url: str) -> Path:
        """The file that an earlier recipe put into the mirror for `url`."""
        return self.mirror_root / LockedFile(url).mirror_path

    def folder(self, name: str) -> Path:
        """A folder kept between tries, so that its work goes on where it stopped."""
        path = self.root / name
        path.mkdir(parents=True, exist_ok=True)
        return path

    def folder_of(self, recipe: Recipe) -> Path:
        """A folder kept between tries with the same recipe, and emptied for another one.

        Its path is the same for both, so that the compiler's cache knows its files again.
        """
        path = self.root / recipe.name
        mark = path / "recipe"
        if not mark.exists() or mark.read_text(encoding="ascii") != recipe.digest:
            self.empty_folder(recipe.name)
            mark.write_text(recipe.digest, encoding="ascii")
        return path

    def empty_folder(self, name: str) -> Path:
        """A folder for a step that starts anew each time."""
        shutil.rmtree(self.root / name, ignore_errors=True)
        return self.folder(name)

    def run(
        self,
        what: str,
        argv: Sequence[str | Path],
        *,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        count: Callable[[str], str] = lambda _line: "",
    ) -> list[str]:
        """Run a program as the step `what` and return the lines it wrote, which its log has as well.

        `env` adds to the environment. `count` finds in a line how far the program is, such as `63/133`.
        Raises RackllamaError with the last line and the log's path where the program fails.
        """
        log_path = self.folder("logs") / f"{what.replace(' ', '-').replace(':', '')}.log"
        # The program ends with us even where we are killed, so that nothing builds without holding the depot's lock.
        argv = ["setpriv", "--pdeathsig", "TERM", "--", *map(str, argv)]
        lines = []
        with (
            self.progress.step(what) as step,
            log_path.open("w", encoding="utf-8") as log,
            subprocess.Popen(
                argv,
                cwd=cwd or self.root,
                env={**os.environ, **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
            ) as process,
        ):
            try:
                for line in process.stdout or ():
                    log.write(line)
                    lines.append(line.rstrip("\n"))
                    step.count = count(line) or step.count
            except BaseException:
                process.terminate()
                raise
            if process.wait():
                said = next((line for line in reversed(lines) if line.strip()), "it said nothing")
                raise RackllamaError(
                    f"{what} failed with exit status {process.returncode}: {said.strip()}",
                    f"read {log_path}; the next `rackllama lab depot` goes on where this one stopped",
                )
        return lines

    def pack(self, what: str, folder: Path, names: Sequence[str], compressor: str) -> Path:
        """An archive of what is named in `folder`: the same files make the same archive, whoever packs it, and when."""
        archive = folder / "archive.tar"
        same = ("--sort=name", "--owner=0", "--group=0", "--numeric-owner", "--mtime=@0", "--mode=u=rwX,go=rX")
        self.run(what, ["tar", *same, "-I", compressor, "-cf", archive, "-C", folder, *names])
        return archive

    def install_wheels(self, what: str, packages: Sequence[Package], target: Path) -> None:
        """Install wheels, checked against their checksums and without what they depend on, into the folder `target`."""
        self._pip(what, packages, "install", "--no-compile", "--only-binary", ":all:", "--target", target)

    def fetch_sdist(self, what: str, package: Package) -> Path:
        """The checked source archive of a package, fetched by pip without building it."""
        target = self.empty_folder(f"sdist-{package.name}")
        self._pip(what, [package], "download", "--no-binary", package.name, "--dest", target)
        return next(target.iterdir())

    def _pip(self, what: str, packages: Sequence[Package], command: str, *options: str | Path) -> None:
        requirements = self.folder("requirements") / f"{packages[0].name}.txt"
        requirements.write_text("".join(f"{package.requirement}\n" for package in packages), encoding="ascii")
        self.run(
            what, [*PIP, command, "--quiet", "--no-deps", "--require-hashes", *options, "--requirement", requirements]
        )
