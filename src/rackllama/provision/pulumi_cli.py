"""The Pulumi CLI: which one is used, how the pinned one gets here, and what it runs with.

One that suits on PATH is taken; otherwise the pinned one that `rackllama tools` put into the cache. Whoever has chosen
a backend for Pulumi's state keeps it. For whoever has not, state lies in files of this user, encrypted with a
passphrase that is made once and lies beside them.
"""

import json
import os
import platform
import re
import secrets
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from pathlib import Path

import yaml

from rackllama.host.errors import RackllamaError
from rackllama.host.services.release import WantedRelease, carry_out, installed_releases, plan
from rackllama.lab.machine import last_lines
from rackllama.mirror.lock import Lock, find
from rackllama.paths import cache_dir, state_dir

ARTEFACT = "pulumi"
BY_HAND = "install it as https://www.pulumi.com/docs/install/ says, and have `pulumi` on PATH"
_VERSION = re.compile(r"v?(\d+)\.(\d+)\.(\d+)")


@dataclass(frozen=True)
class PulumiCli:
    """A `pulumi` that can be used, and its version as it tells it."""

    path: Path
    version: str

    def __str__(self) -> str:
        return f"pulumi {self.version} at {self.path}"


def find_pulumi(environment: Mapping[str, str], *, runs_programs: bool = True) -> PulumiCli:
    """The `pulumi` on PATH where it suits the SDK, or else the one that `rackllama tools` installed.

    One that `runs_programs` has to suit the SDK; to read what a stack exports, any does. Raises RackllamaError where
    there is none, or only one that does not suit, or no SDK that is needed.
    """
    wanted = sdk_version() if runs_programs else ""
    on_path = shutil.which("pulumi", path=environment.get("PATH"))
    unsuited = ""
    for path in (on_path, shutil.which("pulumi", path=str(tools_folder() / ARTEFACT / "current"))):
        if path:
            cli = PulumiCli(Path(path), told_version(Path(path), environment))
            if suits(cli.version, wanted):
                return cli
            unsuited = unsuited or str(cli)
    if unsuited:
        raise RackllamaError(
            f"{unsuited} does not go with the Pulumi SDK {wanted}, which needs the same major version, and no older",
            f"run: rackllama tools; or {BY_HAND}",
        )
    raise RackllamaError("the Pulumi CLI is not installed", f"run: rackllama tools; or {BY_HAND}")


def sdk_version() -> str:
    """The version of the Pulumi SDK for Python. Raises RackllamaError where it is not installed."""
    try:
        return installed_version("pulumi")
    except PackageNotFoundError as error:
        raise RackllamaError(
            "the Pulumi SDK is not installed beside rackllama, which programs of stacks need",
            "use the checkout's environment: ./bootstrap",
        ) from error


def told_version(path: Path, environment: Mapping[str, str]) -> str:
    """The version that a `pulumi` tells. Raises RackllamaError where it does not run."""
    own = {**environment, "PULUMI_SKIP_UPDATE_CHECK": "true"}
    try:
        told = subprocess.run([str(path), "version"], env=own, capture_output=True, text=True, check=False)
    except OSError as error:
        raise RackllamaError(f"{path} does not run ({error.strerror})", f"remove it; or {BY_HAND}") from error
    if told.returncode:
        raise RackllamaError(f"`{path} version` fails: {last_lines(told.stderr, 1)}", f"remove it; or {BY_HAND}")
    return told.stdout.strip().removeprefix("v")


def suits(version: str, wanted: str) -> bool:
    """Whether a CLI goes with an SDK of the version `wanted`: it is of the same major version, and no older."""
    has, needs = _VERSION.match(version), _VERSION.match(wanted)
    if not has or not needs:
        return True  # one that tells no number was built by hand, and nobody else can judge it
    return has[1] == needs[1] and tuple(map(int, has.groups())) >= tuple(map(int, needs.groups()))


def tools_folder() -> Path:
    """Where tools of this user's are kept: `NAME/VERSION`, and the link `NAME/current`."""
    return cache_dir() / "tools"


