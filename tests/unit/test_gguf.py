"""A header is read as llama.cpp reads it, and one that is wrong, by accident or on purpose, gets a clean error."""

import random
import struct
import time
import tracemalloc

import pytest

from rackllama.host.errors import RackllamaError
from rackllama.host.lander import gguf, layout
from rackllama.host.lander.gguf import ARRAY, BOOL, FLOAT32, INT32, STRING, UINT8, UINT16, UINT32, UINT64, GgufError

from .gguf_files import EVERY_TENSOR_TYPE, EVERY_TYPE, ODD_SHAPES, REWRITTEN, Entry, Model, Tensor, split, string


def test_metadata_come_back_decoded():
    header = gguf.from_bytes(
        Model(
            [
                Entry("general.architecture", STRING, "gemma3"),
                Entry("gemma3.block_count", UINT32, 18),
                Entry("gemma3.rope.freq_base", FLOAT32, 0.5),
                Entry("tokenizer.ggml.add_bos_token", BOOL, 1),
                Entry("tokenizer.ggml.tokens", ARRAY, ["<bos>", "", "ß"], STRING),
                Entry("tokenizer.ggml.token_type", ARRAY, [3, -1], INT32),
                Entry("flags", ARRAY, [0, 7], BOOL),
            ]
        ).file
    )
    assert {kv.key: kv.value if kv.type != ARRAY else list(kv.value) for kv in header.kvs} == {
        "general.architecture": "gemma3",
        "gemma3.block_count": 18,
        "gemma3.rope.freq_base": 0.5,
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.tokens": ["<bos>", "", "ß"],
        "tokenizer.ggml.token_type": [3, -1],
        "flags": [0, 1],
    }
    assert header.get("gemma3.block_count") == 18
    assert header.get("gemma3.vocab_size", 0) == 0


@pytest.mark.parametrize("entry", EVERY_TYPE, ids=lambda entry: entry.key)
def test_every_type_of_value_is_found_where_it_lies(entry):
    """What follows a value is read right only if the value's end is."""
    header = gguf.from_bytes(Model([entry, Entry("after", UINT16, 4711)]).file)
    assert header.get("after") == 4711
    found = header.find(entry.key)
    assert (string(found.key) + struct.pack("<I", found.type) + found.raw) == entry.encoded()
    assert found.count == (len(entry.value) if entry.type == ARRAY else 1)


@pytest.mark.parametrize("tensor", [*EVERY_TENSOR_TYPE, *ODD_SHAPES], ids=lambda tensor: tensor.name)
def test_tensors_follow_each_other_padded(tensor):
    header = gguf.from_bytes(Model((), [tensor, Tensor("after", (8,))]).file)
    first, after = header.tensors
    assert (first.name, first.dims, first.type, first.offset) == (tensor.name, tensor.dims, tensor.type, 0)
    assert after.offset == gguf.padded(first.size)
    assert header.data_size == after.offset + 32


# As published for each quantization.
BITS_PER_WEIGHT = {
    "f16": 16,
    "q8_0": 8.5,
    "q6_K": 6.5625,
    "q5_K": 5.5,
    "q4_K": 4.5,
    "q4_0": 4.5,
    "iq4_xs": 4.25,
    "mxfp4": 4.25,
    "q3_K": 3.4375,
    "q2_K": 2.625,
    "iq2_xs": 2.3125,
    "iq2_xxs": 2.0625,
    "iq1_m": 1.75,
    "iq1_s": 1.5625,
}


@pytest.mark.parametrize(("type_name", "bits"), BITS_PER_WEIGHT.items())
def test_a_tensors_size_follows_from_its_type(type_name, bits):
    (type_,) = (number for number, stored in gguf.TENSOR_TYPES.items() if stored.name == type_name)
    assert gguf.TensorInfo("t", (7168, 2048, 256), type_, 0).size == 7168 * 2048 * 256 * bits / 8


def test_another_alignment_is_heeded():
    model = Model([Entry("general.alignment", UINT32, 128)], [Tensor("a", (1,)), Tensor("b", (1,))], alignment=128)
    header = gguf.from_bytes(model.file)
    assert (header.alignment, header.data_offset % 128, header.tensors[1].offset) == (128, 0, 128)


def test_names_that_are_no_text_are_kept():
    header = gguf.from_bytes(Model([Entry(b"\xff", UINT8, 1)], [Tensor(b"\xfe", (1,))]).file)
    assert header.kvs[0].key.encode("utf-8", "surrogateescape") == b"\xff"
    assert header.tensors[0].name.encode("utf-8", "surrogateescape") == b"\xfe"


