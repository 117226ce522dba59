"""The layout against the tool it must agree with: what it computes from headers is what `llama-gguf-split` writes.

Needs a filled depot (`make depot`) and some 800 MB in the folder of temporary files.
"""

import hashlib
import random
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from rackllama.host.errors import RackllamaError
from rackllama.host.lander import gguf, layout
from rackllama.host.lander.gguf import TENSOR_TYPES
from rackllama.lab.depot.depot import default_depot, is_filled
from rackllama.lab.depot.recipes import GEMMA, LLAMA_CPP
from rackllama.mirror.lock import LockedFile, find, in_shard_order, read_lock

from ..unit.gguf_files import EVERY_TENSOR_TYPE, EVERY_TYPE, ODD_SHAPES, REWRITTEN, Entry, Model, Tensor, split

CHUNK_BYTES = 2**22


class UpstreamTool:
    """The `llama-gguf-split` of the depot."""

    def __init__(self, tool: Path) -> None:
        self.tool = tool

    def merge(self, first_shard: Path) -> Path:
        whole = first_shard.with_name("merged-by-upstream.gguf")
        whole.unlink(missing_ok=True)
        self._run("--merge", first_shard, whole)
        return whole

    def split(self, whole: Path, *how: str) -> list[Path]:
        """The shards, in order, in the folder of `whole`, in place of those that were there."""
        for path in whole.parent.glob("split-*-of-*.gguf"):
            path.unlink()
        self._run("--split", *how, whole, whole.with_name("split"))
        return sorted(whole.parent.glob("split-*-of-*.gguf"))

    def _run(self, *arguments: str | Path) -> None:
        done = subprocess.run([self.tool, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


@pytest.fixture(scope="session")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> UpstreamTool:
    (archive,) = depot_files(LLAMA_CPP.name)
    folder = tmp_path_factory.mktemp("llama.cpp")
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    return UpstreamTool(folder / LLAMA_CPP.folder / "llama-gguf-split")


def depot_files(name: str) -> list[Path]:
    assert is_filled(), "the depot is not filled; run: make depot"
    depot = default_depot()
    files: tuple[LockedFile, ...] = find(read_lock(depot.lock_path), name).files
    return [depot.mirror_root / file.mirror_path for file in (in_shard_order(files) if len(files) > 1 else files)]


def pieces_by_layout(shards: list[Path], drop_split_keys: bool = False) -> Iterator[bytes]:
    """The merged file, piece by piece, as the layout says."""
    headers = [gguf.from_file(path) for path in shards]
    whole = layout.merged(headers, [path.stat().st_size for path in shards], drop_split_keys)
    yield whole.header
    end = len(whole.header)
    for path, placement in zip(shards, whole.placements, strict=True):
        yield bytes(placement.destination_offset - end)
        end = placement.destination_offset + placement.length
        with path.open("rb") as file:
            file.seek(placement.source_offset)
            left = placement.length
            while left:
                piece = file.read(min(left, CHUNK_BYTES))
                assert piece, f"{path} ends within its placement"
                yield piece
                left -= len(piece)
    yield bytes(whole.size - end)


def sha256(pieces: Iterator[bytes]) -> str:
    hasher = hashlib.sha256()
    for piece in pieces:
        hasher.update(piece)
    return hasher.hexdigest()


def pieces_of(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        yield from iter(lambda: file.read(CHUNK_BYTES), b"")


def assert_equal_files(shards: list[Path], upstream: UpstreamTool) -> None:
    assert sha256(pieces_by_layout(shards)) == sha256(pieces_of(upstream.merge(shards[0])))


def written(model: Model, path: Path) -> Path:
    path.write_bytes(model.file)
    return path


def written_shards(models: list[Model], folder: Path) -> list[Path]:
    return [
        written(model, folder / f"made-{number:05d}-of-{len(models):05d}.gguf")
        for number, model in enumerate(models, 1)
    ]


@pytest.fixture(scope="session")
def gemma(upstream: UpstreamTool, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The whole model of the depot, merged by upstream's tool, in a folder of its own that does not stay."""
    folder = tmp_path_factory.mktemp("gemma")
    for shard in depot_files(GEMMA.name):
        (folder / shard.name).symlink_to(shard)
    whole = upstream.merge(min(folder.iterdir()))
    yield whole.rename(whole.with_name("whole.gguf"))
    shutil.rmtree(folder)


def test_the_depots_model(gemma):
    assert sha256(pieces_by_layout(depot_files(GEMMA.name))) == sha256(pieces_of(gemma))


@pytest.mark.parametrize(
    ("how", "shard_count"),
    [
        (["--split-max-tensors", "1000"], 1),
        (["--split-max-tensors", "8"], 30),
        (["--split-max-size", "90M"], 3),
        (["--split-max-tensors", "100", "--no-tensor-first-split"], 4),
    ],
    ids=["one shard", "30 shards", "by size", "no tensor first"],
)
def test_a_real_model_however_it_is_split(gemma, upstream, how, shard_count):
    shards = upstream.split(gemma, *how)
    assert len(shards) == shard_count
    assert_equal_files(shards, upstream)
    # The model was a merged one before it was split: all there is to restore but the mark of a merged file.
    assert sha256(pieces_by_layout(shards, drop_split_keys=True)) == sha256(
        pieces_by_layout([gemma], drop_split_keys=True)
    )


MADE_UP = Model([*EVERY_TYPE, Entry("general.alignment", gguf.UINT32, 32)], [*EVERY_TENSOR_TYPE, *ODD_SHAPES])


@pytest.mark.parametrize(
    "how",
    [
        ["--split-max-tensors", "1000"],
        ["--split-max-tensors", "1"],
        ["--split-max-tensors", "3"],
        ["--split-max-size", "1M"],
        ["--split-max-tensors", "5", "--no-tensor-first-split"],
    ],
    ids=" ".join,
)
def test_every_type_however_it_is_split(upstream, tmp_path, how):
    whole = written(MADE_UP, tmp_path / "whole.gguf")
    shards = upstream.split(whole, *how)
    assert_equal_files(shards, upstream)
    canonical = Model(MADE_UP.entries, [Tensor(t.name, written_dims(t), t.type) for t in MADE_UP.tensors])
    assert sha256(pieces_by_layout(shards, drop_split_keys=True)) == hashlib.sha256(canonical.file).hexdigest()


def written_dims(tensor: Tensor) -> tuple[int, ...]:
    dims = tensor.dims or (1,)
    while len(dims) > 1 and dims[-1] == 1:
        dims = dims[:-1]
    return dims


def test_what_upstream_writes_otherwise_than_it_finds_it(upstream, tmp_path):
    model = Model([*EVERY_TYPE, *(found for found, _ in REWRITTEN)], [*ODD_SHAPES, *EVERY_TENSOR_TYPE])
    assert_equal_files(written_shards(split(model, 4, 0, 6, len(model.tensors) - 10), tmp_path), upstream)


def test_shards_of_version_2(upstream, tmp_path):
    shards = split(Model(EVERY_TYPE, ODD_SHAPES, version=2), 0, 2, 4)
    models = [Model(shard.entries, shard.tensors, version=2) for shard in shards]
    assert_equal_files(written_shards(models, tmp_path), upstream)


def test_a_shard_without_its_last_padding(upstream, tmp_path):
    shards = written_shards(split(Model(EVERY_TYPE, ODD_SHAPES), 1, 2, 3), tmp_path)
    for path in shards:
        header = gguf.from_file(path)
        with path.open("r+b") as file:
            file.truncate(header.data_offset + header.data_size)
    assert_equal_files(shards, upstream)


def test_shards_of_another_alignment_are_of_no_use_to_upstream_either(upstream, tmp_path):
    model = Model([Entry("general.alignment", gguf.UINT32, 64)], [Tensor(name, (8,)) for name in "abc"], alignment=64)
    shards = upstream.split(written(model, tmp_path / "whole.gguf"), "--split-max-tensors", "2")
    with pytest.raises(AssertionError, match="tensor 'b' has offset 32, expected 64"):
        upstream.merge(shards[0])
    with pytest.raises(RackllamaError, match=r"'b', .*, begin at 32 .*, where .* an alignment of 64 make it 64"):
        sha256(pieces_by_layout(shards))


def test_random_models(upstream, tmp_path):
    """Whatever there is in metadata and shapes, in any mix."""
    choose = random.Random(20488)  # noqa: S311 - the same models each time
    entries = [*EVERY_TYPE, *(found for found, _ in REWRITTEN)]
    for number in range(25):
        folder = tmp_path / str(number)
        folder.mkdir()
        tensors = [random_tensor(choose, place) for place in range(choose.randint(1, 12))]
        cuts = sorted(choose.choices(range(len(tensors) + 1), k=choose.randint(0, 4)))
        counts = [end - start for start, end in zip([0, *cuts], [*cuts, len(tensors)], strict=True)]
        model = Model(choose.sample(entries, choose.randint(0, len(entries))), tensors)
        assert_equal_files(written_shards(split(model, *counts), folder), upstream)


def random_tensor(choose: random.Random, place: int) -> Tensor:
    type_ = choose.choice(list(TENSOR_TYPES))
    dims = (choose.randint(1, 4) * TENSOR_TYPES[type_].block, *choose.choices((1, 2, 3, 7), k=choose.randint(0, 3)))
    return Tensor(f"blk.{place}.{'x' * choose.randint(0, 50)}", dims, type_)
