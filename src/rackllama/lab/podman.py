"""Podman as a lab uses it: one way to call it, and the settings that this machine's kernel needs, found by trying.

Most machines run podman as it comes. Some refuse its default limits (`error setting rlimit type 7: operation not
permitted`, where the hard limit is lower and cannot be raised), or what its default runtime does. The first settings
that run `true` in the lab's image are kept in a containers.conf, which is there only where the defaults do not do.
"""

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rackllama.host.errors import RackllamaError
from rackllama.lab.machine import as_root, ensure_packages, last_lines, run, say
from rackllama.paths import cache_dir

OLDEST_MAJOR = 4  # the first with netavark, whose networks a lab needs

ANOTHER_MACHINE = "use a machine or virtual machine of its own for the lab"


@dataclass(frozen=True)
class Settings:
    """What podman is to do otherwise than by default. `ulimits` are `name=soft:hard`."""

    ulimits: tuple[str, ...] = ()
    runtime: str = ""

    @property
    def containers_conf(self) -> str:
        """The containers.conf that says so; empty for podman's defaults."""
        # JSON's strings and lists of strings are TOML's as well.
        containers = f"[containers]\ndefault_ulimits = {json.dumps(self.ulimits)}\n" if self.ulimits else ""
        engine = f"[engine]\nruntime = {json.dumps(self.runtime)}\n" if self.runtime else ""
        return containers + engine


def candidates(limits: Mapping[str, int]) -> list[Settings]:
    """The settings to try, in order, from podman's defaults to the most cautious.

    `limits` are the hard limits that a container may have at most, by podman's names.
    """
    ulimits = tuple(f"{name}={limit}:{limit}" for name, limit in limits.items())
    lowered = [Settings(), Settings(ulimits=ulimits)] if ulimits else [Settings()]
    return [*lowered, *(Settings(settings.ulimits, "runc") for settings in lowered)]


def hard_limits(prlimit: str, pid_max: int) -> dict[str, int]:
    """The limits that a container may have at most, by podman's names; unlimited ones are left out.

    `prlimit` is what `prlimit --raw --noheadings --output RESOURCE,HARD` prints. Podman lowers its own number of
    processes to the kernel's `pid_max`, so that no container of its can have more.
    """
    hard = dict(line.lower().split() for line in prlimit.splitlines() if line.strip())
    limits = {name: int(limit) for name, limit in hard.items() if limit != "unlimited"}
    return {**limits, "nproc": min(limits.get("nproc", pid_max), pid_max)}


def containers_conf() -> Path:
    """The file with the settings of this machine's podman; absent where the defaults do."""
    return cache_dir() / "lab" / "containers.conf"


def podman_argv(*arguments: str, conf: Path | None = None) -> list[str]:
    """The command line of a podman command, as root, with the settings that were found (or those in `conf`)."""
    conf = conf or containers_conf()
    environment = ["env", f"CONTAINERS_CONF={conf}"] if conf.exists() else []
    return as_root([*environment, "podman", *arguments])


def podman(*arguments: str, stdin: str | None = None, what: str = "") -> str:
    """Run a podman command and return its stdout; RackllamaError, beginning with `what`, where it fails."""
    return run(podman_argv(*arguments), stdin=stdin, what=what or f"podman {arguments[0]}")


def podman_json(*arguments: str) -> Any:
    """What a podman command prints as JSON. Podman prints nothing, or `null`, for an empty list."""
    return json.loads(podman(*arguments) or "null") or []


def require_podman() -> None:
    """Raise RackllamaError where podman is too old, or cannot even list containers."""
    works = subprocess.run(podman_argv("ps", "--quiet"), capture_output=True, text=True, check=False)
    if works.returncode:
        raise RackllamaError(
            f"podman does not work on this machine: {last_lines(works.stderr, 1)}",
            f"make `sudo podman ps` work, or {ANOTHER_MACHINE}",
        )
    version = podman("version", "--format={{.Client.Version}}").strip()
    if int(version.split(".")[0]) < OLDEST_MAJOR:
        raise RackllamaError(
            f"podman {version} is too old, its networks are not those that a lab needs",
            f"install podman {OLDEST_MAJOR} or newer (Debian 12, Ubuntu 24.04 and their successors have it)",
        )


def detect_settings(image: str) -> None:
    """Find the first settings with which `image` runs, those found before foremost, and keep them.

    Raises RackllamaError with podman's last words where it runs with none.
    """
    conf, trial = containers_conf(), containers_conf().with_suffix(".trial")
    conf.parent.mkdir(parents=True, exist_ok=True)
    if conf.exists() and _refusal(image, conf) is None:
        return
    conf.unlink(missing_ok=True)
    refusal: str | None = "nothing was tried"
    for settings in candidates(_hard_limits()):
        if settings.runtime:
            ensure_packages([settings.runtime])
        trial.write_text(settings.containers_conf, encoding="ascii")
        refusal = _refusal(image, trial if settings.containers_conf else None)
        if refusal is None:
            if settings.containers_conf:
                say(f"podman needs settings of its own here: {', '.join(settings.containers_conf.splitlines())}")
                trial.replace(conf)
            trial.unlink(missing_ok=True)
            return
    trial.unlink()
    raise RackllamaError(
        f"podman cannot run a container on this machine: {refusal}",
        f"make `sudo podman run --rm {image} true` work, or {ANOTHER_MACHINE}",
    )


def _refusal(image: str, conf: Path | None) -> str | None:
    """Why podman does not run `true` in the image with these settings; None where it does."""
    argv = podman_argv("run", "--rm", "--pull=never", "--network=none", image, "true", conf=conf)
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    return None if done.returncode == 0 else last_lines(done.stderr, 1) or f"exit status {done.returncode}"


def _hard_limits() -> dict[str, int]:
    prlimit = run(as_root(["prlimit", "--nofile", "--nproc", "--raw", "--noheadings", "--output", "RESOURCE,HARD"]))
    return hard_limits(prlimit, int(Path("/proc/sys/kernel/pid_max").read_text(encoding="ascii")))
