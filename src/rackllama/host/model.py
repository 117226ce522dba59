"""A model on this host, from its shards to the engine that serves it.

What is declared is a job, `/etc/rackllama/models/SLUG.json`; what was done is a record beside the landing's state. The
weights are landed once, become a blob of Ollama by a link, and Ollama then creates the model from them through its own
API, which copies nothing. A model that is there as declared is neither fetched nor read again.
"""

import contextlib
import threading
import time
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional

from .conformance import conformance_checks
from .errors import RackllamaError
from .files import digest, read_json, write_json
from .http_ranges import HttpSettings
from .landing import LandingOptions, StoppedError, land
from .modelfile import ModelSettings
from .ollama import Ollama
from .ollama_store import OllamaStore, StoredModel
from .progress import Progress, read_progress, write_progress
from .shards import Shard, Weights, job_of

JOBS = Path("/etc/rackllama/models")
LANDINGS = Path("/var/lib/rackllama/land")
OLLAMA_URL = "http://127.0.0.1:11434"
RECORD, PROGRESS = "model.json", "progress.json"
BASE = "rackllama/{slug}:landing"  # the bare model that the served one is created from, there only meanwhile
API_SECONDS = 60.0
API_POLL_SECONDS = 0.5


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
        """What the weights are made from: published digests, or where there are none, the addresses."""
        shards = [shard.sha256 or list(shard.sources) for shard in self.weights.shards]
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

    The weights may have been landed for another model.
    """

    record: Mapping[str, Any]
    model: Optional[StoredModel]
    weights: Optional[LandedWeights]


def wanted_model(given: Mapping[str, Any]) -> WantedModel:
    """A model from plain data, as a job holds it; further keys are for others."""
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
    """The steps to do, in order: of `land`, `create` and `try`, those that are needed. Pure."""
    steps = [] if found.weights else ["land"]
    served = found.model.digest if found.model else None
    as_recorded = found.record.get("declaration") == wanted.declaration_digest
    if steps or not as_recorded or served is None or served != found.record.get("manifest"):
        steps.append("create")
    if wanted.tried and ("create" in steps or found.record.get("tried") != wanted.declaration_digest):
        steps.append("try")
    return steps


def found_model(wanted: WantedModel, landings: Path = LANDINGS) -> FoundModel:
    """Look at the records and at the store; the server is not asked, and no weights are read."""
    store = OllamaStore(wanted.store)
    landed = (weights for weights in _landed_weights(landings) if weights.made_from == wanted.weights_digest)
    weights = next((weights for weights in landed if store.has(weights.blob, weights.size)), None)
    return FoundModel(recorded(wanted.slug, landings), store.model(wanted.name), weights)


def recorded(slug: str, landings: Path = LANDINGS) -> Mapping[str, Any]:
    """What the last landing of a model recorded on this host; empty where it was never landed."""
    return read_json(landings / slug / RECORD) or {}


def bring(
    wanted: WantedModel,
    options: LandingOptions,
    on_progress: Callable[[Progress], None] = lambda _: None,
    stop: Optional[threading.Event] = None,
    landings: Path = LANDINGS,
) -> List[str]:
    """Do whatever is needed until the model is served as declared; gives the steps that were done.

    A failure leaves what is served as it was, and keeps what came. Raises RackllamaError, or StoppedError soon after
    `stop` is set. How far it is stands in `progress.json` of the model's folder below `landings`.
    """
    state = landings / wanted.slug
    state.mkdir(parents=True, exist_ok=True)
    with _told(state / PROGRESS, on_progress) as tell:
        store, server = OllamaStore(wanted.store), Ollama(wanted.ollama_url)
        landed_file = store.landing / f"{wanted.slug}.gguf"
        found = found_model(wanted, landings)
        steps, weights = plan(wanted, found), found.weights
        record = {key: found.record[key] for key in ("declaration", "manifest") if key in found.record}
        if not weights:
            store.prepare()
            _require_store_of(server, store, wanted)
            job = job_of(wanted.weights, landed_file, HttpSettings(options.tokens), wanted.slug)
            landed = land(job, landings, options, on_progress, stop)
            weights = LandedWeights(wanted.weights_digest, f"sha256:{landed.sha256}", job.size, landed.verified)
            store.adopt(landed_file, weights.blob)
            _record(wanted, weights, landings)
        if "create" in steps:
            tell("creating")
            manifest = _create(wanted, weights.blob, store, server, stop or threading.Event())
            record = {"declaration": wanted.declaration_digest, "manifest": manifest}
            _record(wanted, weights, landings, **record)
        if landed_file.exists():
            store.release(landed_file)
        if "try" in steps:
            tell("trying")
            _try(wanted, server, store.blob(weights.blob))
            _record(wanted, weights, landings, **record, tried=wanted.declaration_digest)
        tell("served")
        return steps


def _create(wanted: WantedModel, blob: str, store: OllamaStore, server: Ollama, stop: threading.Event) -> str:
    """Let Ollama create the model, and give its digest.

    It is made from a bare one, so that nothing of an earlier declaration is kept, and nothing is copied.
    """
    base = BASE.format(slug=wanted.slug)
    _wait_for(server, stop)
    _require_store_of(server, store, wanted)  # Ollama would look on the Internet for what it has not
    store.write_bare_model(base, blob)
    server.create(wanted.name, {"from": base, **wanted.settings.for_api()})
    server.delete(base)
    return {model.name: model.digest for model in server.models()}[wanted.name]


def _try(wanted: WantedModel, server: Ollama, weights: Path) -> None:
    """Raise RackllamaError where the model is not spoken to as it was taught. It is served all the same."""
    checks = conformance_checks(wanted.name, server, weights, wanted.reasoning)
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


def _wait_for(server: Ollama, stop: threading.Event) -> None:
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
            raise StoppedError("the landing was stopped", "run it again: it goes on from there")


def _record(wanted: WantedModel, weights: LandedWeights, landings: Path, **served: str) -> None:
    record = {"slug": wanted.slug, "name": wanted.name, "weights": asdict(weights), **served}
    write_json(landings / wanted.slug / RECORD, record)


def _landed_weights(landings: Path) -> Iterator[LandedWeights]:
    """All weights that were landed on this host, for whichever model."""
    for record in records(landings):
        yield LandedWeights(**record["weights"])


def records(landings: Path = LANDINGS) -> Iterator[Dict[str, Any]]:
    """What was recorded of each model on this host."""
    for path in sorted(landings.glob(f"*/{RECORD}")):
        record = read_json(path)
        if record:
            yield record


@contextlib.contextmanager
def _told(path: Path, on_progress: Callable[[Progress], None]) -> "Iterator[Callable[[str], None]]":
    """A function that tells of a phase after the landing; what fails is told as well."""

    def tell(phase: str, failure: Optional[RackllamaError] = None) -> None:
        last = read_progress(path) or Progress(phase, 0, 0)
        told = replace(last, phase=phase, rate=0.0, eta_seconds=0.0, error=None, remedy=None)
        if failure:
            told = replace(last, phase=phase, error=failure.message, remedy=failure.remedy)
        write_progress(path, told)
        on_progress(told)

    try:
        yield tell
    except RackllamaError as error:
        tell("stopped" if isinstance(error, StoppedError) else "failed", error)
        raise
