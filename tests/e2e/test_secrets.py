"""A different canary in every knob that takes a secret: each is used, and none is anywhere that others look.

On a host of its own, by its first converge and three that fail; all the while a user without any rights looks at every
process of the host.
"""

import json
import re
import secrets
import shlex
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paramiko
import pytest
import yaml

from rackllama.lab.depot.progress import Progress
from rackllama.lab.hosts import ssh_client
from rackllama.lab.up import Stopwatch, start_ansible, start_lab, stop_lab
from rackllama.mirror.lock import in_shard_order, read_lock

from .conftest import Outcome, Site
from .outside import HUB, Outside, basic, requirement, serving, wheel

LAB = "canary"
MARK = f"Canary-{secrets.token_hex(4)}"
GIVEN = {
    name: f"{MARK}-{name}"
    for name in (
        *("proxy", "refused-proxy", "index", "dead-index", "hub", "s3-id", "s3-key", "s3-token"),
        *("connection", "admin", "extra"),
    )
}
PLANTED = f"{MARK}-planted"  # what is there to be found, so that looking and finding nothing says something
PACKAGE, VERSION = "open-webui", "0.12.4"
PYTHON = Path(__file__).parent
SECRETS = "/etc/rackllama/secrets"
MADE = {  # what the host makes for itself, by a command of root that tells it
    "session-key": f"cat {SECRETS}/open_webui.key",
    "certificate-key": "grep -A1 BEGIN.*PRIVATE /etc/rackllama/gateway/certificate.pem | tail -n1",
    "user-key": "python3 -I /opt/rackllama/current/rackllama-host.pyz key create canary",
}


@dataclass(frozen=True)
class Seen:
    """All that was said, and what was found where: by a bystander in processes and files, by root in files."""

    runs: Mapping[str, Outcome]
    needles: Mapping[str, str]
    used: set[str]
    journal: str
    processes: Mapping[str, Any]
    open_files: Mapping[str, Any]
    files: Mapping[str, Any]
    units: str


