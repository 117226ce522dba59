"""A model on this host, from its shards to the engine that serves it.

What is declared is a job, `/etc/rackllama/models/SLUG.json`; what was done is a record beside the landing's state. The
weights are landed once, become a blob of Ollama by a link, and Ollama then creates the model from them through its own
API, which copies nothing. A model that is there as declared is neither fetched nor read again.
"""

import contextlib
import os
import time
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional

from ..errors import RackllamaError
from ..files import digest, read_json, write_json
from ..lander.http_ranges import HttpSettings
from ..lander.landing import Landed, LandingOptions, is_landed, land, remove_unfinished, unfinished
from ..lander.landing_job import SLUG, LandingJob
from ..lander.progress import Progress, read_progress, write_progress
from ..lander.shards import HeaderReading, Shard, Weights, job_of, land_layout
from ..stop import Stop, StoppedError
from .conformance import conformance_checks
from .modelfile import ModelSettings
from .ollama import Ollama
from .ollama_store import DIGEST, OllamaStore, StoredModel, full_name
from .plan_files import plan_of
from .planned import with_advice

JOBS = Path("/etc/rackllama/models")
LANDINGS = Path("/var/lib/rackllama/land")
OLLAMA_URL = "http://127.0.0.1:11434"
RECORD, PROGRESS = "model.json", "progress.json"
BASE = "rackllama/{slug}:landing"  # the bare model that the served one is created from, there only meanwhile
API_SECONDS = 120.0
API_POLL_SECONDS = 0.5
HEADER_PATIENCE_SECONDS = 120.0
HEADER_TIMEOUT_SECONDS = 20.0  # less than systemd waits for a unit to stop
LONGEST_SLUG = 80


@dataclass(frozen=True)
class WantedModel:
    """A model to be served under `name`, by the Ollama at `ollama_url` that keeps its models in `store`.

    `tried` says whether it is to be shown that it is spoken to as it was taught; a `reasoning` model must think then.
    """

    slug: str
    name: str
    weights: Weights
    settings: ModelSettings
    store: Path
    ollama_url: str = OLLAMA_URL
    reasoning: bool = False
    tried: bool = True

    @property
    def weights_digest(self) -> str:
        """What the weights are made from: published digests, or where there are none, the addresses and versions."""
        shards = [shard.sha256 or [shard.sources[0], shard.size, shard.version] for shard in self.weights.shards]
        return digest([shards, self.weights.drop_split_keys])

    @property
    def declaration_digest(self) -> str:
        """What the whole model is made from."""
        return digest([self.name, self.weights_digest, self.settings.for_api(), self.reasoning])


@dataclass(frozen=True)
class LandedWeights:
    """Weights that were landed: what they were made from, their blob (`sha256:…`), and its size in bytes."""

    made_from: str
    blob: str
    size: int
    verified: bool


@dataclass(frozen=True)
class FoundModel:
    """What is there: the record of the last landing, the model as Ollama has it, and its weights in the store.

    The weights may have been landed for another model. `unfinished` says that a landing left something behind.
    """

    record: Mapping[str, Any]
    model: Optional[StoredModel]
    weights: Optional[LandedWeights]
    unfinished: bool = False


def wanted_model(given: Mapping[str, Any]) -> WantedModel:
    """A model from plain data, as a job holds it; further keys are for others. Raises RackllamaError for bad names."""
    if not SLUG.fullmatch(given["slug"]) or len(given["slug"]) > LONGEST_SLUG:
        raise RackllamaError(f"{given['slug']!r} is no slug", "use small letters, digits, dots and single dashes")
    full_name(given["name"])
    shards = tuple(
        Shard(shard["name"], tuple(shard["sources"]), shard.get("size"), shard.get("sha256"))
        for shard in given["shards"]
    )
    settings = {field.name: given[field.name] for field in fields(ModelSettings) if field.name in given}
    return WantedModel(
        slug=given["slug"],
        name=given["name"],
        weights=Weights(shards, given.get("drop_split_keys", False), given.get("sha256")),
        settings=ModelSettings(**settings),
        store=Path(given["store"]),
        ollama_url=given.get("ollama_url", OLLAMA_URL),
        reasoning=given.get("reasoning", False),
        tried=given.get("tried", True),
    )


