"""What the planner is judged on: a cross section of models and of ways to serve them, each measured by the oracle.

    python -m tests.planner.cases --json FILE    # measure all of them

Each group varies what its name says, and leaves the rest as most people have it.
"""

import argparse
import json
import random
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path

from . import header_only
from .oracle import ALL_LAYERS, REAL_MODEL, Case, Measured, Oracle, as_dict, from_dict

QWEN_32B, QWEN_30B, QWEN_235B = "qwen2.5-32b-q4_k_m", "qwen3-30b-a3b-q4_k_m", "qwen3-235b-a22b-q4_k_m"
LLAMA_8B, LLAMA_70B, LLAMA_70B_Q8 = "llama-3.1-8b-q4_k_m", "llama-3.3-70b-q4_k_m", "llama-3.3-70b-q8_0"
MHA_Q4, MHA_Q2, MHA_IQ1_M, MHA_IQ1_S = (
    f"deepseek-r1-mha-{name}" for name in ("q4_k_m", "ud-q2_k_xl", "ud-iq1_m", "ud-iq1_s")
)
MLA_Q8, MLA_Q4, MLA_Q2, MLA_IQ1_S = (f"deepseek-r1-mla-{name}" for name in ("q8_0", "q4_k_m", "ud-q2_k_xl", "ud-iq1_s"))
# The devices that people serve them on.
USUAL = (
    Case(REAL_MODEL, 1),
    Case(QWEN_32B, 1),
    Case(LLAMA_70B, 2),
    Case(QWEN_235B, 4),
    Case(MHA_Q4, 8),
    Case(MHA_IQ1_S, 2),
    Case(MLA_Q4, 8),
    Case(MLA_Q2, 4),
)
EXPERTS_OF_20_TO_39 = r"blk\.(2|3)[0-9]\.ffn_(gate|up|down)_exps\.weight=CPU"


def contexts() -> Iterator[Case]:
    for case, context, flash_attention in product(USUAL, (2048, 32768, 131072), (True, False)):
        yield replace(case, context=context, flash_attention=flash_attention)
    yield Case(LLAMA_70B, 2, 5000)  # is rounded up
    yield Case(MLA_Q4, 8, 163840)
    yield Case(LLAMA_8B, 1, 65536)


def cache_types() -> Iterator[Case]:
    """Quantized values need flash attention; keys do not, but with MLA both are of one type."""
    for case, type_ in product(USUAL[:5], ("q8_0", "q4_0")):
        yield replace(case, cache_k=type_, cache_v=type_)
    yield Case(MLA_Q4, 8, cache_k="q8_0", cache_v="q8_0")
    yield Case(LLAMA_70B, 2, 32768, cache_k="q8_0", flash_attention=False)
    yield Case(MHA_IQ1_M, 4, cache_k="q4_0", flash_attention=False)
    yield Case(QWEN_30B, 1, 32768, cache_k="q8_0", cache_v="q4_0")


def devices() -> Iterator[Case]:
    for count in (1, 2, 4, 8):
        yield Case(LLAMA_70B_Q8, count)
        yield Case(QWEN_32B, count, 16384)
        yield Case(QWEN_235B, count, 16384)
        yield Case(MHA_Q2, count)
        yield Case(MLA_Q8, count)
        yield Case(MLA_IQ1_S, count, flash_attention=False)
    yield Case(REAL_MODEL, 2)
    yield Case(REAL_MODEL, 4, flash_attention=False)
    yield Case(LLAMA_8B, 8)


