"""What surrounds the unit that lands a model: its job, and other names of what it landed."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from rackllama.host.errors import RackllamaError
from rackllama.host.lander.shards import Shard, Weights
from rackllama.host.models import landing_unit, model
from rackllama.host.models.landing_unit import changed_files, link_weights, needed
from rackllama.host.models.model import LandedWeights, WantedModel
from rackllama.host.models.modelfile import ModelSettings
from rackllama.host.models.ollama_store import OllamaStore

BLOB = f"sha256:{'c' * 64}"


@pytest.fixture
def gemma(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WantedModel:
    """A model whose weights were landed."""
    wanted = WantedModel(
        "gemma", "gemma:q4", Weights((Shard("a.gguf", ("http://m/a",)),)), ModelSettings(), tmp_path / "models"
    )
    weights = LandedWeights(wanted.weights_digest, BLOB, 4, verified=True)
    monkeypatch.setattr(landing_unit, "found_model", lambda _: model.FoundModel({}, None, weights))
    monkeypatch.setattr(landing_unit, "JOBS", tmp_path / "jobs")
    wanted.store.mkdir()
    store = OllamaStore(wanted.store)
    store.prepare()
    store.blob(BLOB).write_bytes(b"GGUF")
    return wanted


def test_landed_weights_get_another_name_and_no_copy(gemma, tmp_path):
    link = tmp_path / "gemma.gguf"
    assert "link" in needed(gemma, link)
    link_weights(gemma, link)
    assert "link" not in needed(gemma, link)
    assert link.samefile(OllamaStore(gemma.store).blob(BLOB))


def test_a_name_that_leads_to_other_weights_is_moved_in_one_step(gemma, tmp_path):
    link = tmp_path / "gemma.gguf"
    link.write_bytes(b"older weights")
    assert "link" in needed(gemma, link)
    link_weights(gemma, link)
    assert link.read_bytes() == b"GGUF"


def test_where_no_other_name_is_wanted_none_is_lacking(gemma):
    assert "link" not in needed(gemma, None)


def test_a_folder_that_cannot_hold_the_name_is_told(gemma, tmp_path):
    with pytest.raises(RackllamaError, match="cannot be made a name of gemma:q4") as caught:
        link_weights(gemma, tmp_path / "missing" / "gemma.gguf")
    assert str(gemma.store) in caught.value.remedy


def test_a_job_is_written_when_it_differs_and_left_alone_when_not(gemma):
    job = {"slug": "gemma", "name": "gemma:q4"}
    files = changed_files(gemma, job)
    assert [file.path.name for file in files] == ["gemma.json", "gemma.Modelfile"]
    landing_unit.write(files, gemma, None)
    assert landing_unit.jobs() == {"gemma": job}
    assert changed_files(gemma, job) == []
    hotter = replace(gemma, settings=ModelSettings(parameters={"temperature": 1}))
    (modelfile,) = changed_files(hotter, job)
    assert modelfile.diff()["after"] == "FROM a.gguf\nPARAMETER temperature 1\n"


def test_a_name_that_is_no_longer_wanted_goes_with_the_job_that_wanted_it(gemma, tmp_path):
    link = tmp_path / "gemma.gguf"
    link_weights(gemma, link)
    job = {"slug": "gemma", "name": "gemma:q4", "link": str(link)}
    landing_unit.write(changed_files(gemma, job), gemma, link)
    assert link.exists()
    landing_unit.write(changed_files(gemma, {**job, "link": None}), gemma, None)
    assert not link.exists()
    assert OllamaStore(gemma.store).has(BLOB)


def test_a_damaged_job_is_none(gemma):
    landing_unit.JOBS.mkdir()
    (landing_unit.JOBS / "half.json").write_text(json.dumps({"slug": "half"})[:-3])
    assert landing_unit.jobs() == {}
