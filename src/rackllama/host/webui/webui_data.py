"""The database of Open WebUI and the release that it belongs to: kept before an upgrade, brought back by a rollback.

Run before each start of the service, by its unit, so that it makes no difference who moved the link `current`: the
playbook, or a person who rolls back. Open WebUI changes its database when a newer release is started, and an older one
does not know what to do with it then. Layout of the data directory:

    webui.db                          the database, Open WebUI's own
    rackllama/release                 the release that was started last
    rackllama/before/RELEASE.db       the database as RELEASE left it, before another release was started
"""

import contextlib
import re
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import FrozenSet, List, Optional, Tuple

from ..files import read_text, sync_directory, sync_file, write_atomically

DATABASE = "webui.db"
STATE = "rackllama"
KEPT = 3
UNKNOWN = "unknown"  # whoever ran it before we did


@dataclass(frozen=True)
class Found:
    """What is there: the release that was started last, whether there is a database, and the releases it is kept of."""

    last: Optional[str]
    database: bool
    kept: FrozenSet[str]


@dataclass(frozen=True)
class Step:
    """One thing to do: `keep` the database as a release left it, `restore` it, or `forget` a kept one."""

    action: str
    release: str


def plan(release: str, found: Found) -> List[Step]:
    """What to do before `release` is started. Pure.

    Only a rollback restores: an upgrade takes the database along, also one after a rollback.
    """
    if not found.database or found.last == release:
        return []
    last = found.last or UNKNOWN
    steps = [Step("keep", last)]
    if order(release) < order(last) and release in found.kept:
        steps.append(Step("restore", release))
    oldest_first = sorted({*found.kept, last} - {release}, key=order)
    return steps + [Step("forget", old) for old in oldest_first[:-KEPT]]


def order(release: str) -> Tuple[int, ...]:
    """What releases are sorted by: the numbers of a version, as 0.12.4 of `0.12.4-1a2b3c4d`."""
    return tuple(int(number) for number in re.findall(r"\d+", release.partition("-")[0]))


def found_in(data: Path) -> Found:
    """Look at a data directory."""
    last = read_text(data / STATE / "release")
    kept = frozenset(path.stem for path in (data / STATE / "before").glob("*.db"))
    return Found(last.strip() if last else None, (data / DATABASE).exists(), kept)


def make_ready(data: Path, release: str) -> List[Step]:
    """Bring the database to where `release` can be started, and give the steps. Nobody may be using it."""
    steps = plan(release, found_in(data))
    before = data / STATE / "before"
    before.mkdir(parents=True, exist_ok=True)
    for step in steps:
        if step.action == "keep":
            _copy(data / DATABASE, before / f"{step.release}.db")
        elif step.action == "restore":
            _copy(before / f"{step.release}.db", data / DATABASE)
        else:
            (before / f"{step.release}.db").unlink()
    write_atomically(data / STATE / "release", f"{release}\n", mode=0o600)
    return steps


def _copy(source: Path, target: Path) -> None:
    """Copy a database whole, with what stands in its journal, and put it in place in one durable step."""
    partial = target.with_name(f".{target.name}.partial")
    partial.unlink(missing_ok=True)
    with contextlib.closing(sqlite3.connect(str(source))) as from_, contextlib.closing(sqlite3.connect(partial)) as to:
        from_.backup(to)
    partial.chmod(0o600)
    sync_file(partial)
    for journal in ("-wal", "-shm"):  # those of the database that goes: SQLite would apply them to the one that comes
        target.with_name(target.name + journal).unlink(missing_ok=True)
    partial.replace(target)
    sync_directory(target.parent)
