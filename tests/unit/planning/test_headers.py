"""Headers of what a user names, and no more of it than that."""

import mmap
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.planner.header_only import header, model, write
from tests.unit.gguf_files import Entry, Model, split
from tests.unit.landing.hub import Hub, serve

from rackllama.host.errors import RackllamaError
from rackllama.host.lander import gguf
from rackllama.host.lander.gguf import ARRAY, STRING
from rackllama.planning.headers import find_headers
from rackllama.planning.shape import read_shape

R1 = "deepseek-r1-mla-q4_k_m"
R1_BYTES = 404_488_847_360  # without the header
MIB = 2**20


@pytest.fixture
def hub() -> Iterator[Hub]:
    hub = Hub()
    server = serve(hub)
    yield hub
    server.shutdown()
    server.server_close()


def sparse(shard: Model, path: Path) -> Path:
    """The shard in its full length, of which the disk holds the header only."""
    told = shard.header
    with path.open("wb") as file:
        file.write(told)
        file.truncate(len(told) + gguf.padded(gguf.from_bytes(told).data_size))
    return path


def r1_in_shards(folder: Path, count: int = 9) -> list[Path]:
    """DeepSeek-R1 with a vocabulary as large as its own, split as it is published."""
    whole = model(R1)
    tokens = Entry("tokenizer.ggml.tokens", ARRAY, [f"token {number:12}" for number in range(129280)], STRING)
    each = len(whole.tensors) // count
    counts = [*[each] * (count - 1), len(whole.tensors) - each * (count - 1)]
    shards = split(Model([*whole.entries, tokens], whole.tensors), *counts)
    return [
        sparse(shard, folder / f"R1-Q4_K_M-{number:05}-of-{count:05}.gguf") for number, shard in enumerate(shards, 1)
    ]


def test_a_file_is_named_and_measured(tmp_path):
    path = write(R1, tmp_path)
    found = find_headers(str(path))
    assert found.name == R1
    assert found.total_bytes == path.stat().st_size


def test_a_file_that_ends_behind_its_header_counts_as_what_that_tells(tmp_path):
    path = tmp_path / "r1.gguf"
    path.write_bytes(header(R1))
    assert find_headers(str(path)).total_bytes == len(header(R1)) + R1_BYTES


def test_a_file_that_ends_within_its_header_is_refused(tmp_path):
    path = tmp_path / "r1.gguf"
    path.write_bytes(header(R1)[:5000])
    with pytest.raises(RackllamaError, match=r"r1\.gguf: the file ends within"):
        find_headers(str(path))


@pytest.mark.parametrize("named", ["", "R1-Q4_K_M-00001-of-00009.gguf", "R1-Q4_K_M-00004-of-00009.gguf"])
def test_all_shards_are_read_from_a_folder_or_from_one_of_them(tmp_path, named):
    r1_in_shards(tmp_path)
    found = find_headers(f"{tmp_path}/{named}")
    assert found.name == "R1-Q4_K_M"
    assert len(found.headers) == 9
    assert read_shape(found.headers).weights == R1_BYTES


def test_a_shard_that_is_missing_is_named(tmp_path):
    r1_in_shards(tmp_path)[3].unlink()
    with pytest.raises(RackllamaError, match=r"00004-of-00009\.gguf: No such file"):
        find_headers(f"{tmp_path}/R1-Q4_K_M-00001-of-00009.gguf")


def test_one_shard_under_another_name_is_no_model(tmp_path):
    r1_in_shards(tmp_path)[0].rename(tmp_path / "r1.gguf")
    with pytest.raises(RackllamaError, match=r"says split\.count = 9"):
        find_headers(f"{tmp_path}/r1.gguf")


def test_404_gb_over_http_cost_less_than_64_mib(tmp_path, hub):
    for path in r1_in_shards(tmp_path):
        with path.open("rb") as file:
            hub.files[f"/{path.name}"] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    found = find_headers(f"{hub.url}/R1-Q4_K_M-00001-of-00009.gguf", {})
    assert found.name == "R1-Q4_K_M"
    assert found.total_bytes > 404e9
    assert read_shape(found.headers).weights == R1_BYTES
    assert hub.bytes_sent < 24 * MIB


def test_a_name_that_is_not_in_the_lock_is_told_with_those_that_are():
    with pytest.raises(RackllamaError, match="nothing named 'deepseek' stands in the lock") as refused:
        find_headers("deepseek", {})
    assert "deepseek-r1-ud-iq1-m" in refused.value.remedy or "deepseek-r1" in refused.value.remedy
