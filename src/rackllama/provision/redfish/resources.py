"""The two dynamic resources of a server: that a system was installed on it, and that it is on and answers.

They are two, so that the state records an install as soon as it is done: a start that fails after it is tried again
without erasing anything. The engine runs the providers in a process of its own, which finds the BMC's password in its
environment; a provider holds nothing, as it is kept in the state.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pulumi
from pulumi.dynamic import (
    CheckFailure,
    CheckResult,
    CreateResult,
    DiffResult,
    ReadResult,
    Resource,
    ResourceProvider,
    UpdateResult,
)

from rackllama.host.errors import RackllamaError
from rackllama.lab.machine import say
from rackllama.provision.answering import ssh_banner, wait_for_ssh
from rackllama.provision.redfish.act import Limits, carry_out, look, turn_off
from rackllama.provision.redfish.bmc import Bmc
from rackllama.provision.redfish.image import Network, Profile, Source, build, require_source
from rackllama.provision.redfish.machine import Machine
from rackllama.provision.redfish.media import served
from rackllama.provision.redfish.plan import (
    Consent,
    Identity,
    Situation,
    install_steps,
    require_consent,
    require_disk,
    start_steps,
)

PREVIEW_SECONDS = 30  # how long a preview waits for a BMC
PROVIDER_KEY = "__provider"


class InstallProvider(ResourceProvider):
    """Installs a system once. Reading and deleting leave the machine alone: what is on its disk stays."""

    def check(self, _olds: dict[str, Any], news: dict[str, Any]) -> CheckResult:
        """Refuse, in a preview already, to erase a machine that may not be erased."""
        if _olds.get("generation") == news["generation"]:
            return CheckResult(news, [])
        return _checked(news, "erase", lambda: _preview_install(news))

    def diff(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> DiffResult:
        """Only another generation is another install; what else is new holds when one is made."""
        again = _olds.get("generation") != _news.get("generation")
        return DiffResult(changes=again, replaces=["generation"] if again else [])

    def create(self, props: dict[str, Any]) -> CreateResult:
        """Install, or go on with an install that was interrupted."""
        limits = Limits(**props["limits"])
        with Machine(Bmc(**props["bmc"])) as machine, _medium(props["media"]) as url:
            now = look(machine, limits.bmc, limits.poll)
            _require(props, machine, now, url)
            carry_out(machine, install_steps(now, url), limits, url)
        done = {"serial": now.identity.serial, "uuid": now.identity.uuid, "installed_at": _now()}
        return CreateResult(_id_of(props["bmc"]["name"], now.identity), {**_kept(props), **done})


class ServerProvider(ResourceProvider):
    """Has the machine on and answering; `on_destroy` says whether it is left so when the resource goes."""

    def check(self, _olds: dict[str, Any], news: dict[str, Any]) -> CheckResult:
        """Refuse, in a preview already, a new machine whose BMC cannot be used."""
        if _olds:
            return CheckResult(news, [])
        return _checked(news, "bmc", lambda: _look_in_preview(news))

    def diff(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> DiffResult:
        """All changes are made in place; a machine that was found off is one."""
        changed = [key for key in _kept(_news) if _olds.get(key) != _news[key]]
        return DiffResult(changes=bool(changed) or _olds.get("power") != "On")

    def create(self, props: dict[str, Any]) -> CreateResult:
        """Have it on, wait for SSH, and tell what it is made of."""
        outs = _started(props, None)
        return CreateResult(_id_of(props["bmc"]["name"], Identity(outs["serial"], outs["uuid"])), outs)

    def read(self, id_: str, props: dict[str, Any]) -> ReadResult:
        """What the machine is made of now, and whether it is on. A BMC that is down is an error, no lost machine."""
        limits = Limits(**props["limits"])
        with Machine(Bmc(**props["bmc"])) as machine:
            now = look(machine, limits.bmc, limits.poll)
            _require_same(props, now.identity)
            return ReadResult(id_, {**props, "power": now.power, "inventory": machine.inventory().as_data()})

    def update(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> UpdateResult:
        """As a creation does, on the same machine only; not even its BMC is asked where it is but to be left."""
        changed = {key for key in _kept(_news) if _olds.get(key) != _news[key]}
        if changed == {"on_destroy"} and _olds.get("power") == "On":
            return UpdateResult({**_olds, "on_destroy": _news["on_destroy"]})
        return UpdateResult(_started(_news, _olds))

    def delete(self, _id: str, _props: dict[str, Any]) -> None:
        """Shut it down where `on_destroy` is `power_off`; else do not even ask its BMC. The disks stay as they are."""
        if _props["on_destroy"] != "power_off":
            return
        limits = Limits(**_props["limits"])
        with Machine(Bmc(**_props["bmc"])) as machine:
            now = look(machine, limits.bmc, limits.poll)
            _require_same(_props, now.identity)
            if now.power != "Off":
                turn_off(machine, limits)


class Install(Resource, module="rackllama", name="Install"):
    """That a system was installed on a machine.

    Costs nothing. A destroy forgets it, and leaves the system on the disk.
    """

    installed_at: pulumi.Output[str]

    def __init__(self, name: str, props: Mapping[str, Any], opts: pulumi.ResourceOptions | None = None) -> None:
        """`props`: bmc, address, port, media, erase, generation and limits, as `server.RedfishServer` gives them."""
        outputs = dict.fromkeys(("serial", "uuid", "installed_at"))
        super().__init__(InstallProvider(), name, {**outputs, **props}, opts)


class Server(Resource, module="rackllama", name="Server"):
    """That a machine is on and answers SSH.

    Costs its power. A destroy leaves it running, or shuts it down where `on_destroy` is `power_off`; its disks stay.
    """

    inventory: pulumi.Output[dict[str, Any]]
    serial: pulumi.Output[str]
    power: pulumi.Output[str]

    def __init__(self, name: str, props: Mapping[str, Any], opts: pulumi.ResourceOptions | None = None) -> None:
        """`props`: bmc, address, port, installed_at, on_destroy and limits, as `server.RedfishServer` gives them."""
        outputs = dict.fromkeys(("serial", "uuid", "power", "inventory"))
        super().__init__(ServerProvider(), name, {**outputs, **props}, opts)


def _checked(news: dict[str, Any], name: str, check: Callable[[], None]) -> CheckResult:
    try:
        check()
    except RackllamaError as error:
        return CheckResult(news, [CheckFailure(name, str(error))])
    return CheckResult(news, [])


def _look_in_preview(props: Mapping[str, Any]) -> None:
    with Machine(Bmc(**props["bmc"])) as machine:
        look(machine, PREVIEW_SECONDS)


def _preview_install(props: Mapping[str, Any]) -> None:
    # What rackllama serves has a new address each time: in a preview it has none yet.
    url = props["media"].get("url", "")
    with Machine(Bmc(**props["bmc"])) as machine:
        now = look(machine, PREVIEW_SECONDS)
        _require(props, machine, now, url)
    say(f"{props['bmc']['name']}: {', '.join(step.value for step in install_steps(now, url))}")


def _require(props: Mapping[str, Any], machine: Machine, now: Situation, url: str) -> None:
    name, media = props["bmc"]["name"], props["media"]
    consent = Consent.from_data(props["erase"]) if props.get("erase") else None
    if consent is None and (banner := ssh_banner(props["address"], int(props["port"]))):
        now = replace(now, signs=(*now.signs, f"{banner} answers at its address"))
    require_consent(name, now, url, consent, datetime.now(UTC).date())
    if media.get("iso"):
        require_source(Source(Path(media["iso"]), media["sha256"]))
        require_disk(name, media["profile"]["disk"], machine.inventory().disks)


def _medium(media: Mapping[str, Any]) -> AbstractContextManager[str]:
    """The URL of the install image while it lasts: one that the user serves, or one that is built and served here."""
    if media.get("url"):
        return nullcontext(media["url"])
    profile = dict(media["profile"])
    network = profile.pop("network", None)
    for key in ("authorized_keys", "packages"):
        profile[key] = tuple(profile.get(key, ()))
    if network:
        network = Network(**{**network, "nameservers": tuple(network["nameservers"])})
    image = build(Source(Path(media["iso"]), media["sha256"]), Profile(**profile, network=network))
    return served(image, media["serve_at"])


def _started(props: Mapping[str, Any], before: Mapping[str, Any] | None) -> dict[str, Any]:
    limits = Limits(**props["limits"])
    name = props["bmc"]["name"]
    with Machine(Bmc(**props["bmc"])) as machine:
        now = look(machine, limits.bmc, limits.poll)
        if before is not None:
            _require_same(before, now.identity)
        carry_out(machine, start_steps(now), limits)
        wait_for_ssh(name, props["address"], int(props["port"]), limits.ssh)
        inventory = machine.inventory().as_data()
    found = {"serial": now.identity.serial, "uuid": now.identity.uuid, "power": "On", "inventory": inventory}
    return {**_kept(props), **found}


def _require_same(before: Mapping[str, Any], now: Identity) -> None:
    known = ((before.get("serial"), now.serial), (before.get("uuid"), now.uuid))
    # A BMC may tell one of them only after a self-test, and in another case after an update.
    if any(then and is_now and then.casefold() != is_now.casefold() for then, is_now in known):
        raise RackllamaError(
            f"another machine answers at the BMC of {before['bmc']['name']}: it was {before.get('serial')}, "
            f"UUID {before.get('uuid')}, and is {now.serial}, UUID {now.uuid}",
            "correct `bmc`; where the machine was replaced, set `on_destroy: leave` and run `pulumi up`, take the "
            "server out and run it again, and put it in anew; or forget it: pulumi state delete URN",
        )


def _kept(props: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs, without what the outputs of the machine are to fill."""
    outputs = {PROVIDER_KEY, "serial", "uuid", "power", "inventory"}
    return {key: value for key, value in props.items() if key not in outputs}


def _id_of(name: str, identity: Identity) -> str:
    return next(iter(identity.names), name)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
