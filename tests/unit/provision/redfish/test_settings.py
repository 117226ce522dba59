"""From the configuration of the bare-metal stack to the arguments of its components."""

from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml

from rackllama.host.errors import RackllamaError
from rackllama.provision.redfish.plan import Consent
from rackllama.provision.redfish.server import OwnImage, PublishedImage
from rackllama.provision.redfish.settings import existing, require_one_name_each, servers

STACK = Path(__file__).parents[4] / "stacks" / "baremetal"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGTsD24PmKV1LOyHIGFYpsgNkRdRKGRAKdYQ1z3Gx1gn ops@desk"
SERVER = {"name": "gpu1", "address": "10.0.0.11", "bmc": {"endpoint": "https://10.0.9.11"}}
OWN = {
    "iso": "~/netinst.iso",
    "sha256": "00" * 32,
    "serve_at": "10.0.9.2",
    "system": "debian",
    "disk": "S4EV1",
    "mirror": "http://mirror.example/debian",
}


def test_the_example_can_be_used_as_it_is_written() -> None:
    config = yaml.safe_load((STACK / "Pulumi.example.yaml").read_text(encoding="utf-8"))["config"]
    of = {key.removeprefix("rackllama-baremetal:"): value for key, value in config.items()}
    declared = yaml.safe_load((STACK / "Pulumi.yaml").read_text(encoding="utf-8"))["config"]
    assert set(of) == set(declared)
    made = servers(of["servers"], of["authorized_keys"])
    assert [each.host.name for each in made] == ["gpu1", "gpu2"]
    assert isinstance(made[0].install.image, OwnImage)
    assert made[1].install is None
    assert [each.host.name for each in existing(of["existing"])] == ["gpu3"]


def test_the_main_program_only_wires() -> None:
    assert len((STACK / "__main__.py").read_text(encoding="utf-8").splitlines()) <= 60


def test_a_server_without_an_install_is_left_as_it_is() -> None:
    (made,) = servers([SERVER])
    assert (made.install, made.on_destroy, made.bmc.name, made.bmc.user) == (None, "leave", "gpu1", "admin")


def test_an_image_is_the_users_own_or_is_made_for_the_host() -> None:
    erase = {"machine": "SN-1", "until": "2030-05-01"}
    (published,) = servers([{**SERVER, "install": {"url": "http://10.0.9.2/gpu1.iso", "erase": erase}}])
    assert published.install.image == PublishedImage("http://10.0.9.2/gpu1.iso")
    assert published.install.erase == Consent("SN-1", date(2030, 5, 1))
    (made,) = servers([{**SERVER, "user": "me", "install": OWN}], [KEY])
    profile = made.install.image.profile
    assert (profile.hostname, profile.user, profile.authorized_keys) == ("gpu1", "me", (KEY,))
    assert made.install.image.source.path == Path.home() / "netinst.iso"


@pytest.mark.parametrize("scheme", ["https", "ftp"])
def test_an_address_with_a_password_is_refused_as_it_would_lie_in_the_state(scheme: str) -> None:
    with pytest.raises(RackllamaError, match="holds a user or a password") as refused:
        PublishedImage(f"{scheme}://u:hunter2@192.0.2.1/gpu1.iso")
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"install": {**OWN, "disk": 1234570}}, "disk of .* is 1234570, which is no text.*put it in quotes"),
        ({"limits": {"ssh": "300"}}, "ssh of .* is '300', which is no number"),
    ],
)
def test_what_yaml_reads_as_something_else_is_told(more: dict[str, Any], said: str) -> None:
    with pytest.raises(RackllamaError, match=said):
        servers([{**SERVER, **more}], [KEY])


def test_two_images_are_not_served_at_one_port() -> None:
    own = {**OWN, "serve_at": "192.0.2.5:8044"}
    other = {**SERVER, "name": "gpu2", "bmc": {**SERVER["bmc"], "endpoint": "https://192.0.2.22"}}
    with pytest.raises(RackllamaError, match="gpu1 and gpu2 serve their images at"):
        servers([{**SERVER, "install": own}, {**other, "install": own}], [KEY])


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"bmc": None}, "lacks bmc"),
        ({"address": None}, "lacks address"),
        ({"colour": "red"}, "has no setting colour"),
        ({"bmc": {"endpoint": "https://10.0.9.11", "password": "x"}}, "has no setting password"),
        ({"on_destroy": "explode"}, "cannot be 'explode' on destroy"),
        ({"install": {"url": "nfs://10.0.9.2/gpu1.iso"}}, "no BMC is sure to fetch"),
        ({"install": {"iso": "/netinst.iso"}}, "lacks sha256, serve_at"),
        ({"install": OWN}, "nobody could log in"),
        ({"install": {**OWN, "authorized": [KEY]}}, "has no setting authorized"),
        ({"install": {**OWN, "authorized_keys": [KEY], "serve_at": "0.0.0.0"}}, "every network"),
        ({"install": {"url": "http://10.0.9.2/a.iso", "erase": True}}, "no consent"),
        ({"limits": {"bmc": -1}}, "no time"),
        ({"gpus": "8xVoodoo3"}, "Voodoo3"),
    ],
)
def test_a_configuration_that_cannot_be_is_refused_with_the_remedy(change: dict[str, Any], why: str) -> None:
    entry = {key: value for key, value in {**SERVER, **change}.items() if value is not None}
    with pytest.raises(RackllamaError, match=why) as refused:
        servers([entry])
    assert refused.value.remedy


def test_two_machines_cannot_have_one_name() -> None:
    with pytest.raises(RackllamaError, match="several machines are named gpu1"):
        require_one_name_each(["gpu1", "gpu2", "gpu1"])


def test_two_servers_cannot_be_one_machine() -> None:
    with pytest.raises(RackllamaError, match="gpu1 and gpu2 have one BMC"):
        servers([SERVER, {**SERVER, "name": "gpu2", "address": "10.0.0.12"}])
    blades = [{**SERVER, "name": name, "bmc": {**SERVER["bmc"], "system": name}} for name in ("blade1", "blade2")]
    assert [each.bmc.system for each in servers(blades)] == ["blade1", "blade2"]
