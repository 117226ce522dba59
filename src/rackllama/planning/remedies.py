"""What to change where a model does not fit: each change is tried, and only those that help are told."""

from collections.abc import Callable, Iterator
from dataclasses import replace

from rackllama.planning import kv_cache
from rackllama.planning.fit import Fit, Search, largest
from rackllama.planning.words import amount

GIB = 2**30
SMALLER_CACHES = ("q8_0", "q4_0")
SHORTEST_CONTEXT = 2048
RAM_STEP = 32 * GIB
# llama.cpp can be told the shares of so many.
MOST_GPUS = 15


def remedies(search: Search, fit: Fit, is_classic: bool) -> Iterator[str]:
    """The nearest change of each kind that lets the model fit, in words; the cheapest kinds first."""

    def fits(changed: Search) -> bool:
        return changed.may_fit() and changed.best(is_classic).fits

    for kind in (*((_cache_type, _context) if _cache_can_help(fit) else ()), _more_gpus, _more_ram):
        told = kind(search, fit, fits)
        if told:
            yield told
    room, weights = search.room.all, search.shape.weights
    if room is not None:
        left = room - (sum(device.all for device in fit.held) - weights)
        if 0 < left < weights:
            yield f"a quantization of at most {amount(left)} of weights, where this one has {amount(weights)}"


def _cache_can_help(fit: Fit) -> bool:
    """Whether cache and computing take as much as lacks: nothing that makes these smaller helps otherwise."""
    return fit.missing < sum(device.cache + device.compute for device in fit.held)


def _cache_type(search: Search, _: Fit, fits: Callable[[Search], bool]) -> str | None:
    serving = search.serving
    for stored in SMALLER_CACHES:
        smaller = replace(serving, key_type=stored, value_type=stored, flash_attention=True)
        is_smaller = kv_cache.token_bytes(search.shape, 0, smaller) < kv_cache.token_bytes(search.shape, 0, serving)
        if is_smaller and fits(replace(search, serving=smaller)):
            attention = "" if serving.flash_attention else " and --flash-attention on"
            return f"a cache of type {stored}: --kv {stored}{attention}"
    return None


def _context(search: Search, _: Fit, fits: Callable[[Search], bool]) -> str | None:
    each = search.serving.context // search.serving.parallel // 2
    while each >= SHORTEST_CONTEXT:
        if fits(replace(search, serving=replace(search.serving, context=each * search.serving.parallel))):
            return f"a context of {each} tokens: --context {each}"
        each //= 2
    return None


def _more_gpus(search: Search, fit: Fit, fits: Callable[[Search], bool]) -> str | None:
    room = search.room
    if not room.gpus or room.is_unified:
        return None
    possible = MOST_GPUS - len(room.gpus)
    # Computing takes no less on each of more GPUs, so that many attempts are plainly in vain.
    computing = min(fit.computing)

    def is_enough(more: int) -> bool:
        gpus = (*room.gpus, *room.gpus[-1:] * more)
        beside_computing = replace(room, gpus=tuple(max(0, size - computing) for size in gpus))
        is_vain = not replace(search, room=beside_computing).may_fit()
        return not is_vain and fits(replace(search, room=replace(room, gpus=gpus)))

    # Few are likelier, and sooner tried.
    tried = next((more for more in (1, 2, 4, 8, possible) if more <= possible and is_enough(more)), None)
    if tried is None:
        return None
    more = 1 + largest(lambda count: not is_enough(count), tried - 1)
    return f"{more} more GPU{'s' * (more > 1)} of the same kind"


def _more_ram(search: Search, fit: Fit, fits: Callable[[Search], bool]) -> str | None:
    room = search.room
    if room.host is None:
        return None
    more = -(-fit.missing // RAM_STEP) * RAM_STEP
    if fits(replace(search, room=replace(room, host=room.host + more))):
        return f"{amount(more)} more memory for the host"
    return None
