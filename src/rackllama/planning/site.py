"""The plans of one host of a site: for each model that it is declared to serve, and what its engine is told in all.

Ollama loads one model after another and unloads what is not used, so each is planned as if it were alone.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from rackllama.host.errors import RackllamaError
from rackllama.host.report import Check
from rackllama.planning.hardware import Hardware
from rackllama.planning.plan import MIB, DevicePlan, Plan, Reserve, Wanted
from rackllama.planning.planner import make_plan, room_of
from rackllama.planning.shape import ModelShape
from rackllama.planning.words import amount

# What the site may set itself, and the plan then takes as given.
VISIBLE = "CUDA_VISIBLE_DEVICES"
EXPERTS, SPLIT, SPREAD = "LLAMA_ARG_N_CPU_MOE", "LLAMA_ARG_TENSOR_SPLIT", "OLLAMA_SCHED_SPREAD"
# The planner's remedies name options of `rackllama plan`; in a playbook these are knobs.
KNOBS = (
    (re.compile(r"--kv (\S+)"), r"ollama_kv_cache_type: \1"),
    (re.compile(r"--flash-attention on"), "ollama_flash_attention: true"),
    (re.compile(r"--context (\d+)"), r"context: \1 in its declaration"),
)


@dataclass(frozen=True)
class Told:
    """What the site tells an engine of all its models: `environment` is what it sets beyond its knobs.

    Without `parallel` it is the most that one of the models declares.
    """

    parallel: int | None = None
    cache_type: str = "f16"
    flash_attention: bool = True
    environment: Mapping[str, str] = field(default_factory=dict)
    reserve: Reserve = field(default_factory=Reserve)


@dataclass(frozen=True)
class DeclaredModel:
    """A model as filter `rackllama.llm.models` has it, and its shape."""

    data: Mapping[str, Any]
    shape: ModelShape

    @property
    def parameters(self) -> Mapping[str, Any]:
        """What is declared of it, its overrides among that."""
        return self.data["parameters"]  # type: ignore[no-any-return]


@dataclass(frozen=True)
class HostPlans:
    """The plans of a host's models by slug, and what its engine is told: of each model, and in its environment.

    `checks` tell of each model whether it fits. What does not is told nothing: its engine decides by itself.
    """

    plans: Mapping[str, Plan]
    parameters: Mapping[str, Mapping[str, Any]]
    environment: Mapping[str, str]
    checks: Sequence[Check]

    def as_data(self) -> dict[str, Any]:
        """Plain data for roles."""
        return {
            "plans": {slug: _kept(plan) for slug, plan in self.plans.items()},
            "parameters": {slug: dict(parameters) for slug, parameters in self.parameters.items()},
            "environment": dict(self.environment),
        }


def _kept(plan: Plan) -> dict[str, Any]:
    """What a host keeps of a plan: not what hangs on rates, which move from one converge to another."""
    return {name: value for name, value in plan.as_data().items() if name not in {"landing", "load_seconds"}}


NONE = HostPlans({}, {}, {}, ())


def plan_host(host: Hardware, models: Sequence[DeclaredModel], told: Told) -> HostPlans:
    """Plan all models of a host.

    How a model is split over GPUs, and which experts stay on the host, an Ollama can be told only for all its models.
    Where their plans differ in that, all are planned as a Modelfile can tell it: in whole layers.
    """
    host = _visible(host, told.environment.get(VISIBLE))
    if not told.parallel:
        told = replace(told, parallel=max((int(model.data["parallel"]) for model in models), default=1))
    planned = [_Planned.of(model, host, told) for model in models]
    environment, differing = _environment(planned)
    if {SPLIT, EXPERTS} & differing:
        planned = [_Planned.of(model, host, told, is_classic=True) for model in models]
        environment, _ = _environment(planned)
    made = {one.model.data["slug"]: one for one in planned}
    plans = {slug: one.plan for slug, one in made.items() if one.plan is not None}
    return HostPlans(
        plans=plans,
        parameters={slug: _parameters(made[slug].plan, host) for slug in plans},
        environment=environment,
        checks=[*(one.check for one in planned), *_together(host, list(plans.values()), told.reserve)],
    )


def _visible(host: Hardware, numbers: str | None) -> Hardware:
    """The host with those GPUs that the site lets its engine see, in their order; all where it tells none by number."""
    given = [] if numbers is None else [number.strip() for number in numbers.split(",")]
    if not all(number.isdecimal() and int(number) < len(host.gpus) for number in given):
        return host
    return replace(host, gpus=tuple(host.gpus[int(number)] for number in given)) if given else host


@dataclass(frozen=True)
class _Planned:
    """A model's plan, or why it has none; and the check that tells."""

    model: DeclaredModel
    plan: Plan | None
    check: Check

    @property
    def fits(self) -> bool:
        return self.plan is not None and self.plan.fits

    @property
    def environment(self) -> Mapping[str, str]:
        """What its plan wants in the environment of an Ollama."""
        return {} if self.plan is None else self.plan.settings["ollama"]["environment"]

    @classmethod
    def of(cls, model: DeclaredModel, host: Hardware, told: Told, is_classic: bool = False) -> "_Planned":
        name, size = model.data["name"], sum(shard.get("size") or 0 for shard in model.data["shards"])

        def make(wanted: Wanted) -> Plan:
            return make_plan(model.shape, host, wanted, name, size or None)

        try:
            wanted = _wanted(model, host, told, is_classic)
            free = replace(wanted, num_gpu=None, experts_on_host=None)
            own = plan = make(free)
            if wanted != free and not _chooses(own, wanted):
                plan = make(wanted)
        except RackllamaError as error:
            together = "settings that fit together"
            return cls(model, None, Check(f"plan {name}", False, together, error.message, _in_knobs(error.remedy)))
        return cls(model, plan, _check(plan, own, wanted, told))


