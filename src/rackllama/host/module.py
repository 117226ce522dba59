"""What our Ansible modules share: how a failure reaches the user, and how a change is shown."""

import platform
from contextlib import contextmanager
from typing import Any, Dict, Iterator, List

from .errors import RackllamaError


@contextmanager
def failing_clearly(module: Any, subject: str) -> Iterator[None]:
    """Turn a RackllamaError into the module's failure: what failed, on which host, and the remedy."""
    try:
        yield
    except RackllamaError as error:
        module.fail_json(
            msg=f"{subject} on {platform.node()}: {error.message}\n  remedy: {error.remedy}", remedy=error.remedy
        )


def difference(before: List[str], after: List[str], header: str) -> Dict[str, str]:
    """A diff for `--diff`, from lines to lines."""
    return {
        "before": "".join(f"{line}\n" for line in before),
        "after": "".join(f"{line}\n" for line in after),
        "before_header": header,
        "after_header": header,
    }
