"""What each engine is to be told so that it does what a plan says, in that engine's own names.

llama.cpp can be told everything. Ollama 0.33 starts a llama-server of its own for each model and hands on its own
environment: what it has no setting for, it obeys as LLAMA_ARG_*. Those and its OLLAMA_* hold for every model of that
server; only `parameters` belong to one model. It always passes -c, -np, --flash-attn, -b and -ub itself, with `num_gpu`
also -ngl, and with OLLAMA_KV_CACHE_TYPE both types of the cache: their LLAMA_ARG_* would be overruled. So Ollama cannot
be told of one model alone how to split it over GPUs, nor which experts stay on the host.
"""

from collections.abc import Mapping
from typing import Any

from rackllama.planning.serving import Placement, Serving

# As many tokens of prompts llama-server takes in at once, unless it computes more of them at once.
LOGICAL_BATCH = 2048
# CUDA numbers GPUs by its own guess of their speed, and a hardware description by their slots.
BY_SLOTS = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}

type Options = dict[str, int | str | bool]

# llama-server's long options and what it reads instead, with no option given, from its environment.
ENVIRONMENT_NAMES = {
    "ctx-size": "LLAMA_ARG_CTX_SIZE",
    "parallel": "LLAMA_ARG_N_PARALLEL",
    "kv-unified": "LLAMA_ARG_KV_UNIFIED",
    "gpu-layers": "LLAMA_ARG_N_GPU_LAYERS",
    "tensor-split": "LLAMA_ARG_TENSOR_SPLIT",
    "n-cpu-moe": "LLAMA_ARG_N_CPU_MOE",
    "flash-attn": "LLAMA_ARG_FLASH_ATTN",
    "cache-type-k": "LLAMA_ARG_CACHE_TYPE_K",
    "cache-type-v": "LLAMA_ARG_CACHE_TYPE_V",
    "batch-size": "LLAMA_ARG_BATCH",
    "ubatch-size": "LLAMA_ARG_UBATCH",
    "fit": "LLAMA_ARG_FIT",
}


def settings(
    serving: Serving, placement: Placement, shape_layers: int, unserved_layers: int = 0
) -> dict[str, dict[str, dict[str, Any]]]:
    """Engine -> kind -> name -> value, for a model of so many layers.

    `llama_cpp` has `options` (long options without their dashes, numbers, texts and switches) and the same as an
    `environment`; `ollama` has `parameters` for the Modelfile and an `environment`. All values of an environment are
    texts. Engines count `unserved_layers`, which only foretell tokens, as layers before the output.
    """
    options = _options(serving, placement, shape_layers, unserved_layers)
    return {
        "llama_cpp": {"options": options, "environment": _as_environment(options) | _order(placement)},
        "ollama": {
            "parameters": {
                "num_ctx": serving.context // serving.parallel,
                "num_gpu": options["gpu-layers"],
                "num_batch": serving.micro_batch,
            },
            "environment": _ollama_environment(serving, placement, options),
        },
    }


def command_line(options: Mapping[str, int | str | bool]) -> list[str]:
    """llama-server's arguments: a switch that is off is given as `--no-…`."""
    arguments: list[str] = []
    for name, value in options.items():
        if isinstance(value, bool):
            arguments.append(f"--{name}" if value else f"--no-{name}")
        else:
            arguments += [f"--{name}", str(value)]
    return arguments


def _options(serving: Serving, placement: Placement, shape_layers: int, unserved_layers: int) -> Options:
    options: Options = {"ctx-size": serving.context, "parallel": serving.parallel}
    if serving.parallel > 1:
        options["kv-unified"] = serving.unified
    shares = _shares(placement, unserved_layers)
    options["gpu-layers"] = min(sum(shares), shape_layers + unserved_layers + 1)
    if len(shares) > 1 and any(shares):
        options["tensor-split"] = ",".join(map(str, shares))
    if placement.experts_on_host:
        options["n-cpu-moe"] = placement.experts_on_host
    options["flash-attn"] = "on" if serving.flash_attention else "off"
    options["cache-type-k"], options["cache-type-v"] = serving.key_type, serving.value_type
    options["batch-size"] = max(LOGICAL_BATCH, serving.micro_batch)
    options["ubatch-size"] = serving.micro_batch
    # It would find all of this set, and say so; the plan has decided.
    options["fit"] = "off"
    return options


def _shares(placement: Placement, unserved_layers: int) -> list[int]:
    """Layers of each GPU as the engine counts them. The engine gives layer `i` of `n` to the GPU in whose share of the
    sum `i / n` falls, so that counts used as shares come out as they are."""
    shares = list(placement.layers)
    if any(shares):
        last = max(gpu for gpu, count in enumerate(shares) if count)
        shares[last] += unserved_layers
    return shares


def _ollama_environment(serving: Serving, placement: Placement, options: Options) -> dict[str, str]:
    told = {
        "OLLAMA_FLASH_ATTENTION": "1" if serving.flash_attention else "0",
        "OLLAMA_NUM_PARALLEL": str(serving.parallel),
    }
    if serving.key_type == serving.value_type:
        told["OLLAMA_KV_CACHE_TYPE"] = serving.key_type
        handed_on = ["kv-unified", "tensor-split", "n-cpu-moe"]
    else:
        told["OLLAMA_KV_CACHE_TYPE"] = ""
        handed_on = ["kv-unified", "tensor-split", "n-cpu-moe", "cache-type-k", "cache-type-v"]
    if "tensor-split" in options:
        # Else it picks one GPU by itself wherever it guesses that the model fits there.
        told["OLLAMA_SCHED_SPREAD"] = "1"
    # A cache in parts is what it has anyway.
    return told | _as_environment({name: options[name] for name in handed_on if options.get(name)}) | _order(placement)


def _as_environment(options: Options) -> dict[str, str]:
    return {
        ENVIRONMENT_NAMES[name]: str(int(value)) if isinstance(value, bool) else str(value)
        for name, value in options.items()
    }


def _order(placement: Placement) -> dict[str, str]:
    return BY_SLOTS if len(placement.layers) > 1 else {}
