"""A container image as a release: by its digest, got by the engine that is there, whole or absent, harmless on disk."""

import json
import os
import shutil
import stat

import pytest

from rackllama.host.errors import RackllamaError
from rackllama.host.services.container_image import (
    WantedImage,
    exec_line,
    install,
    make_ready,
    parse_reference,
    refusal,
    run_of,
    service,
    settle_files,
)
from rackllama.host.services.release import carry_out, installed_releases, plan

NAME, DIGEST = "registry.example.com/chat/page", "ab" * 32
CONFIG = {"Entrypoint": ["sh"], "Cmd": ["-c", "hello $HOST"], "Env": ["PATH=/usr/bin", "A=b=c"], "WorkingDir": "/app"}
# What an engine does of all this, with an image in a folder and what it keeps in another; each call is noted.
ENGINE = """#!/bin/sh
echo "$@" >>{kept}/calls
case "$1 $2" in
  "image inspect") [ -e {kept}/image ] && echo '{described}' ;;
  "pull "*) [ -z "{refuses}" ] && touch {kept}/image || {{ echo "{refuses}" >&2; exit 125; }} ;;
  "create "*) touch {kept}/container ;;
  "ps "*) [ ! -e {kept}/container ] || echo 1234 ;;
  "export "*) tar --create --directory={files} . ;;
  "rm "*) rm {kept}/container ;;
  "image rm") rm {kept}/image ;;
esac
"""


@pytest.fixture(params=["podman", "docker"])
def engine(request, tmp_path, monkeypatch):
    """Be on a host with this one container engine; gives a function that changes what it does."""
    files, kept = tmp_path / "files", tmp_path / "kept"
    for folder in ("usr/bin", "etc", "app", "tmp", "root"):
        (files / folder).mkdir(parents=True)
    (files / "usr/bin/sh").write_text("a shell")
    (files / "tmp/left").touch()
    kept.mkdir()

    def behave(refuses="", size=1000):
        described = json.dumps([{"Config": CONFIG, "Size": size}])
        program = tmp_path / "bin" / request.param
        program.parent.mkdir(exist_ok=True)
        program.write_text(ENGINE.format(kept=kept, files=files, refuses=refuses, described=described))
        program.chmod(0o755)
        return kept

    behave()
    for tool in ("rm", "tar", "touch"):
        (tmp_path / "bin" / tool).symlink_to(shutil.which(tool))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return behave


@pytest.fixture
def wanted(tmp_path):
    return WantedImage("page", "1.0", parse_reference(f"{NAME}:v1@sha256:{DIGEST}"), tmp_path / "opt")


def settle(wanted):
    installed = installed_releases(wanted.release.home)
    steps = plan(wanted.release, installed)
    carry_out(wanted.release, installed, steps, lambda: install(wanted))
    return [step.action for step in steps]


def test_an_image_becomes_a_release_and_neither_image_nor_container_stays(engine, wanted):
    assert settle(wanted) == ["unpack", "activate"]
    root = wanted.release.home / "current" / "root"
    assert wanted.release.version == "1.0-abababab"
    assert (root / "usr/bin/sh").read_text() == "a shell"
    assert list((root / "tmp").iterdir()) == []
    assert settle(wanted) == []
    assert sorted(path.name for path in engine().iterdir()) == ["calls"]
    assert not (wanted.release.home / ".fetch").exists()


def test_an_image_that_was_there_before_is_not_pulled_and_stays(engine, wanted):
    kept = engine(refuses="there is no network")
    (kept / "image").touch()
    settle(wanted)
    assert (kept / "image").exists()


def test_a_run_that_was_killed_is_taken_up_and_what_it_left_goes(engine, wanted):
    kept, fetch = engine(), wanted.release.home / ".fetch"
    (fetch / wanted.release.version / "root" / "half").mkdir(parents=True)
    (fetch / f"{wanted.release.version}.pulled").touch()  # so the image is ours
    (kept / "image").touch()
    (kept / "container").touch()
    settle(wanted)
    assert not (wanted.release.home / "current" / "root" / "half").exists()
    assert sorted(path.name for path in kept.iterdir()) == ["calls"]


def test_what_is_damaged_is_unpacked_anew(engine, wanted):
    settle(wanted)
    (wanted.release.home / "current/root/usr/bin/sh").write_text("cut")
    assert settle(wanted) == ["unpack"]


def test_an_image_that_cannot_be_had_leaves_nothing(engine, wanted):
    engine(refuses="Error: reading manifest: manifest unknown")
    with pytest.raises(RackllamaError, match="its registry has no such image"):
        settle(wanted)
    assert list(wanted.release.home.iterdir()) == []


def test_a_full_disk_is_told_before_anything_is_unpacked(engine, wanted):
    kept = engine(size=1 << 60)
    with pytest.raises(RackllamaError, match="the image takes 1073741824"):
        settle(wanted)
    assert "create" not in (kept / "calls").read_text()
    assert not (kept / "image").exists()


