"""Where shards go in the merged file. tests/depot compares with what upstream's tool really writes."""

import time
from dataclasses import replace

import pytest

from rackllama.host.errors import RackllamaError
from rackllama.host.lander import gguf, layout
from rackllama.host.lander.gguf import INT32, STRING, UINT16, UINT32

from .gguf_files import (
    EVERY_TENSOR_TYPE,
    EVERY_TYPE,
    ODD_SHAPES,
    REWRITTEN,
    Entry,
    Model,
    Tensor,
    deepseek_r1,
    placed,
    split,
)

MODEL = Model(EVERY_TYPE, [*EVERY_TENSOR_TYPE, Tensor("odd", (7,)), Tensor("odder", (3, 5))])
TENSORS = len(MODEL.tensors)
SPLITS = {
    "one shard": (TENSORS,),
    "two shards": (5, TENSORS - 5),
    "no tensor in the first": (0, 8, TENSORS - 8),
    "a tensor each": (1,) * TENSORS,
}


def marked(model: Model) -> Model:
    """A model as upstream's merge leaves it: with what shows that it was split, and is no shard."""
    marks = [
        Entry("split.no", UINT16, 0),
        Entry("split.tensors.count", INT32, len(model.tensors)),
        Entry("split.count", UINT16, 0),
    ]
    return replace(model, entries=[*model.entries, *marks])


def merged(files: list[bytes], drop_split_keys: bool = False) -> bytes:
    headers = [gguf.from_bytes(file) for file in files]
    return placed(layout.merged(headers, [len(file) for file in files], drop_split_keys), files)


def files_of(shards: list[Model]) -> list[bytes]:
    return [shard.file for shard in shards]


@pytest.mark.parametrize("counts", SPLITS.values(), ids=SPLITS)
def test_shards_merge_to_what_upstream_makes_of_them(counts):
    assert merged(files_of(split(MODEL, *counts))) == marked(MODEL).file


@pytest.mark.parametrize("counts", SPLITS.values(), ids=SPLITS)
def test_without_the_split_keys_it_is_the_model_before_it_was_split(counts):
    assert merged(files_of(split(MODEL, *counts)), drop_split_keys=True) == MODEL.file


def test_each_shards_data_are_one_range_after_the_one_before():
    shards = files_of(split(MODEL, 0, 8, TENSORS - 8))
    headers = [gguf.from_bytes(shard) for shard in shards]
    whole = layout.merged(headers, list(map(len, shards)))
    end = len(whole.header)
    for header, shard, placement in zip(headers, shards, whole.placements, strict=True):
        length = len(shard) - header.data_offset if header.tensors else 0
        assert placement == layout.Placement(header.data_offset, length, end)
        end += length
    assert whole.size == end


def test_values_are_written_as_upstream_reads_them():
    found = replace(MODEL, entries=[entry for entry, _ in REWRITTEN])
    written = replace(MODEL, entries=[entry for _, entry in REWRITTEN])
    assert merged(files_of(split(found, 3, TENSORS - 3))) == marked(written).file


def test_trailing_dimensions_of_1_are_dropped():
    found = Model((), ODD_SHAPES)
    shapes = {"trailing": (3, 5), "inner": (3, 1, 5), "ones": (1,), "none": (1,)}
    written = Model((), [replace(tensor, dims=shapes.get(tensor.name, tensor.dims)) for tensor in ODD_SHAPES])
    assert merged(files_of(split(found, 2, 4))) == marked(written).file


def test_shards_of_version_2_merge_to_version_3():
    shards = [replace(shard, version=2) for shard in split(MODEL, 4, TENSORS - 4)]
    assert merged(files_of(shards)) == marked(MODEL).file


def test_metadata_of_later_shards_are_left_behind():
    first, second = split(MODEL, 4, TENSORS - 4)
    second = replace(second, entries=[Entry("general.name", STRING, "another"), *second.entries])
    assert merged(files_of([first, second])) == marked(MODEL).file


def test_padding_that_a_shard_lacks_at_its_end_is_zero():
    shards = files_of(split(Model((), ODD_SHAPES), 1, 5))
    assert shards[0].endswith(bytes(4))
    assert merged([shards[0][:-4], shards[1]]) == merged(shards)


def test_what_follows_a_shards_data_is_left_behind():
    shards = files_of(split(MODEL, 4, TENSORS - 4))
    assert merged([shard + b"more" for shard in shards]) == marked(MODEL).file


