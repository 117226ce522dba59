"""The real llama-server, asked for dry runs."""

from collections.abc import Iterator

import pytest

from .oracle import Oracle


@pytest.fixture(scope="session")
def oracle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Oracle]:
    """One for all tests: its RPC servers are used again."""
    with Oracle(folder=tmp_path_factory.mktemp("models")) as asked:
        yield asked
