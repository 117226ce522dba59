"""From one real version of Open WebUI to the next and back: accounts and chats are there at each step."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rackllama.host.webui.open_webui import Session

from .people import PERSON, chats, write_chat

pytestmark = pytest.mark.slow
OLDER = "0.12.3"
WEBUI = ("--tags", "webui")
ROLL_BACK = """
ln -sfn "$(readlink /opt/open_webui/previous)" /opt/open_webui/current
systemctl restart open_webui
healthy='import urllib.request; urllib.request.urlopen("http://127.0.0.1:8080/health")'
until python3 -c "$healthy" 2>/dev/null; do sleep 1; done"""


@pytest.fixture
def older(converged: Any, requirements: Callable[[str], Path]) -> Iterator[dict[str, str]]:
    """The site with an older version and no data, and with what it had again; gives what declares that version."""
    converged.run("systemctl stop open_webui; mv /var/lib/open_webui /var/lib/open_webui.kept")
    declared = {"open_webui_version": OLDER, "open_webui_requirements_file": str(requirements(OLDER))}
    outcome = converged.converge(*WEBUI, **declared)
    assert outcome.code == 0, outcome.output
    yield declared
    converged.run("""
        systemctl stop open_webui
        rm -rf /var/lib/open_webui && mv /var/lib/open_webui.kept /var/lib/open_webui""")
    assert converged.converge(*WEBUI).code == 0


def version(site: Any) -> str:
    return str(Session(site.url).ask("GET", "/api/config")["version"])


def test_accounts_and_chats_outlive_an_upgrade_and_a_rollback(converged: Any, older: dict[str, str]) -> None:
    def person() -> Session:
        return converged.session(PERSON["email"], PERSON["password"])

    assert version(converged) == OLDER
    converged.session().ask("POST", "/api/v1/auths/add", PERSON)
    write_chat(person(), "before the upgrade")

    upgraded = converged.converge(*WEBUI)
    assert upgraded.code == 0, upgraded.output
    newer = version(converged)
    assert newer != OLDER
    assert chats(person()) == ["before the upgrade"]
    write_chat(person(), "after the upgrade")

    converged.run(ROLL_BACK)  # as a person does it in a hurry
    assert version(converged) == OLDER
    assert chats(person()) == ["before the upgrade"]
    kept = converged.run("ls /var/lib/open_webui/rackllama/before").split()
    assert [name.partition("-")[0] for name in kept] == [OLDER, newer]  # also what was written since
    write_chat(person(), "after the rollback")

    again = converged.converge(*WEBUI)
    assert again.code == 0, again.output
    assert version(converged) == newer
    assert chats(person()) == ["after the rollback", "before the upgrade"]

    declared = converged.converge(*WEBUI, **older)  # and as a playbook does it
    assert declared.code == 0, declared.output
    assert version(converged) == OLDER
    assert chats(person()) == ["after the rollback", "before the upgrade"]
