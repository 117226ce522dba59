"""The bare-metal stack, driven by the CLI, on sushy's emulator: what is asked of a BMC, in which order."""

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from rackllama.lab.machine import ensure_packages
from rackllama.provision.redfish.media import served

from .bmc import PASSWORD, SERIAL, SYSTEM, TOLD, USER, Bmc, Hardware, bmc, end_install, free_port, hardware, ssh_at
from .bmc_image import KEY, stand_in
from .engine.harness import Stack

INSTALLED = [
    ("POST", "InsertMedia"),
    ("PATCH", "Boot Cd"),
    ("POST", "Reset On"),
    ("POST", "EjectMedia"),
    ("PATCH", "Boot Hdd"),  # the emulator knows no one-time boot: it would boot from the drive for ever
    ("POST", "Reset On"),
]
LABELS = {"model": "GPU server", "serial": SERIAL}
LIMITS = {"bmc": 20, "shutdown": 20, "install": 30, "ssh": 30, "poll": 0.1}


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Bmc]:
    with bmc(tmp_path / "bmc", lag=1) as running:
        yield running


@pytest.fixture
def body(machine: Bmc) -> Iterator[Hardware]:
    with hardware(machine) as running:
        yield running


@pytest.fixture
def image(tmp_path: Path) -> Iterator[str]:
    """An install image that the user serves; the machine's stand-in installs from anything."""
    path = tmp_path / "gpu1.iso"
    path.write_bytes(b"an installer that powers off")
    with served(path, "127.0.0.1") as url:
        yield url


@pytest.fixture
def stack(stacks: Callable[..., Stack]) -> Stack:
    return stacks("baremetal", environment={"RACKLLAMA_BMC_PASSWORD": PASSWORD})


def server(machine: Bmc, body: Hardware, **more: Any) -> dict[str, Any]:
    reached = {"endpoint": machine.url, "user": USER, "insecure": True}
    host = {"name": "gpu1", "address": "127.0.0.1", "port": body.port, "gpus": "8xH100-80GB", "roles": ["serving"]}
    return {**host, "bmc": reached, "limits": LIMITS, **more}


def consent(machine: str = SERIAL) -> dict[str, str]:
    """Through tomorrow, as midnight may pass."""
    return {"machine": machine, "until": (datetime.now(UTC).date() + timedelta(days=1)).isoformat()}


def use(stack: Stack, *entries: dict[str, Any]) -> None:
    stack.config_set_all({"servers": list(entries)})


def test_a_new_machine_is_installed_once_refreshed_and_shut_down(
    stack: Stack, machine: Bmc, body: Hardware, image: str
) -> None:
    use(stack, server(machine, body, install={"url": image, "erase": consent()}, on_destroy="power_off"))

    planned = stack.preview()
    assert planned.ok, planned.output
    assert machine.asked == []

    up = stack.up()
    assert up.ok, up.output
    assert machine.asked == INSTALLED
    assert body.installs == [image]
    outputs = stack.outputs()
    (host,) = outputs["hosts"]
    assert (host["name"], host["address"], host["gpus"]) == ("gpu1", "127.0.0.1", ["H100-80GB"] * 8)
    assert host["labels"] == {"provider": "baremetal", "manufacturer": "Sushy Emulator", **LABELS}
    assert outputs["costs"] == []
    assert outputs["machines"]["gpu1"]["disks"] == [{"model": "C123", "serial": "1234570", "bytes": 960197124096}]

    machine.asked.clear()
    again = stack.up()
    assert (again.ok, again.unchanged, again.created) == (True, 4, 0), again.output
    assert machine.asked == []

    machine.reset("ForceOff")  # by somebody else
    machine.wait_for("Off")
    assert stack.refresh().ok
    found = stack.up()
    assert (found.ok, found.updated) == (True, 1), found.output
    assert machine.asked == [("POST", "Reset On")]
    assert body.installs == [image], "what is on the disk stays"

    machine.asked.clear()
    down = stack.destroy()
    assert down.ok, down.output
    assert machine.asked == [("POST", "Reset GracefulShutdown")]
    assert machine.state()["PowerState"] == "Off"
    assert stack.resources() == {}


