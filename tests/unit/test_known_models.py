"""The models that rackllama knows: what the catalogue ships, how it is listed, and that each of it can be locked."""

import json
import re
from datetime import date
from hashlib import sha256
from pathlib import Path

import pytest
import yaml

from rackllama.catalog.cli import markdown
from rackllama.catalog.models import NAME, read_catalogue, resolve, slug_of
from rackllama.cli import main
from rackllama.host.models.modelfile import ModelSettings, render
from rackllama.mirror.lock import default_lock_path, read_lock, write_lock
from rackllama.mirror.upstreams import learn

HUB = "https://huggingface.co/"
COMMIT = "c" * 40
CATALOGUE, LOCK = read_catalogue(), read_lock(default_lock_path())
VARIANTS = [(name, variant) for name, entry in CATALOGUE.items() for variant in entry.variants]
DOCS = Path(__file__).parents[2] / "docs"
# What DeepSeek's models have as one token each, and what these are often written as, which is five tokens or more.
FULL_WIDTH = ["<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>"]  # noqa: RUF001
LOOK_ALIKES = re.compile(r"<\|(begin[_▁ ]of[_▁ ]sentence|end[_▁ ]of[_▁ ]sentence|User|Assistant)\|>")


def stand_in_hub(artefact):
    """A model hub that has the files of an artefact, at whatever revision."""
    paths = [re.sub(r".*/resolve/[^/]+/", "", file.url) for file in artefact.files]
    blobs = {path: {"size": len(path), "sha256": sha256(path.encode()).hexdigest()} for path in paths}
    siblings = [{"rfilename": "README.md"}, *({"rfilename": path, "lfs": blob} for path, blob in blobs.items())]
    return lambda _: json.dumps({"sha": COMMIT, "siblings": siblings}).encode()


@pytest.mark.parametrize(("name", "variant"), VARIANTS)
def test_each_variant_can_be_locked_to_a_commit_and_then_resolves(name, variant):
    slug = slug_of(name, variant)
    locked = learn(LOCK[slug], stand_in_hub(LOCK[slug]))
    assert locked.version == COMMIT
    model = resolve({"name": name, "variant": variant}, {slug: locked}, CATALOGUE)
    assert {shard.url.partition("/resolve/")[0] for shard in model.shards} == {CATALOGUE[name].source}
    assert {shard.url.partition("/resolve/")[2][:40] for shard in model.shards} == {COMMIT}
    assert all(shard.size and shard.sha256 for shard in model.shards)
    assert render("model.gguf", ModelSettings(model.template, model.system, model.licence, model.parameters))


@pytest.mark.parametrize(("name", "variant"), VARIANTS)
def test_the_lock_takes_a_variant_from_where_the_catalogue_says(name, variant):
    artefact = LOCK[slug_of(name, variant)]
    assert HUB + artefact.origin.removeprefix("huggingface:") == CATALOGUE[name].source
    assert artefact.licence == CATALOGUE[name].licence
    for path in [artefact.pattern] if artefact.pattern else [file.name for file in artefact.files]:
        assert re.search(rf"[.-]{re.escape(variant)}[.-]", path, re.IGNORECASE), "another quantization than its name"


def test_the_lock_has_no_model_that_the_catalogue_lacks():
    models = {name for name, artefact in LOCK.items() if artefact.origin.startswith("huggingface:")}
    assert models == {slug_of(name, variant) for name, variant in VARIANTS}


@pytest.mark.parametrize("name", CATALOGUE)
def test_each_figure_has_a_source_and_its_date(name):
    entry = CATALOGUE[name]
    assert NAME.fullmatch(name)
    figures = {"trained_context", "parameters", *(["template"] if entry.template else [])}
    assert set(entry.sources) == figures | ({"size_billions"} if entry.size_billions else set())
    for source in entry.sources.values():
        assert source["source"].startswith("https://")
        assert isinstance(source["date"], date)
        assert source.keys() == {"source", "date"}


def test_a_name_stands_in_one_file_only():
    families = (DOCS.parent / "src" / "rackllama" / "catalog" / "families").glob("*.yaml")
    names = [name for path in families for name in yaml.safe_load(path.read_text("utf-8"))["models"]]
    assert sorted(names) == sorted(CATALOGUE)


