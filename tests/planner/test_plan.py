"""The plan against llama.cpp's own dry run: each case of the cross section, to the byte."""

import pytest

from .accuracy import errors
from .cases import CASES
from .estimate import ours
from .oracle import Case, Oracle

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