def plan(wanted: WantedModel, found: FoundModel) -> List[str]:
    """The steps to do, in order: of `land`, `create`, `tidy` and `try`, those that are needed. Pure."""
    steps = [] if found.weights else ["land"]
    served = found.model.digest if found.model else None
    as_recorded = found.record.get("declaration") == wanted.declaration_digest
    if not found.weights or not as_recorded or served is None or served != found.record.get("manifest"):
        steps.append("create")
    if not steps and found.unfinished:
        steps.append("tidy")
    if wanted.tried and ("create" in steps or found.record.get("tried") != wanted.declaration_digest):
        steps.append("try")
    return steps


def found_model(wanted: WantedModel, landings: Path = LANDINGS) -> FoundModel:
    """Look at the records and at the store; the server is not asked, and no weights are read."""
    store = OllamaStore(wanted.store)
    landed = (weights for weights in _landed_weights(landings) if weights.made_from == wanted.weights_digest)
    weights = next((weights for weights in landed if store.has(weights.blob, weights.size)), None)
    left = bool(unfinished(wanted.slug, store.landing)) or _landed_file(wanted).exists()
    return FoundModel(recorded(wanted.slug, landings), store.model(wanted.name), weights, left)


def recorded(slug: str, landings: Path = LANDINGS) -> Mapping[str, Any]:
    """What the last landing of a model recorded on this host; empty where it was never landed."""
    record = read_json(landings / slug / RECORD)
    return record if isinstance(record, dict) else {}


def bring(
    wanted: WantedModel,
    options: LandingOptions,
    on_progress: Callable[[Progress], None] = lambda _: None,
    stop: Optional[Stop] = None,
    landings: Path = LANDINGS,
) -> List[str]:
    """Do whatever is needed until the model is served as declared; gives the steps that were done.

    A failure leaves what is served as it was, and keeps what came. Raises RackllamaError, or StoppedError soon after
    `stop` is set. How far it is stands in `progress.json` of the model's folder below `landings`.
    """
    state = landings / wanted.slug
    state.mkdir(parents=True, exist_ok=True)
    stop = stop or Stop()
    with _told(wanted, state / PROGRESS, on_progress) as tell:
        store, server = OllamaStore(wanted.store), Ollama(wanted.ollama_url)
        found = found_model(wanted, landings)
        steps, weights = plan(wanted, found), found.weights
        done = {key: found.record[key] for key in ("declaration", "manifest") if key in found.record}
        if weights:
            remove_unfinished(wanted.slug, landings, store.landing)
        else:
            store.prepare()
            _require_store_of(server, store, wanted)
            tell("reading")
            weights = _land(wanted, options, on_progress, stop, landings)
            store.adopt(_landed_file(wanted), weights.blob)
            _record(wanted, weights, landings)
        if "create" in steps:
            tell("creating")
            _wait_for(server, stop)
            if _landed_file(wanted).exists():  # a server that started meanwhile may have pruned the blob
                store.adopt(_landed_file(wanted), weights.blob)
            with stop.interrupting():
                manifest = _create(wanted, weights.blob, store, server)
            done = {"declaration": wanted.declaration_digest, "manifest": manifest}
            _record(wanted, weights, landings, **done)
        if _landed_file(wanted).exists():
            store.release(_landed_file(wanted))
        if "try" in steps:
            tell("trying")
            with stop.interrupting():
                _try(wanted, server, store.blob(weights.blob))
            _record(wanted, weights, landings, **done, tried=wanted.declaration_digest)
        tell("served")
        return steps


def _land(
    wanted: WantedModel,
    options: LandingOptions,
    on_progress: Callable[[Progress], None],
    stop: Stop,
    landings: Path,
) -> LandedWeights:
    """Land the weights beside the store's blobs; what an earlier declaration left there is removed."""

    def make_job(reading: HeaderReading) -> LandingJob:
        return job_of(wanted.weights, _landed_file(wanted), reading, wanted.slug)

    def land_job(job: LandingJob) -> Landed:
        if not is_landed(job, landings):
            _landed_file(wanted).unlink(missing_ok=True)
        return land(job, landings, options, on_progress, stop)

    settings = HttpSettings(options.tokens, HEADER_TIMEOUT_SECONDS, options.floor)
    reading = HeaderReading(settings, min(options.patience_seconds, HEADER_PATIENCE_SECONDS), stop)
    job, landed = land_layout(make_job, land_job, reading)
    return LandedWeights(wanted.weights_digest, f"sha256:{landed.sha256}", job.size, landed.verified)


def _landed_file(wanted: WantedModel) -> Path:
    """Where weights are whole and not a blob yet."""
    return OllamaStore(wanted.store).landing / f"{wanted.slug}.gguf"


