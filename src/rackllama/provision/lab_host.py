"""Hosts of a lab as a resource of Pulumi's: containers on this machine, kept by a stack as a cloud's hosts are.

`rackllama.lab` stays the one maker of lab hosts, and a lab is what it makes, so that a lab is the resource, and its
hosts are attributes. Which hosts there are is asked of podman each time; each carries the name of its stack as a label,
so that a lab of the same name that a person made is neither taken over nor removed.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pulumi
from pulumi.dynamic import (
    CreateResult,
    DiffResult,
    ReadResult,
    Resource,
    ResourceProvider,
    UpdateResult,
)

from rackllama.host.errors import RackllamaError
from rackllama.lab.depot.depot import fill
from rackllama.lab.depot.progress import Progress
from rackllama.lab.depot.server import PORT, ensure_serving, identity
from rackllama.lab.hosts import (
    Host,
    all_hosts,
    check_maker,
    check_name,
    find_lab,
    host_roles,
    lab_hosts,
    made_from,
    network_gateway,
    start,
)
from rackllama.lab.image import SUITES, USER, machine_recipe
from rackllama.lab.inventory import depot_variables
from rackllama.lab.machine import say
from rackllama.lab.up import stop_lab
from rackllama.provision.outputs import DescribedHost

INPUTS = ("lab", "count", "suite", "maker")
OUTPUTS = ("members", "key", "known_hosts", "variables", "depot_answers")


@dataclass(frozen=True)
class LabArgs:
    """What a lab is to be: its name (its hosts append their number), how many hosts, and which Debian they boot."""

    lab: str
    count: int = 1
    suite: str = SUITES[0]


@dataclass(frozen=True)
class LabHost:
    """One host of a lab. `address`, `key`, `known_hosts` and the values of `variables` are outputs of Pulumi's.

    Costs nothing but 2 GiB of memory and 4 GiB of disk of this machine. Nothing of it survives a destroy: the models
    that it landed go with it, while the depot that they came from stays in the cache.
    """

    lab: str
    number: int
    suite: str
    address: pulumi.Output[str]
    key: pulumi.Output[str]
    known_hosts: pulumi.Output[str]
    variables: Mapping[str, pulumi.Output[str]]

    @property
    def described(self) -> DescribedHost:
        """The host as every stack exports it."""
        return DescribedHost(
            name=f"{self.lab}{self.number}",
            address=self.address,
            user=USER,
            gpus=[],
            roles=host_roles(self.number),
            labels={"provider": "lab", "suite": self.suite},
            login={"key": self.key, "known_hosts": self.known_hosts},
            console={"kind": "podman", "container": f"rackllama-{self.lab}{self.number}"},
            variables=self.variables,
        )


class LabProvider(ResourceProvider):
    """Makes, reads, changes and removes a lab."""

    serialize_as_secret_always = False  # it holds nothing, so that nothing of it needs to be hidden

    def diff(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> DiffResult:
        """A lab of another name is another lab; all else is put right in place."""
        replaces = [name for name in ("lab", "maker") if _olds.get(name) != _news[name]]
        made = made_from(machine_recipe(_news["suite"]).digest)
        return DiffResult(
            changes=bool(replaces) or not is_as_wanted(_olds, _news, made),
            replaces=replaces,
            delete_before_replace=True,
        )

    def create(self, props: dict[str, Any]) -> CreateResult:
        """Start the lab. What a failure leaves half made is removed: the state would not know of it.

        A lab that was there before stays, as another state of a stack of this name may keep it.
        """
        there = lab_hosts(props["lab"])
        try:
            return CreateResult(props["lab"], _start(props))
        except BaseException:
            if not there:
                _stop(props["lab"], props["maker"])
            raise

    def read(self, id_: str, props: dict[str, Any]) -> ReadResult:
        """The hosts that podman has now; no lab where it has none that this stack made."""
        ours = [host for host in lab_hosts(id_) if host.maker == props["maker"]]
        return ReadResult(id_, {**props, **_outputs(ours)}) if ours else ReadResult("", {})

    def update(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> UpdateResult:
        """Make what is missing, remove what is too much, start what was stopped."""
        return UpdateResult(_start(_news))

    def delete(self, _id: str, _props: dict[str, Any]) -> None:
        """Remove the lab with all that is in it."""
        _stop(_id, _props["maker"])


class Lab(Resource, module="rackllama", name="Lab"):
    """A lab of `args.count` hosts on this machine.

    Costs nothing but memory and disk of this machine; nothing survives a destroy (see LabHost). Raises RackllamaError
    for what cannot become one, in a preview already.
    """

    members: pulumi.Output[Sequence[Mapping[str, Any]]]
    key: pulumi.Output[str]
    known_hosts: pulumi.Output[str]
    variables: pulumi.Output[Mapping[str, str]]

    def __init__(self, name: str, args: LabArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        maker = f"{pulumi.get_project()}/{pulumi.get_stack()}"
        check_args(args, maker, all_hosts())
        super().__init__(LabProvider(), name, {**asdict(args), "maker": maker, **dict.fromkeys(OUTPUTS)}, opts)
        self._args = args

    @property
    def hosts(self) -> list[LabHost]:
        """Its hosts, in order."""
        return [
            LabHost(
                self._args.lab,
                number,
                self._args.suite,
                address=self.members[number - 1]["address"],
                key=self.key,
                known_hosts=self.known_hosts,
                variables={name: self.variables[name] for name in ("rackllama_mirror", "rackllama_lock")},
            )
            for number in range(1, self._args.count + 1)
        ]


def check_args(args: LabArgs, maker: str, found: Iterable[Host]) -> None:
    """Raise RackllamaError for what cannot become a lab, and where the name is that of one that `maker` did not make.

    `found` are the hosts of all labs.
    """
    check_name(args.lab)
    if args.count < 1:
        raise RackllamaError(f"a lab cannot have {args.count} hosts", "ask for one or more")
    if args.suite not in SUITES:
        raise RackllamaError(f"no lab host boots the suite {args.suite!r}", f"choose one of: {', '.join(SUITES)}")
    check_maker(args.lab, maker, found)


def is_as_wanted(olds: Mapping[str, Any], news: Mapping[str, Any], made: str) -> bool:
    """Whether the state `olds` is the lab that `news` asks for: all hosts made from the same, running, and served."""
    members = olds.get("members") or []
    return (
        all(olds.get(name) == news[name] for name in INPUTS)
        and [int(member["number"]) for member in members] == list(range(1, int(news["count"]) + 1))
        and all(member["state"] == "running" and member["made"] == made for member in members)
        and bool(olds.get("depot_answers"))
    )


def _start(props: Mapping[str, Any]) -> dict[str, Any]:
    """Have the lab as `props` want it, and give inputs and outputs."""
    name, count, suite, maker = (props[key] for key in INPUTS)
    check_maker(name, maker, all_hosts())
    fill(Progress())
    lab = start(name, int(count), suite, maker=maker)
    ensure_serving(network_gateway())
    return {**{key: props[key] for key in INPUTS}, **_outputs(lab.hosts)}


def _outputs(members: Sequence[Host]) -> dict[str, Any]:
    lab = find_lab(members[0].lab)
    return {
        "members": [
            {"number": host.number, "address": str(host.address), "state": host.state, "made": host.made}
            for host in members
        ],
        "key": str(lab.key),
        "known_hosts": str(lab.known_hosts),
        "variables": depot_variables(),
        "depot_answers": identity(network_gateway(), PORT) is not None,
    }


def _stop(name: str, maker: str) -> None:
    """Remove the lab, unless nobody's hosts but others' bear its name: then ours are gone already."""
    found = lab_hosts(name)
    if found and all(host.maker != maker for host in found):
        say(f"the lab {name} is not the one that {maker} made, and stays")
        return
    check_maker(name, maker, found)
    stop_lab(name)