@contextmanager
def looking(site: Site, user: str, task: str, needles: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """Let a user of the host look for needles, at least once and until the end; what was found is filled in then."""
    program = shlex.quote((PYTHON / "bystander.py").read_text(encoding="utf-8"))
    found: dict[str, Any] = {}
    with ssh_client(site.lab, site.host) as client:
        stdin, stdout, stderr = client.exec_command(f"sudo -u {user} python3 -c {program} {task}")
        stdin.write("\n".join([*needles.values(), "\n"]))
        stdin.flush()
        assert stdout.readline() == "ready\n", stderr.read().decode()
        yield found
        _end(stdin)
        found.update(json.loads(stdout.read()))


def _end(stdin: paramiko.channel.ChannelStdinFile) -> None:
    stdin.channel.shutdown_write()


@pytest.fixture(scope="module")
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    """A host that nothing was done to yet."""
    yield Site(start_lab(LAB, 1, "bookworm", Stopwatch(Progress())))
    if not request.config.option.keep_lab:
        stop_lab(LAB)


@pytest.fixture(scope="module")
def seen(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    """What comes of a site with a canary in each knob."""
    folder = tmp_path_factory.mktemp("canaries")
    package = wheel(folder, PACKAGE, VERSION, PACKAGE, PYTHON / "stand_in_webui.py")
    with serving(Outside(GIVEN, {package.name: package.read_bytes()})) as outside:
        host, _, _ = outside.place.partition(":")
        site.run(f"printf '[global]\\ntrusted-host = {host}\\nretries = 1\\n' > /etc/pip.conf")
        site.run(f"echo {PLANTED} > /srv/planted && chmod 644 /srv/planted")
        runs = Runs(site, folder, knobs(site, folder, outside, package))
        needles = {**GIVEN, "proxy-header": basic("me", GIVEN["proxy"]), "index-header": basic("me", GIVEN["index"])}
        with looking(site, "nobody", "watch", {**needles, "planted": PLANTED}) as processes:
            refused = proxies(outside, "refused-proxy")
            said = {
                "refused by the proxy": runs("--tags", "engines", rackllama_proxy_env=refused),
                "whole": runs(),
                "refused by the hub": runs("--tags", "models", rackllama_models=[gated(site)]),
                "no index": runs.module(
                    "rackllama.llm.python_venv",
                    name="once_more",
                    package=PACKAGE,
                    version=VERSION,
                    requirements=f"/etc/rackllama/requirements/open_webui-{VERSION}.txt",
                    proxy_env={**proxies(outside, "proxy"), "no_proxy": host},
                    index=f"http://me:{GIVEN['dead-index']}@{host}:9/simple/",
                ),
            }
            site.run(f"true {PLANTED}; sleep 1")  # a process that lives long enough to be seen
        sys.stderr.write(", ".join(f"{name}: {run.seconds:.0f} s" for name, run in said.items()))
        needles |= {name: site.run(command) for name, command in MADE.items()}
        with (
            looking(site, "nobody", "search", {**needles, "planted": PLANTED}) as open_files,
            looking(site, "root", "search", needles) as files,
        ):
            pass
        yield Seen(
            runs=said,
            needles=needles,
            used=outside.used,
            journal=site.run("journalctl --no-pager --output=export | tr -cd '[:print:]\\n'"),
            processes=processes,
            open_files=open_files,
            files=files["found"],
            units=site.run("sudo -u nobody systemctl show --all '*'; sudo -u nobody systemctl cat '*' || true"),
        )


@dataclass(frozen=True)
class Runs:
    """Converges of a site with all that Ansible may ever say. Variables go by a file: a command line is for all."""

    site: Site
    folder: Path
    knobs: Mapping[str, Any]

    def __call__(self, *arguments: str, **others: Any) -> Outcome:
        variables = self.folder / "variables.yml"
        variables.write_text(yaml.safe_dump({**self.knobs, **others}), encoding="utf-8")
        inventory = self.folder / "inventory.yml"
        inventory.write_text(yaml.safe_dump({"webui": {"hosts": {self.site.host.name: {}}}}), encoding="utf-8")
        return self.site.converge("-i", str(inventory), "-e", f"@{variables}", "-vvv", "--diff", *arguments)

    def module(self, module: str, /, **arguments: Any) -> Outcome:
        """One module by itself."""
        started = time.monotonic()
        given = ["serving", "--become", "-vvv", "-m", module, "-a", json.dumps(arguments)]
        with start_ansible(self.site.lab.name, "ansible", *given) as ansible:
            output, _ = ansible.communicate()
        return Outcome(ansible.returncode, output, {}, time.monotonic() - started)


def knobs(site: Site, folder: Path, outside: Outside, package: Path) -> dict[str, Any]:
    """Every variable that takes a secret, and what it needs to be used."""
    requirements = folder / "requirements.txt"
    requirements.write_text(requirement(package, PACKAGE, VERSION), encoding="utf-8")
    return {
        "rackllama_proxy_env": proxies(outside, "proxy"),
        "rackllama_models": [from_bucket(site)],
        "gguf_model_tried": False,
        "gguf_model_hub_token": GIVEN["hub"],
        "gguf_model_source_env": {
            "AWS_ENDPOINT_URL_S3": outside.store,
            "AWS_ACCESS_KEY_ID": GIVEN["s3-id"],
            "AWS_SECRET_ACCESS_KEY": GIVEN["s3-key"],
            "AWS_SESSION_TOKEN": GIVEN["s3-token"],
        },
        "open_webui_version": VERSION,
        "open_webui_requirements_file": str(requirements),
        "open_webui_index": outside.index,
        "open_webui_openai_connections": [{"url": f"{outside.store}/v1", "key": GIVEN["connection"]}],
        "open_webui_admin_password": GIVEN["admin"],
        "open_webui_extra_secrets": {"OAUTH_CLIENT_SECRET": GIVEN["extra"]},
    }


def proxies(outside: Outside, secret: str) -> dict[str, str]:
    address = outside.proxy(GIVEN[secret])
    return {"http_proxy": address, "https_proxy": address, "no_proxy": ""}


def from_bucket(site: Site) -> dict[str, Any]:
    """The site's model, from S3."""
    files = in_shard_order(read_lock(site.lock)["gemma3-270m-q4-k-m"].files)
    return {
        "name": "gemma3-270m",
        "variant": "bucket",
        "source": "s3://bucket",
        "shards": [{"name": file.name, "size": file.size, "sha256": file.sha256} for file in files],
    }


def gated(site: Site) -> dict[str, Any]:
    """A model that a hub gives to nobody."""
    return {
        **from_bucket(site),
        "variant": "gated",
        "source": f"http://{HUB}/owner/repository/resolve/main",
        "shards": [{"name": "gated.gguf", "sha256": "0" * 64}],
    }


def names_in(text: str, needles: Mapping[str, str]) -> list[str]:
    """The names of the secrets that are in a text, with what stands around each."""
    return [
        f"{name}: …{text[max(0, text.find(needle) - 200) : text.find(needle) + 80]}…"
        for name, needle in needles.items()
        if needle in text
    ]


def test_every_secret_is_used_and_what_fails_says_why(seen: Seen) -> None:
    assert {name: run.code != 0 for name, run in seen.runs.items()} == {
        "refused by the proxy": True,
        "whole": False,
        "refused by the hub": True,
        "no index": True,
    }, seen.runs["whole"].output[-4000:]
    assert seen.used == {"proxy", "index", "s3-id", "hub"}
    words = {name: re.sub(r"\s+", " ", run.output) for name, run in seen.runs.items()}
    assert "answered 407" in words["refused by the proxy"]
    assert "answered 401" in words["refused by the hub"]
    assert "it wants another token" in words["refused by the hub"]
    assert "No matching distribution found for open-webui" in words["no index"]


def test_ansible_shows_none_of_them(seen: Seen) -> None:
    assert {name: found for name, run in seen.runs.items() if (found := names_in(run.output, seen.needles))} == {}


def test_none_is_in_the_journal(seen: Seen) -> None:
    assert PLANTED in seen.journal  # as sudo has told it
    assert names_in(seen.journal, seen.needles) == []


def test_no_other_user_sees_one_in_a_process(seen: Seen) -> None:
    assert seen.processes["looks"] > 1000
    assert {needle for needle, _ in seen.processes["seen"]} == {PLANTED}, seen.processes["seen"]


def test_no_other_user_sees_one_in_a_file_or_unit(seen: Seen) -> None:
    assert seen.open_files["files"] > 1000
    assert seen.open_files["found"] == {"/srv/planted 0:0 644": [PLANTED]}
    assert "OLLAMA_HOST" in seen.units
    assert names_in(seen.units, seen.needles) == []


def test_each_is_where_it_belongs_for_root_alone(seen: Seen, site: Site) -> None:
    gateway = site.run("getent group gateway | cut -d: -f3")
    needle = seen.needles
    found = {who: sorted(found) for who, found in seen.files.items() if not who.startswith("/var/log/journal/")}
    assert found == {
        f"{SECRETS}/rackllama-land@.env 0:0 600": sorted(
            needle[name] for name in ("proxy", "hub", "s3-id", "s3-key", "s3-token")
        ),
        f"{SECRETS}/open_webui.env 0:0 600": sorted(
            needle[name] for name in ("connection", "admin", "extra", "session-key")
        ),
        f"{SECRETS}/open_webui.admin-password 0:0 600": [needle["admin"]],
        f"{SECRETS}/open_webui.key 0:0 600": [needle["session-key"]],
        f"/etc/rackllama/gateway/certificate.pem 0:{gateway} 640": [needle["certificate-key"]],
    }
