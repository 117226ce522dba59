"""`rackllama lock`: learn checksums from upstream, or check those that are known."""

import argparse
import difflib
import functools
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rackllama.host.errors import RackllamaError
from rackllama.host.proxies import require_proxies
from rackllama.mirror.http import Fetcher, tokens_from
from rackllama.mirror.lock import (
    SHA256,
    Artefact,
    default_lock_path,
    find,
    lock_text,
    read_lock,
    with_version,
    write_lock,
)
from rackllama.mirror.metadata import Fetch
from rackllama.mirror.upstreams import learn


@dataclass(frozen=True)
class Finding:
    """What became of one artefact: `state` is locked, learnt, unlocked, drifted or unknown; the last three say why."""

    name: str
    version: str
    files: int
    state: str
    message: str = ""
    remedy: str = ""


def add_commands(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the commands about artefacts."""
    lock = commands.add_parser(
        "lock",
        help="learn sizes and checksums from upstream",
        description="Learn size and sha256 of each file of an artefact from what upstream publishes, print the "
        "difference and write the lock. A known checksum is never changed: if upstream's differs, that is told.",
        epilog="Exit codes: 0 all locked, 1 something is unlocked or drifted, 2 upstream could not be asked.",
    )
    lock.add_argument("names", nargs="*", metavar="NAME", help="artefacts, by their name in the lock")
    lock.add_argument("--all", action="store_true", help="every artefact of the lock")
    lock.add_argument("--check", action="store_true", help="change nothing, tell what is unlocked or differs upstream")
    lock.add_argument("--version", metavar="V", help="first move the one named artefact to this version")
    lock.add_argument("--merged", metavar="SHA256", help="of a model: the sha256 that landing it has told, and no more")
    lock.add_argument("--lock", type=Path, default=None, metavar="PATH", help="default: artefacts.lock of the checkout")
    lock.add_argument("--mirror", default="", metavar="URL", help="fetch https://HOST/PATH as URL/HOST/PATH")
    lock.add_argument("--json", action="store_true", help="print the result as JSON")
    lock.set_defaults(run=_run_lock)


def _run_lock(arguments: argparse.Namespace) -> int:
    require_proxies(os.environ)
    path = arguments.lock or default_lock_path()
    lock = read_lock(path)
    if arguments.merged:
        return _record_merged(path, lock, arguments.names, arguments.merged)
    names = chosen_names(lock, arguments.names, everything=arguments.all or (arguments.check and not arguments.names))
    wanted = dict(lock)
    if arguments.version:
        if len(names) != 1 or arguments.check:
            raise RackllamaError("--version moves one artefact", "name one: rackllama lock NAME --version V")
        wanted[names[0]] = with_version(lock[names[0]], arguments.version)
    # Variants of one model share one page of metadata.
    fetch = functools.cache(Fetcher(arguments.mirror, tokens_from(os.environ)))
    examined = {name: examine(wanted[name], fetch, check=arguments.check) for name in names}
    findings = [finding for _, finding in examined.values()]
    after = lock | {name: artefact for name, (artefact, finding) in examined.items() if finding.state == "learnt"}
    diff = lock_diff(lock, after, str(path))
    if diff:
        write_lock(path, after)
    if arguments.json:
        print(json.dumps({"lock": str(path), "artefacts": [asdict(finding) for finding in findings], "diff": diff}))
    else:
        print("\n".join(part for part in (diff, table(findings), *complaints(findings)) if part))
    return exit_code(findings)


def _record_merged(path: Path, lock: Mapping[str, Artefact], names: Sequence[str], sha256: str) -> int:
    """Write down what a model's shards become; nothing is asked of upstream."""
    if len(names) != 1 or not SHA256.fullmatch(sha256):
        raise RackllamaError(
            "--merged takes one model and the sha256 of its landed file", "give: rackllama lock NAME --merged SHA256"
        )
    after = {**lock, names[0]: replace(find(lock, names[0]), merged_sha256=sha256)}
    print(lock_diff(lock, after, str(path)))
    write_lock(path, after)
    return 0


def chosen_names(lock: Mapping[str, Artefact], names: Sequence[str], *, everything: bool) -> list[str]:
    """The artefacts to look at, each once. Raises RackllamaError for none, or for one that the lock does not hold."""
    chosen = sorted(lock) if everything else list(dict.fromkeys(names))
    if not chosen:
        raise RackllamaError("no artefact is named", f"name some of {', '.join(sorted(lock)) or 'none'}, or give --all")
    return [find(lock, name).name for name in chosen]


def examine(artefact: Artefact, fetch: Fetch, *, check: bool) -> tuple[Artefact, Finding]:
    """The artefact as upstream publishes it (or as it was, where nothing may or can be learnt) and what was found."""

    def found(now: Artefact, state: str, message: str = "", remedy: str = "") -> tuple[Artefact, Finding]:
        return now, Finding(now.name, now.version, len(now.files), state, message, remedy)

    if check and not artefact.is_locked:
        return found(artefact, "unlocked", "no checksum was learnt yet", f"run: rackllama lock {artefact.name}")
    try:
        published = learn(artefact, fetch)
    except RackllamaError as error:
        return found(artefact, "unknown", error.message, error.remedy)
    drift = drifted_files(artefact, published)
    if drift:
        return found(
            artefact,
            "drifted",
            f"upstream now publishes another checksum for {', '.join(drift)}",
            f"find out why; to accept it: rackllama lock {artefact.name} --version {artefact.version}",
        )
    return found(published, "locked" if artefact.is_locked else "learnt")


def drifted_files(known: Artefact, published: Artefact) -> list[str]:
    """Names of the files whose known size or sha256 upstream now publishes otherwise."""
    now = {file.url: file for file in published.files}
    return [
        file.name
        for file in known.files
        if file.sha256
        and (file.url not in now or (now[file.url].size, now[file.url].sha256) != (file.size, file.sha256))
    ]


def lock_diff(before: Mapping[str, Artefact], after: Mapping[str, Artefact], name: str) -> str:
    """The unified difference between two locks, empty where there is none."""
    old, new = (lock_text(lock).splitlines() for lock in (before, after))
    return "\n".join(difflib.unified_diff(old, new, name, name, lineterm="", n=4))


def table(findings: Sequence[Finding]) -> str:
    """Name, version, number of files and state, in aligned columns."""
    rows = [("name", "version", "files", "state"), *((f.name, f.version, str(f.files), f.state) for f in findings)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def exit_code(findings: Sequence[Finding]) -> int:
    """0 all locked, 1 something is unlocked or drifted, 2 upstream could not be asked."""
    states = {finding.state for finding in findings}
    if states & {"unlocked", "drifted"}:
        return 1
    return 2 if "unknown" in states else 0


def complaints(findings: Sequence[Finding]) -> list[str]:
    """What is wrong, with its remedy; one remedy for all that was never locked."""
    unlocked = [finding.name for finding in findings if finding.state == "unlocked"]
    told = [f"{f.name}: {f.message}\n  remedy: {f.remedy}" for f in findings if f.message and f.name not in unlocked]
    if unlocked:
        told.append(f"{len(unlocked)} never learnt from upstream\n  remedy: run: rackllama lock {' '.join(unlocked)}")
    return told
