"""What our Ansible modules share: how a failure reaches the user, and how a change is shown."""

import fcntl
import os
import platform
import time
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import IO, Any, Dict, Iterator, List

from .errors import RackllamaError
from .report import failed, in_words

LOCKS = Path("/run/rackllama")
LOCK_SECONDS = 30
LOCK_POLL_SECONDS = 0.2


@contextmanager
def working_on(module: Any, name: str) -> Iterator[None]:
    """What surrounds the work of a module that changes `name` on this host.

    Failures reach the user clearly; files are readable by others whatever the host's umask, unless their own mode says
    otherwise; and one run works on it at a time, but for check mode, which changes nothing.
    """
    os.umask(0o022)
    with failing_clearly(module, name), nullcontext() if module.check_mode else alone(name):
        yield


@contextmanager
def alone(name: str) -> Iterator[None]:
    """Wait for another run that works on `name` on this host, for a while, and keep later ones waiting.

    A play that was killed may leave its module running here; the next play must not meet it halfway. Raises
    RackllamaError where the other goes on for longer than a moment.
    """
    LOCKS.mkdir(mode=0o700, exist_ok=True)
    with (LOCKS / f"{name}.lock").open("a+") as file:
        deadline = time.monotonic() + LOCK_SECONDS
        while not _locked(file):
            if time.monotonic() > deadline:
                file.seek(0)
                raise RackllamaError(
                    f"another run has been working on {name} for more than {LOCK_SECONDS} s (process {file.read()})",
                    "wait for it to end, or end that process on the host, and run again",
                )
            time.sleep(LOCK_POLL_SECONDS)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def _locked(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


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


def exit_with_report(module: Any, subject: str, document: Dict[str, Any], **more: Any) -> None:
    """End the module with a report, in data and in words, and `more`; it fails where a check of the report does."""
    words = in_words(document)
    broken = failed(document)
    if broken:
        remedies = [line for line in words if not line.startswith("ok")]
        message = f"{subject} on {document['host']}: {len(broken)} of {len(document['checks'])} checks failed\n"
        module.fail_json(msg=message + "\n".join(remedies), report=document, words=words)
    module.exit_json(changed=False, report=document, words=words, **more)