def test_a_machine_with_a_system_is_refused_in_a_preview_and_managed_as_it_is_without_install(
    stack: Stack, machine: Bmc, image: str
) -> None:
    machine.reset("On")
    machine.overlay[SYSTEM] = {**TOLD, "BootProgress": {"LastState": "OSRunning"}}
    with hardware(machine, installed=True) as body:
        machine.wait_for("On")
        use(stack, server(machine, body, install={"url": image}))
        for refused in (stack.preview(), stack.up()):
            assert not refused.ok
            assert "is not erased, as it holds a system: its BMC says that a system runs (OSRunning)" in refused.output
            assert f"erase: {{machine: {SERIAL}" in refused.output
        other = {"url": image, "erase": consent("SN-2")}
        use(stack, server(machine, body, install=other))
        assert "the consent is to erase SN-2" in stack.up().output
        assert machine.asked == []

        use(stack, server(machine, body))
        up = stack.up()
        assert up.ok, up.output
        assert stack.destroy().ok
        assert (machine.asked, machine.state()["PowerState"]) == ([], "On"), "left as it is"
        assert body.installs == []


@pytest.mark.slow
def test_an_install_again_is_counted_and_consented_to(stack: Stack, machine: Bmc, body: Hardware, image: str) -> None:
    use(stack, server(machine, body, install={"url": image, "erase": consent()}))
    assert stack.up().ok
    use(stack, server(machine, body, install={"url": image, "generation": 2}))
    refused = stack.up()
    assert not refused.ok
    assert "is not erased, as it holds a system: SSH-2.0-stand-in answers at its address" in refused.output
    machine.asked.clear()
    use(stack, server(machine, body, install={"url": image, "generation": 2, "erase": consent()}))
    again = stack.up()
    assert again.ok, again.output
    assert machine.asked == [("POST", "Reset GracefulShutdown"), *INSTALLED]
    assert body.installs == [image, image]


@pytest.mark.parametrize(
    "event",
    INSTALLED[:4],
    ids=lambda event: event[1].replace(" ", "-"),
)
@pytest.mark.slow
def test_a_bmc_that_goes_down_in_the_middle_leaves_what_a_second_run_finishes(
    stack: Stack, machine: Bmc, body: Hardware, image: str, event: tuple[str, str]
) -> None:
    limits = {**LIMITS, "bmc": 4}  # of which a power change takes up to 2
    use(stack, server(machine, body, limits=limits, install={"url": image, "erase": consent()}))
    machine.down_after = event
    broken = stack.up()
    assert not broken.ok
    assert "the BMC of gpu1 does not answer" in broken.output
    assert stack.resources("pulumi-python:dynamic/rackllama:Server") == {}

    machine.down, machine.down_after = False, None
    use(stack, server(machine, body, install={"url": image, "erase": consent()}))
    second = stack.up()
    assert second.ok, second.output
    assert machine.medium() == ""
    assert machine.state()["PowerState"] == "On"
    assert stack.up().unchanged == 4


@pytest.mark.slow
def test_a_start_that_fails_after_an_install_is_tried_again_without_another(
    stack: Stack, machine: Bmc, body: Hardware, image: str
) -> None:
    wrong = {"port": free_port(), "limits": {**LIMITS, "ssh": 1}}
    use(stack, server(machine, body, install={"url": image, "erase": consent()}, **wrong))
    late = stack.up()
    assert not late.ok
    assert "gpu1 does not answer SSH" in late.output
    use(stack, server(machine, body, install={"url": image, "erase": consent()}))
    second = stack.up()
    assert second.ok, second.output
    assert body.installs == [image]


@pytest.mark.slow
def test_an_installer_that_takes_longer_is_waited_for_by_the_next_run_and_needs_no_more_consent(
    stack: Stack, machine: Bmc, body: Hardware, image: str
) -> None:
    body.stuck = True
    hasty = {"limits": {**LIMITS, "install": 1}}
    use(stack, server(machine, body, install={"url": image, "erase": consent()}, **hasty))
    late = stack.up()
    assert not late.ok
    assert "wait for the installer to power off did not come about within 1 s" in late.output
    use(stack, server(machine, body, install={"url": image}))
    end = end_install(machine, body, looks=12)  # well after the run has found it running
    second = stack.up()
    end.join()
    assert second.ok, second.output
    assert machine.asked == INSTALLED
    assert body.installs == [image]


