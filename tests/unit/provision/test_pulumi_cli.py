"""Which Pulumi CLI is used, how the pinned one is installed, and where state is kept for whoever has not chosen."""

import io
import stat
import tarfile
from hashlib import sha256
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from rackllama.host.errors import RackllamaError
from rackllama.mirror.lock import Artefact, LockedFile, default_lock_path, read_lock
from rackllama.provision import pulumi_cli
from rackllama.provision.pulumi_cli import (
    PulumiCli,
    chosen_backend,
    find_pulumi,
    install_pulumi,
    pulumi_environment,
    suits,
    tools_folder,
    wanted_release,
)

URL = "https://get.example/releases/sdk/pulumi-v{0}-linux-x64.tar.gz"


@pytest.fixture(autouse=True)
def _own_folders(tmp_path, monkeypatch):
    for name in ("XDG_CACHE_HOME", "XDG_STATE_HOME", "HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))


def program(version):
    return f"#!/bin/sh\necho v{version}\n".encode()


def put_on_path(folder, version):
    path = folder / "pulumi"
    folder.mkdir(parents=True)
    path.write_bytes(program(version))
    path.chmod(0o755)
    return {"PATH": f"{folder}:/usr/bin:/bin"}


def archive(version):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        member = tarfile.TarInfo("pulumi/pulumi")
        member.mode, content = 0o755, program(version)
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def lock_of(version, content=None):
    digest, size = (sha256(content).hexdigest(), len(content)) if content else (None, None)
    file = LockedFile(URL.format(version), size, digest, "amd64")
    return {"pulumi": Artefact("pulumi", version, "Apache-2.0", "github-release:pulumi/pulumi", (file,))}


@pytest.mark.parametrize("version", ["3.272.0", "3.272.1", "3.300.0", "3.272.0-alpha.1", "built-by-hand"])
def test_a_cli_as_new_as_the_sdk_or_newer_suits_it(version):
    assert suits(version, "3.272.0")


@pytest.mark.parametrize("version", ["3.271.9", "2.300.0", "4.0.0"])
def test_an_older_one_or_one_of_another_major_version_does_not(version):
    assert not suits(version, "3.272.0")


def test_the_one_on_path_is_used_where_it_suits(tmp_path):
    environment = put_on_path(tmp_path / "bin", "3.999.0")

    assert find_pulumi(environment) == PulumiCli(tmp_path / "bin" / "pulumi", "3.999.0")


def test_where_none_suits_the_remedy_names_both_ways_to_get_one(tmp_path):
    with pytest.raises(RackllamaError, match="is not installed") as none:
        find_pulumi({"PATH": "/usr/bin:/bin"})
    with pytest.raises(RackllamaError, match=r"pulumi 3\.1\.0 at .* does not go with the Pulumi SDK"):
        find_pulumi(put_on_path(tmp_path / "old", "3.1.0"))
    assert "rackllama tools" in none.value.remedy
    assert "pulumi.com/docs/install" in none.value.remedy


def test_without_the_sdk_stacks_can_be_read_and_not_run(tmp_path, monkeypatch):
    def missing(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(pulumi_cli, "installed_version", missing)
    environment = put_on_path(tmp_path / "bin", "3.1.0")

    assert find_pulumi(environment, runs_programs=False).version == "3.1.0"
    with pytest.raises(RackllamaError, match="the Pulumi SDK is not installed") as refused:
        find_pulumi(environment)
    assert "bootstrap" in refused.value.remedy


def test_one_that_does_not_run_is_told(tmp_path):
    environment = put_on_path(tmp_path / "bin", "3.999.0")
    (tmp_path / "bin" / "pulumi").write_text("#!/bin/sh\necho no such loader >&2\nexit 3\n")

    with pytest.raises(RackllamaError, match="version` fails: no such loader"):
        find_pulumi(environment)


def test_the_pinned_one_is_fetched_through_the_mirror_checked_and_found(mirror, monkeypatch):
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    content = archive("3.999.0")
    mirror.files["/get.example/releases/sdk/pulumi-v3.999.0-linux-x64.tar.gz"] = content

    assert install_pulumi(lock_of("3.999.0", content), mirror.url, tools_folder()) == "3.999.0"
    assert install_pulumi(lock_of("3.999.0", content), mirror.url, tools_folder()) == "3.999.0"

    found = find_pulumi({"PATH": "/usr/bin:/bin"})
    assert found == PulumiCli(tools_folder() / "pulumi" / "current" / "pulumi", "3.999.0")
    assert len(mirror.requested_ranges) == 1


def test_an_archive_that_is_not_the_locked_one_is_not_installed(mirror, monkeypatch):
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    mirror.files["/get.example/releases/sdk/pulumi-v3.999.0-linux-x64.tar.gz"] = archive("3.998.0")

    with pytest.raises(RackllamaError, match="is locked; the download was deleted") as refused:
        install_pulumi(lock_of("3.999.0", archive("3.999.0")), mirror.url, tools_folder())
    assert "pulumi.com/docs/install" in refused.value.remedy
    with pytest.raises(RackllamaError, match="is not installed"):
        find_pulumi({"PATH": "/usr/bin:/bin"})


def test_one_whose_checksum_was_never_learnt_is_not_fetched():
    with pytest.raises(RackllamaError, match="was never learnt from upstream") as refused:
        wanted_release(lock_of("3.999.0"), "Linux", "x86_64", "", Path("/nowhere"))
    assert refused.value.remedy == "run: rackllama lock pulumi"


@pytest.mark.parametrize(("system", "machine"), [("Darwin", "arm64"), ("Linux", "riscv64")])
def test_a_machine_that_no_release_is_locked_for_is_told(system, machine):
    with pytest.raises(RackllamaError, match=f"{system}|{machine}"):
        wanted_release(lock_of("3.999.0", b"any"), system, machine, "", Path("/nowhere"))


def test_the_locked_release_is_one_that_suits_the_sdk():
    assert suits(read_lock(default_lock_path())["pulumi"].version, pulumi_cli.installed_version("pulumi"))


def test_whoever_has_chosen_a_backend_keeps_it(tmp_path):
    environment = {"PULUMI_BACKEND_URL": "s3://states", "PULUMI_CONFIG_PASSPHRASE": "mine"}
    home = tmp_path / "pulumi-home"
    home.mkdir()
    (home / "credentials.json").write_text('{"current": "https://api.pulumi.com"}')

    assert pulumi_environment(environment) == {**environment, "PULUMI_SKIP_UPDATE_CHECK": "true"}
    assert chosen_backend({"PULUMI_HOME": str(home)}) == "https://api.pulumi.com"
    assert chosen_backend({"PULUMI_ACCESS_TOKEN": "pul-1"}) == "app.pulumi.com"


def test_a_backend_is_looked_for_where_pulumi_looks_and_in_its_order(tmp_path):
    for name in ("home", "credentials"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "credentials.json").write_text(f'{{"current": "file:///{name}"}}')
    (tmp_path / "Pulumi.yaml").write_text("name: any\nbackend:\n  url: s3://of-the-project\n")
    environment = {"PULUMI_HOME": str(tmp_path / "home"), "PULUMI_CREDENTIALS_PATH": str(tmp_path / "credentials")}

    assert chosen_backend(environment) == "file:///credentials"
    assert chosen_backend(environment, tmp_path) == "s3://of-the-project"
    assert chosen_backend({**environment, "PULUMI_BACKEND_URL": "gs://mine"}, tmp_path) == "gs://mine"
    assert "PULUMI_BACKEND_URL" not in pulumi_environment({}, project=tmp_path)


@pytest.mark.parametrize("credentials", [None, '{"current": ""}', "not JSON"])
def test_whoever_has_not_gets_files_with_a_passphrase_that_stays(tmp_path, credentials):
    home = tmp_path / "pulumi-home"
    home.mkdir()
    if credentials is not None:
        (home / "credentials.json").write_text(credentials)

    first = pulumi_environment({"PULUMI_HOME": str(home)})
    passphrase = Path(first["PULUMI_CONFIG_PASSPHRASE_FILE"])
    kept = passphrase.read_text()

    assert first["PULUMI_BACKEND_URL"] == f"file://{passphrase.parent}"
    assert stat.S_IMODE(passphrase.stat().st_mode) == 0o600
    assert len(kept) > 40
    assert pulumi_environment({"PULUMI_HOME": str(home)}) == first
    assert passphrase.read_text() == kept
    assert [path.name for path in passphrase.parent.iterdir()] == ["passphrase"]


def test_a_passphrase_of_the_users_own_is_used(tmp_path):
    found = pulumi_environment({"PULUMI_HOME": str(tmp_path), "PULUMI_CONFIG_PASSPHRASE": "mine"})

    assert "PULUMI_CONFIG_PASSPHRASE_FILE" not in found
