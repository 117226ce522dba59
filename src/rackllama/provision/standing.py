"""What is up, what it costs an hour and since when, from stacks' states and outputs: pure."""

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from rackllama.provision.state import Resource, State, unknown_words


@dataclass(frozen=True)
class Standing:
    """A stack that is up: its hosts, what it costs an hour, and since when, where its state tells.

    `usd_so_far` is what it came to if all of it ran all the time since: not more than that. `unknown` is what may exist
    beside it. `gone` are hosts that the outputs name still and the state has no more, as after a destroy that left
    something protected: what such outputs say of costs is not believed.
    """

    stack: str
    name: str
    resources: int
    hosts: tuple[str, ...] = ()
    usd_per_hour: float | None = None
    since: datetime | None = None
    usd_so_far: float | None = None
    unknown: tuple[Resource, ...] = ()
    gone: tuple[str, ...] = ()

    def as_data(self) -> dict[str, Any]:
        """As plain data."""
        return {
            **asdict(self),
            "hosts": list(self.hosts),
            "gone": list(self.gone),
            "since": self.since and self.since.isoformat(),
            "unknown": [one.words for one in self.unknown],
        }


def standing(stack: tuple[str, str], state: State, outputs: Mapping[str, Any], now: datetime) -> Standing:
    """What there is of a stack, named by project and stack, at the time `now`."""
    real = [resource for resource in state.resources if resource.custom]
    created = {resource.id: resource.created for resource in real if resource.created}
    since = min((resource.created for resource in real if resource.created), default=None)
    hourly = [cost for cost in outputs.get("costs") or [] if cost.get("unit") == "hour"]
    known = [cost for cost in hourly if cost.get("usd") is not None]
    gone = [host for host in outputs.get("hosts") or [] if _is_gone(host, {resource.id for resource in real})]
    all_known = bool(real) and not gone and "costs" in outputs and len(known) == len(hourly)
    so_far = [float(cost["usd"]) * hours(created.get(cost.get("id") or "", since), now) for cost in known]
    return Standing(
        *stack,
        resources=len(real),
        hosts=tuple(f"{host['name']} {host['address']}" for host in outputs.get("hosts") or [] if host not in gone),
        usd_per_hour=sum(float(cost["usd"]) for cost in known) if all_known else None,
        since=since,
        usd_so_far=sum(so_far) if since and all_known else None,
        unknown=state.unknown,
        gone=tuple(host["name"] for host in gone),
    )


def _is_gone(host: Mapping[str, Any], ids: Collection[str]) -> bool:
    """Whether a host is an instance that the state does not have."""
    instance = (host.get("console") or {}).get("instance")
    return bool(instance) and instance not in ids


def hours(since: datetime | None, now: datetime) -> float:
    """The hours from then to now; none where it is not known since when."""
    return max(0.0, (now - since).total_seconds() / 3600) if since else 0.0


def standing_words(found: Standing) -> str:
    """A stack in one line, and one more for each host."""
    doubtful = [unknown_words(found.unknown)] if found.unknown else []
    if not found.resources and not doubtful:
        return f"{found.stack} ({found.name}): down"
    older = [f"  gone, and named by outputs older than the state: {', '.join(found.gone)}"] if found.gone else []
    price = "price not known" if found.usd_per_hour is None else f"{found.usd_per_hour:.2f} $ an hour"
    since = f", since {found.since:%Y-%m-%d %H:%M} UTC" if found.since else ""
    so_far = f", at most {found.usd_so_far:.2f} $ so far" if found.usd_so_far is not None else ""
    head = f"{found.stack} ({found.name}): resources: {found.resources}, {price}{since}{so_far}"
    return "\n".join([head, *(f"  {host}" for host in found.hosts), *older, *doubtful])
