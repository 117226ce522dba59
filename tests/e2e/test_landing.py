"""A model on its way to a host, as a site sees it: whatever dies meanwhile, it arrives, once and whole."""

import json
import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from rackllama.mirror.lock import in_shard_order, read_lock

from .waiting import wait_until

SLUG = "gemma3-270m-q4-k-m"
UNIT = f"rackllama-land@{SLUG}"
FORGET = f"""
systemctl stop {UNIT}
rm -rf /var/lib/rackllama/land/{SLUG} /var/lib/ollama/models/manifests /var/lib/ollama/models/blobs
systemctl restart ollama
"""
MODELS = ("--tags", "models")
SLOW = {"gguf_model_rate_limit_mib_per_second": 25}  # 241 MiB take 10 s
VERY_SLOW = {"gguf_model_rate_limit_mib_per_second": 7}
FETCHED = 14 << 20
DEADLINE_SECONDS = 60


@pytest.fixture
def empty(converged: Any) -> Iterator[Any]:
    """The site without its model, and with it again."""
    converged.run(FORGET)
    yield converged
    ended = converged.converge(*MODELS)
    assert ended.code == 0, ended.output


def declaration(site: Any) -> dict[str, Any]:
    """The site's model, declared inline as the lock has it."""
    files = in_shard_order(read_lock(site.lock)[SLUG].files)
    return {
        "name": "gemma3-270m",
        "variant": "q4_k_m",
        "source": files[0].url.rpartition("/")[0],
        "shards": [{"name": file.name, "size": file.size, "sha256": file.sha256} for file in files],
    }


def progress(site: Any) -> dict[str, Any]:
    said = site.run(f"cat /var/lib/rackllama/land/{SLUG}/progress.json 2>/dev/null || echo '{{}}'")
    found: dict[str, Any] = json.loads(said)
    return found


def wait_for_some_bytes(site: Any) -> None:
    wait_until(lambda: progress(site).get("bytes", 0) >= FETCHED, DEADLINE_SECONDS)


def test_the_play_shows_how_far_it_is_and_the_unit_goes_on_without_it(empty: Any) -> None:
    play = empty.start_converge(*MODELS, **VERY_SLOW)
    wait_for_some_bytes(empty)
    os.killpg(play.pid, signal.SIGKILL)
    play.communicate()
    assert empty.run(f"systemctl is-active {UNIT}") == "active"
    assert empty.served() == []  # nothing is served from what is not whole
    started = empty.run(f"systemctl show {UNIT} --property ExecMainStartTimestamp")

    attached = empty.converge(*MODELS, **VERY_SLOW)

    assert attached.code == 0, attached.output
    assert "MiB/s" in attached.output
    assert empty.run(f"systemctl show {UNIT} --property ExecMainStartTimestamp") == started
    assert empty.answer()
    assert empty.converge(*MODELS, **VERY_SLOW).changed == {"etoe1": 0}


def test_killed_it_comes_back_and_goes_on_where_it_was(empty: Any) -> None:
    play = empty.start_converge(*MODELS, **SLOW)
    wait_for_some_bytes(empty)
    empty.run(f"systemctl kill --signal=KILL {UNIT}")
    said, _ = play.communicate()
    assert play.returncode == 0, said
    assert empty.run(f"systemctl show {UNIT} --property NRestarts --value") == "1"
    assert empty.answer()


@pytest.mark.slow
def test_a_reboot_is_gone_on_after_without_a_play(empty: Any) -> None:
    play = empty.start_converge(*MODELS, **SLOW)
    wait_for_some_bytes(empty)
    empty.reboot()
    play.communicate()
    wait_until(lambda: progress(empty).get("phase") == "served", DEADLINE_SECONDS)
    assert empty.answer()
    assert empty.converge(*MODELS, **SLOW).code == 0


def test_a_shard_that_is_not_the_published_one_is_named_and_never_served(empty: Any) -> None:
    declared = declaration(empty)
    wrong = {**declared["shards"][1], "sha256": "0" * 64}
    shards = [wrong if shard["name"] == wrong["name"] else shard for shard in declared["shards"]]
    told = empty.converge(*MODELS, rackllama_models=[{**declared, "shards": shards}])
    assert told.code != 0
    words = " ".join(told.output.split())
    assert f"{SLUG} on etoe1: {wrong['name']} has not the published sha256 {'0' * 64}" in words
    assert "remedy: repair the source, or lock the model again" in words
    assert empty.served() == []


def test_a_template_that_is_not_the_models_own_fails_the_play_and_tells_what_is_wrong(empty: Any) -> None:
    # Ollama's braces, kept from Jinja.
    template = "{% raw %}{{ range .Messages }}<|User|>{{ .Content }}<|Assistant|>{{ end }}{% endraw %}"
    told = empty.converge(*MODELS, rackllama_models=[{**declaration(empty), "template": template}])
    assert told.code != 0
    words = " ".join(told.output.split())
    assert "gemma3-270m:q4_k_m has its own markers" in words
    assert "<|User|> is plain text to this model" in words
    assert empty.served() == ["gemma3-270m:q4_k_m"]  # what answers worse is still better than nothing


def test_what_is_no_longer_declared_is_reported_and_removed_on_request(empty: Any) -> None:
    assert empty.converge(*MODELS).code == 0
    reported = empty.converge(*MODELS, rackllama_models=[])
    assert "gemma3-270m:q4_k_m is on this host and no longer declared" in reported.output
    assert (reported.code, reported.changed) == (0, {"etoe1": 0})
    assert empty.answer()

    removed = empty.converge(*MODELS, rackllama_models=[], gguf_model_remove_undeclared=True)
    assert removed.code == 0, removed.output
    assert empty.run("find /var/lib/ollama/models /var/lib/rackllama/land -type f -size +1M") == ""
    there = empty.run(f"ls -A /etc/rackllama/models; ls -A /etc/rackllama/plans; systemctl is-enabled {UNIT} || true")
    assert there.split() == ["disabled"]