def test_an_image_is_made_for_the_machine_served_to_its_bmc_and_gone_when_it_is_installed(
    stack: Stack, machine: Bmc, body: Hardware, tmp_path: Path
) -> None:
    ensure_packages(["xorriso"])
    source = stand_in(tmp_path, "debian")
    install = {
        "iso": str(source.path),
        "sha256": source.sha256,
        "serve_at": "127.0.0.1",
        "system": "debian",
        "disk": "1234570",
        "mirror": "http://mirror.example/debian",
        "erase": consent(),
    }
    stack.config_set_all({"authorized_keys": [KEY]})
    cache = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    use(stack, server(machine, body, install={**install, "disk": "another"}))
    refused = stack.preview(environment=cache)
    assert not refused.ok
    assert "gpu1 has no disk 'another'" in refused.output
    use(stack, server(machine, body, install=install))
    up = stack.up(environment=cache)
    assert up.ok, up.output
    assert machine.asked == INSTALLED
    (served_at,) = body.installs
    (made,) = (tmp_path / "cache").rglob("*.iso")
    assert served_at.rsplit("/", 1)[1] == made.name
    with pytest.raises(URLError, match="refused"):
        urlopen(served_at)


def test_power_changes_lag_as_the_emulator_has_them_and_are_polled(stack: Stack, tmp_path: Path) -> None:
    with bmc(tmp_path / "slow", lag=None) as machine, hardware(machine, installed=True) as body:
        use(stack, server(machine, body, on_destroy="power_off"))
        start = time.monotonic()
        up = stack.up()
        assert up.ok, up.output
        assert stack.destroy().ok
        assert machine.state()["PowerState"] == "Off"
        assert machine.asked == [("POST", "Reset On"), ("POST", "Reset GracefulShutdown")], "asked for once each"
        assert time.monotonic() - start > 2, "the emulator waits for a second or more, twice"


def test_passwords_are_in_no_state_log_or_error(stack: Stack, machine: Bmc, body: Hardware, tmp_path: Path) -> None:
    use(stack, server(machine, body))
    refused = stack.up(environment={"RACKLLAMA_BMC_GPU1_PASSWORD": "hunter2-is-wrong"})
    assert not refused.ok
    assert "the BMC of gpu1 refuses 'admin'" in refused.output
    lacking = stack.up(environment={"RACKLLAMA_BMC_PASSWORD": ""})
    assert "no password is known for 'admin'" in lacking.output
    body.installed = True
    up = stack.up()
    assert up.ok, up.output
    told = "".join([refused.output, lacking.output, up.output, stack.state_text(), stack.refresh().output])
    assert "hunter2" not in told
    assert PASSWORD not in told
    files = [path for path in stack.folder.parent.rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if PASSWORD.encode() in path.read_bytes()]


@pytest.mark.slow
def test_a_bmc_that_is_away_does_not_hold_a_destroy_up_that_leaves_the_machine(
    stack: Stack, machine: Bmc, body: Hardware
) -> None:
    body.installed = True
    use(stack, server(machine, body, limits={**LIMITS, "bmc": 1}))
    assert stack.up().ok
    machine.down = True
    refresh = stack.refresh()
    assert not refresh.ok, "a BMC that is away is no machine that is gone"
    assert len(stack.resources("pulumi-python:dynamic/rackllama:Server")) == 1
    assert stack.destroy().ok


@pytest.mark.slow
def test_another_machine_behind_the_same_bmc_is_not_taken_for_the_first(
    stack: Stack, machine: Bmc, body: Hardware
) -> None:
    body.installed = True
    use(stack, server(machine, body, on_destroy="power_off"))
    assert stack.up().ok
    machine.asked.clear()
    machine.overlay[SYSTEM] = {**TOLD, "SerialNumber": "SN-2"}
    for refused in (stack.refresh(), stack.destroy()):
        assert not refused.ok
        assert "another machine answers at the BMC of gpu1" in refused.output
    assert machine.asked == []


def test_machines_that_run_already_are_described_when_they_answer(stack: Stack) -> None:
    port = free_port()
    entry = {"name": "gpu3", "address": "127.0.0.1", "port": port, "gpus": "2xL20", "roles": ["serving", "gateway"]}
    stack.config_set_all({"existing": [entry]})
    refused = stack.preview()
    assert not refused.ok
    assert f"gpu3 does not answer SSH at 127.0.0.1:{port}" in refused.output
    with ssh_at(port):
        assert stack.up().ok
    (host,) = stack.outputs()["hosts"]
    assert (host["gpus"], host["roles"], host["via"]) == (["L20", "L20"], ["serving", "gateway"], {"kind": "ssh"})
    assert stack.destroy().ok


def test_a_configuration_that_cannot_be_is_refused_before_a_bmc_is_asked(
    stack: Stack, machine: Bmc, body: Hardware
) -> None:
    use(stack, server(machine, body, colour="red"))
    refused = stack.preview()
    assert not refused.ok
    assert "server gpu1 has no setting colour" in refused.output
    assert machine.asked == []
