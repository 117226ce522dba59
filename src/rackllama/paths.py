"""Where rackllama keeps what it makes on the controller. Nothing is ever built inside the checkout."""

import os
from pathlib import Path


def cache_dir() -> Path:
    """Builds, downloads and lab images: may be deleted at any time, and is made anew."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rackllama"


def state_dir() -> Path:
    """Keys and records of running labs."""
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "rackllama"
