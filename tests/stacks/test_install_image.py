"""Install images, built by the real xorriso from stand-ins for distributions' own: their layout, and nothing to boot.

What a stand-in cannot show: that an installer takes its answers. `debconf-set-selections` judges how those are written.
"""

import hashlib
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from rackllama.host.errors import RackllamaError
from rackllama.lab.machine import ensure_packages
from rackllama.provision.redfish.image import Profile, Source, build, paths_on, render

from .bmc_image import FILES, KEY, stand_in

DEBIAN = Profile("debian", "gpu1", "S4EV1", (KEY,), mirror="http://mirror.example/debian")
UBUNTU = replace(DEBIAN, system="ubuntu", mirror="")


@pytest.fixture(autouse=True)
def _tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ensure_packages(["xorriso"])
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def boot_records(image: Path) -> list[str]:
    """How firmware starts the image, without where on it that lies."""
    argv = ["xorriso", "-indev", str(image), "-report_el_torito", "plain"]
    told = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
    lines = [line.split() for line in told.splitlines() if line.startswith("El Torito")]
    return [
        " ".join(words[:-1] if words[2:4] == ["boot", "img"] else words) for words in lines if words[2] != "catalog"
    ]


def content(image: Path, path: str, folder: Path) -> bytes:
    """One file of an image."""
    found = folder / "extracted"
    found.unlink(missing_ok=True)
    argv = ["xorriso", "-osirrox", "on", "-indev", str(image), "-extract", path, str(found)]
    subprocess.run(argv, check=True, capture_output=True)
    found.chmod(0o644)
    return found.read_bytes()


@pytest.mark.parametrize("profile", [DEBIAN, UBUNTU], ids=lambda profile: profile.system)
def test_an_image_boots_as_the_distributions_does_and_answers_itself(profile: Profile, tmp_path: Path) -> None:
    source = stand_in(tmp_path, profile.system)
    image = build(source, profile)
    assert boot_records(image) == boot_records(source.path)
    assert len(boot_records(image)) >= 4, "BIOS and UEFI"
    assert paths_on(image) == paths_on(source.path) | set(render(profile))
    for path, text in render(profile).items():
        assert content(image, path, tmp_path).decode() == text
    kernel = f"/{FILES[profile.system][0]}"
    assert content(image, kernel, tmp_path) == content(source.path, kernel, tmp_path)


def test_an_image_of_the_same_is_built_once_and_one_of_another_anew(tmp_path: Path) -> None:
    source = stand_in(tmp_path, "debian")
    first = build(source, DEBIAN)
    made = first.stat().st_mtime_ns
    assert build(source, DEBIAN) == first
    assert first.stat().st_mtime_ns == made
    assert build(source, replace(DEBIAN, disk="S4EV2")) != first


def test_an_image_of_another_kind_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    source = stand_in(tmp_path, "ubuntu")
    with pytest.raises(RackllamaError, match=r"is no installer of debian: it has no /install\.amd/vmlinuz"):
        build(source, DEBIAN)
    source.path.write_bytes(b"no image at all")
    broken = Source(source.path, hashlib.sha256(b"no image at all").hexdigest())
    with pytest.raises(RackllamaError):
        build(broken, DEBIAN)
    assert not list((tmp_path / "cache").rglob("*.iso"))


def test_debconf_takes_the_answers(tmp_path: Path) -> None:
    answers = tmp_path / "preseed.cfg"
    answers.write_text(render(DEBIAN)["/preseed.cfg"], encoding="ascii")
    done = subprocess.run(["debconf-set-selections", "--checkonly", str(answers)], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    answers.write_text("d-i netcfg/get_hostname\n", encoding="ascii")
    refused = subprocess.run(["debconf-set-selections", "--checkonly", str(answers)], capture_output=True, check=False)
    assert refused.returncode, "what is not well-formed is refused"
