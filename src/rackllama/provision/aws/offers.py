"""What AWS tells before anything is made: which zones have which types, and which image a parameter means."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import pulumi_aws as aws

from rackllama.catalog.hardware import Instance, read_instances
from rackllama.host.errors import RackllamaError


def zones_by_type() -> dict[str, set[str]]:
    """The region's zones that offer each type of the catalogue; that one is free, it does not tell.

    Raises RackllamaError where AWS does not answer.
    """
    with _asked("which zones offer which types", "look whether this works: aws sts get-caller-identity"):
        found = aws.ec2.get_instance_type_offerings(
            location_type="availability-zone", filters=[{"name": "instance-type", "values": list(read_instances())}]
        )
    zones: dict[str, set[str]] = {}
    for name, zone in zip(found.instance_types, found.locations, strict=True):
        zones.setdefault(name, set()).add(zone)
    return zones


def require_offered(instance: Instance, zones: Iterable[str], offered: dict[str, set[str]]) -> None:
    """Raise RackllamaError unless each of the zones offers the type: they are tried in order, any may be it."""
    there = offered.get(instance.name, set())
    missing = [zone for zone in zones if zone not in there]
    if missing:
        remedy = f"set zones to some of: {', '.join(sorted(there))}" if there else "take another type or aws:region"
        raise RackllamaError(f"{', '.join(missing)} does not offer {instance.name}", remedy)


def image_of(ami: str) -> str:
    """The image's id, of an id or of the name of a public parameter, as /aws/service/…/ami-id.

    Raises RackllamaError where AWS knows no such parameter.
    """
    if ami.startswith("ami-"):
        return ami
    with _asked(f"which image {ami} means", "set ami to an image's id (ami-…), or to a parameter that there is"):
        return str(aws.ssm.get_parameter(name=ami).insecure_value)


@contextmanager
def _asked(what: str, remedy: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise RackllamaError(f"AWS did not tell {what}: {error}", remedy) from error
