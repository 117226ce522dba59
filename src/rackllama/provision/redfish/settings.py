"""From what a stack's configuration says of machines to the arguments of their components."""

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from rackllama.host.errors import RackllamaError
from rackllama.provision.existing import ExistingHostArgs, HostArgs
from rackllama.provision.redfish.act import Limits
from rackllama.provision.redfish.bmc import Bmc
from rackllama.provision.redfish.image import Network, Profile, Source
from rackllama.provision.redfish.plan import Consent
from rackllama.provision.redfish.server import InstallArgs, OwnImage, PublishedImage, RedfishServerArgs

HOST = {each.name for each in fields(HostArgs)}


def servers(entries: Sequence[Mapping[str, Any]], authorized_keys: Sequence[str] = ()) -> list[RedfishServerArgs]:
    """The servers with a BMC. Raises RackllamaError for keys that are unknown or missing, and values that cannot be."""
    found = [_server(entry, authorized_keys) for entry in entries]
    require_one_bmc_each(found)
    require_one_port_each(found)
    return found


def existing(entries: Sequence[Mapping[str, Any]]) -> list[ExistingHostArgs]:
    """The machines that already run. Raises RackllamaError as `servers` does."""
    return [
        _build(ExistingHostArgs, {**_rest(entry, HOST), "host": _host(entry)}, f"existing host {entry.get('name')}")
        for entry in entries
    ]


def require_one_name_each(names: Sequence[str]) -> None:
    """Raise RackllamaError where two machines have one name."""
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise RackllamaError(f"several machines are named {', '.join(twice)}", "give each a name of its own")


def require_one_bmc_each(servers_: Sequence[RedfishServerArgs]) -> None:
    """Raise RackllamaError where two servers are the same machine of the same BMC, as a copied entry is."""
    seen: dict[tuple[str, str], str] = {}
    for each in servers_:
        machine = each.bmc.endpoint.rstrip("/").lower(), each.bmc.system
        if machine in seen:
            raise RackllamaError(
                f"{seen[machine]} and {each.host.name} have one BMC, {each.bmc.endpoint}",
                "correct `bmc` of one of them; where the BMC has several machines, say which by `system`",
            )
        seen[machine] = each.host.name


def require_one_port_each(servers_: Sequence[RedfishServerArgs]) -> None:
    """Raise RackllamaError where two images are to be served at one port: servers are installed at once."""
    seen: dict[str, str] = {}
    for each in servers_:
        image = each.install.image if each.install else None
        if not isinstance(image, OwnImage) or ":" not in image.serve_at:
            continue
        if image.serve_at in seen:
            raise RackllamaError(
                f"{seen[image.serve_at]} and {each.host.name} serve their images at {image.serve_at}",
                "give each a port of its own in `serve_at`, or leave the port out",
            )
        seen[image.serve_at] = each.host.name


def _server(entry: Mapping[str, Any], authorized_keys: Sequence[str]) -> RedfishServerArgs:
    host, where = _host(entry), f"server {entry.get('name')}"
    rest: dict[str, Any] = {**_rest(entry, HOST), "host": host}
    if "bmc" in rest:
        rest["bmc"] = _build(Bmc, {"name": host.name, **rest["bmc"]}, f"the BMC of {host.name}")
    if "limits" in rest:
        rest["limits"] = _build(Limits, rest["limits"], f"the limits of {host.name}")
    if rest.get("install"):
        rest["install"] = _install(rest["install"], host, authorized_keys)
    return _build(RedfishServerArgs, rest, where)


def _install(entry: Mapping[str, Any], host: HostArgs, authorized_keys: Sequence[str]) -> InstallArgs:
    where = f"the install of {host.name}"
    own = {"erase", "generation"}
    image, rest = _rest(entry, own), {key: value for key, value in entry.items() if key in own}
    if rest.get("erase") is not None:
        rest["erase"] = Consent.from_data(rest["erase"])
    made = _build(PublishedImage, image, where) if "url" in image else _own_image(image, host, authorized_keys, where)
    return _build(InstallArgs, {**rest, "image": made}, where)


def _own_image(entry: Mapping[str, Any], host: HostArgs, authorized_keys: Sequence[str], where: str) -> OwnImage:
    missing = [key for key in ("iso", "sha256", "serve_at") if not entry.get(key)]
    if missing:
        raise RackllamaError(
            f"{where} lacks {', '.join(missing)}",
            "give `url`, or all of `iso`, `sha256` and `serve_at`",
        )
    profile = dict(_rest(entry, {"iso", "sha256", "serve_at"}))
    if profile.get("network"):
        network = {**profile["network"], "nameservers": tuple(profile["network"].get("nameservers", ()))}
        profile["network"] = _build(Network, network, f"the network of {host.name}")
    given = {
        "hostname": host.name,
        "user": host.user,
        "authorized_keys": tuple(authorized_keys),
        **profile,
        "packages": tuple(profile.get("packages", ())),
    }
    return OwnImage(
        Source(Path(entry["iso"]).expanduser(), entry["sha256"]), _build(Profile, given, where), entry["serve_at"]
    )


def _host(entry: Mapping[str, Any]) -> HostArgs:
    own = {key: value for key, value in entry.items() if key in HOST}
    return _build(HostArgs, own, f"host {entry.get('name', 'without a name')}")


def _rest(entry: Mapping[str, Any], without: set[str]) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if key not in without}


def _build[Args](kind: type[Args], given: Mapping[str, Any], where: str) -> Args:
    known = {each.name: each for each in fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise RackllamaError(f"{where} has no setting {', '.join(unknown)}", f"known are: {', '.join(known)}")
    required = [name for name, each in known.items() if each.default is MISSING and each.default_factory is MISSING]
    missing = [name for name in required if name not in given]
    if missing:
        raise RackllamaError(f"{where} lacks {', '.join(missing)}", "see stacks/baremetal/Pulumi.example.yaml")
    for name, value in given.items():
        if known[name].type is str and not isinstance(value, str):
            raise RackllamaError(f"{name} of {where} is {value!r}, which is no text", "put it in quotes")
        if known[name].type is float and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise RackllamaError(f"{name} of {where} is {value!r}, which is no number", "give seconds, without quotes")
    return kind(**given)
