"""A server that is managed by its BMC: on, answering SSH, and with a system installed on it where that is wanted."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, Literal, get_args
from urllib.parse import urlsplit

import pulumi

from rackllama.host.errors import RackllamaError
from rackllama.provision.existing import HostArgs
from rackllama.provision.redfish.act import Limits
from rackllama.provision.redfish.bmc import Bmc
from rackllama.provision.redfish.image import Profile, Source
from rackllama.provision.redfish.media import listening_address
from rackllama.provision.redfish.plan import Consent
from rackllama.provision.redfish.resources import Install, Server

OnDestroy = Literal["leave", "power_off"]


@dataclass(frozen=True)
class PublishedImage:
    """An install image that the BMC fetches from `url`, where somebody serves it. It must power off when it is done."""

    url: str

    def __post_init__(self) -> None:
        """Raise RackllamaError for what BMCs do not fetch."""
        if "@" in urlsplit(self.url).netloc:
            raise RackllamaError(
                "the address of an install image holds a user or a password, which would lie in the state",
                "serve the image to the BMC's network without one",
            )
        if not self.url.startswith(("http://", "https://")):
            raise RackllamaError(f"no BMC is sure to fetch {self.url!r}", "serve the image by HTTP or HTTPS")

    def as_data(self) -> dict[str, Any]:
        """As inputs of a resource hold it."""
        return {"url": self.url}


@dataclass(frozen=True)
class OwnImage:
    """An install image that is made of a distribution's own, and served from `serve_at` for the time of the install."""

    source: Source
    profile: Profile
    serve_at: str

    def __post_init__(self) -> None:
        """Raise RackllamaError unless `serve_at` is one address."""
        listening_address(self.serve_at)

    def as_data(self) -> dict[str, Any]:
        """As inputs of a resource hold it."""
        profile = json.loads(json.dumps(asdict(self.profile)))
        return {
            "iso": str(self.source.path),
            "sha256": self.source.sha256,
            "serve_at": self.serve_at,
            "profile": profile,
        }


@dataclass(frozen=True)
class InstallArgs:
    """A system to install, once: again only where `generation` is counted up. Each time needs a consent to `erase`."""

    image: PublishedImage | OwnImage
    erase: Consent | None = None
    generation: int = 1


@dataclass(frozen=True)
class RedfishServerArgs:
    """A host, its BMC, what to install on it (None: leave what is on its disk), and what a destroy does to it."""

    host: HostArgs
    bmc: Bmc
    install: InstallArgs | None = None
    on_destroy: OnDestroy = "leave"
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        """Raise RackllamaError for an `on_destroy` that is none."""
        if self.on_destroy not in get_args(OnDestroy):
            raise RackllamaError(
                f"{self.host.name} cannot be {self.on_destroy!r} on destroy",
                f"use one of: {', '.join(get_args(OnDestroy))}",
            )


class RedfishServer(pulumi.ComponentResource):
    """A server managed by its BMC. Attributes: `host`, as stacks export it, and `inventory`, what it is made of.

    Costs what the owner pays for its power. A destroy leaves it running, or shuts it down where `on_destroy` is
    `power_off`; what is on its disks survives either way, and nothing erases it without a new consent.
    """

    def __init__(self, name: str, args: RedfishServerArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        """Install where wanted and not yet done, then power on and wait for SSH."""
        super().__init__("rackllama:baremetal:RedfishServer", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        reached = {
            "bmc": args.bmc.as_data(),
            "address": args.host.address,
            "port": args.host.port,
            "limits": asdict(args.limits),
        }
        installed_at: pulumi.Output[str] | None = None
        if args.install:
            what = {
                "media": args.install.image.as_data(),
                "erase": args.install.erase.as_data() if args.install.erase else None,
                "generation": args.install.generation,
            }
            installed_at = Install(f"{name}-install", {**reached, **what}, child).installed_at
        server = Server(name, {**reached, "installed_at": installed_at, "on_destroy": args.on_destroy}, child)
        self.inventory: pulumi.Output[dict[str, Any]] = server.inventory
        # What the BMC does not tell is lost on the way through Pulumi.
        told = {key: self.inventory.apply(partial(_told, key)) for key in ("manufacturer", "model", "serial")}
        self.host = args.host.described(told)
        self.register_outputs({"host": self.host.as_data(), "inventory": self.inventory})


def _told(key: str, inventory: Mapping[str, Any]) -> str:
    return str(inventory.get(key) or "")