UNSPLIT = {
    "as written by llama.cpp": MODEL.file,
    "of version 2": replace(MODEL, version=2).file,
    "of another alignment": replace(MODEL, entries=[Entry("general.alignment", UINT32, 64)], alignment=64).file,
    "with what upstream would write otherwise": replace(MODEL, entries=[entry for entry, _ in REWRITTEN]).file,
    "with bytes after its data": MODEL.file + b"more",
    "without tensors": Model(EVERY_TYPE).file,
}


@pytest.mark.parametrize("drop_split_keys", [False, True])
@pytest.mark.parametrize("file", UNSPLIT.values(), ids=UNSPLIT)
def test_a_model_of_one_file_stays_as_it_is(file, drop_split_keys):
    assert merged([file], drop_split_keys) == file


def test_a_merged_model_stays_as_it_is_or_loses_its_marks():
    file = marked(MODEL).file
    assert merged([file]) == file
    assert merged([file], drop_split_keys=True) == MODEL.file


def test_a_model_of_404_gb_is_laid_out_at_once():
    model = deepseek_r1()
    assert len(model.tensors) == 1086
    shards = split(model, *[37] * 29, 13)
    files = [shard.header for shard in shards]
    sizes = [len(shard.header) + sum(gguf.padded(tensor.size) for tensor in shard.tensors) for shard in shards]
    started = time.process_time()
    whole = layout.merged([gguf.from_bytes(file) for file in files], sizes)
    assert time.process_time() - started < 0.5
    assert whole.header == marked(model).header
    assert whole.size - len(whole.header) == sum(sizes) - sum(map(len, files))


def test_a_shard_that_is_cut_off_is_named():
    shards = files_of(split(Model((), ODD_SHAPES), 3, 3))
    headers = [gguf.from_bytes(shard) for shard in shards]
    with pytest.raises(RackllamaError, match=rf"shard 2 of 2 has {len(shards[1]) - 100} bytes, .*: it is cut off"):
        layout.merged(headers, [len(shards[0]), len(shards[1]) - 100])


def test_shards_that_no_file_can_hold_are_refused():
    shards = split(Model((), [Tensor("a", (2**60,)), Tensor("b", (2**60,))]), 1, 1)
    with pytest.raises(RackllamaError, match="18446744073709551616 bytes together, more than a file can have"):
        layout.merged([gguf.from_bytes(shard.header) for shard in shards], [2**63, 2**63])


def with_entry(shard: Model, changed: Entry) -> Model:
    return replace(shard, entries=[changed if entry.key == changed.key else entry for entry in shard.entries])


FIRST, SECOND, THIRD = split(Model((), ODD_SHAPES), 2, 2, 2)
ALIGNED = split(Model([Entry("general.alignment", UINT32, 64)], [Tensor("a", (16,)), Tensor("b", (16,))]), 1, 1)
NOT_ONE_MODEL = {
    "in another order": ([FIRST, THIRD, SECOND], "shard 2 of 3 says split.no = 2, where these shards make it 1"),
    "one missing": ([FIRST, SECOND], "shard 1 of 2 says split.count = 3, where these shards make it 2"),
    "one alone": ([FIRST], "shard 1 of 1 says split.count = 3, where these shards make it 1"),
    "one twice": ([FIRST, SECOND, SECOND], "shard 3 of 3 says split.no = 1, where these shards make it 2"),
    "one of a larger model": (
        [FIRST, SECOND, with_entry(THIRD, Entry("split.tensors.count", INT32, 9))],
        "shard 3 of 3 says split.tensors.count = 9, where these shards make it 6",
    ),
    "one that was never split": ([FIRST, Model((), ODD_SHAPES[2:4]), THIRD], "shard 2 of 3 has no number split.count"),
    "a count in words": (
        [with_entry(FIRST, Entry("split.count", STRING, "3")), SECOND, THIRD],
        "shard 1 of 3 has no number split.count",
    ),
    "a tensor in two shards": (
        [FIRST, SECOND, replace(THIRD, tensors=FIRST.tensors)],
        "the tensor 'odd' is in 2 shards",
    ),
    "of another alignment": (
        [replace(shard, alignment=64) for shard in ALIGNED],
        "shard 1 of 2 is aligned to 64 bytes, and upstream merges with 32 only",
    ),
}


@pytest.mark.parametrize(("shards", "message"), NOT_ONE_MODEL.values(), ids=NOT_ONE_MODEL)
def test_shards_that_are_not_one_model_are_refused(shards, message):
    with pytest.raises(RackllamaError, match=message):
        merged(files_of(shards))
