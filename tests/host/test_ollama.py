"""Ollama on a converged host: what was declared is what runs, it is closed to others, and it stays so."""

import socket
from collections.abc import Callable, Iterator

import pytest
from testinfra.host import Host

UNIT = "/etc/systemd/system/ollama.service"
DROP_IN = f"{UNIT}.d/90-rackllama.conf"
COMMAND = "/opt/ollama/current/bin/ollama serve"
# What upstream's install script writes, and worse: another user, another program, open to the world.
UPSTREAM_UNIT = """\
[Unit]
Description=Ollama Service
After=network-online.target

[Service]
ExecStart=/usr/local/bin/ollama serve
User=nobody
Group=nogroup
Restart=always
RestartSec=3
Environment="OLLAMA_HOST=0.0.0.0"

[Install]
WantedBy=default.target
"""


@pytest.fixture
def overwritten_unit(host: Host) -> Iterator[None]:
    """The unit as an upstream installer leaves it, started; ours is put back afterwards, as it was."""
    host.check_output("cp --preserve=all %s /run/ollama.service.ours", UNIT)
    host.check_output("printf %%s %s > %s", UPSTREAM_UNIT, UNIT)
    host.check_output("systemctl daemon-reload && systemctl restart ollama")
    yield
    host.check_output("cp --preserve=all /run/ollama.service.ours %s && rm /run/ollama.service.ours", UNIT)
    host.check_output("systemctl daemon-reload && systemctl restart ollama")


def declared_environment(knobs) -> dict[str, str]:
    """The environment that the knobs ask for, in upstream's names."""
    return {
        "OLLAMA_HOST": f"127.0.0.1:{knobs['ollama_listen_port']}",
        "OLLAMA_MODELS": knobs["ollama_models_dir"],
        "OLLAMA_FLASH_ATTENTION": "1" if knobs["ollama_flash_attention"] else "0",
        "OLLAMA_KV_CACHE_TYPE": knobs["ollama_kv_cache_type"],
        "OLLAMA_NUM_PARALLEL": str(knobs["ollama_num_parallel"]),
        "OLLAMA_KEEP_ALIVE": f"{knobs['ollama_keep_alive_seconds']}s",
        "OLLAMA_LOAD_TIMEOUT": f"{knobs['ollama_load_timeout_seconds']}s",
        "OLLAMA_ORIGINS": ",".join(knobs["ollama_origins"]),
        **knobs["ollama_extra_env"],
    }


def test_systemd_shows_our_unit_and_our_drop_in(host: Host) -> None:
    shown = host.check_output("systemctl cat ollama")
    assert [line for line in shown.splitlines() if line.startswith("# /")] == [f"# {UNIT}", f"# {DROP_IN}"]


def test_it_is_enabled_and_runs(host: Host) -> None:
    service = host.service("ollama")
    assert service.is_enabled
    assert service.is_running


def test_the_process_has_the_environment_that_the_knobs_ask_for(ollama, knobs) -> None:
    running, declared = ollama.environment, declared_environment(knobs)
    assert {name: running.get(name) for name in declared} == declared


def test_the_release_behind_the_link_is_what_runs(host: Host, ollama) -> None:
    assert ollama.command == COMMAND
    assert host.check_output("readlink /opt/ollama/current") == ollama.ask("/api/version")["version"]


def test_the_sandbox_is_tight(host: Host) -> None:
    overall = host.check_output("systemd-analyze security --no-pager ollama | grep 'Overall exposure level'")
    assert float(overall.split(":")[1].split()[0]) <= 2.0


def test_it_listens_on_loopback_only(host: Host, ollama) -> None:
    listening = [spec for spec in host.socket.get_listening_sockets() if spec.endswith(f":{ollama.port}")]
    assert listening == [f"tcp://127.0.0.1:{ollama.port}"]


def test_others_are_refused(ollama, knobs) -> None:
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((knobs["ansible_host"], ollama.port), timeout=10)


def test_its_user_cannot_log_in(host: Host, ollama) -> None:
    assert host.check_output("stat --format=%%U /proc/%s", ollama.pid) == "ollama"
    assert host.user("ollama").shell == "/usr/sbin/nologin"


def test_its_models_belong_to_it_alone(host: Host, knobs) -> None:
    folder = host.file(knobs["ollama_models_dir"])
    assert (folder.is_directory, folder.user, folder.group, folder.mode) == (True, "ollama", "ollama", 0o750)


def test_its_secrets_are_for_root_alone(host: Host) -> None:
    secrets = host.file("/etc/rackllama/secrets/ollama.env")
    assert (secrets.user, secrets.mode) == ("root", 0o600)


def test_killed_it_comes_back(ollama, host: Host, eventually: Callable[..., None]) -> None:
    before = ollama.pid
    host.check_output("kill -9 %s", before)
    eventually(lambda: ollama.pid not in ("0", before) and ollama.answers, "another process answers")


@pytest.mark.usefixtures("overwritten_unit")
def test_an_upstream_installer_that_overwrites_the_unit_changes_nothing(
    host: Host, ollama, knobs, eventually: Callable[..., None]
) -> None:
    assert host.file(UNIT).content_string == UPSTREAM_UNIT
    eventually(lambda: ollama.answers, "it answers on its own address")
    assert ollama.command == COMMAND
    test_its_user_cannot_log_in(host, ollama)
    test_the_process_has_the_environment_that_the_knobs_ask_for(ollama, knobs)
    test_it_listens_on_loopback_only(host, ollama)
