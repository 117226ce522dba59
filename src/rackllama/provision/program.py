"""What the programs of all stacks share."""

from collections.abc import Iterator
from contextlib import contextmanager

import pulumi

from rackllama.host.errors import RackllamaError


@contextmanager
def plain_errors() -> Iterator[None]:
    """A RackllamaError ends the program with its sentence and remedy, which Pulumi prints without a traceback."""
    try:
        yield
    except RackllamaError as error:
        raise pulumi.RunError(str(error)) from error
