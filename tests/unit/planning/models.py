"""Models to plan for: their headers alone, as tests/planner has them."""

from functools import lru_cache

from tests.planner import header_only

from rackllama.host.lander.gguf import from_bytes
from rackllama.planning.shape import ModelShape, read_shape


@lru_cache
def shape_of(name: str) -> ModelShape:
    return read_shape(from_bytes(header_only.header(name)))
