"""Stacks on an engine: the real `pulumi` where PATH has one, else its test double. A run says which.

A test asks for `stacks`, and for `moto` where it needs AWS: `stacks("aws", environment=moto.environment)` is a stack of
a copy of stacks/aws.
"""

import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from .engine.harness import FoundEngine, Moto, Stack, find_engine, moto_served, new_stack

ROOT = Path(__file__).parents[2]
ENGINE = pytest.StashKey[FoundEngine]()
FOLDER = pytest.StashKey[tempfile.TemporaryDirectory[str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[FOLDER] = tempfile.TemporaryDirectory(prefix="rackllama-engine-")
    config.stash[ENGINE] = find_engine(Path(config.stash[FOLDER].name))


def pytest_unconfigure(config: pytest.Config) -> None:
    config.stash[FOLDER].cleanup()


def pytest_report_header(config: pytest.Config) -> str:
    return f"engine of the stacks: {config.stash[ENGINE].name}"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    terminalreporter.write_line(f"engine of the stacks: {config.stash[ENGINE].name}")


@pytest.fixture(scope="session")
def engine(pytestconfig: pytest.Config) -> FoundEngine:
    """The engine of this run."""
    return pytestconfig.stash[ENGINE]


@pytest.fixture(scope="session")
def moto_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Moto]:
    """moto's server, for all tests of a run."""
    with moto_served(tmp_path_factory.mktemp("moto")) as moto:
        yield moto


@pytest.fixture
def moto(moto_server: Moto) -> Moto:
    """An empty AWS account; its `environment` attaches a stack to it."""
    moto_server.reset()
    return moto_server


@pytest.fixture
def aws_environment(moto: Moto, monkeypatch: pytest.MonkeyPatch) -> Mapping[str, str]:
    """The same, for code that runs `pulumi` by itself: the variables are set in this process."""
    for key, value in moto.environment.items():
        monkeypatch.setenv(key, value)
    return moto.environment


@pytest.fixture
def stacks(engine: FoundEngine, tmp_path: Path) -> Callable[..., Stack]:
    """Makes stacks: of `stacks/NAME` of the repository, or of the project in a folder, each with state of its own."""

    def make(project: str | Path, name: str = "test", environment: Mapping[str, str] | None = None) -> Stack:
        folder = tmp_path / f"stack-{len(list(tmp_path.glob('stack-*')))}"
        folder.mkdir()
        source = ROOT / "stacks" / project if isinstance(project, str) else project
        return new_stack(source, folder, engine, environment or {}, name)

    return make
