"""The declared models on a converged host: listed under their names, and answering."""

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


def test_each_answers_a_chat(ollama, knobs) -> None:
    for name in declared_names(knobs):
        answer = ollama.ask("/api/chat", {**QUESTION, "model": name, "options": {"num_predict": 4, "temperature": 0}})
        assert answer["done"]
        assert answer["message"]["content"].strip()
        assert 1 <= answer["eval_count"] <= 4


def test_nothing_is_left_of_the_landing(host: Host, knobs) -> None:
    staging = knobs["gguf_model_staging_dir"]
    assert host.check_output("find %s -type f 2>/dev/null || true", staging) == ""
