"""What llama.cpp itself says a model takes: the real llama-server's allocation dry run, with RPC servers as GPUs.

    python -m tests.planner.oracle MODEL [--devices N] [--context N] [--flash-attention on|off] [...] [--log]

MODEL is a name of tests.planner.header_only, `gemma-3-270m` (the depot's real one), or a GGUF file. Nothing is ever
loaded: the server ends itself when its dry run is over (see dry_run.cpp), and may not take as much memory as a load
needs.
"""

import argparse
import contextlib
import json
import os
import re
import resource
import shutil
import socket
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rackllama.host.errors import RackllamaError
from rackllama.lab.depot.depot import default_depot, is_filled
from rackllama.lab.depot.recipes import GEMMA, LLAMA_CPP
from rackllama.mirror.lock import find, in_shard_order, read_lock
from rackllama.paths import cache_dir

from . import header_only

REAL_MODEL = "gemma-3-270m"
ALL_LAYERS = 999
SHIM = Path(__file__).with_name("dry_run.cpp")
# A dry run takes under half a GiB of address space, and most models more than this.
SERVER_BYTES, RPC_SERVER_BYTES = 6 * 2**30, 4 * 2**30
DRY_RUN_SECONDS, LOAD_SECONDS, START_SECONDS = 60, 60, 10


@dataclass(frozen=True)
class Case:
    """A model and how it is to be served; the names are those of llama-server's options where it has one."""

    model: str
    devices: int = 1
    context: int = 8192
    flash_attention: bool = True
    cache_k: str = "f16"
    cache_v: str = "f16"
    gpu_layers: int = ALL_LAYERS
    tensor_split: tuple[float, ...] = ()
    cpu_moe_layers: int = 0
    override_tensors: tuple[str, ...] = ()
    parallel: int = 1
    unified_kv: bool = False
    ubatch: int = 512
    batch: int = 2048

    def __str__(self) -> str:
        """The model, the devices, and what is not as usual."""
        told = [f"{self.context} tokens", *([] if self.flash_attention else ["no flash attention"])]
        if (self.cache_k, self.cache_v) != ("f16", "f16"):
            told.append(f"KV {self.cache_k}" + (f"/{self.cache_v}" if self.cache_v != self.cache_k else ""))
        if self.gpu_layers != ALL_LAYERS:
            told.append(f"-ngl {self.gpu_layers}")
        if self.tensor_split:
            told.append(f"split {','.join(f'{part:g}' for part in self.tensor_split)}")
        if self.cpu_moe_layers:
            told.append(f"experts of {self.cpu_moe_layers} layers on host")
        told += self.override_tensors
        if self.parallel > 1:
            told.append(f"{self.parallel} slots, {'unified' if self.unified_kv else 'apart'}")
        if self.ubatch != Case.ubatch:
            told.append(f"ubatch {self.ubatch}")
        return f"{self.model} on {self.devices} GPU{'' if self.devices == 1 else 's'}: {', '.join(told)}"

    @property
    def options(self) -> list[str]:
        """For llama-server, but for the model and the devices."""
        return [
            *("--ctx-size", str(self.context)),
            *("--flash-attn", "on" if self.flash_attention else "off"),
            *("--cache-type-k", self.cache_k, "--cache-type-v", self.cache_v),
            *("--n-gpu-layers", str(self.gpu_layers)),
            *("--parallel", str(self.parallel), "--kv-unified" if self.unified_kv else "--no-kv-unified"),
            *("--batch-size", str(self.batch), "--ubatch-size", str(self.ubatch)),
            *(("--tensor-split", ",".join(map(str, self.tensor_split))) if self.tensor_split else ()),
            *(("--n-cpu-moe", str(self.cpu_moe_layers)) if self.cpu_moe_layers else ()),
            *(("--override-tensor", ",".join(self.override_tensors)) if self.override_tensors else ()),
        ]


@dataclass(frozen=True)
class Buffers:
    """Bytes of weights, KV cache and compute buffer."""

    model: int = 0
    context: int = 0
    compute: int = 0

    @property
    def total(self) -> int:
        return self.model + self.context + self.compute


@dataclass(frozen=True)
class Device:
    """One GPU. `layers` are the layers it holds, where the output layer's number is the number of layers."""

    name: str
    layers: tuple[int, ...]
    buffers: Buffers


@dataclass(frozen=True)
class KvCache:
    """One of a model's caches (Gemma has two: without and with sliding windows), over all devices."""

    cells: int
    layers: int
    mib: float
    k_mib: float
    v_mib: float


@dataclass(frozen=True)
class Measured:
    """In bytes, but for what is named otherwise. `devices` are in the order of --tensor-split.

    `host` is by buffer type: CPU, and CPU_REPACK for weights that the CPU wants in another order. `output_mib` lies on
    the host as well and is in none of these. `log` is all that the server said.
    """

    devices: tuple[Device, ...]
    host: dict[str, Buffers]
    host_layers: tuple[int, ...]
    output_mib: float
    kv: tuple[KvCache, ...]
    graph_splits: int
    sched_copies: int
    log: str = field(repr=False)

    @property
    def host_total(self) -> Buffers:
        """All buffers of the host together."""
        return Buffers(
            *(sum(getattr(buffers, part.name) for buffers in self.host.values()) for part in fields(Buffers))
        )


