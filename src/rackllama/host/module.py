"""What our Ansible modules share: how a failure reaches the user, and how a change is shown."""

import fcntl
import platform
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Dict, Iterator, List

from .errors import RackllamaError
from .report import failed, in_words

LOCKS = Path("/run/lock")


@contextmanager
def alone(name: str) -> Iterator[None]:
    """Wait for any other run that works on `name` on this host, and keep later ones waiting.

    A play that was killed may leave its module running here; the next play must not meet it halfway.
    """
    with (LOCKS / f"rackllama-{name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


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


def exit_with_report(module: Any, subject: str, document: Dict[str, Any]) -> None:
    """End the module with a report, in data and in words; it fails where a check of the report does."""
    words = in_words(document)
    broken = failed(document)
    if broken:
        remedies = [line for line in words if not line.startswith("ok")]
        message = f"{subject} on {document['host']}: {len(broken)} of {len(document['checks'])} checks failed\n"
        module.fail_json(msg=message + "\n".join(remedies), report=document, words=words)
    module.exit_json(changed=False, report=document, words=words)
