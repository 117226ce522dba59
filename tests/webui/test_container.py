"""Open WebUI from a container image, run by the same unit, and the change from one way to the other and back.

No registry can be reached where this is tested. So the image is made here, from the packages that the host has got by
hash, with a start command like upstream's, and is offered by a stand-in for a registry. podman is the distribution's.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rackllama.host.webui.open_webui import Session
from rackllama.lab.hosts import network_gateway
from rackllama.lab.podman import podman
from rackllama.lab.up import QUESTION

from .people import PERSON, chats, write_chat
from .registry import Registry, registry

pytestmark = pytest.mark.slow
WEBUI = ("--tags", "webui")
WALKER = {**PERSON, "email": "walker@example.com"}
MODEL = "gemma3-270m:q4_k_m"
IMAGE = "localhost/rackllama-webui:test"
MADE_FROM = Path(__file__).parent
# A host that is a container itself has no overlay file system for podman: vfs.
PODMAN = """
DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends podman >/dev/null
cat >/etc/containers/storage.conf <<END
[storage]
driver = "vfs"
runroot = "/run/containers/storage"
graphroot = "/var/lib/containers/storage"
END
cat >/etc/containers/registries.conf.d/stand-in.conf <<END
[[registry]]
location = "{address}"
insecure = true
END"""


@pytest.fixture(scope="module")
def offered(converged: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry with an image of what the host has, and a podman there that knows of it."""
    context, pushed = tmp_path_factory.mktemp("image"), tmp_path_factory.mktemp("registry")
    release = converged.run("readlink -f /opt/open_webui/current")
    podman("cp", f"{converged.lab.hosts[0].container}:{release}/.", str(context / "packages"))
    for name in ("Containerfile", "start.sh"):
        shutil.copy(MADE_FROM / name, context)
    podman("build", "--quiet", "--squash-all", "--format=oci", f"--tag={IMAGE}", str(context))
    shutil.rmtree(context)
    podman("push", "--quiet", "--format=oci", IMAGE, f"dir:{pushed}")
    podman("image", "rm", IMAGE)
    with registry(network_gateway(), "open-webui/open-webui", pushed) as found:
        converged.run(PODMAN.format(address=found.address))
        yield found
    shutil.rmtree(pushed)


@pytest.fixture(scope="module")
def contained(converged: Any, offered: Registry) -> Iterator[Any]:
    """The site, after a person has written a chat, changed to the image; and as it was at the end."""
    converged.session().ask("POST", "/api/v1/auths/add", WALKER)
    write_chat(walker(converged), "from the package")
    outcome = converged.converge(*WEBUI, **declared(offered.image))
    assert outcome.code == 0, outcome.output
    yield converged
    back = converged.converge(*WEBUI)
    assert back.code == 0, back.output
    accounts = converged.session().ask("GET", "/api/v1/users/")["users"]
    gone = next(account["id"] for account in accounts if account["email"] == WALKER["email"])
    converged.session().ask("DELETE", f"/api/v1/users/{gone}")


def declared(image: str) -> dict[str, str]:
    return {"open_webui_install_method": "container", "open_webui_image": image}


def walker(site: Any) -> Session:
    return site.session(WALKER["email"], WALKER["password"])


def main_pid(site: Any) -> str:
    return site.run("systemctl show open_webui --property MainPID --value")


def test_check_mode_tells_of_an_image_that_is_not_there_yet(converged: Any, offered: Registry) -> None:
    outcome = converged.converge(*WEBUI, "--check", "--diff", **declared(offered.image))
    assert outcome.code == 0, outcome.output
    assert "RootDirectory=/opt/open_webui/" in outcome.output
    assert converged.run("ls /opt/open_webui").split()[1:] == ["current"]


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (lambda offered: offered.missing, "its registry has no such image"),
        (lambda offered: offered.forged, "what its registry gives does not have this digest"),
        (lambda offered: offered.image.replace("@sha256:", ":"), "and no image by its digest"),
    ],
    ids=["a digest that the registry does not have", "a registry that gives another image", "a tag"],
)
def test_another_image_is_refused_and_what_runs_is_left_alone(converged, offered, image, said) -> None:
    before = main_pid(converged)
    outcome = converged.converge(*WEBUI, **declared(image(offered)))
    assert outcome.code != 0
    assert said in " ".join(outcome.output.split())
    assert main_pid(converged) == before
    assert converged.run("ls -A /opt/open_webui").split()[1:] == ["current"]


def test_it_is_run_from_the_image_by_the_same_unit(contained: Any) -> None:
    command = contained.run(f"tr '\\0' ' ' </proc/{main_pid(contained)}/cmdline")
    assert command.startswith("python3 -m uvicorn open_webui.main:app --host 127.0.0.1 --port 8080")
    assert contained.run(f"stat --format=%U /proc/{main_pid(contained)}") == "open_webui"
    assert contained.run(f"ls /proc/{main_pid(contained)}/root/app").split() == ["backend", "venv"]


def test_accounts_and_chats_are_there_and_the_model_answers(contained: Any) -> None:
    assert chats(walker(contained)) == ["from the package"]
    question = [{"role": "user", "content": QUESTION}]
    body = {"model": MODEL, "messages": question, "stream": False, "temperature": 0, "max_tokens": 16}
    answer = walker(contained).ask("POST", "/api/chat/completions", body)
    assert "Paris" in answer["choices"][0]["message"]["content"]


def test_a_second_converge_changes_nothing(contained: Any, offered: Registry) -> None:
    again = contained.converge(*WEBUI, **declared(offered.image))
    assert (again.code, again.changed) == (0, {contained.lab.hosts[0].name: 0})


def test_it_is_sandboxed_as_well_as_the_package_is(contained: Any) -> None:
    said = contained.run("systemd-analyze security --no-pager open_webui").splitlines()[-1]
    assert float(said.partition(":")[2].split()[0]) <= 2.0, said


def test_what_was_unpacked_gives_nobody_any_rights(contained: Any) -> None:
    root = contained.run("readlink -f /opt/open_webui/current/root")
    assert contained.run(f"find {root} -perm /6000 -o -perm /022 ! -type l -o ! -user root -o -type b -o -type c") == ""
    assert contained.run("podman images --quiet; podman ps --all --quiet") == ""  # the engine keeps nothing


def test_the_change_back_keeps_what_was_written_since(contained: Any, offered: Registry) -> None:
    write_chat(walker(contained), "from the image")
    back = contained.converge(*WEBUI)
    assert back.code == 0, back.output
    assert chats(walker(contained)) == ["from the image", "from the package"]
    assert "RootDirectory" not in contained.run("systemctl cat open_webui")
    again = contained.converge(*WEBUI, **declared(offered.image))
    assert again.code == 0, again.output  # from the disk: the release is there
    assert chats(walker(contained)) == ["from the image", "from the package"]