def test_a_host_without_an_engine_is_told_which_to_install(wanted, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RackllamaError) as caught:
        install(wanted)
    assert caught.value.remedy == "install podman, or docker"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (f"{NAME}:v1.2", "may stand for another image tomorrow"),
        (NAME, "may stand for another image tomorrow"),
        (f"chat/page@sha256:{DIGEST}", "no full name"),
        (f"{NAME}@sha256:{DIGEST[1:]}", "no full name"),
        (f"{NAME}@md5:{DIGEST}", "no full name"),
        (f"--all {NAME}@sha256:{DIGEST}", "no full name"),
        ("", "no full name"),
    ],
)
def test_an_image_is_named_in_full_and_by_its_digest(text, complaint):
    with pytest.raises(RackllamaError, match=complaint):
        parse_reference(text)


@pytest.mark.parametrize("name", [NAME, "localhost/page", "mirror:5000/chat/page", "10.0.0.1:5000/page"])
def test_a_tag_before_the_digest_is_for_people(name):
    assert str(parse_reference(f"{name}:v1@sha256:{DIGEST}")) == f"{name}@sha256:{DIGEST}"


@pytest.mark.parametrize(
    ("said", "meaning", "remedy"),
    [
        ("Error: writing blob: no space left on device", "the disk is full", "free space"),
        ("Error: unauthorized: authentication required", "does not let", "podman login registry.example.com"),
        ("denied: requested access to the resource is denied", "does not let", "podman login"),
        ("manifest unknown: manifest unknown", "has no such image", f"skopeo inspect docker://{NAME}:TAG"),
        ("pinging container registry: dial tcp: lookup: no such host", "is not reached", "podman pull"),
        (
            f"manifest does not match provided manifest digest sha256:{DIGEST}",
            "does not have this digest",
            "do not use",
        ),
        ("something else", "cannot be had: something else", "podman pull"),
    ],
)
def test_what_an_engine_refuses_is_told_with_its_remedy(said, meaning, remedy):
    told = refusal("podman", parse_reference(f"{NAME}@sha256:{DIGEST}"), said)
    assert meaning in told.message
    assert remedy in told.remedy


def test_files_are_readable_by_all_and_give_nobody_any_rights(tmp_path):
    (tmp_path / "tool").touch()
    (tmp_path / "tool").chmod(0o4777)
    (tmp_path / "app").mkdir(mode=0o2700)
    (tmp_path / "app" / "config").touch(mode=0o600)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/etc/shadow")
    settle_files(tmp_path)

    def mode(name):
        return oct(stat.S_IMODE((tmp_path / name).lstat().st_mode))

    assert [mode(name) for name in ("tool", "app", "app/config")] == ["0o755", "0o755", "0o644"]
    assert not (tmp_path / "pipe").exists()
    assert (tmp_path / "link").is_symlink()


def test_a_link_of_the_image_leads_no_write_astray(tmp_path):
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    elsewhere.mkdir()
    root.mkdir()
    (root / "etc").symlink_to(elsewhere)
    with pytest.raises(RackllamaError, match="behind the link etc"):
        make_ready(root, "/app")
    assert list(elsewhere.iterdir()) == []
    (root / "etc").unlink()
    (root / "etc").mkdir()
    (root / "etc/resolv.conf").symlink_to(elsewhere / "new")
    make_ready(root, "/app")
    assert (root / "etc/resolv.conf").is_file()
    assert (root / "app").is_dir()
    assert list(elsewhere.iterdir()) == []


def test_how_an_image_is_run_is_read_from_it(tmp_path):
    (tmp_path / "usr/bin").mkdir(parents=True)
    (tmp_path / "usr/bin/sh").touch()
    assert run_of(CONFIG, tmp_path) == {
        "command": ["/usr/bin/sh", "-c", "hello $HOST"],
        "environment": {"PATH": "/usr/bin", "A": "b=c"},
        "directory": "/app",
    }
    assert run_of({**CONFIG, "Entrypoint": ["./go"]}, tmp_path)["command"][0] == "/app/go"
    with pytest.raises(RackllamaError, match="does not say what to run"):
        run_of({"Entrypoint": None, "Cmd": []}, tmp_path)
    with pytest.raises(RackllamaError, match="wants to run gone, which is not in it"):
        run_of({"Cmd": ["gone"]}, tmp_path)


def test_a_unit_runs_it_with_its_files_as_root_directory(engine, wanted):
    settle(wanted)
    folder = wanted.release.home / wanted.release.version
    found = service(folder)
    assert found["service"]["RootDirectory"] == f"{folder}/root"
    assert found["service"]["ExecStart"] == '/usr/bin/sh -c "hello $$HOST"'
    assert found["service"]["WorkingDirectory"] == "-/app"
    assert "/etc/passwd" in found["service"]["BindReadOnlyPaths"]
    assert found["environment"]["A"] == "b=c"


def test_the_command_of_an_image_that_is_not_there_is_not_made_up(tmp_path):
    assert service(tmp_path / "1.0-abababab")["service"]["ExecStart"] == '"(known when the image is there)"'


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["/bin/sh", "-c", "a b"], '/bin/sh -c "a b"'),
        (["/bin/x", "100%", "$HOME", ""], '/bin/x "100%%" "$$HOME" ""'),
        (["/bin/x", 'say "hi"\n', "a\\b", ";"], '/bin/x "say \\"hi\\"\\n" "a\\\\b" ";"'),
    ],
)
def test_a_command_is_written_as_systemd_reads_it(words, line):
    assert exec_line(words) == line
