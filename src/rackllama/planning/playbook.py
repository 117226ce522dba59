"""The controller's part of module `model_plans`: from what a host tells of itself to the plans of its models."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from rackllama.host.errors import RackllamaError
from rackllama.host.lander.gguf import Header
from rackllama.host.report import Check, failed, in_words, report
from rackllama.planning.hardware import from_description
from rackllama.planning.header_cache import HeaderCache, default_header_cache
from rackllama.planning.plan import Reserve
from rackllama.planning.shape import read_shape
from rackllama.planning.site import NONE, DeclaredModel, HostPlans, Told, plan_host

CACHE_TYPES = ("f16", "q8_0", "q4_0")  # that Ollama has
YES, NO = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


class Mode(StrEnum):
    """What plans are to a site: what does not fit is refused, or told, or nothing is planned."""

    ENFORCED = "enforced"
    ADVISORY = "advisory"
    NONE = "none"


class SitePlanner:
    """The plans of one host, from the arguments of the module. Raises RackllamaError where one of these is none."""

    def __init__(self, host: str, arguments: Mapping[str, Any], cache: HeaderCache | None = None) -> None:
        self._host = host
        self._mode = _mode(arguments.get("mode", Mode.ENFORCED))
        self._models = list(arguments["models"])
        self._told = Told() if self._mode is Mode.NONE else _told(arguments)
        self._cache = cache or default_header_cache()
        self._headers = {model["slug"]: self._cache.get(host, model["shards"]) for model in self._models}

    @property
    def plans_nothing(self) -> bool:
        """Whether the site wants no plans."""
        return self._mode is Mode.NONE

    def unread(self) -> list[str]:
        """The slugs of the models whose headers are to be read on the host."""
        return [slug for slug, headers in self._headers.items() if headers is None]

    def answer(self, described: Mapping[str, Any], read: Mapping[str, Any]) -> dict[str, Any]:
        """What the module answers, with `shown` for people: of the host's hardware and headers as it told them."""
        checks: list[Check] = []
        declared = []
        for model in self._models:
            try:
                headers = self._headers[model["slug"]] or self._read(model, read[model["slug"]])
                declared.append(DeclaredModel(model, read_shape(headers)))
            except RackllamaError as error:
                wanted = "a header to plan by"
                checks.append(Check(f"plan {model['name']}", False, wanted, error.message, error.remedy))
        try:
            hardware = from_description(described, self._host)
        except RackllamaError as error:
            # Its driver is to be installed yet: planned again when it is there, before anything is landed.
            plans = NONE
            checks += [Check(f"plan {model['name']}", True, "a plan", f"not yet: {error}") for model in self._models]
        else:
            plans = plan_host(hardware, declared, self._told)
        return self._answer(plans, [*checks, *plans.checks], described)

    def nothing(self) -> dict[str, Any]:
        """What the module answers where nothing is planned: so that nothing is left of an earlier answer."""
        return self._answer(NONE, [], {"gpus": []})

    def _answer(self, plans: HostPlans, checks: list[Check], described: Mapping[str, Any]) -> dict[str, Any]:
        document = report(self._host, checks)
        words, broken = in_words(document), failed(document)
        facts = {**plans.as_data(), "gpus": len(described["gpus"])}
        answer = {"changed": False, "report": document, "ansible_facts": {"rackllama_plans": facts}, "shown": words}
        told = "\n".join(line for line in words if not line.startswith("ok"))
        if broken and self._mode is Mode.ENFORCED:
            message = (
                f"plan for {self._host}: {len(broken)} of {len(checks)} checks failed\n{told}\n"
                "rackllama_plan: advisory goes on all the same, and leaves it to the engine what fits"
            )
            return {**answer, "failed": True, "msg": message, "shown": [], "ansible_facts": {}}
        fine = [line for line in words if line.startswith("ok")]
        return {**answer, "shown": fine, "warnings": [f"plan for {self._host}:\n{told}"]} if broken else answer

    def _read(self, model: Mapping[str, Any], told: Mapping[str, Any]) -> list[Header]:
        if "problem" in told:
            raise RackllamaError(told["problem"], f"{told['remedy']}; or plan nothing, with rackllama_plan: none")
        return self._cache.keep(self._host, model["shards"], told["headers"])


def _mode(given: Any) -> Mode:
    try:
        return Mode(str(given))
    except ValueError:
        raise RackllamaError(f"rackllama_plan is {given!r}", f"use one of: {', '.join(Mode)}") from None


def _told(given: Mapping[str, Any]) -> Told:
    """What the site tells of all models."""
    reserve, parallel = given.get("reserve") or {}, given.get("parallel")
    if not isinstance(reserve, Mapping):
        raise RackllamaError(f"rackllama_plan_reserve is {reserve!r}", "give a mapping, as {host_mib: 8192}")
    if parallel is not None and not (str(parallel).isdecimal() and int(parallel)):
        raise RackllamaError(f"ollama_num_parallel is {parallel!r}", "give a number, or leave it out")
    known, cache_type = vars(Reserve()), given.get("kv_cache_type") or Told.cache_type
    if cache_type not in CACHE_TYPES:
        raise RackllamaError(f"ollama_kv_cache_type is {cache_type!r}", f"use one of: {', '.join(CACHE_TYPES)}")
    for name, value in reserve.items():
        if name not in known or not str(value).isdecimal():
            raise RackllamaError(
                f"rackllama_plan_reserve has {name}: {value}", f"give a number of MiB for {', '.join(known)}"
            )
    return Told(
        parallel=None if parallel is None else int(parallel),
        cache_type=cache_type,
        flash_attention=_switch("ollama_flash_attention", given.get("flash_attention", True)),
        environment={name: str(value) for name, value in (given.get("extra_env") or {}).items()},
        reserve=Reserve(**{name: int(value) for name, value in reserve.items()}),
    )


def _switch(name: str, value: Any) -> bool:
    told = str(value).lower()
    if told not in YES + NO:
        raise RackllamaError(f"{name} is {value!r}", "give true or false")
    return told in YES