def test_what_a_model_does_not_say_its_file_says(tmp_path):
    (tmp_path / "own.yaml").write_text("""
shared:
  family: own
  licence: MIT
  trained_context: 100
  parameters: {temperature: 1, top_k: 5}
  sources: {parameters: {source: shared}, trained_context: {source: shared}}
models:
  small: {source: s, variants: [a, b]}
  large:
    source: l
    variants: [a]
    trained_context: 200
    parameters: {temperature: 0}
    sources: {parameters: {source: own}}
""")
    small, large = read_catalogue(tmp_path).values()
    assert (small.name, small.family, small.variants, small.trained_context) == ("small", "own", ("a", "b"), 100)
    assert (small.template, small.reasoning, small.size_billions) == ("", False, None)
    assert (large.trained_context, large.parameters) == (200, {"temperature": 0})
    assert large.sources == {"parameters": {"source": "own"}, "trained_context": {"source": "shared"}}


@pytest.mark.parametrize("name", [name for name in CATALOGUE if name.startswith("deepseek-")])
def test_deepseeks_models_stop_at_their_own_full_width_tokens(name):
    assert CATALOGUE[name].parameters["stop"] == FULL_WIDTH


@pytest.mark.parametrize("name", CATALOGUE)
def test_no_model_is_told_look_alikes_of_full_width_tokens(name):
    entry = CATALOGUE[name]
    assert not LOOK_ALIKES.search(f"{entry.template}{entry.system}{entry.parameters}")


def test_a_look_alike_would_be_found():
    assert LOOK_ALIKES.search("{{ .System }}<|User|>{{ .Prompt }}<|Assistant|>")
    assert not LOOK_ALIKES.search("".join(FULL_WIDTH))


def test_a_pretrained_model_is_told_no_turns():
    assert "<start_of_turn>model\n" in CATALOGUE["gemma3-270m-it"].template
    assert "<start_of_turn>" not in CATALOGUE["gemma3-270m"].template


def test_those_that_think_are_those_whose_makers_say_so():
    assert CATALOGUE["deepseek-r1-distill-qwen-7b"].reasoning
    assert CATALOGUE["qwen3-235b-a22b-thinking-2507"].reasoning
    assert not CATALOGUE["qwen3-235b-a22b-instruct-2507"].reasoning
    assert not CATALOGUE["llama3.3-70b-instruct"].reasoning


def test_the_page_about_models_lists_those_there_are():
    told = (DOCS / "models.md").read_text("utf-8")
    assert markdown(CATALOGUE) in told, "put in its place what this prints: rackllama models --markdown"


@pytest.fixture
def lock(tmp_path):
    """A lock where one variant of DeepSeek-R1 is locked, another is not, and all others are missing."""
    names = ("deepseek-r1-ud-iq1-s", "deepseek-r1-ud-iq1-m")
    entries = {name: LOCK[name] for name in names}
    entries[names[0]] = learn(entries[names[0]], stand_in_hub(entries[names[0]]))
    write_lock(tmp_path / "artefacts.lock", entries)
    return str(tmp_path / "artefacts.lock")


def test_the_list_says_what_is_locked_and_how_to_lock_the_rest(lock, capsys):
    assert main(["models", "--lock", lock]) == 0
    paragraph = capsys.readouterr().out.split("\n\n")[0].splitlines()
    assert paragraph[:4] == [
        "deepseek-r1: 671B, 37B active; context 163840; thinks; MIT",
        "  ud-iq1_s    locked",
        "  ud-iq1_m    not locked, run: rackllama lock deepseek-r1-ud-iq1-m",
        "  ud-iq2_xxs  not locked, add deepseek-r1-ud-iq2-xxs to the lock",
    ]


def test_the_list_as_json_has_the_same(lock, capsys):
    assert main(["models", "--json", "--lock", lock]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert [model["name"] for model in printed["models"]] == list(CATALOGUE)
    first = printed["models"][0]
    assert (first["size_billions"], first["active_billions"], first["trained_context"]) == (671, 37, 163840)
    assert first["variants"][:2] == [
        {"name": "ud-iq1_s", "slug": "deepseek-r1-ud-iq1-s", "locked": True, "remedy": ""},
        {
            "name": "ud-iq1_m",
            "slug": "deepseek-r1-ud-iq1-m",
            "locked": False,
            "remedy": "run: rackllama lock deepseek-r1-ud-iq1-m",
        },
    ]
