"""What is in a stack's state, from what `pulumi stack export` prints: pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

INSTANCE = "aws:ec2/instance:Instance"
VOLUME = "aws:ebs/volume:Volume"


@dataclass(frozen=True)
class Resource:
    """One resource of a stack's state. `stays` says why a destroy leaves it, and is empty where it does not."""

    urn: str
    type: str
    name: str
    id: str
    stays: str = ""
    created: datetime | None = None
    custom: bool = True

    @property
    def words(self) -> str:
        """What it is, for a person."""
        return f"{self.type} {self.name}" + (f" ({self.id})" if self.id else "")


@dataclass(frozen=True)
class State:
    """What a stack's state has: its resources, and `unknown`, whose making was cut off: each may exist all the same."""

    resources: tuple[Resource, ...] = ()
    unknown: tuple[Resource, ...] = ()


def state_of(exported: Mapping[str, Any]) -> State:
    """What is in what `pulumi stack export` prints."""
    pending = (exported.get("deployment") or {}).get("pending_operations") or []
    made = [operation["resource"] for operation in pending if operation["type"] in {"creating", "importing"}]
    unknown = resources_of({"deployment": {"resources": made}})
    return State(tuple(resources_of(exported)), tuple(resource for resource in unknown if resource.custom))


def unknown_words(unknown: Sequence[Resource]) -> str:
    """What may exist, in words, with what to do about it."""
    return "\n".join(
        [
            *(f"  ? {resource.words}: may exist, unknown to the state: look for it" for resource in unknown),
            "  ? once each was looked for, and removed if it is there: pulumi refresh --clear-pending-creates",
        ]
    )


def resources_of(exported: Mapping[str, Any]) -> list[Resource]:
    """The resources in what `pulumi stack export` prints, without the stack itself."""
    entries = (exported.get("deployment") or {}).get("resources") or []
    held = _held_by_protected(entries)

    def why_it_stays(entry: Mapping[str, Any]) -> str:
        if entry.get("protect"):
            return "protected"
        if entry["urn"] in held:
            return "needed by what is protected"
        return "retained" if entry.get("retainOnDelete") else ""

    return [
        Resource(
            urn=entry["urn"],
            type=entry["type"],
            name=entry["urn"].rsplit("::", 1)[-1],
            id=str(entry.get("id") or ""),
            stays=why_it_stays(entry),
            created=datetime.fromisoformat(entry["created"]) if entry.get("created") else None,
            custom=bool(entry.get("custom")) and not entry["type"].startswith("pulumi:providers:"),
        )
        for entry in entries
        if entry["type"] != "pulumi:pulumi:Stack"
    ]


def _held_by_protected(entries: Sequence[Mapping[str, Any]]) -> set[str]:
    """The URNs of all that protected resources depend on, directly or not; Pulumi leaves those out as well."""
    needs = {entry["urn"]: [*(entry.get("dependencies") or []), entry.get("parent")] for entry in entries}
    held: set[str] = set()
    waiting = [entry["urn"] for entry in entries if entry.get("protect")]
    while waiting:
        found = {urn for urn in needs.get(waiting.pop(), []) if urn} - held
        held |= found
        waiting.extend(found)
    return held
