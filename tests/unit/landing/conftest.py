"""What the landing tests share."""

from collections.abc import Iterator

import pytest

from .hub import Hub, serve
from .model import MIB, Model, make_model


@pytest.fixture(scope="session")
def model() -> Model:
    return make_model(5 * MIB + 5, 2 * MIB, 777)


@pytest.fixture
def hub(model: Model) -> Iterator[Hub]:
    """A hub that serves the model."""
    yield from _hub(model)


@pytest.fixture
def mirror(model: Model) -> Iterator[Hub]:
    """Another one."""
    yield from _hub(model)


def _hub(model: Model) -> Iterator[Hub]:
    hub = Hub({f"/{name}": data for name, data in model.shards.items()})
    server = serve(hub)
    yield hub
    server.shutdown()
    server.server_close()