class Far:
    """Something far away, which is read by ranges, and remembers which."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.asked: list[tuple[int, int]] = []

    def read(self, offset: int, length: int) -> bytes:
        assert length > 0, "asked for nothing"
        self.asked.append((offset, length))
        return self.data[offset : offset + length]

    @property
    def end(self) -> int:
        """Where what was asked for ends."""
        return max((offset + length for offset, length in self.asked), default=0)


@pytest.fixture(scope="module")
def vocabulary() -> bytes:
    """A header with as many tokens as Gemma's, of 6 MB."""
    tokens = [f"token{number:09}" for number in range(262_144)]
    entries = [
        Entry("tokenizer.ggml.tokens", ARRAY, tokens, STRING),
        Entry("tokenizer.ggml.scores", ARRAY, [0] * len(tokens), FLOAT32),
    ]
    return Model(entries, [Tensor("t", (8,))]).file


def test_a_short_header_takes_one_read_and_no_more_than_there_is():
    file = Model(EVERY_TYPE, ODD_SHAPES).file
    far = Far(file)
    gguf.read_header(far.read, len(file))
    assert far.asked == [(0, len(file))]


def test_a_long_header_takes_a_few_reads_that_never_overlap(vocabulary):
    far = Far(vocabulary + bytes(2**25))
    header = gguf.read_header(far.read, len(far.data))
    assert header.get("tokenizer.ggml.tokens")[-1] == "token000262143"
    assert len(far.asked) <= 5
    assert [offset for offset, _ in far.asked] == [0, *(offset + length for offset, length in far.asked[:-1])]
    assert far.end < 2 * len(vocabulary)


def test_a_large_vocabulary_is_read_fast(vocabulary):
    started = time.process_time()
    gguf.from_bytes(vocabulary)
    assert time.process_time() - started < 0.3


def test_a_file_that_is_cut_off_is_named(tmp_path):
    path = tmp_path / "cut.gguf"
    path.write_bytes(Model(EVERY_TYPE, ODD_SHAPES).header[:-40])
    with pytest.raises(GgufError, match=r"cut\.gguf: the file ends within") as caught:
        gguf.from_file(path)
    assert "fetch" in caught.value.remedy


def test_a_file_is_read_from_its_path(tmp_path):
    path = tmp_path / "whole.gguf"
    path.write_bytes(Model(EVERY_TYPE, ODD_SHAPES).file)
    assert gguf.from_file(path) == gguf.from_bytes(path.read_bytes())


def test_a_header_cut_anywhere_is_refused():
    header = Model([Entry("a", STRING, "b"), Entry("c", ARRAY, ["d", ""], STRING)], [Tensor("t", (8,))]).header
    assert gguf.from_bytes(header).data_offset == len(header)
    for end in range(len(header)):
        with pytest.raises(GgufError, match="the file ends within"):
            gguf.from_bytes(header[:end])


def of_length(entry: Entry, length: int, position: int) -> bytes:
    """An entry's bytes with another length or count at a position."""
    encoded = bytearray(entry.encoded())
    encoded[position : position + 8] = struct.pack("<Q", length)
    return bytes(encoded)


def header_of(*entries: bytes, version: int = 3, tensors: int = 0, count: int | None = None) -> bytes:
    counts = struct.pack("<IQQ", version, tensors, len(entries) if count is None else count)
    return b"GGUF" + counts + b"".join(entries)


