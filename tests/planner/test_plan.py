"""The plan against llama.cpp's own dry run: each case of the cross section, to the byte."""

import random
import re

import pytest

from rackllama.planning.graph.scheduler import Devices
from rackllama.planning.memory import memory
from rackllama.planning.serving import Placement

from .accuracy import errors
from .cases import CASES, random_case
from .estimate import ours, serving_of, shape_of
from .oracle import REAL_MODEL, Case, Oracle

EXACT = [case for case in CASES if not case.override_tensors]


def test_the_cross_section_is_wide_enough() -> None:
    assert len(EXACT) >= 100


@pytest.mark.parametrize("case", EXACT, ids=str)
def test_weights_cache_and_compute_are_exact(case: Case, oracle: Oracle) -> None:
    measured = oracle.measure(case)
    expected = ours(case, oracle.model(case.model), measured)
    assert expected is not None
    found = errors(expected, measured)
    assert found.holds, found
    # More than what has to hold: nothing is off by a byte, and what makes it so is a change upstream or a mistake here.
    assert (found.weights, found.kv, found.compute) == (0, 0, 0)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_so_are_any_others(seed: int, oracle: Oracle) -> None:
    choice = random.Random(seed)  # noqa: S311 - the same cases each time
    for case in (random_case(choice) for _ in range(15)):
        measured = oracle.measure(case)
        expected = ours(case, oracle.model(case.model), measured)
        assert expected is not None
        found = errors(expected, measured)
        assert (found.weights, found.kv, found.compute) == (0, 0, 0), case


@pytest.mark.parametrize("flash_attention", [True, False])
@pytest.mark.parametrize(("devices", "split"), [(0, ()), (1, ()), (2, (10.0, 9.0))])
def test_a_real_load_takes_what_the_plan_says(
    oracle: Oracle, devices: int, split: tuple[float, ...], flash_attention: bool
) -> None:
    """Not only the dry run, which forgets where norms are pinned and so tells a little less for a second device."""
    case = Case(REAL_MODEL, devices, flash_attention=flash_attention, tensor_split=split)
    log = oracle.log_of_load(case)
    told = [float(mib) for mib in re.findall(r"compute buffer size = +([\d.]+) MiB", log)]
    placement = Placement(tuple(map(int, split)) or (19,) * devices)
    held = memory(shape_of(oracle.model(REAL_MODEL)), serving_of(case), placement, Devices(devices))
    assert told == [round(device.compute / 2**20, 2) for device in held]
