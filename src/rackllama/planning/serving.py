"""How a model is to be served, and where its parts go: what a plan chooses, in llama.cpp's own terms."""

from collections.abc import Sequence
from dataclasses import dataclass

HOST = -1
CELLS_MULTIPLE = 256


@dataclass(frozen=True)
class Serving:
    """What a server is told beside the model. `context` counts tokens, of all slots together.

    With `unified` the slots share one cache, else each has its own part of it. `micro_batch` is how many tokens of a
    prompt are computed at once (`--ubatch-size`). Types are those of the cache: f16, q8_0, q4_0.
    """

    context: int = 8192
    parallel: int = 1
    unified: bool = True
    micro_batch: int = 512
    key_type: str = "f16"
    value_type: str = "f16"
    flash_attention: bool = True

    @property
    def cells(self) -> int:
        """Tokens that one stream of the cache has room for: llama.cpp rounds them up."""
        if self.unified:
            return _rounded(self.context)
        return _rounded(_rounded(self.context) // self.parallel)

    @property
    def streams(self) -> int:
        """How many parts the cache has."""
        return 1 if self.unified else self.parallel

    @property
    def tokens(self) -> int:
        """Tokens that are computed at once, at most: no more than the context that was asked for, before rounding."""
        return min(self.context, self.micro_batch)


@dataclass(frozen=True)
class Placement:
    """Which layers go where: `layers` tells for each GPU how many, in order, the last layers of the model first to go.

    What stands behind the last layer counts as one more (llama.cpp counts `--gpu-layers` and Ollama `num_gpu` so), and
    is the last of the last GPU. The experts of the model's first `experts_on_host` layers stay on the host.
    """

    layers: tuple[int, ...]
    experts_on_host: int = 0

    @property
    def gpu_layers(self) -> int:
        """As `--gpu-layers` and `num_gpu` count."""
        return sum(self.layers)

    def devices(self, model_layers: int) -> tuple[int, ...]:
        """The device of each layer and of the output behind them: a GPU's number, or HOST."""
        on_host = model_layers + 1 - self.gpu_layers
        on_gpus = [gpu for gpu, count in enumerate(self.layers) for _ in range(count)]
        return (*[HOST] * on_host, *on_gpus)


def by_shares(layers: int, shares: Sequence[float]) -> tuple[int, ...]:
    """So many layers as llama.cpp hands them out by `--tensor-split`: layer `i` of `n` where `i / n` of all falls.

    Evenly where nobody has a share.
    """
    if not any(shares):
        shares = [1] * len(shares)
    ends = [sum(shares[: part + 1]) / sum(shares) for part in range(len(shares))]
    counts = [0] * len(shares)
    for layer in range(layers):
        counts[next(part for part, end in enumerate(ends) if layer / layers < end)] += 1
    return tuple(counts)


def _rounded(tokens: int) -> int:
    return tokens + -tokens % CELLS_MULTIPLE