KEY = len(string("k")) + 4  # where the value of an entry `k` begins
TEXT, TEXTS, WORDS = (
    Entry("k", STRING, "text"),
    Entry("k", ARRAY, ["text"], STRING),
    Entry("k", ARRAY, [1], UINT64),
)
TENSOR = string("t") + struct.pack("<IQIQ", 1, 8, 0, 0)
REFUSED = {
    "nothing at all": (b"", "ends within the magic number"),
    "another format": (b"PK\3\4" + bytes(60), r"no GGUF file: it begins with b'PK\\x03\\x04'"),
    "a pointer to the weights": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "Git LFS pointer"),
    "version 1": (header_of(version=1), "GGUF version 1"),
    "a version to come": (header_of(version=4), "GGUF version 4"),
    "big-endian": (b"GGUF" + struct.pack(">I", 3) + bytes(64), "big-endian"),
    "endless entries": (header_of(count=2**63), "announces 9223372036854775808 metadata entries"),
    "endless tensors": (header_of(tensors=2**32), "announces 4294967296 tensors"),
    "an endless key": (header_of(of_length(TEXT, 2**64 - 1, 0)), "ends within key 0"),
    "an endless text": (header_of(of_length(TEXT, 2**40, KEY)), "ends within the value of 'k'"),
    "a text in texts that is endless": (header_of(of_length(TEXTS, 2**63, KEY + 12)), "ends within the value of 'k'"),
    "endless texts": (header_of(of_length(TEXTS, 2**61, KEY + 4)), "with the 2305843009213693952 of the value of 'k'"),
    "endless numbers": (header_of(of_length(WORDS, 2**61, KEY + 4)), "ends within the value of 'k'"),
    "no key": (header_of(Entry("", UINT8, 1).encoded()), "key 0, before byte 32, is empty"),
    "a key that ends where it begins": (header_of(Entry("\0k", UINT8, 1).encoded()), "is empty"),
    "a key twice": (header_of(TEXT.encoded(), TEXTS.encoded()), "the key 'k', before byte .*, is there twice"),
    "a key twice, up to a NUL": (header_of(TEXT.encoded(), Entry("k\0", UINT8, 1).encoded()), "is there twice"),
    "a type that is none": (header_of(string("k") + struct.pack("<I", 13)), "of a type that there is not: 13"),
    "arrays in an array": (header_of(string("k") + struct.pack("<IIQ", 9, 9, 1)), "of a type that there is not: 9"),
    "a wide alignment": (header_of(Entry("general.alignment", UINT64, 32).encoded()), "has to be a 32-bit number"),
    "no alignment": (header_of(Entry("general.alignment", UINT32, 0).encoded()), "0, which is no power of 2"),
    "an odd alignment": (header_of(Entry("general.alignment", UINT32, 48).encoded()), "48, which is no power of 2"),
    "an endless alignment": (
        header_of(Entry("general.alignment", UINT32, 2**31).encoded(), TENSOR, tensors=1, count=1),
        "ends within the padding",
    ),
    "a tensor twice": (Model((), [Tensor("t", (8,)), Tensor("t", (8,))]).file, "'t' at byte .* is there twice"),
    "a long name": (Model((), [Tensor("t" * 64, (8,))]).file, "longer than 63 bytes"),
    "five dimensions": (Model((), [Tensor("t", (8, 1, 1, 1, 1))]).file, "has 5 dimensions"),
    "no elements": (Model((), [Tensor("t", (8, 0))]).file, "impossible shape"),
    "more elements than there can be": (
        Model((), [Tensor("t", (2**32, 2**31))], offsets=[0]).header,
        "impossible shape",
    ),
    "a withdrawn type": (header_of(string("t") + struct.pack("<IQIQ", 1, 32, 4, 0), tensors=1, count=0), "ggml type 4"),
    "a type to come": (header_of(string("t") + struct.pack("<IQIQ", 1, 8, 43, 0), tensors=1, count=0), "ggml type 43"),
    "half a block": (header_of(string("t") + struct.pack("<IQIQ", 1, 16, 8, 0), tensors=1, count=0), "no multiple of"),
    "a scalar in blocks": (header_of(string("t") + struct.pack("<IIQ", 0, 8, 0), tensors=1, count=0), "no multiple of"),
    "data out of order": (
        Model((), [Tensor("a", (8,)), Tensor("b", (8,))], offsets=[32, 0]).header,
        "'a', as told at byte 24, begin at 32 of the data region, where .* make it 0",
    ),
    "data with a gap": (Model((), [Tensor("a", (8,)), Tensor("b", (8,))], offsets=[0, 64]).header, "make it 32"),
}