def install_pulumi(lock: Lock, mirror: str, root: Path) -> str:
    """Have the pinned CLI under `root`, fetched through `mirror` (if any) and checked. Gives its version.

    Raises RackllamaError where there is no release for this machine, its checksum was never learnt, or it cannot be
    fetched; the remedy then names the other way to get it.
    """
    artefact = find(lock, ARTEFACT)
    try:
        wanted = wanted_release(lock, platform.system(), platform.machine(), mirror, root)
        installed = installed_releases(wanted.home)
        carry_out(wanted, installed, plan(wanted, installed))
    except RackllamaError as error:
        raise RackllamaError(error.message, f"{error.remedy}; or {BY_HAND}") from error
    return artefact.version


def wanted_release(lock: Lock, system: str, machine: str, mirror: str, root: Path) -> WantedRelease:
    """The locked release for a machine. Raises RackllamaError where there is none, or none that could be checked."""
    artefact = find(lock, ARTEFACT)
    if system != "Linux":
        raise RackllamaError(f"the lock has no Pulumi CLI for {system}", "use a machine with Linux")
    file = artefact.file_for(machine)
    return WantedRelease(
        ARTEFACT, artefact.version, file.mirrored(mirror), str(file.sha256), file.size, strip=1, root=root
    )


def pulumi_environment(
    environment: Mapping[str, str], cli: PulumiCli | None = None, project: Path | None = None
) -> dict[str, str]:
    """The environment to run Pulumi in: the given one, with a backend and a passphrase where none was chosen.

    A `project` may choose a backend, too: it is the folder of a Pulumi.yaml.

    With a `cli`, it is the first on PATH, for programs that call `pulumi` themselves.
    """
    found = {**environment, "PULUMI_SKIP_UPDATE_CHECK": "true"}
    if cli:
        given = environment.get("PATH", os.defpath).split(os.pathsep)
        found["PATH"] = os.pathsep.join(dict.fromkeys([str(cli.path.parent), *given]))
    if not chosen_backend(environment, project):
        folder = state_dir() / "stacks"
        found["PULUMI_BACKEND_URL"] = f"file://{folder}"
        if not {"PULUMI_CONFIG_PASSPHRASE", "PULUMI_CONFIG_PASSPHRASE_FILE"} & environment.keys():
            found["PULUMI_CONFIG_PASSPHRASE_FILE"] = str(_passphrase(folder))
    return found


def chosen_backend(environment: Mapping[str, str], project: Path | None = None) -> str:
    """Where Pulumi's state is kept: by the environment, Pulumi.yaml or a login, as Pulumi asks them in this order.

    Empty where nothing was chosen.
    """
    named = environment.get("PULUMI_BACKEND_URL") or (_backend_of(project) if project else "")
    if named:
        return named
    home = (
        environment.get("PULUMI_CREDENTIALS_PATH")
        or environment.get("PULUMI_HOME")
        or str(Path(environment.get("HOME", "~")).expanduser() / ".pulumi")
    )
    try:
        login = json.loads((Path(home) / "credentials.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        login = {}
    return str(login.get("current") or "") or ("app.pulumi.com" if environment.get("PULUMI_ACCESS_TOKEN") else "")


def _backend_of(project: Path) -> str:
    try:
        described = yaml.safe_load((project / "Pulumi.yaml").read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError):
        return ""  # Pulumi itself will say what is wrong with it
    backend = described.get("backend") if isinstance(described, dict) else None
    return str(backend.get("url") or "") if isinstance(backend, dict) else ""


def _passphrase(folder: Path) -> Path:
    """The file with the passphrase of this user's stacks: made once, and readable by nobody else."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = folder / "passphrase"
    if not path.exists():
        new = folder / f".passphrase.{secrets.token_hex(4)}"
        new.touch(mode=0o600)
        new.write_text(secrets.token_urlsafe(32), encoding="ascii")
        try:
            path.hardlink_to(new)  # unlike a rename, it never replaces one that another run has made meanwhile
        except FileExistsError:
            pass
        finally:
            new.unlink()
    return path
