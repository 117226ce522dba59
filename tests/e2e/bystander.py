"""What a user of a host can see there, run on it as `python3 bystander.py watch|search`: it tells where needles are.

The needles come by standard input, one a line up to an empty one: on a command line they would be seen by themselves.
`watch` looks at all processes, again and again, until its input ends; `search` reads every file once.
"""

import json
import os
import select
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

PAUSE_SECONDS = 0.005
LARGEST_BYTES = 64 << 20  # weights of models are larger
ELSEWHERE = (Path("/proc"), Path("/sys"), Path("/dev"))


def main() -> None:
    needles = list(iter(lambda: sys.stdin.readline().strip(), ""))
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    json.dump({"watch": watch, "search": search}[sys.argv[1]](needles), sys.stdout)


def watch(needles: list[str]) -> dict[str, object]:
    """Needles in what the kernel tells of each process, each with where it was; and how often was looked."""
    seen, looks = set(), 0
    while not select.select([sys.stdin], [], [], PAUSE_SECONDS)[0]:
        for process in Path("/proc").glob("[0-9]*"):
            for name in ("cmdline", "environ"):
                content = read(process / name) or b""
                text = content.replace(b"\0", b" ").decode(errors="replace")
                seen |= {(needle, f"{name}: {text[:200]}") for needle in needles if needle in text}
        looks += 1
    return {"seen": sorted(seen), "looks": looks}


def search(needles: list[str]) -> dict[str, object]:
    """Needles by the file that they are in, with its owner and mode; and how many files were read."""
    found, count = {}, 0
    for path in files():
        content = read(path)
        count += content is not None
        inside = [needle for needle in needles if needle.encode() in (content or b"")]
        if inside:
            status = path.lstat()
            found[f"{path} {status.st_uid}:{status.st_gid} {stat.S_IMODE(status.st_mode):o}"] = inside
    return {"found": found, "files": count}


def files() -> Iterator[Path]:
    for folder, folders, names in os.walk("/"):
        folders[:] = [name for name in folders if Path(folder, name) not in ELSEWHERE]
        yield from (Path(folder, name) for name in names)


def read(path: Path) -> bytes | None:
    """What is in a file, where it is one and may be read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size > LARGEST_BYTES:
            return None
        try:
            return file.read()
        except OSError:  # of /proc and the like, where the process has gone
            return None


main()
