"""What is to be done to a machine, and when it must not be touched: no machine needed."""

import random
from datetime import date, timedelta

import pytest

from rackllama.host.errors import RackllamaError
from rackllama.provision.redfish.plan import (
    Consent,
    Identity,
    Situation,
    Step,
    install_steps,
    require_consent,
    require_disk,
    start_steps,
)

TODAY = date(2030, 5, 1)
MEDIUM = "http://192.0.2.2/gpu1.iso"
GPU1 = Identity("SN-1", "27946b59-9e44-4fa7-8e91-f3527a1ef094")
OFF = Situation(GPU1, "Off")
FINISH = (Step.BOOT_CD_ONCE, Step.POWER_ON, Step.AWAIT_INSTALLER, Step.EJECT)


def test_a_machine_that_is_off_gets_the_medium_and_boots_from_it_once() -> None:
    assert install_steps(OFF, MEDIUM) == (Step.INSERT, *FINISH)


def test_a_machine_that_is_on_is_turned_off_before_its_drive_is_touched() -> None:
    on = Situation(GPU1, "On", medium="http://192.0.2.9/rescue.iso")
    assert install_steps(on, MEDIUM) == (Step.POWER_OFF, Step.EJECT, Step.INSERT, *FINISH)


def test_an_installer_that_runs_is_waited_for_and_one_that_does_not_begins_anew() -> None:
    assert install_steps(Situation(GPU1, "On", MEDIUM), MEDIUM) == (Step.AWAIT_INSTALLER, Step.EJECT)
    assert install_steps(Situation(GPU1, "Off", MEDIUM), MEDIUM) == FINISH


def test_a_start_leaves_nothing_of_an_install_that_was_given_up_to_erase_the_disk_later() -> None:
    assert start_steps(Situation(GPU1, "On")) == ()
    assert start_steps(OFF) == (Step.POWER_ON,)
    assert start_steps(Situation(GPU1, "On", boots_cd=True)) == (Step.BOOT_DISK,)
    assert start_steps(Situation(GPU1, "Off", MEDIUM, boots_cd=True)) == (Step.EJECT, Step.BOOT_DISK, Step.POWER_ON)


@pytest.mark.parametrize(
    ("now", "consent", "why"),
    [
        (OFF, None, "nothing tells whether it holds a system"),
        (
            Situation(GPU1, "On", signs=("SSH-2.0-OpenSSH_9.2p1 answers at its address",)),
            None,
            "it holds a system: SSH-2",
        ),
        (OFF, Consent("SN-2", TODAY), "the consent is to erase SN-2"),
        (OFF, Consent("SN-1", TODAY - timedelta(days=1)), "ended on 2030-04-30"),
        (OFF, Consent("SN-1", TODAY + timedelta(days=8)), "longer than 7 days"),
        (Situation(GPU1, "Off", MEDIUM), None, "is not erased"),  # interrupted, and to begin anew
        (Situation(Identity(None, None), "Off"), Consent("", TODAY), "tells no name"),
    ],
)
def test_a_machine_is_not_erased_without_a_consent_that_names_it_and_holds_today(
    now: Situation, consent: Consent | None, why: str
) -> None:
    with pytest.raises(RackllamaError, match=why) as refused:
        require_consent("gpu1", now, MEDIUM, consent, TODAY)
    assert refused.value.remedy


@pytest.mark.parametrize("machine", GPU1.names)
@pytest.mark.parametrize("days", [0, 7])
def test_a_consent_names_the_serial_number_or_the_uuid(machine: str, days: int) -> None:
    require_consent("gpu1", OFF, MEDIUM, Consent(machine, TODAY + timedelta(days=days)), TODAY)


def test_the_refusal_says_what_to_write_and_how_to_keep_what_is_there() -> None:
    with pytest.raises(RackllamaError) as refused:
        require_consent("gpu1", OFF, MEDIUM, None, TODAY)
    assert "erase: {machine: SN-1, until: '2030-05-02'}" in refused.value.remedy
    assert "leave out `install`" in refused.value.remedy


def test_waiting_for_an_installer_that_runs_erases_nothing_and_needs_no_consent() -> None:
    require_consent("gpu1", Situation(GPU1, "On", MEDIUM), MEDIUM, None, TODAY)


def test_whatever_a_machine_is_like_no_installer_is_started_on_it_without_consent() -> None:
    chance = random.Random(8)  # noqa: S311
    media = (None, MEDIUM, "http://192.0.2.9/other.iso", "unnamed")
    for _ in range(500):
        now = Situation(
            GPU1,
            chance.choice(["On", "Off", "PoweringOn", "PoweringOff", "unknown"]),
            chance.choice(media),
            chance.choice([True, False]),
            chance.choice([(), ("its BMC says that a system runs",)]),
        )
        try:
            require_consent("gpu1", now, MEDIUM, None, TODAY)
        except RackllamaError:
            continue
        assert install_steps(now, MEDIUM) == (Step.AWAIT_INSTALLER, Step.EJECT)
        assert now.medium == MEDIUM


def test_a_consent_is_read_as_yaml_gives_it_and_nothing_else() -> None:
    wanted = Consent("SN-1", TODAY)
    assert Consent.from_data(wanted.as_data()) == wanted
    assert Consent.from_data({"machine": "SN-1", "until": "2030-05-01T00:00:00Z"}) == wanted
    for broken in ({"machine": "SN-1"}, {"machine": "SN-1", "until": "soon"}, {"until": "2030-05-01"}):
        with pytest.raises(RackllamaError, match="no consent"):
            Consent.from_data(broken)


def test_a_disk_that_the_machine_does_not_have_is_refused_with_those_it_has() -> None:
    disks = [{"serial": "S4EV1", "model": "PM9A3", "bytes": 960197124096}]
    require_disk("gpu1", "S4EV1", disks)
    require_disk("gpu1", "/dev/nvme0n1", disks)
    require_disk("gpu1", "S4EV2", [])  # a BMC that tells of no disks
    with pytest.raises(RackllamaError, match="no disk 'S4EV2'") as refused:
        require_disk("gpu1", "S4EV2", disks)
    assert "S4EV1 (PM9A3, 960_197_124_096 bytes)" in refused.value.remedy
