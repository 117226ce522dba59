"""From a stack to the inventory: what is kept of it in Ansible's cache, and what is not."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from rackllama.host.errors import RackllamaError
from rackllama.provision.stack_inventory import stack_groups
from rackllama.provision.stack_outputs import Stack

HOST = {"name": "gpu1", "address": "10.0.1.12", "user": "ubuntu", "gpus": [], "roles": ["serving"]}


class Project:
    """A project whose stack exports what it is told to, and which tells how often it was asked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.told: list[str] = []
        self.cache: dict[str, Any] = {}
        (folder / "Pulumi.yaml").write_text("name: rackllama-aws")
        (folder / "pulumi").write_text(f"#!/bin/sh\necho asked >> {folder}/asked\ncat {folder}/outputs\n")
        (folder / "pulumi").chmod(0o755)
        self.exports([HOST])

    def exports(self, hosts: list[dict[str, Any]]) -> None:
        (self.folder / "outputs").write_text(json.dumps({"hosts": hosts, "token": "[secret]"} if hosts else {}))

    @property
    def asked(self) -> int:
        return len((self.folder / "asked").read_text().splitlines())

    def groups(self, name: str = "dev", *, may_be_cached: bool = True, now: float = 0, **environment: str) -> list[str]:
        path = os.pathsep.join([str(self.folder), "/usr/bin", "/bin"])
        stack = Stack(self.folder, name, environment={"PATH": path, **environment})
        found = stack_groups(stack, self.cache, may_be_cached=may_be_cached, tell=self.told.append, now=now)
        return found.groups["serving"]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    (tmp_path / "aws").mkdir()
    return Project(tmp_path / "aws")


def test_what_is_from_the_cache_is_told_with_its_age(project: Project) -> None:
    assert project.groups(now=0) == project.groups(now=720) == ["gpu1"]
    assert project.asked == 1
    assert "read 12 min ago; --flush-cache reads them anew" in project.told[0]


def test_a_flushed_cache_is_not_used_and_is_filled_anew(project: Project) -> None:
    project.groups()
    project.exports([{**HOST, "name": "gpu9"}])
    assert project.groups(may_be_cached=False) == ["gpu9"]
    assert project.groups() == ["gpu9"]
    assert project.asked == 2


def test_another_stack_or_backend_has_another_place_in_the_cache(project: Project) -> None:
    project.groups("dev")
    project.groups("prod")
    project.groups("dev", PULUMI_BACKEND_URL="file:///elsewhere")
    assert project.asked == 3
    assert project.told == []


def test_a_login_elsewhere_has_another_place_in_the_cache(project: Project, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "credentials.json").write_text(json.dumps({"current": f"s3://{name}"}))
        project.groups("dev", PULUMI_HOME=str(tmp_path / name))
    assert project.asked == 2


def test_nothing_is_kept_of_a_stack_that_is_merely_selected(project: Project) -> None:
    project.groups("")
    project.groups("")
    assert project.asked == 2
    assert project.cache == {}


def test_the_cache_holds_hosts_and_no_other_output(project: Project) -> None:
    project.groups()
    assert [sorted(kept) for kept in project.cache.values()] == [["hosts", "read_at"]]
    assert "secret" not in json.dumps(project.cache)


def test_hosts_that_are_not_of_the_schema_are_not_kept(project: Project) -> None:
    project.exports([{**HOST, "roles": ["cooking"]}])
    with pytest.raises(RackllamaError, match="cooking"):
        project.groups()
    assert project.cache == {}


def test_ssh_finds_the_folder_of_known_hosts(project: Project, tmp_path: Path) -> None:
    project.groups()
    assert (tmp_path / "state" / "rackllama" / "known_hosts").stat().st_mode & 0o777 == 0o700