def uneven_devices() -> Iterator[Case]:
    yield Case(REAL_MODEL, 2, tensor_split=(1, 3))
    yield Case(QWEN_32B, 2, 16384, tensor_split=(3, 1))
    yield Case(LLAMA_70B, 2, 16384, tensor_split=(24, 16))
    yield Case(LLAMA_70B, 4, 16384, tensor_split=(48, 24, 24, 11), flash_attention=False)
    yield Case(LLAMA_70B, 3, tensor_split=(1, 0, 1))
    yield Case(LLAMA_70B_Q8, 4, tensor_split=(1, 1, 1, 7))
    yield Case(QWEN_235B, 4, tensor_split=(1, 2, 3, 2))
    yield Case(MHA_Q4, 8, 2048, tensor_split=(8, 7, 7, 7, 7, 7, 7, 12))
    yield Case(MLA_Q4, 8, 65536, tensor_split=(8, 7, 7, 7, 7, 7, 7, 12))
    yield Case(MLA_Q2, 4, 32768, tensor_split=(80, 80, 48, 48), flash_attention=False)


def layers_on_host() -> Iterator[Case]:
    """With published setups among them: 28 layers on four cards of 24 GB, 48 on eight of 48 GB, 7 on one of 24 GB."""
    for layers in (28, 29):
        yield Case(MHA_IQ1_M, 4, 2048, gpu_layers=layers, flash_attention=False)
    for layers in (48, 49):
        yield Case(MHA_Q4, 8, 2048, gpu_layers=layers, flash_attention=False)
    for layers in (7, 8):
        yield Case(MHA_IQ1_S, 1, gpu_layers=layers, flash_attention=False)
    for layers in (0, 1, 20, 79, 80):
        yield Case(LLAMA_70B, 1, gpu_layers=layers)
    yield Case(LLAMA_70B, 2, 32768, gpu_layers=40, flash_attention=False)
    yield Case(QWEN_32B, 2, gpu_layers=33, tensor_split=(1, 2))
    yield Case(QWEN_235B, 4, gpu_layers=50)
    yield Case(MLA_Q4, 4, 16384, gpu_layers=30)
    yield Case(REAL_MODEL, 1, gpu_layers=7)
    for model in (REAL_MODEL, LLAMA_8B, QWEN_30B, MHA_IQ1_S, MLA_Q4):
        yield Case(model, 0)
    yield Case(LLAMA_70B, 0, flash_attention=False)


def experts_on_host() -> Iterator[Case]:
    for model, layers, count in (
        (QWEN_30B, 48, 1),
        (QWEN_30B, 24, 1),
        (QWEN_235B, 94, 1),
        (QWEN_235B, 40, 2),
        (MHA_Q4, 61, 4),
        (MLA_Q4, 61, 1),
        (MLA_Q4, 30, 4),
        (MLA_IQ1_S, 20, 2),
    ):
        yield Case(model, count, cpu_moe_layers=layers)
    for flash_attention in (True, False):
        yield Case(MLA_Q4, 1, 131072, cpu_moe_layers=61, flash_attention=flash_attention)
    yield Case(QWEN_235B, 2, 32768, cpu_moe_layers=94, flash_attention=False)
    yield Case(QWEN_30B, 1, cpu_moe_layers=48, gpu_layers=30)
    yield Case(MLA_Q4, 2, cpu_moe_layers=61, tensor_split=(1, 3))
    yield Case(MLA_Q4, 4, override_tensors=(EXPERTS_OF_20_TO_39,))
    yield Case(QWEN_30B, 2, override_tensors=("ffn_down_exps=CPU",), flash_attention=False)


def slots() -> Iterator[Case]:
    for case, unified in product((USUAL[0], USUAL[2], USUAL[3], USUAL[6]), (True, False)):
        yield replace(case, context=32768, parallel=4, unified_kv=unified)
    for unified in (True, False):
        yield Case(QWEN_32B, 1, 16384, parallel=4, unified_kv=unified, flash_attention=False)
        yield Case(REAL_MODEL, 1, 16384, parallel=4, unified_kv=unified, flash_attention=False)
    yield Case(LLAMA_8B, 1, 32768, parallel=16)
    yield Case(MHA_IQ1_S, 2, 16384, parallel=4, flash_attention=False)


