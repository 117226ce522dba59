"""A BMC for the tests of this folder: the real emulator, on loopback."""

from collections.abc import Iterator

import pytest
from tests.stacks.bmc import PASSWORD, Bmc, bmc


@pytest.fixture(scope="module")
def emulated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bmc]:
    with bmc(tmp_path_factory.mktemp("bmc"), lag=0) as running:
        yield running


@pytest.fixture(autouse=True)
def _password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RACKLLAMA_BMC_PASSWORD", PASSWORD)
