"""How a plan's figures came about: each formula with its numbers."""

from collections.abc import Iterator, Sequence

from rackllama.planning import kv_cache
from rackllama.planning.fit import Fit, Search
from rackllama.planning.speed import Term
from rackllama.planning.words import amount


def explain(search: Search, fit: Fit, terms: Sequence[Term]) -> Iterator[str]:
    """Lines that tell weights, cache, compute and time of a token, with what they were made of."""
    yield from _weights(search, fit)
    yield from _cache(search)
    yield from _compute(search, fit)
    for term in terms:
        yield f"time of a token, {term.name}: {term.formula} = {term.seconds * 1000:.2f} ms"
    total = sum(term.seconds for term in terms)
    if terms:
        yield f"tokens a second: 1 / {total * 1000:.2f} ms = {1 / total:.1f}"


def _weights(search: Search, fit: Fit) -> Iterator[str]:
    shape = search.shape
    yield (
        f"weights: {len(shape.tensors)} tensors, rows in blocks of their types, {amount(shape.weights)}; "
        f"the token embedding, {amount(shape.input_weights)}, is always on the host"
        + (", and once more where the output is, as both are one" if shape.ties_embedding else "")
    )
    first = 0
    on_host = shape.layers + 1 - fit.placement.gpu_layers
    for number, layers in enumerate([on_host, *fit.placement.layers]):
        if layers:
            last = first + layers - 1
            end = " and the output" if last == shape.layers else ""
            where = "host" if number == 0 else f"GPU {number - 1}"
            held = fit.held[number - 1]
            yield f"  {where}: layers {first} to {min(last, shape.layers - 1)}{end}, {held.weights} bytes"
        first += layers


def _cache(search: Search) -> Iterator[str]:
    shape, serving = search.shape, search.serving
    kinds = {(shape.windowed[layer], kv_cache.elements(shape, layer)): layer for layer in range(shape.layers)}
    for (windowed, (keys, values)), layer in kinds.items():
        alike = sum(
            (shape.windowed[other], kv_cache.elements(shape, other)) == (windowed, (keys, values))
            for other in range(shape.layers)
        )
        cells, streams = kv_cache.cells(shape, layer, serving), serving.streams
        of_token = kv_cache.token_bytes(shape, layer, serving)
        kind = "latent" if shape.mla else "windowed" if windowed else "whole"
        yield (
            f"cache, {kind}: ({keys} elements of {serving.key_type} + {values} of {serving.value_type} = {of_token} "
            f"bytes) x {cells} cells x {streams} stream{'s' * (streams > 1)} x {alike} layers = "
            f"{amount(of_token * cells * streams * alike)}"
        )


def _compute(search: Search, fit: Fit) -> Iterator[str]:
    serving = search.serving
    yield (
        f"compute: the graph of {serving.tokens} tokens at once, {'with' if serving.flash_attention else 'without'} "
        "flash attention, placed and allocated by llama.cpp's rules; its peak is "
        + ", ".join(f"{device.compute} bytes" for device in fit.held[:-1])
        + f"{' and ' if fit.held[:-1] else ''}{fit.held[-1].compute} bytes on the host"
    )
