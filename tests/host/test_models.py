"""The declared models on a converged host: listed under their names, and answering."""

import json

from testinfra.host import Host

QUESTION = {"messages": [{"role": "user", "content": "Say hello."}], "stream": False}


def declared_names(knobs) -> list[str]:
    return [f"{model['name']}:{model['variant']}" for model in knobs["rackllama_models"]]


def test_exactly_the_declared_models_are_listed(ollama, knobs) -> None:
    assert [model["name"] for model in ollama.ask("/api/tags")["models"]] == declared_names(knobs)


def test_each_has_the_context_that_was_declared(ollama, knobs) -> None:
    for model in knobs["rackllama_models"]:
        shown = ollama.ask("/api/show", {"model": f"{model['name']}:{model['variant']}"})
        assert dict(line.split(maxsplit=1) for line in shown["parameters"].splitlines())["num_ctx"] == str(
            model["context"]
        )


def test_each_has_the_plan_that_it_is_served_by(host: Host, knobs) -> None:
    for name in declared_names(knobs):
        slug = name.replace(":", "-").replace("_", "-")
        plan = json.loads(host.file(f"/etc/rackllama/plans/{slug}.json").content_string)
        serving = plan["serving"]
        assert plan["fits"]
        assert (serving["key_type"], serving["parallel"]) == (
            knobs["ollama_kv_cache_type"],
            knobs["ollama_num_parallel"],
        )


def test_each_answers_a_chat(ollama, knobs) -> None:
    for name in declared_names(knobs):
        answer = ollama.ask("/api/chat", {**QUESTION, "model": name, "options": {"num_predict": 4, "temperature": 0}})
        assert answer["done"]
        assert answer["message"]["content"].strip()
        assert 1 <= answer["eval_count"] <= 4


def test_nothing_is_left_of_the_landing(host: Host, knobs) -> None:
    assert host.check_output("find %s/landing -type f", knobs["gguf_model_store_dir"]) == ""


def test_the_weights_lie_there_once(host: Host, knobs) -> None:
    large = host.check_output("find %s -type f -size +1M -printf '%%n %%s\\n'", knobs["gguf_model_store_dir"])
    names = "2" if knobs["gguf_model_link_dir"] else "1"
    assert [line.split()[0] for line in large.splitlines()] == [names] * len(declared_names(knobs))


def test_other_engines_find_them_under_their_own_name(host: Host, knobs) -> None:
    folder = knobs["gguf_model_link_dir"]
    slugs = [name.replace(":", "-").replace("_", "-") for name in declared_names(knobs)]
    for slug in slugs if folder else []:
        assert "GGUF" in host.check_output("head -c 4 %s/%s.gguf", folder, slug)
        assert host.check_output("stat --format=%%h %s/%s.gguf", folder, slug) == "2"


def test_the_unit_that_lands_them_is_closed_and_goes_on_after_a_boot(host: Host, knobs) -> None:
    for name in declared_names(knobs):
        unit = f"rackllama-land@{name.replace(':', '-').replace('_', '-')}"
        assert host.service(unit).is_enabled
        overall = host.check_output("systemd-analyze security --no-pager %s | grep 'Overall exposure level'", unit)
        assert float(overall.split(":")[1].split()[0]) <= 2.0
