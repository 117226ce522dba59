"""Which HAProxy a host has, or would get as a package, and whether it can be the gateway.

Asked twice: before anything is changed, where the package's version may be known already, and once it is installed.
"""

import re
import shutil
from dataclasses import dataclass
from typing import FrozenSet, List, Optional, Tuple

from .. import systemd
from ..report import Check

PROGRAM = "/usr/sbin/haproxy"
OLDEST = (2, 4)  # it reads whole requests (wait-for-body)
FEATURES = frozenset({"LUA", "OPENSSL", "PROMEX"})
SHOWN_VERSION = re.compile(r"^HA-?Proxy version (\S+)", re.MULTILINE)
SHOWN_FEATURES = re.compile(r"^Feature list : (.*)$", re.MULTILINE)
CANDIDATE = re.compile(r"^\s*Candidate: (\S+)", re.MULTILINE)
NEWER = (
    "use a newer release of the distribution (Debian 12, Ubuntu 22.04 and RHEL 9 have one), or add a package repository"
    " with HAProxy 2.4 or newer"
)
OTHER_BUILD = "put the distribution's own package in place of this build"


@dataclass(frozen=True)
class Build:
    """A version, and what it was built with; None where it is not installed, and so nobody can say."""

    version: str
    features: Optional[FrozenSet[str]] = None

    @property
    def numbers(self) -> Tuple[int, ...]:
        """The first two numbers of the version, without the epoch of a package."""
        return tuple(int(number) for number in re.findall(r"\d+", self.version.rpartition(":")[2])[:2])


def installed_build(shown: str) -> Build:
    """The build that `haproxy -vv` shows."""
    version, features = SHOWN_VERSION.search(shown), SHOWN_FEATURES.search(shown)
    words = features[1].split() if features else []
    return Build(version[1] if version else "unknown", frozenset(word[1:] for word in words if word.startswith("+")))


def candidate_build(policy: str) -> Optional[Build]:
    """What apt would install, as `apt-cache policy` says; None where it knows of none."""
    found = CANDIDATE.search(policy)
    return Build(found[1]) if found and found[1] != "(none)" else None


def checks(build: Optional[Build]) -> List[Check]:
    """Whether a build can be the gateway; where none is known yet, there is nothing to say."""
    if build is None:
        return []
    found = [Check("haproxy version", build.numbers >= OLDEST, "2.4 or newer", build.version, NEWER)]
    if build.features is not None:
        missing = ", ".join(sorted(FEATURES - build.features))
        built = f"built without {missing}" if missing else "built with all of them"
        found.append(Check("haproxy features", not missing, ", ".join(sorted(FEATURES)), built, OTHER_BUILD))
    return found


def build_here() -> Optional[Build]:
    """The build that is installed on this host or, where there is none, the one that apt would install."""
    if shutil.which(PROGRAM):
        return installed_build(systemd.run(PROGRAM, "-vv").stdout)
    if shutil.which("apt-cache"):
        return candidate_build(systemd.run("env", "LC_ALL=C", "apt-cache", "policy", "haproxy", check=False).stdout)
    return None