def _chooses(plan: Plan, wanted: Wanted) -> bool:
    """Whether a plan chose by itself what the site has declared."""
    pairs = ((wanted.num_gpu, plan.num_gpu), (wanted.experts_on_host, plan.placement.experts_on_host))
    return all(declared in (None, own) for declared, own in pairs)


def _wanted(model: DeclaredModel, host: Hardware, told: Told, is_classic: bool) -> Wanted:
    """What is asked for: as declared, and what nobody declared is for the plan to choose."""
    parameters, num_gpu = model.parameters, _whole(model.parameters, "num_gpu")
    experts = told.environment.get(EXPERTS) if model.shape.is_moe else None
    return Wanted(
        context=_whole(parameters, "num_ctx"),
        parallel=told.parallel or 1,
        key_type=told.cache_type,
        value_type=told.cache_type,
        flash_attention="on" if told.flash_attention else "off",
        micro_batch=_whole(parameters, "num_batch") or Wanted.micro_batch,
        is_classic=is_classic,
        num_gpu=num_gpu if host.gpus and num_gpu is not None and num_gpu >= 0 else None,
        experts_on_host=int(experts) if host.gpus and experts and experts.isdecimal() else None,
        reserve=told.reserve,
    )


def _whole(parameters: Mapping[str, Any], name: str) -> int | None:
    value = parameters.get(name)
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    raise RackllamaError(f"{name} is declared as {value!r}", f"give {name} as a number, in the model's overrides")


