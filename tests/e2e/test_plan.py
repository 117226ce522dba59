"""Plans on a site: what fits is told to the engine and found there; what does not is refused with nothing changed."""

import json
import re
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from rackllama.lab.up import start_ansible
from rackllama.planning.header_cache import default_header_cache

from .test_landing import FORGET, MODELS, SLUG, declaration

NAME = "gemma3-270m:q4_k_m"
PLAN = f"/etc/rackllama/plans/{SLUG}.json"
GEMMA = {"name": "gemma3-270m", "variant": "q4_k_m", "context": 4096}
PREFLIGHT = ("--tags", "preflight")
NOWHERE = "http://127.0.0.1:9"
# All that a converge could have changed, and when.
CHANGES = "find /etc /opt /var/lib/ollama/models /var/lib/rackllama -newer /run/before -not -type d; cat /proc/swaps"


@pytest.fixture
def touched(converged: Any) -> Iterator[Any]:
    """The site, as it is to be left at the end."""
    yield converged
    ended = converged.converge("--tags", "engines,models")
    assert ended.code == 0, ended.output


def plan(site: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(site.run(f"cat {PLAN}"))
    return found


def verified(site: Any) -> tuple[int, str]:
    with start_ansible(site.lab.name, "ansible-playbook", "playbooks/verify.yml") as play:
        said, _ = play.communicate()
    return play.returncode, " ".join(said.split())


def ram_mib(site: Any) -> int:
    return int(site.run("awk '/^MemTotal/ {print int($2 / 1024)}' /proc/meminfo"))


def forget_headers() -> None:
    shutil.rmtree(default_header_cache().folder, ignore_errors=True)


def test_the_plan_lies_on_the_host_and_its_engine_is_told(converged: Any) -> None:
    found = plan(converged)
    assert (found["fits"], found["devices"], found["host"]["total_mib"]) == (True, [], ram_mib(converged))
    assert found["serving"]["context"] == 4096
    modelfile = converged.run(f"cat /etc/rackllama/models/{SLUG}.Modelfile")
    assert "PARAMETER num_batch 512" in modelfile
    assert "num_gpu" not in modelfile  # there is none
    assert not [name for name in converged.environment() if name.startswith("LLAMA_ARG_")]


def test_verify_shows_the_plan_beside_what_the_engine_holds(converged: Any) -> None:
    code, said = verified(converged)
    assert code == 0, said
    shown = re.search(rf"ok plan\.memory {NAME} (\d+) MiB, (\d+) planned", said)
    assert shown, said
    held, planned = map(int, shown.groups())
    assert abs(held - planned) <= 2
    assert re.search(rf"ok plan\.context {NAME} 4096 tokens", said)


def test_what_does_not_fit_is_refused_before_anything_is_changed(converged: Any) -> None:
    converged.run("touch /run/before")
    refused = converged.converge(
        rackllama_models=[{**GEMMA, "context": 32768}],
        ollama_num_parallel=64,
        rackllama_plan_reserve={"host_mib": ram_mib(converged) - 4096},
    )
    words = " ".join(refused.output.split())
    assert refused.code != 0
    assert refused.changed == {converged.host.name: 0}
    assert f"plan for {converged.host.name}: 1 of 1 checks failed" in words
    assert f"plan {NAME} wanted a context of 32768 tokens for each of 64 at once, within 4.0 GiB of memory" in words
    assert re.search(r"it does not fit: \d\.\d GiB have no room", words)
    assert "ollama_kv_cache_type: q8_0" in words
    assert converged.run(CHANGES).splitlines()[1:] == []


def test_settings_that_cannot_be_are_refused(converged: Any) -> None:
    refused = converged.converge(ollama_kv_cache_type="q8_0", ollama_flash_attention=False)
    assert refused.code != 0
    assert refused.changed == {converged.host.name: 0}
    assert "values cached as q8_0 need flash attention" in refused.output


def test_an_override_has_the_last_word_and_is_planned_with(touched: Any) -> None:
    told = touched.converge("--tags", "engines,models", rackllama_models=[{**GEMMA, "overrides": {"num_batch": 256}}])
    assert told.code == 0, told.output
    assert plan(touched)["serving"]["micro_batch"] == 256
    assert touched.answer()
    assert "-b 256 -ub 256" in touched.run("journalctl -u ollama | grep 'starting llama-server' | tail -n 1")
    code, said = verified(touched)
    assert code == 0, said


@pytest.mark.slow
def test_another_cache_is_planned_and_held(touched: Any) -> None:
    knobs = {"ollama_kv_cache_type": "q8_0", "ollama_num_parallel": 2}
    told = touched.converge("--tags", "engines,models", **knobs)
    assert told.code == 0, told.output
    assert touched.converge("--tags", "engines,models", **knobs).changed == {touched.host.name: 0}
    found = plan(touched)["serving"]
    assert (found["key_type"], found["context"], found["parallel"]) == ("q8_0", 8192, 2)
    code, said = verified(touched)
    assert code == 0, said


def test_what_does_not_fit_is_served_all_the_same_where_plans_are_advisory(touched: Any) -> None:
    advised = touched.converge(
        *MODELS,
        rackllama_plan="advisory",
        rackllama_plan_reserve={"host_mib": ram_mib(touched) - 200},
    )
    assert advised.code == 0, advised.output
    assert "it does not fit" in advised.output
    assert not plan(touched)["fits"]
    code, said = verified(touched)
    assert code == 0, said
    assert "not expected to fit" in said
    assert touched.converge(*MODELS, rackllama_plan="none").code == 0
    assert touched.run("ls /etc/rackllama/plans") == ""


def test_headers_are_read_by_the_host_once_and_not_at_all_of_what_is_landed(converged: Any) -> None:
    forget_headers()
    landed = converged.converge(*PREFLIGHT, rackllama_mirror=NOWHERE)
    assert landed.code == 0, landed.output

    # One that only the host itself can read: its own blob, under another name.
    blob = converged.run("ls -S /var/lib/ollama/models/blobs | head -n 1")
    own = {
        "name": "own",
        "variant": "q4",
        "source": "file:///var/lib/ollama/models/blobs",
        "shards": [{"name": blob, "sha256": blob.removeprefix("sha256-")}],
    }
    planned = converged.converge(*PREFLIGHT, rackllama_models=[own])
    assert planned.code == 0, planned.output
    assert "ok    plan own:q4" in planned.output


def test_headers_come_from_the_mirror_and_are_kept(converged: Any) -> None:
    converged.run(FORGET)
    forget_headers()
    unreachable = converged.converge(*PREFLIGHT, rackllama_mirror=NOWHERE, rackllama_models=[nowhere(converged)])
    assert unreachable.code != 0
    assert "cannot be read" in unreachable.output
    assert "rackllama_plan: none" in " ".join(unreachable.output.split())

    assert converged.converge(*PREFLIGHT).code == 0
    assert converged.converge(*PREFLIGHT, rackllama_models=[nowhere(converged)]).code == 0
    ended = converged.converge(*MODELS)
    assert ended.code == 0, ended.output


def nowhere(site: Any) -> dict[str, Any]:
    """The site's model, declared inline with its true checksums, and a source that does not answer."""
    return {**declaration(site), "source": NOWHERE}
