"""What an installer is told, and what it must never be: templates alone, no image is built here."""

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from rackllama.host.errors import RackllamaError
from rackllama.provision.redfish.image import Network, Profile, Source, render, require_source

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGTsD24PmKV1LOyHIGFYpsgNkRdRKGRAKdYQ1z3Gx1gn ops@desk"
DEBIAN = Profile("debian", "gpu1", "S4EV1", (KEY,), mirror="http://mirror.example/debian", packages=("ipmitool",))
UBUNTU = replace(DEBIAN, system="ubuntu", mirror="")
FIXED = Network("AA:BB:CC:DD:EE:01", "10.0.0.11/24", "10.0.0.1", ("10.0.0.2", "10.0.0.3"))


def answers(preseed: str) -> dict[str, str]:
    """Debian's answers by question, without owner and type."""
    lines = [line.split(maxsplit=3) for line in preseed.splitlines() if line and not line.startswith("#")]
    return {line[1]: line[3] if len(line) > 3 else "" for line in lines}


def test_debian_is_told_all_that_it_would_ask_and_powers_off_at_the_end() -> None:
    told = answers(render(DEBIAN)["/preseed.cfg"])
    assert told["netcfg/get_hostname"] == "gpu1"
    assert (told["mirror/http/hostname"], told["mirror/http/directory"]) == ("mirror.example", "/debian")
    assert told["debian-installer/exit/poweroff"] == "true"
    assert told["pkgsel/include"].split() == ["openssh-server", "sudo", "python3", "ipmitool"]
    assert "netcfg/get_ipaddress" not in told


def test_nobody_gets_a_password_and_only_the_key_lets_in() -> None:
    files = render(DEBIAN)
    told = answers(files["/preseed.cfg"])
    assert (told["passwd/root-login"], told["passwd/user-password-crypted"]) == ("false", "!")
    assert KEY in files["/rackllama/late.sh"]
    assert "PasswordAuthentication no" in files["/rackllama/late.sh"]
    user = yaml.safe_load(render(UBUNTU)["/rackllama/user-data"])["autoinstall"]["user-data"]["users"][0]
    assert (user["name"], user["lock_passwd"], user["ssh_authorized_keys"]) == ("ops", True, [KEY])


def test_one_disk_is_named_and_a_missing_one_stops_the_install(tmp_path: Path) -> None:
    install = yaml.safe_load(render(UBUNTU)["/rackllama/user-data"])["autoinstall"]
    assert install["storage"]["layout"]["match"] == {"serial": "*_S4EV1*"}
    assert install["shutdown"] == "poweroff"
    (is_one,) = install["early-commands"]
    stands_in = is_one.replace("/dev/disk/by-id/", f"{tmp_path}/by-id/")
    (tmp_path / "by-id").mkdir()
    (tmp_path / "sda").touch()
    (tmp_path / "sdb").touch()
    for name, disk in (("nvme-A_S4EV1", "sda"), ("nvme-A_S4EV1_1", "sda"), ("nvme-A_S4EV1-part1", "sdb")):
        (tmp_path / "by-id" / name).symlink_to(tmp_path / disk)
    assert subprocess.run(["sh", "-c", stands_in], check=False).returncode == 0
    (tmp_path / "by-id" / "nvme-A_S4EV12").symlink_to(tmp_path / "sdb")
    assert subprocess.run(["sh", "-c", stands_in], check=False).returncode == 1, "it may mean another disk"

    by_path = render(replace(UBUNTU, disk="/dev/nvme0n1"))["/rackllama/user-data"]
    assert yaml.safe_load(by_path)["autoinstall"]["storage"]["layout"]["match"] == {"path": "/dev/nvme0n1"}

    script = tmp_path / "disk.sh"
    asked = tmp_path / "debconf-set"
    asked.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/answers\n', encoding="ascii")
    asked.chmod(0o755)
    (tmp_path / "logger").symlink_to(shutil.which("true") or "/bin/true")
    for disk in ("NO-SUCH-SERIAL", "/dev/no-such-disk"):
        script.write_text(render(replace(DEBIAN, disk=disk))["/rackllama/disk.sh"], encoding="ascii")
        done = subprocess.run(["sh", script], env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, check=False)
        assert done.returncode == 1
    assert (tmp_path / "answers").read_text("ascii") == "partman-auto/disk /dev/none\n" * 2


def test_a_fixed_address_reaches_both_installers() -> None:
    told = answers(render(replace(DEBIAN, network=FIXED))["/preseed.cfg"])
    assert (told["netcfg/get_ipaddress"], told["netcfg/get_nameservers"]) == ("10.0.0.11/24", "10.0.0.2 10.0.0.3")
    host = yaml.safe_load(render(replace(UBUNTU, network=FIXED))["/rackllama/user-data"])["autoinstall"]["network"]
    assert host["ethernets"]["host"] == {
        "match": {"macaddress": "aa:bb:cc:dd:ee:01"},
        "addresses": ["10.0.0.11/24"],
        "routes": [{"to": "default", "via": "10.0.0.1"}],
        "nameservers": {"addresses": ["10.0.0.2", "10.0.0.3"]},
    }


def test_boot_menus_start_the_install_by_themselves_with_the_consoles_arguments() -> None:
    files = render(replace(DEBIAN, kernel_arguments="console=ttyS0,115200n8"))
    for menu in ("/boot/grub/grub.cfg", "/isolinux/isolinux.cfg"):
        assert "auto=true priority=critical preseed/file=/cdrom/preseed.cfg" in files[menu]
        assert files[menu].count("console=ttyS0,115200n8") == 1
    # GRUB ends a command at a bare semicolon.
    assert r"autoinstall ds=nocloud\;s=/cdrom/rackllama/" in render(UBUNTU)["/boot/grub/grub.cfg"]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("system", "windows"),
        ("hostname", "gpu1\nd-i preseed/late_command string rm -rf /"),
        ("user", "ops; reboot"),
        ("disk", ""),
        ("disk", "S4EV1 $(reboot)"),
        ("disk", "*"),
        ("authorized_keys", ()),
        ("authorized_keys", ("-----BEGIN OPENSSH PRIVATE KEY-----",)),
        ("authorized_keys", (f"{KEY}\n{KEY}",)),
        ("packages", ("vim && reboot",)),
        ("mirror", ""),
        ("mirror", "mirror.example"),
        ("kernel_arguments", "quiet }"),
        ("timezone", "Europe/Berlin\n"),
    ],
)
def test_what_would_let_nobody_in_or_say_more_than_it_should_is_refused(key: str, value: object) -> None:
    with pytest.raises(RackllamaError) as refused:
        replace(DEBIAN, **{key: value})
    assert refused.value.remedy


@pytest.mark.parametrize("change", [{"address": "10.0.0.11"}, {"gateway": "router"}, {"mac": "eth0"}])
def test_a_fixed_address_must_be_one(change: dict[str, str]) -> None:
    with pytest.raises(RackllamaError):
        replace(FIXED, **change)


def test_an_image_that_is_not_the_one_meant_is_refused(tmp_path: Path) -> None:
    iso = tmp_path / "netinst.iso"
    with pytest.raises(RackllamaError, match="there is no"):
        require_source(Source(iso, "00" * 32))
    iso.write_bytes(b"something else")
    with pytest.raises(RackllamaError, match="is not the image that was meant"):
        require_source(Source(iso, "00" * 32))
