"""The unit that brings a model to where it is served, `rackllama-land@SLUG`, as seen by whoever started it.

It works on when the connection or the play that started it is gone, and at each boot it looks whether something is
left to do. What it is to do stands in its job.
"""

import contextlib
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional

from .. import systemd
from ..errors import RackllamaError
from ..files import as_owner_of, json_text, name_atomically, read_json, read_text, write_atomically
from ..lander.landing import unfinished
from ..lander.progress import Progress, read_progress
from ..module import difference
from . import plan_files
from .model import JOBS, LANDINGS, PROGRESS, FoundModel, WantedModel, found_model, plan
from .modelfile import render
from .ollama import Ollama
from .ollama_store import OllamaStore

POLL_SECONDS = 0.2
RUNNING = ("activating", "active", "reloading", "deactivating")


@dataclass(frozen=True)
class JobFile:
    """A file that says what is to be landed, before and after."""

    path: Path
    before: str
    after: str

    def diff(self) -> Dict[str, str]:
        """For Ansible's `--diff`."""
        return difference(self.before.splitlines(), self.after.splitlines(), header=str(self.path))


def unit_of(slug: str) -> str:
    """The name of a model's unit."""
    return f"rackllama-land@{slug}.service"


def changed_files(wanted: WantedModel, job: Mapping[str, Any]) -> List[JobFile]:
    """The job and, for people, the Modelfile: those that are not on this host as they ought to be."""
    texts = {
        JOBS / f"{wanted.slug}.json": json_text(job),
        JOBS / f"{wanted.slug}.Modelfile": render(wanted.weights.shards[0].name, wanted.settings),
    }
    files = [JobFile(path, read_text(path) or "", after) for path, after in texts.items()]
    return [file for file in files if file.before != file.after]


def write(files: List[JobFile], wanted: WantedModel, link: Optional[Path]) -> None:
    """Put the files in place. Another name of the weights that the job before had given is taken away."""
    before = jobs().get(wanted.slug, {}).get("link")
    if before and Path(before) != link:
        Path(before).unlink(missing_ok=True)
    for file in files:
        write_atomically(file.path, file.after)


def needed(wanted: WantedModel, link: Optional[Path]) -> List[str]:
    """The steps that a model needs on this host: the unit's, and `link`."""
    found = found_model(wanted)
    return plan(wanted, found) + (["link"] if link and not _is_name_of(link, wanted, found) else [])


def is_running(slug: str) -> bool:
    """Whether the unit works."""
    return systemd.active_state(unit_of(slug)) in RUNNING


def stop(slug: str) -> None:
    """Let the unit leave off; what came is kept."""
    systemd.run("systemctl", "stop", unit_of(slug))


def start(slug: str) -> None:
    """Let the unit do its job as it stands now, and go on with it after a reboot."""
    unit = unit_of(slug)
    systemd.run("systemctl", "reset-failed", unit, check=False)
    systemd.run("systemctl", "enable", unit)
    systemd.run("systemctl", "start", unit)


def wait(slug: str, seconds: float) -> None:
    """Wait until the unit ends, at most so long."""
    deadline = time.monotonic() + seconds
    while is_running(slug) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)


def progress(slug: str) -> Optional[Progress]:
    """How far the last run of the unit is, or was."""
    return read_progress(LANDINGS / slug / PROGRESS, systemd.last_pid(unit_of(slug)))


def require_served(wanted: WantedModel) -> None:
    """Raise RackllamaError where the unit ended and something is left to do: with its own words, or its journal."""
    left = plan(wanted, found_model(wanted))
    if not left:
        return
    told = progress(wanted.slug)
    if told and told.error:
        raise RackllamaError(told.error, told.remedy or "see its journal")
    unit = unit_of(wanted.slug)
    raise RackllamaError(
        f"{unit} ended with this left to do: {', '.join(left)}. Its journal ends:\n{systemd.journal(unit).rstrip()}\n",
        f"mend what the journal names and converge again; more of it: journalctl -u {unit}",
    )


def _is_name_of(link: Path, wanted: WantedModel, found: FoundModel) -> bool:
    """Whether the weights have this name as well, for other engines."""
    try:
        return found.weights is not None and link.samefile(OllamaStore(wanted.store).blob(found.weights.blob))
    except OSError:
        return False


def link_weights(wanted: WantedModel, link: Path) -> None:
    """Give landed weights another name; what was there is replaced in one step.

    Not by the unit: in its sandbox each folder is a mount of its own, and no link leads from one to another.
    """
    weights = found_model(wanted).weights
    if not weights:
        raise RackllamaError(f"the weights of {wanted.name} are gone", "converge again: playbooks/site.yml")
    try:
        blob = OllamaStore(wanted.store).blob(weights.blob)
        name_atomically(blob, link, temporary=link.with_name(f".{link.name}.new"))
    except OSError as error:
        raise RackllamaError(
            f"{link} cannot be made a name of {wanted.name} ({error.strerror})",
            f"choose a gguf_model_link_dir on the file system of {wanted.store}",
        ) from error


def jobs() -> Dict[str, Dict[str, Any]]:
    """The jobs on this host, by the slug of the model."""
    found = {path.stem: read_json(path) for path in sorted(JOBS.glob("*.json"))}
    return {slug: job for slug, job in found.items() if isinstance(job, dict)}


def remove(slug: str, job: Mapping[str, Any]) -> None:
    """Remove a model: from its engine, and all that was written for it. Blobs of other models stay."""
    store, name = OllamaStore(Path(job["store"])), str(job["name"])
    systemd.run("systemctl", "disable", "--now", unit_of(slug))
    if store.root.is_dir():
        with as_owner_of(store.root):
            (store.landing / f"{slug}.gguf").unlink(missing_ok=True)
            store.remove(name)
            for path in unfinished(slug, store.landing):
                path.unlink()
    with contextlib.suppress(RackllamaError):  # a server that does not answer holds nothing in memory
        Ollama(job["ollama_url"]).unload(name)
    if (LANDINGS / slug).is_dir():
        with as_owner_of(LANDINGS):
            shutil.rmtree(LANDINGS / slug)
    for path in [*([Path(job["link"])] if job.get("link") else []), JOBS / f"{slug}.Modelfile"]:
        path.unlink(missing_ok=True)
    plan_files.remove(slug)
    (JOBS / f"{slug}.json").unlink()  # last: what was interrupted is found again
