"""Carrying steps out on a machine, whose BMC obeys seconds later, is busy at times, and now and then does not answer.

Each step is a state to reach: it is asked for once, and again only where the asking failed, and then looked for until
it is there. So a step that is done already costs a look, and whatever stops in the middle can be run again.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from urllib.parse import urlsplit

from rackllama.host.errors import RackllamaError
from rackllama.lab.machine import say
from rackllama.provision.redfish.bmc import HiccupError
from rackllama.provision.redfish.machine import Machine
from rackllama.provision.redfish.plan import Situation, Step

CHANGING = ("PoweringOn", "PoweringOff")  # some BMCs refuse whatever is asked meanwhile


@dataclass(frozen=True)
class Limits:
    """How long to wait, in seconds: for a BMC to obey or to come back, for an installer, for SSH after a start.

    A shutdown that is asked for has `shutdown` seconds before the power is cut. `poll` is the time between two looks.
    """

    bmc: float = 300
    shutdown: float = 120
    install: float = 3600
    ssh: float = 1200
    poll: float = 3

    def __post_init__(self) -> None:
        """Raise RackllamaError for a time that is none."""
        for each in fields(self):
            if not getattr(self, each.name) > 0:
                raise RackllamaError(f"the limit `{each.name}` is no time", "give seconds, more than 0")


@dataclass(frozen=True)
class _Goal:
    """When a step is done, what to ask for once, how long it may take, and what else to say where it takes longer."""

    holds: Callable[[Situation], bool]
    ask: Callable[[], None] | None
    seconds: float
    remedy: str = "see the machine's console and its BMC's log, and run it again: it goes on from there"


def carry_out(machine: Machine, steps: Iterable[Step], limits: Limits, medium: str = "") -> None:
    """Carry the steps out in order; `medium` is the URL of what is to be inserted. Raises RackllamaError in between."""
    for step in steps:
        say(f"{machine.bmc.name}: {step.value}")
        if step is Step.POWER_OFF:
            turn_off(machine, limits)
        else:
            _reach(machine, step.value, _goals(machine, limits, medium)[step], limits)


def turn_off(machine: Machine, limits: Limits) -> None:
    """Have the power off: by asking the system, and where it does not listen, by cutting it."""
    try:
        _reach(machine, "shut down", _Goal(_is_off, machine.shut_down, limits.shutdown), limits)
    except HiccupError:
        raise
    except RackllamaError:  # it takes too long, or is refused, as in the self-test and without a system
        _reach(machine, Step.POWER_OFF.value, _Goal(_is_off, machine.power_off, limits.bmc), limits)


def look(machine: Machine, seconds: float, poll: float = 1) -> Situation:
    """How the machine is. Raises RackllamaError where its BMC does not tell within so many seconds."""
    return _patiently(machine, machine.situation, seconds, poll)


class _TookTooLongError(RackllamaError):
    """The BMC answers, and what was asked for did not come about."""


def _goals(machine: Machine, limits: Limits, medium: str) -> Mapping[Step, _Goal]:
    return {
        Step.EJECT: _Goal(lambda now: now.medium is None, machine.eject, limits.bmc),
        Step.INSERT: _Goal(
            lambda now: now.medium == medium,
            lambda: machine.insert(medium),
            limits.bmc,
            f"see that the BMC itself can fetch from {urlsplit(medium).netloc}",
        ),
        Step.BOOT_CD_ONCE: _Goal(lambda now: now.boots_cd, lambda: machine.boot_once("Cd"), limits.bmc),
        Step.BOOT_DISK: _Goal(lambda now: not now.boots_cd, lambda: machine.boot_once("Hdd"), limits.bmc),
        Step.POWER_ON: _Goal(lambda now: now.power == "On", machine.power_on, limits.bmc),
        Step.AWAIT_INSTALLER: _Goal(
            _is_off,
            None,
            limits.install,
            "see where the installer stands on the machine's console; power the machine off to have the next run "
            "begin the install anew",
        ),
    }


def _is_off(now: Situation) -> bool:
    return now.power == "Off"


def _reach(machine: Machine, what: str, goal: _Goal, limits: Limits) -> None:
    deadline = time.monotonic() + goal.seconds
    asked = goal.ask is None
    while True:
        now = _patiently(machine, machine.situation, limits.bmc, limits.poll)
        if goal.holds(now):
            return
        if time.monotonic() > deadline:
            raise _TookTooLongError(
                f"{machine.bmc.name}: {what} did not come about within {goal.seconds:.0f} s", goal.remedy
            )
        if not asked and goal.ask is not None and now.power not in CHANGING:
            asked = _asked(machine, goal.ask, deadline)
        time.sleep(limits.poll)


def _asked(machine: Machine, ask: Callable[[], None], deadline: float) -> bool:
    """Whether the BMC took it. Where it hiccuped nobody knows: the next look tells."""
    try:
        ask()
    except HiccupError:
        machine.drop()
        if time.monotonic() > deadline:
            raise
        return False
    return True


def _patiently[Told](machine: Machine, read: Callable[[], Told], seconds: float, poll: float) -> Told:
    """What `read` returns, through hiccups of the BMC. Raises the last of them after so many seconds."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return read()
        except HiccupError:
            machine.drop()
            if time.monotonic() > deadline:
                raise
        time.sleep(poll)
