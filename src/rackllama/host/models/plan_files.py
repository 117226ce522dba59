"""The plans of this host's models, `/etc/rackllama/plans/SLUG.json`: what they were landed and their engine set by."""

from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional

from ..files import json_text, read_json, read_text, write_atomically

PLANS = Path("/etc/rackllama/plans")


def plan_of(slug: str) -> Optional[Dict[str, Any]]:
    """The plan of a model; None where it has none."""
    found = read_json(PLANS / f"{slug}.json")
    return found if isinstance(found, dict) else None


def changed(plans: Mapping[str, Optional[Mapping[str, Any]]]) -> Dict[Path, List[str]]:
    """The files that differ from these plans by slug, each with its text before and after; "" is no file."""
    texts = {PLANS / f"{slug}.json": json_text(plan) if plan else "" for slug, plan in plans.items()}
    found = {path: [read_text(path) or "", after] for path, after in texts.items()}
    return {path: both for path, both in found.items() if both[0] != both[1]}


def write(files: Mapping[Path, List[str]]) -> None:
    """Let these files be as `changed` tells."""
    for path, (_, after) in files.items():
        if after:
            write_atomically(path, after)
        else:
            path.unlink()


def remove(slug: str) -> None:
    """Remove the plan of a model that goes."""
    (PLANS / f"{slug}.json").unlink(missing_ok=True)