def micro_batches() -> Iterator[Case]:
    for case, ubatch in product((USUAL[0], USUAL[2], USUAL[3], USUAL[6]), (128, 2048)):
        yield replace(case, ubatch=ubatch)
    for ubatch in (128, 2048):
        yield Case(LLAMA_70B, 2, 32768, ubatch=ubatch, flash_attention=False)
        yield Case(MHA_IQ1_S, 2, ubatch=ubatch, flash_attention=False)
    yield Case(MLA_Q4, 8, ubatch=4096, batch=4096)
    yield Case(MLA_Q4, 8, ubatch=64, flash_attention=False)


def other_models() -> Iterator[Case]:
    """One of each kind that the others are not: dense with norms in its heads, tied, windowed, few large experts."""
    for model in ("qwen3-32b-q4_k_m", "qwen3-0.6b-q8_0", "gemma-3-27b-q4_k_m", "mixtral-8x7b-q4_k_m"):
        yield Case(model, 1)
        yield Case(model, 2, 32768, flash_attention=False)
        yield Case(model, 2, 32768, cache_k="q8_0", cache_v="q8_0", parallel=2)
        yield Case(model, 1, gpu_layers=20)
    yield Case("mixtral-8x7b-q4_k_m", 2, cpu_moe_layers=10)


GROUPS = {
    group.__name__.replace("_", " "): tuple(group())
    for group in (
        contexts,
        cache_types,
        devices,
        uneven_devices,
        layers_on_host,
        experts_on_host,
        slots,
        micro_batches,
        other_models,
    )
}
CASES = tuple(dict.fromkeys(case for cases in GROUPS.values() for case in cases))


def random_case(choice: random.Random) -> Case:
    """Any case that llama.cpp serves, the odd ones as often as the usual."""
    model = choice.choice([REAL_MODEL, *header_only.MODELS])
    layers = 18 if model == REAL_MODEL else header_only.MODELS[model][0].layers
    flash_attention = choice.random() < 0.65
    keys, values = (choice.choice(["f16"] * 4 + ["q8_0", "q4_0", "bf16", "f32", "q5_1", "iq4_nl"]) for _ in range(2))
    if not flash_attention:
        values = "f16"
    devices = choice.choice([0, 1, 1, 2, 3, 5, 6])
    split = tuple(float(choice.choice([0, 1, 2, 3, 5, 9])) for _ in range(devices))
    has_experts = any(name in model for name in ("deepseek", "mixtral", "30b", "235b"))
    return Case(
        model,
        devices,
        context=choice.choice([1, 255, 256, 511, 1000, 2049, 5000, 8192, 33333, 70001]),
        flash_attention=flash_attention,
        cache_k=values if "-mla-" in model else keys,
        cache_v=values,
        gpu_layers=choice.choice([ALL_LAYERS, ALL_LAYERS, 1, 2, layers, layers + 1, choice.randint(0, layers)]),
        tensor_split=split if devices > 1 and any(split) else (),
        cpu_moe_layers=choice.choice([0, 1, layers // 2, layers]) if has_experts else 0,
        parallel=choice.choice([1, 1, 2, 3, 7]),
        unified_kv=choice.random() < 0.4,
        ubatch=choice.choice([512, 512, 1, 7, 31, 32, 33, 777, 2048]),
    )


def read_measured(path: Path) -> dict[Case, Measured]:
    """What `--json` wrote."""
    return {
        Case(**{name: tuple(value) if isinstance(value, list) else value for name, value in one["case"].items()}): (
            from_dict(one["measured"])
        )
        for one in json.loads(path.read_text())
    }


def main() -> None:
    """Measure all cases."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", required=True)
    arguments = parser.parse_args()
    started = time.monotonic()
    with Oracle() as oracle:
        measured = [{"case": asdict(case), "measured": as_dict(oracle.measure(case))} for case in CASES]
    arguments.json.write_text(json.dumps(measured, indent=1))
    print(f"{len(measured)} cases in {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
