"""A made-up model for the landing tests: shards with a header, weights and a tail, and the file they are to become."""

import hashlib
import random
from dataclasses import dataclass
from pathlib import Path

from rackllama.host.lander.landing import LandingJob, LandingOptions, Placement, ShardJob

MIB = 1 << 20
FAST = LandingOptions(reserve_bytes=0, connections=4, backoff_seconds=0.01, patience_seconds=5)
GAP = 24


def seeded(seed: int) -> random.Random:
    """Random numbers that are the same in each run."""
    return random.Random(seed)  # noqa: S311 - nothing is kept secret by it


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@dataclass
class Model:
    """`shards` by name, and `merged`: a header, then the weights of each shard, with padding between them."""

    header: bytes
    shards: dict[str, bytes]
    placements: dict[str, Placement]
    merged: bytes

    def job(self, folder: Path, *bases: str, sha256s: bool = True, merged: bool = False) -> LandingJob:
        """A job that fetches each shard from any of `bases`."""
        shards = tuple(
            ShardJob(
                name,
                len(data),
                sha256(data) if sha256s else None,
                tuple(f"{base}/{name}" for base in bases),
                self.placements[name],
                sha256(data[: self.placements[name].source_offset]) if merged else None,
            )
            for name, data in self.shards.items()
        )
        digest = sha256(self.merged) if merged else None
        return LandingJob("tiny-1b", folder / "tiny.gguf", len(self.merged), self.header, shards, digest)


def make_model(*lengths: int, seed: int = 1) -> Model:
    """A model whose shards hold so many bytes of weights each."""
    dice = seeded(seed)
    header = dice.randbytes(4_321)
    shards, placements, merged = {}, {}, header
    for number, length in enumerate(lengths, 1):
        name = f"tiny-{number:05}-of-{len(lengths):05}.gguf"
        before, weights, after = dice.randbytes(1_000 * number), dice.randbytes(length), dice.randbytes(7)
        merged += bytes(GAP)
        shards[name] = before + weights + after
        placements[name] = Placement(len(before), length, len(merged))
        merged += weights
    return Model(header, shards, placements, merged + bytes(GAP))
