"""A writer of made-up GGUF files that, other than upstream's, writes whatever it is told to."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

from rackllama.host.lander import gguf
from rackllama.host.lander.gguf import ARRAY, BOOL, NUMBERS, STRING, TENSOR_TYPES, padded
from rackllama.host.lander.layout import Layout

F32, Q8_0, Q4_K = 0, 8, 12


@dataclass(frozen=True)
class Entry:
    """A metadata entry; of an array, `elements` is the type of what is in it, and `value` is a sequence."""

    key: str | bytes
    type: int
    value: object
    elements: int | None = None

    def encoded(self) -> bytes:
        head = string(self.key) + struct.pack("<I", self.type)
        if self.type != ARRAY:
            return head + _scalar(self.type, self.value)
        values = list(self.value)
        return (
            head
            + struct.pack("<IQ", self.elements, len(values))
            + b"".join(_scalar(self.elements, value) for value in values)
        )


@dataclass(frozen=True)
class Tensor:
    name: str | bytes
    dims: tuple[int, ...]
    type: int = F32

    @property
    def size(self) -> int:
        return gguf.TensorInfo("", self.dims, self.type, 0).size

    @property
    def data(self) -> bytes:
        """Other bytes for each name, and none of them 0: padding is told apart from data."""
        seed = sum(self.name.encode() if isinstance(self.name, str) else self.name)
        return bytes((seed + place) % 255 + 1 for place in range(self.size))


@dataclass(frozen=True)
class Model:
    """What a file holds. `offsets` are those of the tensors, where they are not to be the right ones."""

    entries: Sequence[Entry] = ()
    tensors: Sequence[Tensor] = ()
    version: int = 3
    alignment: int = 32
    offsets: Sequence[int] = field(default=())

    @property
    def header(self) -> bytes:
        offsets, end = [], 0
        for tensor in self.tensors:
            offsets.append(end)
            end += padded(tensor.size, self.alignment)
        counts = struct.pack("<IQQ", self.version, len(self.tensors), len(self.entries))
        infos = [
            string(tensor.name)
            + struct.pack(f"<I{len(tensor.dims)}QIQ", len(tensor.dims), *tensor.dims, tensor.type, at)
            for tensor, at in zip(self.tensors, self.offsets or offsets, strict=True)
        ]
        header = b"".join([b"GGUF", counts, *(entry.encoded() for entry in self.entries), *infos])
        return _padded(header, self.alignment)

    @property
    def file(self) -> bytes:
        return self.header + b"".join(_padded(tensor.data, self.alignment) for tensor in self.tensors)


def string(text: str | bytes) -> bytes:
    """A string as files have it: its length, then its bytes."""
    text = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(text)) + text


def split(model: Model, *counts: int) -> list[Model]:
    """The model as shards of so many tensors each, as upstream splits it: the metadata are in the first."""
    assert sum(counts) == len(model.tensors)
    tensors = iter(model.tensors)
    return [
        Model(
            [
                *(model.entries if number == 0 else ()),
                Entry("split.no", gguf.UINT16, number),
                Entry("split.tensors.count", gguf.INT32, len(model.tensors)),
                Entry("split.count", gguf.UINT16, len(counts)),
            ],
            [next(tensors) for _ in range(count)],
        )
        for number, count in enumerate(counts)
    ]


def placed(layout: Layout, shards: Sequence[bytes]) -> bytes:
    """The merged file: each shard's bytes in their place."""
    file = bytearray(layout.header.ljust(layout.size, b"\0"))
    for placement, shard in zip(layout.placements, shards, strict=True):
        part = shard[placement.source_offset :][: placement.length]
        assert len(part) == placement.length
        file[placement.destination_offset : placement.destination_offset + placement.length] = part
    return bytes(file)