def _check(plan: Plan, own: Plan, wanted: Wanted, told: Told) -> Check:
    """Whether the model fits; where it does not for an override alone, as its `own` plan does, that is what is told."""
    doubts = list(plan.doubts)
    if SPLIT in told.environment and len(plan.devices) > 1:
        doubts.append(f"{SPLIT} of the site's own is not what was planned")
    approximate = f" (approximate: {'; '.join(doubts)})" if doubts else ""
    asked = f"a context of {wanted.context} tokens for each of {wanted.parallel} at once, within {_room(plan)}"
    if plan.fits:
        return Check(f"plan {plan.model}", True, asked, _words(plan) + approximate)
    overrides = {
        name: f"{declared} as declared, where the plan's own is {chosen}"
        for name, declared, chosen in (
            ("num_gpu", wanted.num_gpu, own.num_gpu),
            (EXPERTS, wanted.experts_on_host, own.placement.experts_on_host),
        )
        if declared is not None
    }
    forced = "".join(f", with {name} {words}" for name, words in overrides.items()) if own.fits else ""
    remedies = [f"leave out {' and '.join(overrides)}"] if own.fits else [_in_knobs(remedy) for remedy in plan.remedies]
    return Check(
        f"plan {plan.model}",
        False,
        asked,
        f"it does not fit{forced}: {'; '.join(plan.reasons)}{approximate}",
        "; or ".join(remedies) or "choose a smaller model, or a larger host",
    )


def _room(plan: Plan) -> str:
    """What a host has for the model, in words."""
    gpus = sum((device.total_mib or 0) - device.reserved_mib for device in plan.devices) * MIB
    host = amount(max(0, (plan.host.total_mib or 0) - plan.host.reserved_mib) * MIB)
    return f"{amount(gpus)} on {len(plan.devices)} GPUs and {host} of memory" if plan.devices else f"{host} of memory"


def _words(plan: Plan) -> str:
    """A plan in one line."""
    held = [f"{amount(_held_mib(plan.devices) * MIB)} on GPUs"] if plan.devices else []
    held.append(f"{amount(_held_mib([plan.host]) * MIB)} of memory")
    rate = plan.decode_tok_s
    fast = f", {rate.low:.1f} to {rate.high:.1f} tok/s" if rate else ""
    return f"{plan.way.value}: {' and '.join(held)}; room for a context of {plan.max_context}{fast}"


def _held_mib(devices: Sequence[DevicePlan]) -> int:
    return sum(device.weights_mib + device.kv_mib + device.compute_mib for device in devices)


def _in_knobs(remedy: str) -> str:
    for option, knob in KNOBS:
        remedy = option.sub(knob, remedy)
    return remedy


def _parameters(plan: Plan | None, host: Hardware) -> dict[str, Any]:
    """What a Modelfile is told. A host without GPUs is told of none, so that one that gets some needs no change."""
    if plan is None or not plan.fits:
        return {}
    parameters = dict(plan.settings["ollama"]["parameters"])
    if not host.gpus:
        del parameters["num_gpu"]
    return parameters


def _environment(planned: Sequence[_Planned]) -> tuple[dict[str, str], set[str]]:
    """What the plans that fit want alike in the environment of their engine, and the names in which they differ.

    A spread over GPUs that one of them wants, all get: without it theirs would not come about.
    """
    fitting = [one for one in planned if one.fits]
    common, differing = {}, set()
    for name in sorted({name for one in fitting for name in one.environment}):
        # Where a model has no experts, nothing that is told of them matters.
        values = {one.environment.get(name) for one in fitting if name != EXPERTS or one.model.shape.is_moe}
        value = "1" if name == SPREAD else values.pop() if len(values) == 1 else None
        if value is None:
            differing.add(name)
        else:
            common[name] = value
    return common, differing


def _together(host: Hardware, plans: Sequence[Plan], reserve: Reserve) -> Iterator[Check]:
    """A note of what several models take at once: more than there is means that they take turns."""
    if len(plans) < 2:  # noqa: PLR2004 - one alone is no sum
        return
    gpus = sum(_held_mib(plan.devices) for plan in plans)
    memory = sum(_held_mib([plan.host]) for plan in plans)
    room = room_of(host, reserve)
    fits = gpus * MIB <= sum(room.gpus) and (room.host is None or memory * MIB <= room.host)
    what = (
        f"{amount(gpus * MIB)} on GPUs and {amount(memory * MIB)} of memory" if host.gpus else f"{amount(memory * MIB)}"
    )
    how = "all can stay loaded" if fits else "Ollama unloads one to load another"
    yield Check("plan of all models together", True, "told only", f"{len(plans)} models take {what}: {how}")
