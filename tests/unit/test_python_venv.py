"""A Python package in an environment of its own: whole or absent, each wheel by its hash, version beside version."""

import base64
import hashlib
import subprocess
import sys
import zipfile
from dataclasses import replace

import pytest

from rackllama.host.errors import RackllamaError
from rackllama.host.services.python_venv import WantedVenv, build, digest_of
from rackllama.host.services.release import carry_out, installed_releases, plan


@pytest.fixture
def offer(tmp_path):
    """Publish a version of `say-hello`, whose program prints its version, and give what is wanted then."""

    def publish(version, sha256=None, pythons=(sys.executable,)):
        page = tmp_path / "simple" / "say-hello" / "index.html"
        page.parent.mkdir(parents=True, exist_ok=True)
        wheel = page.parent / f"say_hello-{version}-py3-none-any.whl"
        write_wheel(wheel, version)
        links = "".join(f'<a href="{path.name}">{path.name}</a>' for path in page.parent.glob("*.whl"))
        page.write_text(f"<!DOCTYPE html><html><body>{links}</body></html>")
        text = (
            f"say-hello=={version} \\\n    --hash=sha256:{sha256 or hashlib.sha256(wheel.read_bytes()).hexdigest()}\n"
        )
        requirements = tmp_path / f"requirements-{version}.txt"
        requirements.write_text(text)
        return WantedVenv(
            name="hello",
            version=version,
            package=f"say-hello=={version}",
            requirements=requirements,
            sha256=digest_of(requirements),
            pythons=pythons,
            index=(tmp_path / "simple").as_uri(),
            root=tmp_path / "opt",
        )

    return publish


def write_wheel(path, version):
    info = f"say_hello-{version}.dist-info"
    files = {
        "say_hello.py": f"def main(): print('{version}')\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: say-hello\nVersion: {version}\nRequires-Dist: not-there\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": "[console_scripts]\nsay-hello = say_hello:main\n",
    }
    sums = {
        name: base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=")
        for name, text in files.items()
    }
    record = "".join(f"{name},sha256={sums[name].decode()},{len(text)}\n" for name, text in files.items())
    with zipfile.ZipFile(path, "w") as wheel:
        for name, text in {**files, f"{info}/RECORD": f"{record}{info}/RECORD,,\n"}.items():
            wheel.writestr(zipfile.ZipInfo(name), text)


def install(wanted):
    installed = installed_releases(wanted.release.home)
    carry_out(wanted.release, installed, plan(wanted.release, installed), lambda: build(wanted))


def said(wanted, link="current"):
    program = wanted.release.home / link / "bin/say-hello"
    return subprocess.run([program], capture_output=True, text=True, check=True).stdout.strip()


def test_a_version_is_built_beside_the_one_before_and_rollback_is_a_link(offer):
    install(offer("1.0"))
    wanted = offer("1.1")
    install(wanted)
    assert said(wanted) == "1.1"
    assert said(wanted, "previous") == "1.0"
    assert plan(wanted.release, installed_releases(wanted.release.home)) == []


def test_a_wheel_with_another_hash_is_refused_and_nothing_is_left(offer):
    wanted = offer("1.0", sha256="0" * 64)
    with pytest.raises(RackllamaError, match="DO NOT MATCH THE HASHES"):
        install(wanted)
    assert list(wanted.release.home.iterdir()) == []


def test_what_is_damaged_or_was_cut_short_is_built_anew(offer):
    wanted = offer("1.0")
    wanted.folder.mkdir(parents=True)  # as a killed run leaves it
    (wanted.folder / "left").touch()
    install(wanted)
    assert not (wanted.folder / "left").exists()
    next(wanted.folder.glob("lib/python*/site-packages/say_hello.py")).unlink()
    install(wanted)
    assert said(wanted) == "1.0"
    (wanted.folder / "bin/python").unlink()
    (wanted.folder / "bin/python").symlink_to("/usr/bin/python-that-left")
    assert installed_releases(wanted.release.home).versions == {}


def test_a_host_without_a_fitting_python_is_told_what_is_wanted(offer):
    with pytest.raises(RackllamaError, match=r"say-hello==1.0 needs one of python9.9") as caught:
        install(replace(offer("1.0", pythons=("python9.9",)), otherwise="take the image"))
    assert caught.value.remedy.endswith("or name one that is there; take the image")


def test_requirements_of_another_version_are_refused(offer):
    wanted = offer("1.0")
    wanted.requirements.write_text(wanted.requirements.read_text().replace("1.0", "1.1"))
    with pytest.raises(RackllamaError, match=r"does not pin say-hello==1.0"):
        install(wanted)


def test_missing_requirements_are_told_but_in_check_mode(tmp_path):
    with pytest.raises(RackllamaError, match="there are no requirements"):
        digest_of(tmp_path / "missing.txt")
    assert digest_of(tmp_path / "missing.txt", may_be_missing=True) == ""
