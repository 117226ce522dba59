"""A machine that runs already, and is only to be described: nothing is made, changed or destroyed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pulumi

from rackllama.catalog.hardware import parse_gpus
from rackllama.host.errors import RackllamaError
from rackllama.provision.answering import ssh_banner
from rackllama.provision.inventory import GROUPS
from rackllama.provision.outputs import DescribedHost, Ssh

SSH_PORT = 22


@dataclass(frozen=True)
class HostArgs:
    """A host as its owner knows it. `gpus` are written as `8xH100-80GB`, or `none`; `roles` are groups of hosts.

    `key` and `known_hosts` are files of this machine to log in with, or empty.
    """

    name: str
    address: str
    user: str = "ops"
    port: int = SSH_PORT
    gpus: str = "none"
    roles: Sequence[str] = ("serving",)
    key: str = ""
    known_hosts: str = ""

    def __post_init__(self) -> None:
        """Raise RackllamaError for GPUs that the catalogue does not know, and roles that are no group."""
        parse_gpus(self.gpus)
        unknown = sorted(set(self.roles) - set(GROUPS))
        if unknown or not self.roles:
            raise RackllamaError(
                f"{self.name} has the role {', '.join(unknown) or 'of nothing'}", f"use some of: {', '.join(GROUPS)}"
            )

    def described(self, labels: Mapping[str, Any]) -> DescribedHost:
        """As a stack exports it."""
        files = {"key": self.key, "known_hosts": self.known_hosts}
        port = {"port": self.port} if self.port != SSH_PORT else {}
        return DescribedHost(
            name=self.name,
            address=self.address,
            user=self.user,
            gpus=[gpu.name for gpu in parse_gpus(self.gpus)],
            roles=self.roles,
            via=Ssh(),
            labels={"provider": "baremetal", **labels},
            login={**{key: path for key, path in files.items() if path}, **port},
        )


@dataclass(frozen=True)
class ExistingHostArgs:
    """The host, and whether SSH must answer there when the stack is previewed or brought up."""

    host: HostArgs
    require_ssh: bool = True
    labels: Mapping[str, Any] = field(default_factory=dict)


class ExistingHost(pulumi.ComponentResource):
    """A machine that runs already. Attribute: `host`, as stacks export it.

    Costs nothing that it did not cost before. A destroy forgets the machine, and leaves it as it is.
    """

    def __init__(self, name: str, args: ExistingHostArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        """Raise RackllamaError where SSH must answer and does not, in a preview already."""
        super().__init__("rackllama:baremetal:ExistingHost", name, None, opts)
        if args.require_ssh:
            require_answer(args.host)
        self.host = args.host.described(args.labels)
        self.register_outputs({"host": self.host.as_data()})


def require_answer(host: HostArgs) -> None:
    """Raise RackllamaError where no SSH server answers at the host's address."""
    if ssh_banner(host.address, host.port) is None:
        raise RackllamaError(
            f"{host.name} does not answer SSH at {host.address}:{host.port}",
            "see that it runs and can be reached from here, or set `require_ssh: false`",
        )
