"""From the declared engines to the gateway's maps."""

import json

import pytest

from rackllama.gateway.engines import routing
from rackllama.host.errors import RackllamaError

OLLAMA = {"name": "ollama", "url": "http://127.0.0.1:11434", "models": ["gemma3-270m:q4_k_m", "hf.co/a/b:Q4"]}
LLAMA = {"name": "llama", "url": "http://[::1]:8080", "models": ["deepseek-r1"]}


def test_one_engine_needs_no_models():
    resolved = routing([{"name": "ollama", "url": "http://127.0.0.1:11434"}])
    assert resolved["engines"] == [{"name": "ollama", "address": "127.0.0.1:11434"}]


def test_models_are_mapped_to_their_engines():
    files = routing([OLLAMA, LLAMA])["files"]
    assert files["models.map"].splitlines() == [
        "gemma3-270m:q4_k_m ollama",
        "hf.co/a/b:Q4 ollama",
        "deepseek-r1 llama",
    ]
    assert [model["id"] for model in json.loads(files["models.json"])["data"]] == [*OLLAMA["models"], "deepseek-r1"]
    assert "there are: gemma3-270m:q4_k_m, hf.co/a/b:Q4, deepseek-r1" in files["unknown-model.json"]


@pytest.mark.parametrize(
    ("declared", "said"),
    [
        ([], "has no engine"),
        ([OLLAMA, OLLAMA], "two engines are named ollama"),
        ([OLLAMA, {**LLAMA, "models": []}], "which models the engine llama serves"),
        ([OLLAMA, {**LLAMA, "models": OLLAMA["models"]}], "gemma3-270m:q4_k_m is at the engines ollama and llama"),
        ([{**OLLAMA, "url": "https://127.0.0.1:1"}], "with the url 'https://127.0.0.1:1'"),
        ([{**OLLAMA, "url": "http://127.0.0.1:1/v1"}], "with the url"),
        ([{**OLLAMA, "url": "http://a b:1"}], "with the url"),
        ([{**OLLAMA, "models": ["a b"]}], "with the model 'a b'"),
        ([{**OLLAMA, "name": "a b"}], "is declared as"),
        ([{**OLLAMA, "adress": "x"}], "is declared as"),
    ],
)
def test_what_is_not_declared_well_is_told(declared, said):
    with pytest.raises(RackllamaError, match=said):
        routing(declared)
