"""From how a machine is, and what is wanted, to the steps in between; and when it must not be touched.

Pure functions: nothing is read or done here.

No BMC can tell that a disk is empty. So a machine is only ever erased on consent that names it and that ends by
itself: one forgotten in a configuration would erase the machine again after the stack was taken down and up.
What shows that an install of ours is under way is our medium in the virtual drive: only a plan of ours puts it there,
with the power off, and takes it out when the installer is done.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from enum import Enum
from typing import Any

from rackllama.host.errors import RackllamaError

LONGEST_CONSENT = timedelta(days=7)


@dataclass(frozen=True)
class Identity:
    """What tells one machine from another: its serial number where the BMC tells one, and its UUID."""

    serial: str | None
    uuid: str | None

    @property
    def names(self) -> tuple[str, ...]:
        """By what the machine may be called."""
        return tuple(name for name in (self.serial, self.uuid) if name)


@dataclass(frozen=True)
class Situation:
    """What a plan needs to know. `medium` is the URL of what lies in the virtual CD drive, None where nothing does.

    `power` is Redfish's word: On, Off, PoweringOn, PoweringOff. `signs` tell, in words, that the machine runs a system.
    """

    identity: Identity
    power: str
    medium: str | None = None
    boots_cd: bool = False
    signs: tuple[str, ...] = ()


class Step(Enum):
    """One thing to do, or to wait for."""

    POWER_OFF = "power off"
    EJECT = "eject the medium"
    INSERT = "insert the medium"
    BOOT_CD_ONCE = "boot from the medium once"
    POWER_ON = "power on"
    AWAIT_INSTALLER = "wait for the installer to power off"
    BOOT_DISK = "boot from disk"


@dataclass(frozen=True)
class Consent:
    """That `machine`, a serial number or UUID, may be erased, through the day `until`."""

    machine: str
    until: date

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> "Consent":
        """From what `as_data` gave. Raises RackllamaError where `until` is no day."""
        try:
            # YAML makes a time of a day that is not quoted.
            return cls(str(data["machine"]), date.fromisoformat(str(data["until"]).partition("T")[0]))
        except (KeyError, TypeError, ValueError):
            raise RackllamaError(
                f"{data!r} is no consent to erase a machine",
                "write `erase: {machine: SERIAL, until: '2030-12-31'}`",
            ) from None

    def as_data(self) -> dict[str, Any]:
        """As inputs of a resource hold it."""
        return {**asdict(self), "until": self.until.isoformat()}


def install_steps(now: Situation, medium: str) -> tuple[Step, ...]:
    """What installs a system from `medium`, the URL of an image that powers the machine off when it is done.

    Where the medium is in the drive already, an install was interrupted: it goes on if its installer still runs, and
    begins anew otherwise, as a machine that is off may not have begun, or have lost its power in the middle.
    """
    if now.medium != medium:
        clear = () if now.power == "Off" else (Step.POWER_OFF,)
        empty = (Step.EJECT,) if now.medium else ()
        return (*clear, *empty, Step.INSERT, Step.BOOT_CD_ONCE, Step.POWER_ON, Step.AWAIT_INSTALLER, Step.EJECT)
    if now.power == "Off":
        return Step.BOOT_CD_ONCE, Step.POWER_ON, Step.AWAIT_INSTALLER, Step.EJECT
    return Step.AWAIT_INSTALLER, Step.EJECT


def start_steps(now: Situation) -> tuple[Step, ...]:
    """What starts the system on the machine's disk: no power where it is on.

    What an install that was given up has left must not erase the disk at the next boot: a boot from CD that is set, and
    a medium in the drive of a machine that is off.
    """
    is_off = now.power != "On"
    return (
        *((Step.EJECT,) if is_off and now.medium else ()),
        *((Step.BOOT_DISK,) if now.boots_cd else ()),
        *((Step.POWER_ON,) if is_off else ()),
    )


def require_consent(name: str, now: Situation, medium: str, consent: Consent | None, today: date) -> None:
    """Raise RackllamaError where installing would erase a machine that may not be erased."""
    if Step.BOOT_CD_ONCE not in install_steps(now, medium):
        return
    machine = f"{name} ({_called(now.identity)})"
    if consent is None:
        why = f"it holds a system: {'; '.join(now.signs)}" if now.signs else "nothing tells whether it holds a system"
        raise RackllamaError(
            f"{machine} is not erased, as {why}",
            "to keep what is on it, leave out `install`, or list it under `existing`; to have all of its system disk "
            f"erased, say so: erase: {{machine: {_name(now.identity)}, until: '{today + timedelta(days=1)}'}}",
        )
    if consent.machine not in now.identity.names:
        raise RackllamaError(
            f"the consent is to erase {consent.machine}, and the BMC of {name} is that of {_called(now.identity)}",
            "see whether `bmc` names the machine that you mean; nothing was changed",
        )
    if today > consent.until:
        raise RackllamaError(
            f"the consent to erase {machine} ended on {consent.until}",
            "give a new day if it is still to be erased; leave out `install` to keep what is on it",
        )
    if consent.until - today > LONGEST_CONSENT:
        raise RackllamaError(
            f"the consent to erase {machine} is for longer than {LONGEST_CONSENT.days} days",
            f"give a day by {today + LONGEST_CONSENT}: a consent that is forgotten would erase it once more",
        )


def require_disk(name: str, disk: str, disks: Sequence[Mapping[str, Any]]) -> None:
    """Raise RackllamaError where the BMC tells the serial numbers of the machine's disks, and `disk` is none of them.

    A path, as /dev/nvme0n1, is taken as it is: no BMC tells what a system will call its disks.
    """
    known = {str(each["serial"]).strip(): each for each in disks if each.get("serial")}
    if known and not disk.startswith("/") and disk not in known:
        raise RackllamaError(
            f"{name} has no disk {disk!r}",
            "give one of: "
            + ", ".join(f"{serial} ({each['model']}, {each['bytes'] or 0:_} bytes)" for serial, each in known.items()),
        )


def _called(identity: Identity) -> str:
    words = [f"serial number {identity.serial}"] if identity.serial else []
    return ", ".join([*words, f"UUID {identity.uuid}"] if identity.uuid else words) or "a machine that tells no name"


def _name(identity: Identity) -> str:
    return next(iter(identity.names), "SERIAL")
