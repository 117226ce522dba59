"""What is in a stack's state, from what `pulumi stack export` prints: pure."""

from collections.abc import Mapping
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


def resources_of(exported: Mapping[str, Any]) -> list[Resource]:
    """The resources in what `pulumi stack export` prints, without the stack itself and what is about to be deleted."""
    entries = (exported.get("deployment") or {}).get("resources") or []
    return [
        Resource(
            urn=entry["urn"],
            type=entry["type"],
            name=entry["urn"].rsplit("::", 1)[-1],
            id=str(entry.get("id") or ""),
            stays="protected" if entry.get("protect") else "retained" if entry.get("retainOnDelete") else "",
            created=datetime.fromisoformat(entry["created"]) if entry.get("created") else None,
            custom=bool(entry.get("custom")) and not entry["type"].startswith("pulumi:providers:"),
        )
        for entry in entries
        if entry["type"] != "pulumi:pulumi:Stack"
    ]
