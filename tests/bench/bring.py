"""Bring one model, as `rackllama-host land JOB.json` does, with its state in a folder of its own.

It ends when Ollama has the model, before the model is loaded and tried, which no other way does.

    python tests/bench/bring.py JOB.json STATE

Prints JSON: `landed_at`, by the clock that all processes share, and `resident`, the most memory it had, in bytes.
"""

import json
import resource
import sys
import time
from contextlib import suppress
from pathlib import Path

from rackllama.host.lander.landing import LandingOptions
from rackllama.host.lander.progress import Progress
from rackllama.host.models.model import bring, wanted_model


class CreatedError(Exception):
    """Ollama has the model."""


def main() -> None:
    """Bring the model."""
    landed_at = 0.0

    def watch(progress: Progress) -> None:
        nonlocal landed_at
        if progress.phase == "landed":
            landed_at = time.monotonic()
        if progress.phase == "trying":
            raise CreatedError

    job = json.loads(Path(sys.argv[1]).read_text())
    with suppress(CreatedError):
        bring(wanted_model(job), LandingOptions(reserve_bytes=0), watch, landings=Path(sys.argv[2]))
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"landed_at": landed_at, "resident": resident}))


if __name__ == "__main__":
    main()
