"""What is landed: the depot's real model in five shards, as it is, or with its layers repeated up to some 4 GB."""

import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from rackllama.host.errors import RackllamaError
from rackllama.host.files import hash_file, write_json
from rackllama.host.lander import gguf, layout
from rackllama.host.lander.gguf import KeyValue, TensorInfo
from rackllama.lab.depot.depot import default_depot, is_filled
from rackllama.lab.depot.recipes import GEMMA, LLAMA_CPP, OLLAMA
from rackllama.mirror.lock import find, in_shard_order, read_lock
from rackllama.paths import cache_dir

SHARDS = 5
# Of 32-bit floats, so that few layers weigh much; llama.cpp takes no model of more than 512.
REPEATED_LAYERS = 154
SIZES = ("250m", "4g")
_BLOCK_COUNT = "gemma3.block_count"


@dataclass(frozen=True)
class Tools:
    """The real tools, unpacked from the depot."""

    gguf_split: Path
    quantize: Path
    ollama: Path


@dataclass(frozen=True)
class Input:
    """Shards in order, their sha256, and the size and sha256 of what upstream's tool merges them to."""

    shards: tuple[Path, ...]
    sha256s: tuple[str, ...]
    merged_size: int
    merged_sha256: str

    @property
    def folder(self) -> Path:
        """Where the shards lie."""
        return self.shards[0].parent

    @property
    def shard_bytes(self) -> int:
        """The size of all shards together."""
        return sum(shard.stat().st_size for shard in self.shards)


def bench_dir() -> Path:
    """What benchmarks build and use; may be deleted at any time."""
    return cache_dir() / "bench"


def tools() -> Tools:
    """Unpack the tools, where that was not done yet."""
    folder = bench_dir() / "tools"
    if not folder.is_dir():
        partial = folder.with_name("tools.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        with tarfile.open(_depot_files(LLAMA_CPP.name)[0]) as archive:
            archive.extractall(partial, filter="data")
        subprocess.run(["tar", "--zstd", "-xf", _depot_files(OLLAMA.name)[0], "-C", partial], check=True)
        partial.rename(folder)
    llama_cpp = folder / LLAMA_CPP.folder
    return Tools(llama_cpp / "llama-gguf-split", llama_cpp / "llama-quantize", folder / "bin" / "ollama")


def prepared(size: str, tool: Tools) -> Input:
    """The shards of one size, built where they are not there yet."""
    folder = bench_dir() / f"{size}-{GEMMA.digest[:12]}"
    record = folder / "input.json"
    if not record.is_file():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        whole = _merged(tool, folder / "whole.gguf")
        if size == "4g":
            whole = _repeated(_unquantized(tool, whole), REPEATED_LAYERS)
        shards = _split(tool, whole)
        whole.unlink()
        merged = folder / "merged.gguf"
        _run(tool.gguf_split, "--merge", shards[0], merged)
        hasher, merged_size = hash_file(merged)
        merged.unlink()
        sha256s = [hash_file(shard)[0].hexdigest() for shard in shards]
        names = [shard.name for shard in shards]
        write_json(record, {"shards": names, "sha256s": sha256s, "size": merged_size, "sha256": hasher.hexdigest()})
    known = json.loads(record.read_text())
    shards = tuple(folder / name for name in known["shards"])
    return Input(shards, tuple(known["sha256s"]), known["size"], known["sha256"])


def _merged(tool: Tools, whole: Path) -> Path:
    links = whole.with_name("depot")
    links.mkdir()
    for shard in _depot_files(GEMMA.name):
        (links / shard.name).symlink_to(shard)
    _run(tool.gguf_split, "--merge", min(links.iterdir()), whole)
    shutil.rmtree(links)
    return whole


def _unquantized(tool: Tools, whole: Path) -> Path:
    """The model with its values as 32-bit floats."""
    floats = whole.with_name("floats.gguf")
    _run(tool.quantize, "--allow-requantize", whole, floats, "f32")
    whole.unlink()
    return floats


def _repeated(model: Path, layers: int) -> Path:
    """The model with its layers over and over, `layers` of them: a header of its own, and values that are real."""
    header = gguf.from_file(model)
    tensors = list(_repeated_tensors(header.tensors, int(header.get(_BLOCK_COUNT)), layers))
    kvs = [_with_number(kv, layers) if kv.key == _BLOCK_COUNT else kv for kv in header.kvs]
    whole = model.with_name("repeated.gguf")
    with model.open("rb") as source, whole.open("wb") as made:
        made.write(layout._header(kvs, [tensor for tensor, _ in tensors], drop_split_keys=True))
        for tensor, original in tensors:
            source.seek(header.data_offset + original.offset)
            made.write(source.read(tensor.size).ljust(gguf.padded(tensor.size), b"\0"))
    model.unlink()
    return whole


def _repeated_tensors(
    tensors: tuple[TensorInfo, ...], blocks: int, layers: int
) -> Iterator[tuple[TensorInfo, TensorInfo]]:
    """Each tensor of the new model, and the one that its values are taken from."""
    by_block: dict[int, list[TensorInfo]] = {}
    for tensor in tensors:
        parts = tensor.name.split(".")
        if parts[0] == "blk":
            by_block.setdefault(int(parts[1]), []).append(tensor)
        else:
            yield tensor, tensor
    for layer in range(layers):
        for tensor in by_block[layer % blocks]:
            _, _, name = tensor.name.split(".", 2)
            yield replace(tensor, name=f"blk.{layer}.{name}"), tensor


def _with_number(kv: KeyValue, number: int) -> KeyValue:
    return KeyValue(kv.key, kv.type, memoryview(number.to_bytes(len(kv.raw), "little")))


def _split(tool: Tools, whole: Path) -> list[Path]:
    most = -(-len(gguf.from_file(whole).tensors) // SHARDS)
    _run(tool.gguf_split, "--split", "--split-max-tensors", str(most), whole, whole.with_name("gemma"))
    shards = sorted(whole.parent.glob("gemma-*-of-*.gguf"))
    if len(shards) != SHARDS:
        raise RackllamaError(f"the model was split into {len(shards)} shards, not {SHARDS}", "see llama-gguf-split")
    return shards


def _depot_files(name: str) -> list[Path]:
    if not is_filled():
        raise RackllamaError("the depot is not filled", "run: make depot")
    depot = default_depot()
    files = find(read_lock(depot.lock_path), name).files
    return [depot.mirror_root / file.mirror_path for file in (in_shard_order(files) if len(files) > 1 else files)]


def _run(*command: str | Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RackllamaError(f"{command[0]} failed: {done.stderr[-500:]}", "repair the cache: remove the bench folder")


def read_through(found: Input) -> None:
    """Have the shards in the page cache, so that each way finds the same server."""
    for shard in found.shards:
        with shard.open("rb", buffering=0) as file:
            while file.read(1 << 22):
                pass
    os.sync()