@pytest.mark.parametrize(("file", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_wrong_is_refused(file, message):
    with pytest.raises(GgufError, match=message):
        gguf.from_bytes(file)


@pytest.mark.parametrize("file", [file for file, message in REFUSED.values() if "within" in message])
def test_nothing_is_read_for_a_length_that_cannot_be(file):
    """Not even where nobody knows how long the file is, and what is read never ends."""
    far = Far(file + b"\xff" * 100)
    with pytest.raises(GgufError):
        gguf.read_header(far.read)
    assert far.end <= gguf.FIRST_READ_BYTES


def test_a_header_without_end_is_given_up():
    far = Far(header_of(of_length(TEXT, gguf.MAX_HEADER_BYTES, KEY)))
    with pytest.raises(GgufError, match="would make the header longer than 67108864 bytes"):
        gguf.read_header(far.read, 2**40)
    assert far.end == gguf.FIRST_READ_BYTES


@pytest.fixture(scope="module")
def worst() -> bytes:
    """Nearly as long as a header may be, with as many strings, entries and tensors."""
    entries = [Entry(f"key.{number}", BOOL, 1).encoded() for number in range(gguf.MAX_KEY_VALUES - 2)]
    texts = string("texts") + struct.pack("<IIQ", ARRAY, STRING, gguf.MAX_STRINGS) + bytes(8 * gguf.MAX_STRINGS)
    long = string("long") + struct.pack("<IIQ", ARRAY, UINT8, left := 45 * 2**20) + bytes(left)
    tensors = [
        string(f"tensor.{number:05}") + struct.pack("<IQIQ", 1, 8, 0, 32 * number) for number in range(gguf.MAX_TENSORS)
    ]
    file = header_of(*entries, texts, long, *tensors, tensors=len(tensors), count=gguf.MAX_KEY_VALUES)
    assert 0.9 * gguf.MAX_HEADER_BYTES < len(file) <= gguf.MAX_HEADER_BYTES
    return file.ljust(gguf.padded(len(file)), b"\0")


def test_the_worst_header_takes_less_than_a_second(worst):
    started = time.process_time()
    header = gguf.read_header(Far(worst).read)
    assert time.process_time() - started < 1
    assert len(header.tensors) == gguf.MAX_TENSORS


@pytest.mark.slow
def test_the_worst_header_takes_less_than_256_mib(worst):
    tracemalloc.start()
    gguf.read_header(Far(worst).read)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 256 * 2**20


def mutated(choose: random.Random, file: bytes) -> bytes:
    """The file with one to four changes: bits, bytes, extreme numbers, pieces out, in, or from elsewhere, cut off."""
    changed = bytearray(file)
    for _ in range(choose.choice((1, 1, 2, 4))):
        at = choose.randrange(len(changed) + 1)
        how = choose.randrange(7)
        if how == 0 and at < len(changed):
            changed[at] ^= 1 << choose.randrange(8)
        elif how == 1:
            changed[at : at + 1] = choose.randbytes(1)
        elif how == 2:
            width = choose.choice((4, 8))
            extreme = choose.choice((0, 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1, len(file), choose.getrandbits(24)))
            changed[at : at + width] = (extreme & (2 ** (8 * width) - 1)).to_bytes(width, "little")
        elif how == 3:
            del changed[at : at + choose.randint(1, 16)]
        elif how == 4:
            changed[at:at] = choose.randbytes(choose.randint(1, 16))
        elif how == 5:
            start = choose.randrange(len(file))
            piece = file[start : start + choose.randint(1, 64)]
            changed[at : at + len(piece)] = piece
        elif at > 24 and choose.random() < 0.3:
            del changed[at:]
    return bytes(changed)


@pytest.mark.parametrize("count", [2_000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_mutated_headers_get_an_answer_or_a_clean_error(count):
    choose = random.Random(count)  # noqa: S311 - the same mutations each time
    entries = [entry for entry in (*EVERY_TYPE, *(found for found, _ in REWRITTEN)) if entry.key != "text.long"]
    files = [shard.header for shard in split(Model(entries, [*EVERY_TENSOR_TYPE[:6], *ODD_SHAPES]), 4, 8)]
    outcomes = {"read": 0, "refused": 0, "merged": 0}
    slowest = 0.0
    for _ in range(count):
        mutants = [Far(mutated(choose, file) if choose.random() < 0.7 else file) for file in files]
        size_is_known = choose.random() < 0.5
        started = time.process_time()
        try:
            headers = [gguf.read_header(mutant.read, len(mutant.data) if size_is_known else None) for mutant in mutants]
            outcomes["read"] += 1
            for header in headers:
                _ = [kv.value for kv in header.kvs], header.data_size
            layout.merged(headers, [header.data_offset + header.data_size for header in headers])
            outcomes["merged"] += 1
        except RackllamaError:
            outcomes["refused"] += 1
        assert all(mutant.end <= len(mutant.data) for mutant in mutants if size_is_known)
        slowest = max(slowest, time.process_time() - started)
    assert min(outcomes.values()) > count / 100, "these mutations try too little"
    assert slowest < 1