def _create(wanted: WantedModel, blob: str, store: OllamaStore, server: Ollama) -> str:
    """Let Ollama create the model, and give its digest.

    It is made from a bare one, so that nothing of an earlier declaration is kept, and nothing is copied.
    """
    _require_store_of(server, store, wanted)  # Ollama would look on the Internet for what it has not
    base = BASE.format(slug=wanted.slug)
    store.write_bare_model(base, blob)
    try:
        server.create(wanted.name, {"from": base, **wanted.settings.for_api()})
    finally:
        store.remove_bare_model(base)
    served = store.model(wanted.name)
    if not served:
        raise RackllamaError(f"{wanted.name} was created and is not in {store.root}", "see: journalctl -u ollama")
    return served.digest


def _try(wanted: WantedModel, server: Ollama, weights: Path) -> None:
    """Raise RackllamaError where the model is not spoken to as it was taught. It is served all the same."""
    checks = with_advice(conformance_checks(wanted.name, server, weights, wanted.reasoning), plan_of(wanted.slug))
    failed = [check for check in checks if not check.ok]
    if failed:
        raise RackllamaError(
            "; ".join(f"{check.id}: wanted {check.wanted}, found {check.found}" for check in failed),
            "; ".join(dict.fromkeys(check.remedy for check in failed)),
        )


def _require_store_of(server: Ollama, store: OllamaStore, wanted: WantedModel) -> None:
    """Raise RackllamaError where the server keeps its models elsewhere. One that does not answer may do so later."""
    probe = BASE.format(slug=wanted.slug)
    store.write_bare_model(probe)
    try:
        names = [model.name for model in server.models()]
    except RackllamaError:
        return
    finally:
        store.remove_bare_model(probe)
    if probe not in names:
        raise RackllamaError(
            f"the Ollama at {server.url} does not keep its models in {store.root}",
            "give the folder that its OLLAMA_MODELS names",
        )


def _wait_for(server: Ollama, stop: Stop) -> None:
    """Wait until the server answers: after a boot it may still be starting."""
    deadline = time.monotonic() + API_SECONDS
    while True:
        try:
            server.models()
        except RackllamaError:
            if time.monotonic() > deadline:
                raise
        else:
            return
        if stop.wait(API_POLL_SECONDS):
            raise StoppedError


def _record(wanted: WantedModel, weights: LandedWeights, landings: Path, **served: str) -> None:
    record = {"slug": wanted.slug, "name": wanted.name, "weights": asdict(weights), **served}
    write_json(landings / wanted.slug / RECORD, record)


def _landed_weights(landings: Path) -> Iterator[LandedWeights]:
    """All weights that were landed on this host, for whichever model; what is damaged was not."""
    for record in records(landings):
        weights = record.get("weights")
        values = [weights.get(field.name) for field in fields(LandedWeights)] if isinstance(weights, dict) else []
        made_from, blob, size, verified = values or (None, None, None, None)
        if isinstance(made_from, str) and DIGEST.fullmatch(str(blob)) and isinstance(size, int):
            yield LandedWeights(made_from, str(blob), size, bool(verified))


def records(landings: Path = LANDINGS) -> Iterator[Dict[str, Any]]:
    """What was recorded of each model on this host."""
    for path in sorted(landings.glob(f"*/{RECORD}")):
        record = read_json(path)
        if isinstance(record, dict):
            yield record


@contextlib.contextmanager
def _told(wanted: WantedModel, path: Path, on_progress: Callable[[Progress], None]) -> Iterator[Callable[[str], None]]:
    """A function that tells of a phase around the landing; what fails is told as well."""
    total = sum(shard.size or 0 for shard in wanted.weights.shards)

    def tell(phase: str, failure: Optional[RackllamaError] = None) -> None:
        last = read_progress(path, os.getpid()) or Progress(phase, 0, total)
        told = replace(last, phase=phase, rate=0.0, eta_seconds=None, error=None, remedy=None)
        if failure:
            told = replace(told, error=failure.message, remedy=failure.remedy)
        write_progress(path, told)
        on_progress(told)

    try:
        yield tell
    except RackllamaError as error:
        tell("stopped" if isinstance(error, StoppedError) else "failed", error)
        raise
    except OSError as error:
        where = error.filename or wanted.store
        failure = RackllamaError(
            f"{wanted.name} cannot be put into {wanted.store} ({error.strerror or error}: {where})",
            "repair the file system or its permissions, or run as its owner, and run again: what came is kept",
        )
        tell("failed", failure)
        raise failure from error
