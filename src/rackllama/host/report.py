"""The one shape of what a check found: `{"host", "checks": [{"id", "ok", "wanted", "found", "remedy"}]}`."""

from dataclasses import asdict, dataclass, replace
from typing import Any, Dict, List, Sequence


@dataclass(frozen=True)
class Check:
    """One thing that was looked at. `remedy` is what to do where it is not ok, and empty where it is."""

    id: str
    ok: bool
    wanted: str
    found: str
    remedy: str = ""


def report(host: str, checks: Sequence[Check]) -> Dict[str, Any]:
    """The report of one host, as plain data; what is ok has no remedy."""
    told = (replace(check, remedy="") if check.ok else check for check in checks)
    return {"host": host, "checks": [asdict(check) for check in told]}


def in_words(document: Dict[str, Any]) -> List[str]:
    """A report as lines for people: a mark and what was found for each check, the remedy below what failed."""
    lines = []
    width = max((len(check["id"]) for check in document["checks"]), default=0)
    for check in document["checks"]:
        if check["ok"]:
            lines.append(f"ok    {check['id']:<{width}}  {check['found']}")
        else:
            lines.append(f"FAIL  {check['id']:<{width}}  wanted {check['wanted']}, found {check['found']}")
            lines.append(f"      {'':<{width}}  remedy: {check['remedy']}")
    return lines


def failed(document: Dict[str, Any]) -> List[str]:
    """The ids of the checks that are not ok."""
    return [check["id"] for check in document["checks"] if not check["ok"]]