# Every type that metadata can have, with the values that are hard for somebody.
EVERY_TYPE = (
    *(Entry(f"scalar.{type_}", type_, 1) for type_ in NUMBERS),
    *(Entry(f"array.{type_}", ARRAY, [0, 1, 1], type_) for type_ in NUMBERS),
    *(Entry(f"empty.{type_}", ARRAY, [], type_) for type_ in (*NUMBERS, STRING)),
    Entry("negative", gguf.INT64, -(2**63)),
    Entry("largest", gguf.UINT64, 2**64 - 1),
    Entry("text", STRING, "full-width <\uff5cUser\uff5c>"),
    Entry("text.empty", STRING, ""),
    Entry("text.long", STRING, "x" * 70_000),
    Entry("text.not_utf8", STRING, b"\xff\xfe"),
    Entry("texts", ARRAY, ["", "a", "ß", "y" * 300, ""], STRING),
    Entry("bools", ARRAY, [0, 1], BOOL),
)
# What upstream's tool reads and writes otherwise than it found it, and what it then writes.
REWRITTEN = (
    (Entry("cut", STRING, "a\0b"), Entry("cut", STRING, "a")),
    (Entry("cut.empty", STRING, "\0"), Entry("cut.empty", STRING, "")),
    (Entry("cuts", ARRAY, ["a\0b", "", "\0", "c"], STRING), Entry("cuts", ARRAY, ["a", "", "", "c"], STRING)),
    (Entry("key\0cut", gguf.UINT8, 1), Entry("key", gguf.UINT8, 1)),
    (Entry("yes", BOOL, 2), Entry("yes", BOOL, 1)),
    (Entry("yeses", ARRAY, [0, 2, 255], BOOL), Entry("yeses", ARRAY, [0, 1, 1], BOOL)),
)
EVERY_TENSOR_TYPE = tuple(
    Tensor(f"{stored.name}.weight", (3 * stored.block, 5), type_) for type_, stored in TENSOR_TYPES.items()
)
ODD_SHAPES = (
    Tensor("odd", (7,)),
    Tensor("trailing", (3, 5, 1, 1)),
    Tensor("inner", (3, 1, 5, 1)),
    Tensor("four", (2, 3, 5, 7)),
    Tensor("ones", (1, 1, 1, 1)),
    Tensor("none", ()),
)


def deepseek_r1() -> Model:
    """DeepSeek-R1 671B, Q4_K_M in the layout of 1086 tensors, but for its tokenizer and exact quantization."""
    attention = {
        "attn_norm": (7168,),
        "attn_q_a": (7168, 1536),
        "attn_q_a_norm": (1536,),
        "attn_q_b": (1536, 24576),
        "attn_kv_a_mqa": (7168, 576),
        "attn_kv_a_norm": (512,),
        "attn_k_b": (128, 512, 128),
        "attn_v_b": (512, 128, 128),
        "attn_output": (16384, 7168),
        "ffn_norm": (7168,),
    }
    dense = {"ffn_gate": (7168, 18432), "ffn_up": (7168, 18432), "ffn_down": (18432, 7168)}
    experts = {
        "ffn_gate_inp": (7168, 256),
        "exp_probs_b": (256,),
        "ffn_gate_exps": (7168, 2048, 256),
        "ffn_up_exps": (7168, 2048, 256),
        "ffn_down_exps": (2048, 7168, 256),
        "ffn_gate_shexp": (7168, 2048),
        "ffn_up_shexp": (7168, 2048),
        "ffn_down_shexp": (2048, 7168),
    }
    whole = {"token_embd": (7168, 129280), "output_norm": (7168,), "output": (7168, 129280)}
    layers = (
        {f"blk.{layer}.{name}": dims for name, dims in {**attention, **(dense if layer < 3 else experts)}.items()}
        for layer in range(61)
    )
    shapes = {name: dims for group in (whole, *layers) for name, dims in group.items()}

    def stored(name: str, dims: tuple[int, ...]) -> int:
        if len(dims) == 1 or name.endswith("ffn_gate_inp"):
            return F32
        return Q8_0 if dims[0] % 256 else Q4_K

    entries = [Entry("general.architecture", STRING, "deepseek2"), Entry("deepseek2.block_count", gguf.UINT32, 61)]
    return Model(entries, [Tensor(f"{name}.weight", dims, stored(name, dims)) for name, dims in shapes.items()])


def _scalar(type_: int, value: object) -> bytes:
    return string(value) if type_ == STRING else struct.pack("<" + NUMBERS[type_], value)


def _padded(data: bytes, alignment: int) -> bytes:
    return data.ljust(padded(len(data), alignment), b"\0")
