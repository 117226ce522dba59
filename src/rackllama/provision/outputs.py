"""What every stack exports, whoever makes its hosts: one schema, which `inventory` and `rackllama stack` read.

Values may be Pulumi outputs; this module needs no Pulumi, so that whoever only reads the schema does without.

    {"hosts": [{"name": "gpu1", "address": "10.0.1.12", "user": "ubuntu", "gpus": ["H100-80GB"], "roles": ["serving"],
                "via": {"kind": "session-manager", "instance": "i-0a1", "region": "us-east-1"},
                "labels": {"provider": "aws", "zone": "us-east-1a"}, "login": {}, "console": {"kind": "aws", ...},
                "variables": {}}],
     "plan": {"model": "DeepSeek-R1-UD-IQ1_M", "instance": "p5.48xlarge", "fits": true, ...} or null,
     "costs": [{"what": "host gpu1, p5.48xlarge", "usd": 55.04, "unit": "hour", "survives_destroy": false, ...}]}
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Unit = Literal["hour", "month", "GB"]


@dataclass(frozen=True)
class Ssh:
    """The host is reached at its address."""

    def as_data(self) -> dict[str, Any]:
        """As the schema has it."""
        return {"kind": "ssh"}


@dataclass(frozen=True)
class SessionManager:
    """The host is reached by SSH through AWS Session Manager, and needs no open port."""

    instance: Any
    region: str

    def as_data(self) -> dict[str, Any]:
        """As the schema has it."""
        return {"kind": "session-manager", "instance": self.instance, "region": self.region}


@dataclass(frozen=True)
class DescribedHost:
    """One host as a stack exports it.

    `gpus` are names of the catalogue, one for each GPU; `roles` are groups of `inventory.GROUPS`. `labels` are what
    `keyed_groups` may group by. `login` may name files of this machine, `key` and
    `known_hosts`, and a `port` of SSH other than 22. `console` tells where
    its console log is read: `{"kind": "aws", "instance", "region"}`, `{"kind": "podman", "container"}` or empty.
    `variables` are further variables of Ansible's for this host; nothing secret belongs there.
    """

    name: str
    address: Any
    user: str
    gpus: Sequence[str]
    roles: Sequence[str]
    via: Ssh | SessionManager = Ssh()
    labels: Mapping[str, Any] = field(default_factory=dict)
    login: Mapping[str, Any] = field(default_factory=dict)
    console: Mapping[str, Any] = field(default_factory=dict)
    variables: Mapping[str, Any] = field(default_factory=dict)

    def as_data(self) -> dict[str, Any]:
        """As the schema has it."""
        return {
            "name": self.name,
            "address": self.address,
            "user": self.user,
            "gpus": list(self.gpus),
            "roles": list(self.roles),
            "via": self.via.as_data(),
            "labels": dict(self.labels),
            "login": dict(self.login),
            "console": dict(self.console),
            "variables": dict(self.variables),
        }


@dataclass(frozen=True)
class Cost:
    """What something costs: US dollars for each `unit`, or None where no price is known, and `note` says why.

    `survives_destroy` tells that it stays, and is billed on, when the stack is gone; `id` then says what to look for.
    """

    what: str
    usd: float | None
    unit: Unit
    survives_destroy: bool = False
    id: Any = ""
    note: str = ""


def export_stack(
    export: Callable[[str, Any], None],
    hosts: Iterable[DescribedHost],
    plan: Mapping[str, Any] | None = None,
    costs: Iterable[Cost] = (),
) -> None:
    """Export all that a stack has to tell, each by `export`, which is `pulumi.export`."""
    export("hosts", [host.as_data() for host in hosts])
    export("plan", None if plan is None else dict(plan))
    export("costs", [dict(vars(cost)) for cost in costs])