@dataclass(frozen=True)
class Tools:
    """llama.cpp's tools, and what is loaded into the server."""

    folder: Path
    shim: Path

    @property
    def server(self) -> Path:
        return self.folder / "llama-server"

    @property
    def rpc_server(self) -> Path:
        return self.folder / "ggml-rpc-server"


class Oracle:
    """Asks llama-server. RPC servers are started when first needed, and stopped at the end of the `with`."""

    def __init__(self, tools: Tools | None = None, folder: Path | None = None) -> None:
        self.tools = tools or depot_tools()
        self._folder = folder or _work_folder("models")
        self._servers = contextlib.ExitStack()
        self._ports: list[int] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._servers.close()

    def measure(self, case: Case) -> Measured:
        """Raises RackllamaError, with what the server said about it, where the server refuses."""
        log = self._log(case, {"LD_PRELOAD": str(self.tools.shim)})
        if "\ndry run\t" not in log:
            told = "\n".join(line for line in log.splitlines() if re.match(r"[\d.]+ [EW] |error:", line))
            raise RackllamaError(f"llama-server made no dry run: {told or log[-2000:]}", f"see {case!r}")
        return read_log(log, case.devices)

    def log_without_shim(self, case: Case) -> str:
        """What the server says by itself, up to the load that it has no memory for. For large models only."""
        return self._log(case, {})

    def log_of_load(self, case: Case) -> str:
        """What the server says while it really loads a model, up to where all buffers are laid out. For small ones."""
        with self._server(case, {}, "off") as server, _killed_at_the_end(server, LOAD_SECONDS):
            assert server.stdout is not None
            said = []
            for line in server.stdout:
                said.append(line)
                if "sched copies" in line:
                    break
            return "".join(said)

    def _log(self, case: Case, environment: Mapping[str, str]) -> str:
        with self._server(case, environment, "on") as server:
            _limit_memory(server, SERVER_BYTES)
            try:
                return server.communicate(timeout=DRY_RUN_SECONDS)[0]
            finally:
                server.kill()

    def _server(self, case: Case, environment: Mapping[str, str], fit: str) -> "subprocess.Popen[str]":
        endpoints = [f"127.0.0.1:{port}" for port in self._devices(case.devices)]
        command = [
            *(self.tools.server, "--model", self.model(case.model)),
            *(("--rpc", ",".join(endpoints)) if endpoints else ("--device", "none")),
            *("--host", "127.0.0.1", "--port", "0", "--offline", "--no-warmup", "--fit", fit),
            *("--log-verbosity", "5", "--log-colors", "off"),
            *case.options,
        ]
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("LLAMA_ARG_")}
        return subprocess.Popen(
            command,
            env={**inherited, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )

    def model(self, name: str) -> Path:
        """The file of that name, written where it is not there yet."""
        if name == REAL_MODEL:
            return _depot_files(GEMMA.name)[0]
        if name not in header_only.MODELS:
            return Path(name)
        self._folder.mkdir(parents=True, exist_ok=True)
        return header_only.write(name, self._folder)

    def _devices(self, count: int) -> list[int]:
        while len(self._ports) < count:
            self._ports.append(self._servers.enter_context(_running_rpc_server(self.tools)))
        return self._ports[:count]


@contextlib.contextmanager
def _running_rpc_server(tools: Tools) -> Iterator[int]:
    """One more GPU; its port on loopback."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with subprocess.Popen(
        [tools.rpc_server, "--port", str(port)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        _limit_memory(process, RPC_SERVER_BYTES)
        try:
            _wait_until_it_listens(port, process)
            yield port
        finally:
            process.kill()


def _wait_until_it_listens(port: int, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return


@contextlib.contextmanager
def _killed_at_the_end(process: subprocess.Popen[Any], seconds: float) -> Iterator[None]:
    """Or before, where it says nothing more for so long."""
    watchdog = threading.Timer(seconds, process.kill)
    watchdog.start()
    try:
        yield
    finally:
        watchdog.cancel()
        process.kill()


def _limit_memory(process: subprocess.Popen[Any], most: int) -> None:
    resource.prlimit(process.pid, resource.RLIMIT_AS, (most, most))


def read_log(log: str, devices: int) -> Measured:
    """What the server said."""
    names = [f"RPC{number}" for number in range(devices)]
    buffers = {
        (device, kind): Buffers(*map(int, sizes))
        for kind, device, *sizes in (line.split("\t")[1:] for line in log.splitlines() if line.startswith("dry run\t"))
    }
    layers: dict[str, list[int]] = {}
    for number, device in re.findall(r"layer +(\d+) assigned to device (\w+),", log):
        layers.setdefault(device, []).append(int(number))
    (splits,), (copies,) = re.findall(r"graph splits = (\d+)", log), re.findall(r"sched copies = (\d+)", log)
    return Measured(
        devices=tuple(
            Device(
                name,
                tuple(layers.get(name, ())),
                next((found for (device, _), found in buffers.items() if device == name), Buffers()),
            )
            for name in names
        ),
        host={kind: found for (device, kind), found in buffers.items() if device not in names},
        host_layers=tuple(layers.get("CPU", ())),
        output_mib=sum(map(float, re.findall(r"output buffer size = +([\d.]+) MiB", log))),
        kv=tuple(
            KvCache(int(cells), int(count), float(whole), float(k), float(v))
            for whole, cells, count, k, v in re.findall(
                r"size = +([\d.]+) MiB \( *(\d+) cells, +(\d+) layers.*K \(\w+\): +([\d.]+) MiB.*V \(\w+\): +([\d.]+)",
                log,
            )
        ),
        graph_splits=int(splits),
        sched_copies=int(copies),
        log=log,
    )


def depot_tools() -> Tools:
    """Unpack the depot's llama.cpp and compile what is loaded into it, where that was not done yet."""
    (archive,) = _depot_files(LLAMA_CPP.name)
    folder = _work_folder(archive.name.split(".")[0])
    if not folder.is_dir():
        partial_folder = folder.with_name(f"{folder.name}.{os.getpid()}")
        with tarfile.open(archive) as packed:
            packed.extractall(partial_folder, filter="data")
        with contextlib.suppress(OSError):  # somebody else was faster
            partial_folder.rename(folder)
        shutil.rmtree(partial_folder, ignore_errors=True)
    return Tools(folder / LLAMA_CPP.folder, _compiled(SHIM))


def _compiled(source: Path) -> Path:
    library = _work_folder(f"{source.stem}-{sha256(source.read_bytes()).hexdigest()[:12]}.so")
    if not library.exists():
        library.parent.mkdir(parents=True, exist_ok=True)
        made = library.with_name(f"{library.name}.{os.getpid()}")
        subprocess.run(["c++", "-std=c++17", "-shared", "-fPIC", "-o", made, source, "-ldl"], check=True)
        made.rename(library)
    return library


def _work_folder(name: str) -> Path:
    return cache_dir() / "planner" / name


def _depot_files(name: str) -> list[Path]:
    if not is_filled():
        raise RackllamaError("the depot is not filled", "run: make depot")
    depot = default_depot()
    files = find(read_lock(depot.lock_path), name).files
    return [depot.mirror_root / file.mirror_path for file in (in_shard_order(files) if len(files) > 1 else files)]


def as_dict(measured: Measured) -> dict[str, Any]:
    """All but the log, for JSON."""
    return {name: value for name, value in asdict(measured).items() if name != "log"}


def from_dict(told: Mapping[str, Any]) -> Measured:
    """What as_dict made, maybe read from JSON."""
    return Measured(
        **{
            **told,
            "devices": tuple(
                Device(one["name"], tuple(one["layers"]), Buffers(**one["buffers"])) for one in told["devices"]
            ),
            "host": {kind: Buffers(**buffers) for kind, buffers in told["host"].items()},
            "host_layers": tuple(told["host_layers"]),
            "kv": tuple(KvCache(**cache) for cache in told["kv"]),
        },
        log="",
    )


def _as_json(measured: Measured) -> str:
    text = json.dumps(as_dict(measured), indent=2)
    return re.sub(r"\[[\s\d,]*\]", lambda numbers: " ".join(numbers[0].split()), text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure one case and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", metavar="MODEL")
    parser.add_argument("--log", action="store_true", help="print what the server said instead")
    parser.add_argument("--devices", type=int)
    parser.add_argument("--context", type=int)
    parser.add_argument("--flash-attention", type={"on": True, "off": False}.__getitem__, metavar="on|off")
    parser.add_argument("--cache-k", metavar="TYPE")
    parser.add_argument("--cache-v", metavar="TYPE")
    parser.add_argument("--gpu-layers", type=int)
    parser.add_argument("--tensor-split", type=lambda text: tuple(map(float, text.split(","))), metavar="3,1")
    parser.add_argument("--cpu-moe-layers", type=int)
    parser.add_argument("--override-tensors", nargs="+", type=str, metavar="PATTERN=BUFFER")
    parser.add_argument("--parallel", type=int)
    parser.add_argument("--unified-kv", action="store_true", default=None)
    parser.add_argument("--ubatch", type=int)
    parser.add_argument("--batch", type=int)
    parsed = vars(parser.parse_args(arguments))
    print_log = parsed.pop("log")
    case = Case(
        **{
            name: tuple(value) if isinstance(value, list) else value
            for name, value in parsed.items()
            if value is not None
        }
    )
    with Oracle() as oracle:
        try:
            measured = oracle.measure(case)
        except RackllamaError as error:
            print(error.message, file=sys.stderr)
            return 1
    print(measured.log if print_log else _as_json(measured))
    return 0


if __name__ == "__main__":
    sys.exit(main())
